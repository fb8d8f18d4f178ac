"""Output of predictions and of labelled pictures: the format, the file or folder, and the times' zone."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal
from zoneinfo import ZoneInfo

import typer

from wildpdiff.cli.folders import check_output_file, check_output_package
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.camera_traps.answers import Answer, Classifier
    from wildpdiff.camera_traps.records import PictureTable
    from wildpdiff.camera_traps.writers.camtrap_dp import Clock, Content

Format = Literal["csv", "megadetector", "camtrap-dp"]
Write = Callable[[str], object]

PACKAGE = ("datapackage.json", "deployments.csv", "media.csv", "observations.csv")

ZoneOption = Annotated[
    str | None,
    typer.Option("--zone", help="Zone of times without one, for Camtrap DP: +02:00 or Europe/Berlin; default: UTC."),
]


def parse_zone(text: str | None) -> tzinfo:
    """A zone by its offset or name; raises :class:`DataError` where there is none."""
    if text is None or text.upper() in ("UTC", "Z"):
        return UTC
    if found := re.fullmatch(r"([+-])(\d{1,2}):?(\d{2})?", text):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if offset < timedelta(hours=24):
            return timezone(offset if found[1] == "+" else -offset)
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # no such name, or no path of one
        raise DataError(f"--zone is {text!r}; give an offset (+02:00) or a name (Europe/Berlin).") from None


def format_of(out: Path | None, stated: Format | None) -> Format:
    """The stated format, or that of the output: ``.json`` is a MegaDetector file, everything else a CSV table."""
    return stated or ("megadetector" if out is not None and out.suffix.lower() == ".json" else "csv")


@dataclass(frozen=True)
class PredictionOutput:
    """Where predictions go.

    Attributes:
        out: None is stdout.
        top: names for a picture in a CSV table.
        zone: of times that have none.
    """

    out: Path | None
    form: Format
    top: int
    zone: tzinfo

    @property
    def is_package(self) -> bool:
        """Whether a folder is written: a whole Camtrap DP package instead of its observations alone."""
        return self.form == "camtrap-dp" and self.out is not None and self.out.suffix.lower() != ".csv"

    def check(self, table: PictureTable, read: Iterable[Path]) -> None:
        """Refuse what cannot be written, before any work.

        Raises:
            ArtifactError: the output cannot be written, or is among the files that are read.
            DataError: the pictures lack what the format needs.
        """
        from wildpdiff.camera_traps.writers.camtrap_dp import check_times, package

        if self.form == "camtrap-dp":
            check_times(table.pictures)
        if self.out is None:
            return
        if self.is_package:
            check_output_package(self.out, PACKAGE, read)
            package(table, lambda write: None, (), clock=self._clock, now=datetime.now(UTC))
        else:
            check_output_file(self.out, read)

    def done(self, count: int, root: Path) -> str:
        """A sentence on what was written, and where the other program looks for the pictures."""
        if self.form == "csv":
            return f"{count} predictions in {self.out}"
        return f"{count} predictions in {self.out}; paths of pictures are relative to {os.path.abspath(root)}"

    @property
    def _clock(self) -> Clock:
        from wildpdiff.camera_traps.writers.camtrap_dp import Clock

        return Clock(self.zone)

    def write(self, answers: Iterable[Answer], classifier: Classifier, table: PictureTable) -> str:
        """Write all answers; returns the text where it goes to stdout."""
        from wildpdiff.disk import write_file

        fill = self._fill(answers, classifier, table)
        if self.out is None:
            text = io.StringIO()
            fill(text.write)
            return text.getvalue()
        if self.is_package:
            self._write_package(fill, classifier, table)
        else:
            write_file(self.out, as_bytes(fill))
        return ""

    def _fill(self, answers: Iterable[Answer], classifier: Classifier, table: PictureTable) -> Callable[[Write], None]:
        from wildpdiff.camera_traps.writers import camtrap_dp, csv_files, megadetector

        if self.form == "csv":
            return lambda write: csv_files.write_answers(write, answers, classifier, self.top)
        sure = {} if table.threshold is None else {"threshold": table.threshold}
        if self.form == "camtrap-dp":
            return lambda write: camtrap_dp.write_answers(write, answers, classifier, self._clock, **sure)
        categories = megadetector.box_categories(table.pictures)
        return lambda write: megadetector.write_answers(
            write, answers, classifier, categories, threshold=table.threshold
        )

    def _write_package(self, fill: Callable[[Write], None], classifier: Classifier, table: PictureTable) -> None:
        from wildpdiff.camera_traps.answers import kind_of
        from wildpdiff.camera_traps.writers.camtrap_dp import package

        assert self.out is not None
        named = (*classifier.classes, *classifier.taxa)
        species = [classifier.scientific.get(name, name) for name in named if kind_of(name) == "animal"]
        write_package(self.out, package(table, fill, species, clock=self._clock, now=classifier.time))


def write_package(out: Path, files: dict[str, Content]) -> None:
    """Write a folder of files: all of it appears, or nothing."""
    from wildpdiff.disk import write_bytes, write_folder

    def fill(folder: Path) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, as_bytes(content) if callable(content) else content)

    write_folder(out, fill)


def as_bytes(fill: Callable[[Write], None]) -> Callable[[BinaryIO], None]:
    """A writer of text as one of UTF-8; bytes of file names that are no text stay as they are."""
    return lambda stream: fill(lambda text: stream.write(text.encode(errors="surrogateescape")))
