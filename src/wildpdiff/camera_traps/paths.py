"""Paths of pictures as tables write them: of Windows, absolute, below another root."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.records import PictureTable
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES

_SAMPLE = 24
"""Paths whose folder is looked for below the root."""

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


def clean_path(text: str) -> str:
    """A path with ``/`` between folders and without ``.`` and doubled separators; drive letters stay."""
    path = text.strip().removeprefix("file://").replace("\\", "/")
    tangled = "//" in path or "./" in path or path.endswith("/")
    return posixpath.normpath(path) if tangled and "://" not in path else path


def is_absolute(path: str) -> bool:
    """Whether a clean path begins at a root, a drive or a server."""
    return _ABSOLUTE.match(path) is not None


def rooted(table: PictureTable, root: Path) -> PictureTable:
    """The table with paths relative to a root: absolute ones below it lose it, those of another machine their folder.

    The folder of another machine is what must be taken off a path so that the rest is a file below the root. Paths for
    which there is none stay as they are, with a remark that names the first.
    """
    absolute = [picture for picture in table.pictures if is_absolute(picture.path)]
    if not absolute:
        return replace(table, root=root)
    remarks = Remarks()
    own = tuple(dict.fromkeys(f"{folder.as_posix().rstrip('/')}/" for folder in (root.absolute(), root.resolve())))
    foreign = [picture.path for picture in absolute if not picture.path.startswith(own)]
    prefixes = _foreign_prefixes(foreign, root)
    pictures = []
    for picture in table.pictures:
        if is_absolute(picture.path):
            prefix = next((start for start in (*own, *prefixes) if picture.path.startswith(start)), None)
            if prefix in prefixes:
                remarks.add(f"Paths are read below {root} instead of another folder", f"{prefix} of {picture.path}")
            elif prefix is None:
                drive = picture.path[:2] if picture.path[1] == ":" else ""
                where = f"{picture.path} on line {picture.line}" + (f" (drive {drive})" if drive else "")
                remarks.add(f"Absolute paths are not below the root {root}", where)
            picture = picture if prefix is None else replace(picture, path=picture.path[len(prefix) :])
        pictures.append(picture)
    return replace(table, root=root, pictures=tuple(pictures), remarks=(*table.remarks, *remarks.sentences()))


def nearest_root(folder: Path, paths: Sequence[str]) -> Path:
    """The folder below which absolute paths of another machine have files: the given one, or the only one in it."""
    absolute = list(filter(is_absolute, paths))
    if any(map(os.path.isfile, absolute[:: max(1, len(absolute) // _SAMPLE)])) or _foreign_prefixes(absolute, folder):
        return folder
    try:
        within = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    except OSError:
        return folder
    holding = [entry for entry in within[:_SAMPLE] if _foreign_prefixes(absolute, entry)]
    return holding[0] if len(holding) == 1 else folder


def below_cameras(table: PictureTable) -> PictureTable:
    """The table with the paths that several cameras share, and that are no files, in a folder of the camera's name."""
    owners: dict[str, set[str]] = {}
    for picture in table.pictures:
        owners.setdefault(picture.path, set()).add(picture.camera)
    shared = {path for path, names in owners.items() if len(names) > 1 and not is_absolute(path)}
    shared = {path for path in shared if not os.path.isfile(table.root / path)}
    if not shared:
        return table
    folders = {spelling_key(name): name for name in _Folders(table.root).entries("")[0]}
    remarks, pictures = Remarks(), []
    for picture in table.pictures:
        if picture.path in shared and picture.camera:
            folder = folders.get(spelling_key(picture.camera), picture.camera.strip())
            remarks.add("Paths that several cameras share are read in the camera's folder", f"{folder}/{picture.path}")
            picture = replace(picture, path=clean_path(f"{folder}/{picture.path}"))
        pictures.append(picture)
    return replace(table, pictures=tuple(pictures), remarks=(*table.remarks, *remarks.sentences()))


def on_disk(table: PictureTable) -> PictureTable:
    """The table with paths that no file has as the one on disk that differs in case, Unicode's form or a suffix."""
    folders, taken = _Folders(table.root), {picture.path for picture in table.pictures}
    spelled: dict[str, str] = {}
    for path in taken:
        if "://" not in path and not is_absolute(path):
            found = folders.spelled(path)
            if found is not None and found != path and found not in taken:
                spelled[path] = found
    claims = Counter(spelled.values())
    spelled = {path: found for path, found in spelled.items() if claims[found] == 1}
    if not spelled:
        return table
    remarks = Remarks()
    for picture in table.pictures:
        if picture.path in spelled:
            where = f"{picture.path} is {spelled[picture.path]}"
            remarks.add("Paths are read in the spelling on disk (case, Unicode's form, suffix)", where)
    pictures = (replace(entry, path=spelled.get(entry.path, entry.path)) for entry in table.pictures)
    return replace(table, pictures=tuple(pictures), remarks=(*table.remarks, *remarks.sentences()))


class _Folders:
    """Names in the folders below a root, each folder read once."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._entries: dict[str, tuple[frozenset[str], dict[str, list[str]]]] = {}
        self._pictures: dict[str, dict[str, list[str]]] = {}
        self._spelled: dict[str, str | None] = {"": ""}

    def spelled(self, path: str) -> str | None:
        """A path as the disk has it; None where nothing, or more than one entry, is spelled like it."""
        folder, _, name = path.rpartition("/")
        if folder not in self._spelled:
            self._spelled[folder] = self.spelled(folder)
        above = self._spelled[folder]
        if above is None:
            return None
        names, alike = self.entries(above)
        if name not in names and name != "..":
            same = alike.get(folded(name), [])
            if not same and not name.lower().endswith(IMAGE_SUFFIXES):
                same = self._stems(above).get(folded(name), [])
            if len(same) != 1:
                return None
            name = same[0]
        return f"{above}/{name}" if above else name

    def _stems(self, folder: str) -> dict[str, list[str]]:
        """The names of pictures in a folder by their folded form without suffix."""
        if folder not in self._pictures:
            found: dict[str, list[str]] = {}
            for name in self.entries(folder)[0]:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in IMAGE_SUFFIXES:
                    found.setdefault(folded(stem), []).append(name)
            self._pictures[folder] = found
        return self._pictures[folder]

    def entries(self, folder: str) -> tuple[frozenset[str], dict[str, list[str]]]:
        """The names in a folder, and these by their folded form; none where it cannot be read."""
        if folder not in self._entries:
            try:
                names = os.listdir(os.path.join(self._root, folder))
            except (OSError, ValueError):
                names = []
            alike: dict[str, list[str]] = {}
            for name in names:
                alike.setdefault(folded(name), []).append(name)
            self._entries[folder] = frozenset(names), alike
        return self._entries[folder]


def folded(text: str) -> str:
    """The same text for all spellings of a path that differ in case or in Unicode's form."""
    return unicodedata.normalize("NFC", text).casefold()


def path_below(root: Path, other: Path, path: str) -> str:
    """The path below a root of a file whose path is below another one; absolute paths and addresses stay."""
    if root == other or is_absolute(path) or "://" in path:
        return path
    return Path(os.path.relpath(other / path, root)).as_posix()


def with_root(table: PictureTable, root: Path) -> PictureTable:
    """The table with the root that a user states: paths are below that, unless the files are where the table has them.

    Absolute paths are made relative to it as by :func:`rooted`.
    """
    sample = [picture.path for picture in table.pictures][:: max(1, len(table.pictures) // _SAMPLE)]
    there, here = (sum(os.path.isfile(folder / path) for path in sample) for folder in (root, table.root))
    if here <= there or root == table.root:
        return rooted(table, root)
    pictures = (replace(entry, path=path_below(root, table.root, entry.path)) for entry in table.pictures)
    return rooted(replace(table, pictures=tuple(pictures)), root)


def _foreign_prefixes(paths: Sequence[str], root: Path) -> tuple[str, ...]:
    """Beginnings of absolute paths whose rest is a file below the root, found on a few of the paths."""
    found: dict[str, None] = {}
    for path in paths[:: max(1, len(paths) // _SAMPLE)]:
        if path.startswith(tuple(found)) and found:
            continue
        parts = path.split("/")
        for cut in range(1, len(parts)):
            rest = "/".join(parts[cut:])
            if rest and os.path.isfile(root / rest):
                found["/".join(parts[:cut]) + "/"] = None
                break
    return tuple(found)
