"""The demo suite ``savanna``: a simulated network of camera traps with known causes of every shift."""

from wildbench.datasets.savanna.export import export_camera_traps
from wildbench.datasets.savanna.species_sheet import species_sheet
from wildbench.datasets.savanna.suite import SavannaConfig, SavannaSuite, SavannaTask

__all__ = [
    "SavannaConfig",
    "SavannaSuite",
    "SavannaTask",
    "export_camera_traps",
    "species_sheet",
]
