"""The demo world ``savanna``: a simulated network of camera traps with known causes of every shift."""

from wildpdiff.tasks.savanna.suite import SavannaConfig, SavannaSuite, SavannaTask

__all__ = ["SavannaConfig", "SavannaSuite", "SavannaTask"]
