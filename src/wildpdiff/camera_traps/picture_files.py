"""Picture files of a table: which are there and look like pictures, and how many may fail."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.framing import Framing, View
from wildpdiff.tasks.image_files import read_views

SHARE = 0.02
"""Of a suite's pictures, the largest share that may be unreadable, unless the user sets another; one always may."""

BLOCK = 4096
"""Bytes at the beginning, middle and end of a file by which identical files are found."""

HEADER = 16
CHUNK = 500
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"GIF8")

MISSING, EMPTY_FILE, NO_PICTURE, DENIED, BROKEN = "missing", "empty", "no picture", "no permission", "damaged"
"""Kinds of faults of files."""


@dataclass(frozen=True)
class PictureFile:
    """A file as the file system and its first bytes show it.

    Attributes:
        size: in bytes; -1 where there is no file.
        fault: a kind of fault; empty where none shows.
    """

    size: int
    fault: str = ""


def look_at(path: Path) -> PictureFile:
    """Size and first bytes of a file; nothing is decoded."""
    try:
        with path.open("rb", buffering=0) as stream:
            head = stream.read(HEADER)
            size = stream.seek(0, 2)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return PictureFile(-1, MISSING)
    except OSError:
        return PictureFile(-1, DENIED if os.path.exists(path) else MISSING)
    if not size:
        return PictureFile(0, EMPTY_FILE)
    named = head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    return PictureFile(size, "" if named else NO_PICTURE)


def look_at_all(root: Path, paths: Iterable[str]) -> dict[str, PictureFile]:
    """:func:`look_at` for many paths below a root, in threads: network drives answer slowly."""
    wanted = list(dict.fromkeys(paths))
    parts = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda part: [look_at(root / path) for path in part], parts)
        return dict(zip(wanted, chain.from_iterable(found), strict=True))


def identical(root: Path, files: Mapping[str, PictureFile]) -> dict[str, str]:
    """A key for every file of a camera that has the size of another: equal for files of the same bytes."""
    sizes = Counter(file.size for file in files.values() if not file.fault)
    return {
        path: _key(root / path, file.size) for path, file in files.items() if not file.fault and sizes[file.size] > 1
    }


def _key(path: Path, size: int) -> str:
    """Hash of a file's size and of three of its blocks, which tell compressed pictures apart."""
    digest = hashlib.sha256(str(size).encode())
    try:
        with path.open("rb", buffering=0) as stream:
            for start in (0, size // 2, max(0, size - BLOCK)) if size > 3 * BLOCK else (0,):
                stream.seek(start)
                digest.update(stream.read(3 * BLOCK if size <= 3 * BLOCK else BLOCK))
    except OSError:
        return str(path)
    return digest.hexdigest()


@dataclass
class Unreadable:
    """Pictures that could not be read, by path, and the most that may be.

    Attributes:
        total: pictures of the suite.
        source: file or folder that lists them, for messages.
        share: the largest share of them that is left out.
        faults: kind of fault by path.
    """

    total: int
    source: Path | None = None
    share: float | None = None
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """The most pictures that are left out."""
        if self.share is not None:
            return int(self.share * self.total + 1e-9)
        return min(max(1, int(SHARE * self.total)), max(0, self.total - 1))

    def add(self, faults: Mapping[str, str], root: Path) -> None:
        """Leave out further pictures.

        Raises:
            DataError: they are too many now.
        """
        self.faults.update(faults)
        if len(self.faults) <= self.most:
            return
        source = "" if self.source is None else f"{self.source}: "
        missing = sum(fault == MISSING for fault in self.faults.values())
        where = f" The paths are taken below {root}; -o root=FOLDER names another folder." if missing else ""
        raise DataError(
            f"{source}{len(self.faults)} of {self.total} pictures cannot be used, more than the {self.most} that may "
            f"be left out: {fault_words(self.faults)}.{where} Mend them, or raise the share: -o "
            f"unreadable={min(1.0, len(self.faults) / max(self.total, 1) + 0.005):.2f}."
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence where pictures were left out."""
        if not self.faults:
            return ()
        return (f"Left out: {len(self.faults):,} of {self.total:,} pictures; {fault_words(self.faults)}.",)


def read_most(
    views: Sequence[View], image_size: int, framing: Framing, notify: Callable[[str], None]
) -> tuple[Images, list[int]]:
    """The views that can be read, and their numbers: of files that a user names, as :class:`Unreadable` allows.

    Args:
        views: of picture files.
        image_size: height and width in pixels.
        framing: the part of a picture that is read.
        notify: called with a sentence on each that cannot be read.

    Raises:
        DataError: there are no views, or too many cannot be read.
    """
    if not views:
        raise DataError("There are no images. Give at least one.")
    most, faulty = Unreadable(len(views)).most, set()

    def skipped(number: int, fault: DataError) -> None:
        faulty.add(number)
        if len(faulty) > most:
            raise fault
        notify(f"Left out: {fault}")

    images = read_views(views, image_size, framing, skipped=skipped)
    return images, [number for number in range(len(views)) if number not in faulty]


def fault_words(faults: Mapping[str, str]) -> str:
    """For each kind of fault its count and the first names, the most frequent kind first."""
    kinds: dict[str, list[str]] = {}
    for name, kind in faults.items():
        kinds.setdefault(kind, []).append(name)
    order = sorted(kinds.items(), key=lambda entry: -len(entry[1]))
    return "; ".join(f"{kind}: {len(names)} ({some(names)})" for kind, names in order)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many."""
    shown = ", ".join(names[:most])
    return f"{shown}, … {names[-1]}" if len(names) > most else shown
