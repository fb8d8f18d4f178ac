"""Data packages (Frictionless): tables described by ``datapackage.json``, in a folder or a zip file."""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wildpdiff.camera_traps.fields import text_of
from wildpdiff.camera_traps.paths import clean_path, is_absolute
from wildpdiff.disk import json_bytes, write_file, write_folder
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.tables.delimited import MOST_BYTES, Delimited, parse_delimited, unpacked

DESCRIPTOR = "datapackage.json"
CONTENT = ".content.json"
"""Of unpacked pictures: size and checksum by name, to tell whether they are those of the zip file."""

MOST_PICTURES = 32 * 2**30
"""Bytes of the pictures in a zip file that are unpacked."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)
_MOST_DESCRIPTOR = 64 * 2**20
_MOST_ENTRIES = 2_000_000


@dataclass(frozen=True)
class DataPackage:
    """A package that is open.

    Attributes:
        path: of the folder or the zip file.
        descriptor: the content of ``datapackage.json``.
        inner: the folder with ``datapackage.json`` in a zip file, with its final ``/``; empty for its top.
    """

    path: Path
    descriptor: dict[str, Any]
    inner: str = ""

    @property
    def zipped(self) -> bool:
        """Whether the package is a zip file."""
        return self.path.is_file()

    def table(self, name: str) -> Delimited | None:
        """The table of a resource, of one file, of several with the same columns, or of the description's own data.

        None where there is no such resource.

        Raises:
            DataError: a file is missing, outside of the package, larger than 4 GiB, or at fault.
        """
        resources = [entry for entry in self.descriptor["resources"] if entry.get("name") == name]
        if not resources:
            return None
        if resources[0].get("data") is not None:
            return parse_delimited(_inline(resources[0]["data"], f"{self.path}: {name!r}"), f"{self.path}: {name!r}")
        paths = resources[0].get("path")
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            raise DataError(f"{self.path}: the resource {name!r} has no path of a file; give it one in {DESCRIPTOR}.")
        parts = [parse_delimited(self._content(path, name), f"{self.path}/{path}") for path in paths]
        rows: list[tuple[int, tuple[str, ...]]] = []
        for path, part in zip(paths, parts, strict=True):
            if sorted(part.header) != sorted(parts[0].header):
                raise DataError(f"{self.path}/{path} has other columns than {paths[0]}; give all parts the same.")
            order = [part.header.index(column) for column in parts[0].header]
            rows += [(line, tuple(cells[index] for index in order)) for line, cells in part.rows]
        remarks = tuple(remark for part in parts for remark in part.remarks)
        return Delimited(parts[0].source, parts[0].header, tuple(rows), remarks)

    def files(self) -> list[str]:
        """Paths of the package's files, relative to its descriptor, without hidden ones and those outside of it."""
        if self.zipped:
            with _zip(self.path) as archive:
                names = [name.removeprefix(self.inner) for name in archive.namelist() if name.startswith(self.inner)]
        else:
            names = [
                (Path(folder) / name).relative_to(self.path).as_posix()
                for folder, _, found in os.walk(self.path)
                for name in found
            ]
        return sorted(
            name
            for name in names
            if not (name.endswith("/") or PurePosixPath(name).name.startswith(".") or _leads_out(name))
        )

    def unpacked_pictures(self, names: Collection[str]) -> Path:
        """A folder with pictures of a zip file, next to it: ``PACKAGE.zip.pictures``, made where it is not there yet.

        Args:
            names: of the pictures, as in :meth:`files`.

        Raises:
            DataError: the pictures have more than 32 GiB, cannot be unpacked, or the folder cannot be written.
        """
        folder = self.path.with_name(f"{self.path.name}.pictures")
        advice = f"Unpack {self.path.name} and give the folder instead."
        with _zip(self.path) as archive:
            entries = {name: archive.getinfo(self.inner + name) for name in sorted(names)}
            if sum(entry.file_size for entry in entries.values()) > MOST_PICTURES:
                raise DataError(f"{self.path} holds pictures of more than {MOST_PICTURES >> 30} GiB. {advice}")
            content = json_bytes({name: [entry.file_size, entry.CRC] for name, entry in entries.items()})

            def fill(target: Path) -> None:
                for name, entry in entries.items():
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as packed, open(target / name, "wb") as stream:
                        shutil.copyfileobj(packed, stream)
                write_file(target / CONTENT, content)

            try:
                if folder.exists() and not (folder / CONTENT).is_file():
                    raise DataError(f"{folder} was not unpacked from {self.path.name}; move it away. {advice}")
                if not folder.exists() or (folder / CONTENT).read_bytes() != content:
                    write_folder(folder, fill)
            except _DAMAGE as error:
                raise DataError(f"{self.path} cannot be unpacked ({str(error)[:80]}). {advice}") from None
            except (OSError, ArtifactError) as error:
                raise DataError(f"{self.path.name} cannot be unpacked next to it: {error} {advice}") from None
        return folder

    def _content(self, path: str, name: str) -> bytes:
        clean = clean_path(path)
        if _leads_out(clean) or "://" in clean:
            raise DataError(f"{self.path}: the resource {name!r} lies outside ({path!r}); put it inside.")
        try:
            data = (
                _member(self.path, self.inner + clean, MOST_BYTES) if self.zipped else (self.path / clean).read_bytes()
            )
        except (OSError, KeyError, ValueError):
            raise DataError(f"{self.path} has no readable file {path!r} of the resource {name!r}; add it.") from None
        return unpacked(data, f"{self.path}/{path}")


def open_package(path: Path) -> DataPackage:
    """The package of a folder, of its ``datapackage.json``, or of a zip file; raises :class:`DataError`."""
    path = path.parent if path.name == DESCRIPTOR else path
    inner = ""
    try:
        if path.is_dir():
            data = (path / DESCRIPTOR).read_bytes()
        else:
            inner = _inner_folder(path)
            data = _member(path, inner + DESCRIPTOR, _MOST_DESCRIPTOR)
        descriptor = json.loads(data)
    except (OSError, KeyError):
        raise DataError(f"{path} has no readable {DESCRIPTOR}; give a data package's folder or zip file.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}/{DESCRIPTOR} is no JSON ({error}); correct it or copy it again.") from None
    resources = descriptor.get("resources") if isinstance(descriptor, dict) else None
    if not isinstance(resources, list) or not all(isinstance(entry, dict) for entry in resources):
        raise DataError(f"{path}/{DESCRIPTOR} has no list 'resources' of tables; correct it.")
    return DataPackage(path, descriptor, inner)


def _inline(data: Any, source: str) -> bytes:
    """Rows that the description itself holds, lists with a header or objects, as CSV."""
    entries = data if isinstance(data, list) else []
    header: dict[Any, None] = {}
    if all(isinstance(entry, dict) for entry in entries):
        header = dict.fromkeys(key for entry in entries for key in entry)
        entries = [list(header), *([entry.get(key) for key in header] for entry in entries)]
    if not entries or not all(isinstance(entry, list) for entry in entries):
        raise DataError(f"{source} has data that are no rows of a table; give lists or objects.")
    stream = io.StringIO()
    csv.writer(stream).writerows([text_of(cell) for cell in entry] for entry in entries)
    return stream.getvalue().encode()


def _leads_out(path: str) -> bool:
    return is_absolute(path) or ".." in path.split("/")


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable zip file ({error}); copy it again.") from None
    if len(archive.filelist) > _MOST_ENTRIES:
        raise DataError(f"{path} has more than {_MOST_ENTRIES:,} entries; unpack it and give the folder.")
    return archive


def _inner_folder(path: Path) -> str:
    """The folder in a zip file that has the descriptor: the uppermost one; its top where several are."""
    with _zip(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).name == DESCRIPTOR]
    depth = min((name.count("/") for name in names), default=0)
    found = [name for name in names if name.count("/") == depth and not name.startswith("__MACOSX/")]
    return found[0].removesuffix(DESCRIPTOR) if len(found) == 1 else ""


def _member(path: Path, name: str, most: int) -> bytes:
    """A file of a zip archive in memory; nothing is written, and no more than the limit is unpacked."""
    with _zip(path) as archive:
        try:
            with archive.open(name) as stream:
                data = stream.read(most + 1)
        except _DAMAGE as error:
            raise DataError(f"{path}: {name} cannot be unpacked ({str(error)[:80]}); copy the file again.") from None
    if len(data) > most:
        raise DataError(f"{path}: {name} holds more than {most >> 20:,} MiB once unpacked; give the unpacked folder.")
    return data
