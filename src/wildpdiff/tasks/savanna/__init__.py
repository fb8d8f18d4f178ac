"""The demo world ``savanna``: a simulated network of camera traps with known causes of every shift."""

from wildpdiff.tasks.savanna.contact_sheet import contact_sheet, species_sheet
from wildpdiff.tasks.savanna.export import export_camera_traps
from wildpdiff.tasks.savanna.suite import SavannaConfig, SavannaSuite, SavannaTask

__all__ = [
    "SavannaConfig",
    "SavannaSuite",
    "SavannaTask",
    "contact_sheet",
    "export_camera_traps",
    "species_sheet",
]
