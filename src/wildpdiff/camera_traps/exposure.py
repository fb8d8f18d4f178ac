"""Times of exposure that cameras note in the pictures themselves."""

from __future__ import annotations

import json
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from wildpdiff.camera_traps.cameras import pictures_by_camera
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.times import parse_time
from wildpdiff.disk import content_hash, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.decoding import IMAGE_FORMATS
from wildpdiff.tasks.picture_cache import PictureCache

TAGS = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)

HEAD = 1 << 16
"""Bytes of a JPEG file that its Exif data is looked for in: a segment is no longer."""

CHUNK = 500
MOST_AT_ONCE = 10
"""Pictures of one camera in one second; a clock that gives more of them a time has stopped."""

MOST_FILES = 64
"""Folders of pictures whose times are kept in the user's cache."""

MOST_OTHERS = 200_000
"""Times of a folder that are kept besides those of the table that is read; the latest ones are."""

VERSION = 1
SUFFIX = ".times.json"

_Entry = tuple[int, int, str]
"""Size and time of change of a file, and its time of exposure, empty where it has none."""


def exposure_time(path: Path) -> datetime | None:
    """The time in a picture's Exif data, without a zone; None where there is none or the file cannot be opened.

    The time of change counts where no program for pictures has written it, as a camera without any other.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd files
            noted = _noted(path) if path.is_file() else {}  # opening a pipe would wait for ever
    except Exception:  # a decoder may raise anything on a broken file
        return None
    tags = TAGS[:-1] if ExifTags.Base.Software in noted else TAGS
    found = (parse_time(str(noted[tag])) for tag in tags if tag in noted)
    return next((time for time in found if time is not None), None)


def _noted(path: Path) -> dict[int, Any]:
    """A file's Exif data by tag; of a JPEG read from its beginning, ten times as fast as by opening it."""
    with open(path, "rb", buffering=0) as stream:
        head = stream.read(HEAD)
    if not head.startswith(b"\xff\xd8\xff"):
        with Image.open(path, formats=IMAGE_FORMATS) as file:
            return _tags(file.getexif())
    exif, at = Image.Exif(), 2
    while head[at : at + 1] == b"\xff" and at + 4 <= len(head):
        kind, (length,) = head[at + 1], struct.unpack(">H", head[at + 2 : at + 4])
        if kind == 0xE1 and head[at + 4 : at + 10] == b"Exif\0\0":
            exif.load(head[at + 4 : at + 2 + length])
            break
        at += 2 + length
    return _tags(exif)


def _tags(exif: Image.Exif) -> dict[int, Any]:
    return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}


def with_times(pictures: Iterable[Picture], root: Path = Path()) -> list[Picture]:
    """Pictures with the time in their file where they have none; files are opened in threads, and not decoded."""
    given = list(pictures)
    times = iter(_read([root / picture.path for picture in given if picture.time is None]))
    return [picture if picture.time is not None else replace(picture, time=next(times)) for picture in given]


def _read(paths: Sequence[Path]) -> list[datetime | None]:
    parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(8) as threads:
        return list(chain.from_iterable(threads.map(lambda part: list(map(exposure_time, part)), parts)))


def with_exposures(table: PictureTable) -> PictureTable:
    """A table with the times in the files of those cameras of which it states none.

    A time that too many pictures of a camera share is that of a stopped clock, and is left out. Times are
    kept in the user's cache as long as size and time of change of the file stay.
    """
    untimed = [own for own in pictures_by_camera(table).values() if not any(picture.time for picture in own)]
    found = _times(table.root, [picture.path for own in untimed for picture in own])
    remarks, known, total = Remarks(), dict[tuple[str, str], datetime](), 0
    for own in untimed:
        shared = Counter(time for picture in own if (time := found.get(picture.path)))
        for picture in own:
            total += 1
            time = found.get(picture.path)
            if time is not None and shared[time] > MOST_AT_ONCE:
                kind = f"Times in the files that more than {MOST_AT_ONCE} pictures of a camera share are left out"
                remarks.add(kind, f"{time} in {picture.path}")
            elif time is not None:
                known[picture.camera, picture.path] = time
    if not known and not remarks.sentences():
        return table
    first = next(iter(known), ("", ""))
    sentences = remarks.sentences()
    if known:
        where = f"first {known[first]} in {first[1]}"
        sentences = (
            f"Times of {len(known):,} of {total:,} pictures are read from the files (Exif), {where}.",
            *sentences,
        )
    pictures = (replace(entry, time=entry.time or known.get((entry.camera, entry.path))) for entry in table.pictures)
    return replace(table, pictures=tuple(pictures), remarks=(*table.remarks, *sentences))


def _times(root: Path, paths: Sequence[str]) -> dict[str, datetime]:
    """The times in files below a root, by path; of files that are kept in the cache, without opening them."""
    if not paths:
        return {}
    states = _states(root, paths)
    cache = PictureCache.of_user()
    folder = None if cache is None else cache.folder.parent
    file = None if folder is None else folder / f"{content_hash(os.fsencode(os.path.abspath(root)))[:32]}{SUFFIX}"
    kept = {} if file is None else _kept(file)
    entries: dict[str, _Entry] = {}
    for path, state in states.items():
        known = kept.get(path)
        if known is not None and tuple(known[:2]) == state:
            entries[path] = known
    missing = [path for path in states if path not in entries]
    for path, time in zip(missing, _read([root / path for path in missing]), strict=True):
        entries[path] = (*states[path], "" if time is None else time.isoformat())
    if file is not None and missing:
        others = [path for path in kept if path not in entries][-MOST_OTHERS:]
        there = _states(root, others)
        _keep(file, {**{path: kept[path] for path in others if there.get(path) == kept[path][:2]}, **entries})
    return {path: datetime.fromisoformat(text) for path, (_, _, text) in entries.items() if text}


def _states(root: Path, paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Size and time of change of the files that are there, by path."""

    def of(part: Sequence[str]) -> list[tuple[str, tuple[int, int]]]:
        found = []
        for path in part:
            with suppress(OSError, ValueError):
                status = os.stat(root / path)
                found.append((path, (status.st_size, status.st_mtime_ns)))
        return found

    with ThreadPoolExecutor(8) as threads:
        return dict(
            chain.from_iterable(threads.map(of, (paths[at : at + CHUNK] for at in range(0, len(paths), CHUNK))))
        )


def _kept(file: Path) -> dict[str, _Entry]:
    """The entries in a file of the cache; none where it is absent or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content: Any = json.loads(file.read_bytes())
        if content["version"] == VERSION:
            entries = {
                path: (int(size), int(change), str(text)) for path, (size, change, text) in content["times"].items()
            }
            for _, _, text in entries.values():
                datetime.fromisoformat(text or "2000-01-01")
            return entries
    return {}


def _keep(file: Path, entries: Mapping[str, _Entry]) -> None:
    """Write a file of the cache, where the disk takes it; those that were written the longest ago go."""
    with suppress(OSError, ArtifactError, UnicodeError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(file, json.dumps({"version": VERSION, "times": entries}).encode())
        others = sorted(file.parent.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        for path in others[:-MOST_FILES]:
            path.unlink(missing_ok=True)
