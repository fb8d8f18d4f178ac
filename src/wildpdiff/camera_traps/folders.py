"""Folders of pictures by camera and species: ``CAMERA/SPECIES/PICTURE``, with times and deployments between."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from wildpdiff.camera_traps.fields import is_video
from wildpdiff.camera_traps.folder_levels import Levels, levels_of
from wildpdiff.camera_traps.records import Picture, PictureTable, Reader
from wildpdiff.errors import DataError
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES

FOLDER_SPLITS = {"_unlabelled": "unlabelled", "_unlabeled": "unlabelled", "_background": "background"}
"""Splits of pictures in folders of these names, in the place of a species."""

IGNORED = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information"})
"""Folders that operating systems and file servers make, in lower case."""

OTHER_PICTURES = frozenset({".heic", ".heif", ".gif", ".dng", ".cr2", ".nef", ".arw", ".avif", ".jxl"})

MOST_ENTRIES = 200
"""Entries of a folder, pictures apart, that are tried as a known format."""


class FolderReader:
    """Reader of folders of pictures.

    Args:
        others: readers of other formats, whose files right in a folder are named: pictures do not hold what they state.
    """

    format = "folders of pictures"

    def __init__(self, others: Sequence[Reader] = ()) -> None:
        self._others = others

    def reads(self, path: Path) -> bool:
        """Whether a path is a folder; the formats with a file of their own come before."""
        return path.is_dir()

    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures in a folder: a camera for each folder inside, its species one level deeper.

        Folders of a camera's card, of years, seasons and deployments are no species
        (:func:`~wildpdiff.camera_traps.folder_levels.levels_of`). Pictures deeper than ``CAMERA/SPECIES`` belong to
        these two. Pictures in a camera's folder and in none of a species, and in ``_unlabelled`` and ``_background``,
        have no label. Those next to the cameras' folders are left out.

        Raises:
            DataError: the folder has no pictures below a camera's folder, or cannot be read.
        """
        remarks, pictures = Remarks(), []
        files = [(file, tuple(file.split("/")[:-1])) for file in pictures_below(path, remarks)]
        levels = levels_of(folders for _, folders in files)
        for line, (file, folders) in enumerate(files, 1):
            found = levels[folders]
            if not found.camera:
                remarks.add("Pictures outside of a camera's folder are left out", file)
                continue
            names = (*found.between, found.species)
            split = next((FOLDER_SPLITS[name.lower()] for name in names if name.lower() in FOLDER_SPLITS), "")
            if not split:
                _remark(found, file, remarks)
            labels = (found.species,) if found.species and not split else ()
            pictures.append(Picture(file, line, found.camera, labels, split=split))
        if not pictures:
            known = self.known_files(path)
            form = f"{path} holds no images of the form TASK/CLASS/IMAGE"
            raise DataError(
                f"{form}, but files that can be read: {', '.join(known)}. Name one or several of them in the place of "
                "the folder."
                if known
                else f"{form} (a folder for each camera, inside a folder for each species); give the folder above the "
                "cameras."
            )
        return PictureTable(path, self.format, path, tuple(pictures), remarks=remarks.sentences())

    def known_files(self, folder: Path, besides: Collection[Path] = ()) -> list[str]:
        """The name and the format of the files and packages right in a folder that other readers read.

        Args:
            besides: those that are read anyway.
        """
        found, tried, given = [], 0, {os.path.realpath(path) for path in besides}
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.suffix.lower() in IMAGE_SUFFIXES or not _is_text(path.name):
                continue
            tried += 1
            if tried > MOST_ENTRIES:
                break
            if os.path.realpath(path) in given or not (os.path.isfile(path) or os.path.isdir(path)):
                continue
            found += [f"{path.name} ({reader.format})" for reader in self._others if reader.reads(path)][:1]
        return found


def _remark(found: Levels, file: str, remarks: Remarks) -> None:
    """Note what is no camera and no species among the folders of a picture."""
    if found.above:
        remarks.add("Folders of times above the cameras are passed over", f"{'/'.join(found.above)} of {file}")
    if not found.species:
        remarks.add("Pictures in a camera's folder, in none of a species, have no label", file)
    elif found.between:
        where = f"{'/'.join(found.between)} of {file}, which shows {found.species!r}"
        remarks.add("Folders between camera and species are passed over", where)
    if found.below:
        remarks.add("Pictures deeper than CAMERA/SPECIES belong to these two folders", file)


def pictures_below(root: Path, remarks: Remarks) -> Iterator[str]:
    """Paths of the pictures below a folder, relative to it, in the order of their names; each folder is read once."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(root / folder)
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise DataError(f"{root} cannot be read ({error.strerror}); check its permissions.") from None
            remarks.add("Folders that cannot be read are left out", f"{folder} ({error.strerror})")
            continue
        if (status.st_dev, status.st_ino) in seen:
            remarks.add("Folders that are links to others of the same tree are left out", folder)
            continue
        seen.add((status.st_dev, status.st_ino))
        deeper = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                continue
            if not _is_text(path):
                remarks.add("Names that are no text are left out", ascii(path))
            elif os.path.isdir(root / path) if entry.is_symlink() else entry.is_dir():  # a looped link raises
                deeper.append(path)
            elif _is_picture(path, remarks):
                yield path
        waiting += reversed(deeper)


def _is_text(name: str) -> bool:
    """Whether a name holds no bytes that are no UTF-8, which no table or JSON can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_picture(path: str, remarks: Remarks) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if is_video(path) or suffix in OTHER_PICTURES:
        kind = "Videos" if is_video(path) else "Pictures of formats that are not opened"
        remarks.add(f"{kind} are left out", path)
    return suffix in IMAGE_SUFFIXES
