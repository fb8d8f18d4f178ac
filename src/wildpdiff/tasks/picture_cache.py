"""A bounded cache of decoded pictures on disk, which processes may share."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from safetensors.numpy import save

from wildpdiff.disk import content_hash, json_bytes, remove_leftovers, write_file
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.tasks.decoding import VERSION, decoded
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.framing import Framing, View, framed

VARIABLE = "WILDPDIFF_CACHE"
"""Environment variable: the folder of caches, or ``off``."""

OFF = ("off", "0", "no", "none", "false", "")

LIMIT = 8 << 30
"""Bytes on disk of the default cache."""

SHARD_BYTES = 32 << 20
"""Of pictures in one file, at most."""

SUFFIX = ".pictures.safetensors"


@dataclass(frozen=True)
class _Shard:
    """A file of the cache: a safetensors file with ``images`` and, as metadata, a key and a checksum for each.

    Attributes:
        offset: of the first picture's first byte.
        image_size: height and width in pixels.
        keys: of the pictures in their order.
        checksums: CRC-32 of each picture's key and bytes.
    """

    path: Path
    offset: int
    image_size: int
    keys: tuple[str, ...]
    checksums: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> _Shard:
        """Read a file's header; raises ``OSError``, ``ValueError``, ``KeyError`` or ``TypeError`` where it is none."""
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
            size = os.fstat(stream.fileno()).st_size
            if length > size:
                raise ValueError("truncated")
            header: Any = json.loads(stream.read(length))
        start, stop = header["images"]["data_offsets"]
        count, image_size = header["images"]["shape"][:2]
        keys, checksums = (json.loads(header["__metadata__"][name]) for name in ("keys", "checksums"))
        offset, row = 8 + length + start, image_size * image_size * 3
        if not (
            all(type(number) is int and number >= 0 for number in (start, image_size)) and set(map(type, keys)) == {str}
        ):
            raise ValueError("of another kind than its header states")
        if not (len(keys) == len(checksums) == count and stop - start == count * row and 8 + length + stop == size):
            raise ValueError("of another size than its header states")
        return cls(path, offset, image_size, tuple(keys), tuple(checksums))

    @property
    def row(self) -> int:
        """Bytes of one picture."""
        return self.image_size * self.image_size * 3

    def read(self, rows: Sequence[int]) -> list[Images] | None:
        """Some pictures; None where one's bytes have changed."""
        found = []
        with self.path.open("rb") as stream:
            for row in rows:
                stream.seek(self.offset + row * self.row)
                data = bytearray(stream.read(self.row))
                if len(data) != self.row or _checksum(self.keys[row], data) != self.checksums[row]:
                    return None
                found.append(np.frombuffer(data, np.uint8).reshape(self.image_size, self.image_size, 3))
        return found


def _checksum(key: str, data: bytes | bytearray) -> int:
    """Of a picture under its key, so that none is taken for another."""
    return zlib.crc32(data, zlib.crc32(key.encode()))


class PictureCache:
    """Decoded pictures on disk, by file, part and size.

    A file is known by its path, size and times of change, not by its content: reading it whole would take as long as
    decoding it. A file that is moved, or touched, is decoded again. The bytes are those of decoding, whose version is
    part of the key; altered or truncated files of the cache are noticed and removed.

    Files are written whole or not at all under names that follow from their content, so that several processes may use
    one folder without locks. Those that were used the longest ago go first when the limit is reached.

    Attributes:
        folder: of the cache; made when the first picture is kept.
        limit_bytes: on disk.
    """

    def __init__(self, folder: Path | str, limit_bytes: int = LIMIT) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self._shards: dict[str, _Shard] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._writable, self._changed = True, 0

    @classmethod
    def of_user(cls) -> PictureCache | None:
        """The cache in the user's cache folder (XDG), or in that of :data:`VARIABLE`; None where that is ``off``."""
        stated = os.environ.get(VARIABLE)
        if stated is not None:
            return None if stated.strip().lower() in OFF else cls(Path(stated).expanduser() / "pictures")
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        try:
            base = base.expanduser()
        except RuntimeError:  # a user without a home
            return None
        return cls(base / "wildpdiff" / "pictures") if base.is_absolute() else None

    def mapped(self, views: Sequence[View], image_size: int, framing: Framing) -> Images | None:
        """The views as a private map of one file, where they lie in it in this order; else None."""
        self._refresh()
        name, first = self._places.get(_key(views[0], image_size, framing) or "", ("", 0)) if views else ("", 0)
        shard = self._shards.get(name)
        if shard is None or first + len(views) > len(shard.keys):
            return None
        rows = range(first, first + len(views))
        if any(_key(view, image_size, framing) != shard.keys[row] for view, row in zip(views, rows, strict=True)):
            return None
        found: Images | None = None
        with suppress(OSError, RuntimeError):
            if shard.read(rows) is not None:
                os.utime(shard.path)
                start = shard.offset + first * shard.row
                values = mapped_bytes(shard.path, start + len(views) * shard.row)[start:]
                found = values.reshape(-1, image_size, image_size, 3)
        if found is None:
            self._forget(name, remove=True)
        return found

    def read(
        self, views: Sequence[View], image_size: int, framing: Framing
    ) -> Generator[Images | DataError, None, None]:
        """Each view as ``uint8 [image_size, image_size, 3]``, or its fault, in order; what was decoded is kept."""
        self._refresh()
        some = max(1, SHARD_BYTES // (image_size * image_size * 3))
        for start in range(0, len(views), some):
            block = views[start : start + some]
            keys = [_key(view, image_size, framing) for view in block]
            found: dict[int, Images | DataError] = dict(self._kept(keys))
            missing = [number for number in range(len(block)) if number not in found]
            results = decoded([block[number] for number in missing], image_size, framing)
            try:
                for number in range(len(block)):
                    if number not in found:
                        found[number] = next(results)
                    yield found[number]
            finally:  # also where the reader has seen enough
                results.close()
                self._keep({keys[number] or "": found[number] for number in missing if number in found})

    def _refresh(self) -> None:
        """Learn what other processes have written and removed."""
        names: set[str] = set()
        with suppress(OSError):
            changed = self.folder.stat().st_mtime_ns
            if changed == self._changed:
                return
            if not self._changed:
                remove_leftovers(self.folder)
            self._changed = changed
            names = {entry.name for entry in os.scandir(self.folder) if entry.name.endswith(SUFFIX)}
        for name in self._shards.keys() - names:
            self._forget(name)
        for name in sorted(names - self._shards.keys()):
            try:
                self._learn(_Shard.open(self.folder / name))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                self._forget(name, remove=True)

    def _learn(self, shard: _Shard) -> None:
        self._shards[shard.path.name] = shard
        self._places |= {key: (shard.path.name, row) for row, key in enumerate(shard.keys)}

    def _forget(self, name: str, *, remove: bool = False) -> None:
        shard = self._shards.pop(name, None)
        for key in () if shard is None else shard.keys:
            if self._places.get(key, ("", 0))[0] == name:
                del self._places[key]
        if remove:
            with suppress(OSError):
                (self.folder / name).unlink()

    def _kept(self, keys: Sequence[str | None]) -> Iterator[tuple[int, Images]]:
        """The pictures that the cache has, with the number of their key."""
        wanted: dict[str, list[tuple[int, int]]] = {}
        for number, key in enumerate(keys):
            if key is not None and key in self._places:
                name, row = self._places[key]
                wanted.setdefault(name, []).append((number, row))
        for name, pairs in wanted.items():
            images = None
            with suppress(OSError):
                images = self._shards[name].read([row for _, row in pairs])
                os.utime(self.folder / name)
            if images is None:
                self._forget(name, remove=True)
            else:
                yield from zip((number for number, _ in pairs), images, strict=True)

    def _keep(self, found: dict[str, Images | DataError]) -> None:
        """Write pictures into a new file, where the disk takes it: without a cache everything works, only slower."""
        good = {key: image for key, image in found.items() if key and not isinstance(image, DataError)}
        if not good or not self._writable:
            return
        images = np.stack(list(good.values()))
        if images.nbytes > self.limit_bytes:
            return
        lists = {
            "keys": list(good),
            "checksums": [_checksum(key, image.tobytes()) for key, image in zip(good, images, strict=True)],
        }
        data = save({"images": images}, metadata={name: json.dumps(values) for name, values in lists.items()})
        path = self.folder / f"{content_hash(json_bytes(lists))[:32]}{SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(path, data)
            self._learn(_Shard.open(path))
            self._trim(path.name)
        except (ArtifactError, OSError):
            self._writable = False

    def _trim(self, newest: str) -> None:
        """Remove the files that were used the longest ago until the rest is within the limit."""
        entries = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process may trim too
                if entry.name.endswith(SUFFIX):
                    entries.append((entry.name != newest, entry.stat().st_mtime_ns, entry.name, entry.stat().st_size))
        total = 0
        for _, _, name, size in sorted(entries, key=lambda entry: (entry[0], -entry[1], entry[2])):
            total += size
            if total > self.limit_bytes:
                self._forget(name, remove=True)


def mapped_bytes(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """The first bytes of a file, mapped: they take memory when they are read, and what is written stays private.

    Unlike numpy's map it keeps no file open, of which a process may have few. The file may be removed meanwhile.
    """
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()


def _key(view: View, image_size: int, framing: Framing) -> str | None:
    """Identity of the file, the part and the size; None where the file cannot be found."""
    try:
        path = os.path.abspath(view.path)
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    values = [VERSION, PIL.__version__, path, *times, image_size, *framed(framing, view.box)]
    return content_hash(json_bytes(values))[:32]
