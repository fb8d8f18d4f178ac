"""Reading image files: in parallel, at the size and with the framing of a model, from a cache where there is one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from wildpdiff.disk import disk_errors
from wildpdiff.errors import DataError
from wildpdiff.tasks.decoding import decoded
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.framing import Framing, View
from wildpdiff.tasks.picture_cache import PictureCache, mapped_bytes

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")

IN_MEMORY = 64 << 20
"""Bytes of images that are held in memory; more are in a temporary file that is mapped."""

IN_MEMORY_OF_CACHE = 1 << 20
"""The same where there is a cache, whose users read many sets."""


def read_images(paths: Iterable[Path | str], image_size: int, framing: Framing = "square") -> Images:
    """Images as ``uint8 [n, image_size, image_size, 3]``, RGB, in the order of the paths; see :func:`read_views`.

    Raises:
        DataError: there are no paths, or one cannot be read.
    """
    images = read_views([View(Path(path)) for path in paths], image_size, framing)
    if not len(images):
        raise DataError("There are no images. Give at least one.")
    return images


def read_views(
    views: Sequence[View],
    image_size: int,
    framing: Framing = "square",
    *,
    cache: PictureCache | None = None,
    skipped: Callable[[int, DataError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Images:
    """Views of pictures as ``uint8 [n, image_size, image_size, 3]``, RGB, in their order.

    The orientation that a camera noted in the file is applied. The part that the framing chooses is resized
    bilinearly with its proportions kept. Transparent pixels lie on mid-grey.

    The result is the same bytes on any number of threads and with or without a cache. Memory is that of some decoded
    pictures and of at most :data:`IN_MEMORY` of the result, which may be written to: no file changes.

    Args:
        image_size: height and width in pixels.
        framing: see :data:`wildpdiff.tasks.framing.Framing`.
        cache: of decoded pictures, on disk.
        skipped: called with the index and the fault of each view that cannot be read, which the result then lacks; by
            default the first such ends everything.
        progress: called with (views read, in all).

    Raises:
        DataError: a file is missing, of no known format, broken, or too large; or the size is below 1.
    """
    if image_size < 1:
        raise DataError(
            f"The model reads no pictures (image_size is {image_size}). Give what it reads: texts are .txt "
            "files, or tables with a column text."
        )
    if cache is None:
        results = _Results(image_size, IN_MEMORY)
        results.take(decoded(views, image_size, framing), len(views), skipped, progress)
        return results.images()
    if (known := cache.mapped(views, image_size, framing)) is not None:
        return known
    results = _Results(image_size, IN_MEMORY_OF_CACHE)
    faulty = results.take(cache.read(views, image_size, framing), len(views), skipped, progress)
    readable = [view for number, view in enumerate(views) if number not in faulty]
    known = cache.mapped(readable, image_size, framing)
    return results.images() if known is None else known


class _Results:
    """Images one after the other, in a temporary file beyond some bytes: many sets need little memory then."""

    def __init__(self, image_size: int, in_memory: int) -> None:
        self._image_size, self._in_memory, self._size = image_size, in_memory, 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def take(
        self,
        found: Generator[Images | DataError, None, None],
        total: int,
        skipped: Callable[[int, DataError], None] | None,
        progress: Callable[[int, int], None] | None,
    ) -> set[int]:
        """Keep the images, and report; returns the numbers of those that are faults."""
        faulty = set()
        for number, result in enumerate(found):
            if isinstance(result, DataError):
                if skipped is None:
                    found.close()  # a cache keeps what was decoded
                    raise result
                skipped(number, result)
                faulty.add(number)
            else:
                self._add(result.tobytes())
            if progress is not None:
                progress(number + 1, total)
        return faulty

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._file is None:
            self._memory += data
            if self._size <= self._in_memory:
                return
            data, self._memory = bytes(self._memory), bytearray()
        with disk_errors(Path(tempfile.gettempdir())):
            self._file = self._file or tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed when it is mapped
            self._file.write(data)

    def images(self) -> Images:
        """All of them ``[n, h, w, 3]``, which may be written to."""
        if self._file is None:
            values: Images = np.frombuffer(self._memory, np.uint8)
        else:
            with disk_errors(Path(tempfile.gettempdir())), self._file:
                self._file.flush()
                values = mapped_bytes(Path(self._file.name), self._size)
        return values.reshape(-1, self._image_size, self._image_size, 3)
