"""The suites that wildbench adds, for the entry points of the group ``wildpdiff.suites``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_type_hints

from wildbench.datasets.savanna.export import export_camera_traps
from wildbench.datasets.savanna.suite import SavannaConfig, SavannaSuite, SavannaTask
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import Suite, Task


class Savanna:
    """Simulated camera traps; options are the fields of :class:`SavannaConfig`."""

    summary = "simulated camera traps of 16 species; needs no files"
    backbone = "savanna-cnn"

    @property
    def options(self) -> Mapping[str, Callable[[str], Any]]:
        """The fields of :class:`SavannaConfig` with their types."""
        return get_type_hints(SavannaConfig)

    def open(self, **options: Any) -> Suite:
        """The suite; raises :class:`DataError` on an unknown option or a value out of range."""
        known = {field.name for field in dataclasses.fields(SavannaConfig)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise DataError(f"savanna has no option {unknown[0]!r}; options are {', '.join(sorted(known))}.")
        return SavannaSuite(SavannaConfig(**options))

    def export(self, suite: Suite, tasks: Sequence[Task], folder: Path) -> None:
        """COCO Camera Traps annotations, JPEG images and ``images.csv``."""
        export_camera_traps(cast(SavannaSuite, suite), cast("Sequence[SavannaTask]", tasks), folder)


SAVANNA = Savanna()
