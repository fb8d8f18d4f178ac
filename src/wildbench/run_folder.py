"""The folder of a run: claimed by one configuration, with the time of every stage kept over interruptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wildpdiff.disk import json_bytes, own_entries, read_json, remove_leftovers, write_file
from wildpdiff.errors import AdapterMismatchError, ArtifactError, SchemaVersionError
from wildpdiff.evaluate.results import Stage

Result = TypeVar("Result")

MOST_SECONDS = 1e10
"""Three centuries: anything above was not measured."""

Tick = Callable[[int, int], None]
"""Progress callback: (done, in all)."""

Reporter = Callable[[str], Tick]
"""Called with the name of a stage as it starts; returns the progress callback of the stage."""


def null_progress(stage: str) -> Tick:
    """No-op :data:`Reporter`."""
    return lambda done, total: None


def kept(read: Callable[[], Result], belongs: Callable[[Result], bool]) -> Result | None:
    """The artifact of an earlier call, or None where it is missing, damaged or of another run.

    Args:
        read: reads and checks it.
        belongs: whether it is of this run.

    Raises:
        SchemaVersionError: it was written by a newer version of the package, and is not to be replaced.
    """
    try:
        found = read()
    except SchemaVersionError:
        raise
    except (ArtifactError, AdapterMismatchError):
        return None
    return found if belongs(found) else None


class RunFolder:
    """``run.json`` holds the configuration, ``stages.json`` the wall-clock seconds of each stage in all runs."""

    def __init__(self, folder: Path, reporter: Reporter = null_progress) -> None:
        """A folder, which need not exist."""
        self.folder = folder
        self._reporter = reporter

    def claim(self, wanted: Mapping[str, Any]) -> None:
        """Take a new or empty folder for a configuration of plain JSON values, or check that it was taken for it.

        Raises:
            ArtifactError: the folder holds something else.
        """
        path = self.folder / "run.json"
        if path.is_file():
            remove_leftovers(self.folder)
            found = read_json(path)
            changed = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
            if changed:
                raise ArtifactError(
                    f"{self.folder} holds a run with another {changed[0]}. Choose another --out, or remove the folder."
                )
            return
        if self.folder.is_dir() and own_entries(self.folder):
            raise ArtifactError(f"{self.folder} is not empty and holds no run. Choose another --out, or empty it.")
        remove_leftovers(self.folder)
        write_file(path, json_bytes(dict(wanted)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that have ended, in the order in which they first did."""
        path = self.folder / "stages.json"
        if not path.is_file():
            return ()
        try:
            found = read_json(path)
        except ArtifactError:
            found = None
        # Runs of version 0.1 kept an object, which forgets the order.
        entries = list(found.items()) if isinstance(found, dict) else found
        if not isinstance(entries, list) or not all(map(_is_stage, entries)):
            raise ArtifactError(f"{path} is no list of stages with their seconds. Remove it: only times are lost.")
        return tuple(Stage(name, float(seconds)) for name, seconds in entries)

    def timed(self, name: str, stage: Callable[[Tick], Result]) -> Result:
        """Run a stage and add its time to that of earlier runs, also where it is interrupted."""
        started = time.perf_counter()
        try:
            return stage(self._reporter(name))
        finally:
            seconds = {entry.name: entry.seconds for entry in self.stages}
            seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started, 3)
            write_file(self.folder / "stages.json", json_bytes([list(entry) for entry in seconds.items()]))


def _is_stage(entry: Any) -> bool:
    """Whether a JSON value is a name with a time."""
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[0], str):
        return False
    seconds = entry[1]
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < MOST_SECONDS
