"""Decoding of picture files: formats, orientation, colours, and faults named in a sentence."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.framing import GREY, Framing, Region, View, placement_of, region_of
from wildpdiff.threads import allowed_threads

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's names of what is opened, whatever a file is called: no other decoder, some of which start programs.

Of several pictures in a file (animations, pages, the kind of JPEG that some cameras write, MPO) the first is read.
"""

MOST_PIXELS = 100_000_000
"""Of one picture, width times height; decoded, it takes 3 bytes each."""

VERSION = 2
"""Raised when the same file would give other pixels than before."""

ROWS = 256
"""Rows of a deep picture that are converted at once."""

DRAFT = 2
"""A JPEG is decoded at this many times the size that is needed, or more, for half the time.

At 96 pixels frames of 1920×1080 then differ by 0.3 of 255 in the mean, and by 4 at most.
"""

ZEROS = 64
"""Zero bytes at its end that make a JPEG suspicious."""

END_OF_JPEG, AFTER_END = b"\xff\xd9", 4096
"""The marker at the end of a JPEG, and the bytes of a camera's own notes in which it is looked for."""

BLOCK = 256
"""Pictures that are handed to threads at once."""

_ORIENTATIONS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Image.Transpose.ROTATE_180, False, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Image.Transpose.TRANSPOSE, True, False, False),
    6: (Image.Transpose.ROTATE_270, True, False, True),
    7: (Image.Transpose.TRANSVERSE, True, True, True),
    8: (Image.Transpose.ROTATE_90, True, True, False),
}
"""Inverse of each orientation that a camera may note (Exif 2.3, tag 274), and the stored place of an upright point:
whether x and y are exchanged, and then whether x and y count from the other end."""

_OTHERS = (
    (re.compile(rb"\s*\Z"), "an empty file"),
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL), "a HEIC picture, which is not read: convert it to JPEG"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "an AVIF picture, which is not read: convert it to JPEG"),
    (re.compile(rb"....(ftyp|moov|mdat|wide)|RIFF....AVI |\x1a\x45\xdf\xa3", re.DOTALL), "a video"),
    (re.compile(rb"version https://git-lfs"), "a pointer to a file of Git LFS, not the file: fetch it"),
    (re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE), "a web page or XML, not a picture: download it again"),
)
"""Files that people have under the names of pictures, by their beginnings."""


def decoded(views: Sequence[View], image_size: int, framing: Framing) -> Generator[Images | DataError, None, None]:
    """Each view as ``uint8 [image_size, image_size, 3]``, or its fault, in the order of the views.

    Pillow decodes without the interpreter's lock, so that threads share the work: as many as the user allows.
    """
    threads = min(allowed_threads(), len(views))
    if threads < 2:
        for view in views:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's warnings about odd files
                result = _attempt(view, image_size, framing)
            yield result
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(views), BLOCK):
            some = views[start : start + BLOCK]
            with warnings.catch_warnings():  # filters belong to the process, and are no business of its threads
                warnings.simplefilter("ignore")
                done = list(pool.map(_attempt, some, [image_size] * len(some), [framing] * len(some)))
            yield from done


def _attempt(view: View, image_size: int, framing: Framing) -> Images | DataError:
    try:
        return decode(view, image_size, framing)
    except DataError as error:
        return error


def decode(view: View, image_size: int, framing: Framing) -> Images:
    """One view as ``uint8 [image_size, image_size, 3]``, RGB.

    Raises:
        DataError: the file is missing, of none of :data:`IMAGE_FORMATS`, broken, or of more than :data:`MOST_PIXELS`
            pixels.
    """
    with _opened(view.path) as file:
        return _framed(file, view, image_size, framing)


def stated_size(path: Path) -> tuple[int, int]:
    """Width and height as the file states them, without decoding; raises as :func:`decode` of what is known then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(path) as file:
            return file.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A file that is open and not yet decoded; whatever goes wrong with it is a :class:`DataError`."""
    try:
        if not path.is_file():
            fault = "is a folder, not an image" if path.is_dir() else "does not exist"
            raise DataError(f"Image {path} {fault}; correct the path.")
        with Image.open(path, formats=IMAGE_FORMATS) as file:
            if file.width * file.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{file.width}×{file.height}")
            if file.format == "JPEG" and _lost_end(path):
                raise OSError("its end is nothing but zeros, as a memory card leaves it that failed")
            yield file
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        size = error.args[0] if "×" in str(error) else "far too many"
        raise DataError(
            f"Image {path} has {size} pixels; {MOST_PIXELS // 1_000_000} million are the most that are read. Scale it "
            "down, or leave it out."
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"Image {path} cannot be read (it is {_kind(path)}); replace it or leave it out.") from None
    except Exception as error:  # a decoder may raise anything on a broken file
        raise DataError(f"Image {path} cannot be read ({error}); replace the file or leave it out.") from None


def _lost_end(path: Path) -> bool:
    """Whether a JPEG's data go over into zeros: libjpeg takes these for grey, and most decoders say nothing."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - ZEROS))
        if stream.read().strip(b"\0"):
            return False
        stream.seek(0)
        return END_OF_JPEG not in stream.read().rstrip(b"\0")[-AFTER_END:]


def _kind(path: Path) -> str:
    """The kind of a file that is no picture, as far as its beginning shows."""
    with path.open("rb") as stream:
        beginning = stream.read(64)
    found = (name for pattern, name in _OTHERS if pattern.match(beginning))
    return next(found, f"none of {', '.join(IMAGE_FORMATS)}, or broken at its beginning")


def _framed(file: Image.Image, view: View, image_size: int, framing: Framing) -> Images:
    """Scaled down first, then turned upright and made RGB where that gives the same: nothing large is copied."""
    turn, swapped, from_right, from_bottom = _ORIENTATIONS.get(_orientation(file), (None, False, False, False))
    width, height = file.size
    upright = (height, width) if swapped else (width, height)
    region = region_of(*upright, framing, view.box)
    place = placement_of(region, image_size)
    size = (place.height, place.width) if swapped else (place.width, place.height)
    box = _stored(region, upright, swapped, (from_right, from_bottom))
    scale = _load(file, box, size)
    flat = _eight_bit_colours(file)
    exact = (
        box.left * scale,
        box.top * scale,
        min(box.right * scale, flat.width),
        min(box.bottom * scale, flat.height),
    )
    part = flat.resize(size, Image.Resampling.BILINEAR, exact)
    part = part if turn is None else part.transpose(turn)
    canvas = Image.new("RGB", (image_size, image_size), (GREY, GREY, GREY))
    canvas.paste(part, (place.left, place.top), part if part.mode == "RGBA" else None)
    return np.array(canvas, dtype=np.uint8)


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # notes may be broken where the picture is not
        return 1


def _stored(region: Region, size: tuple[int, int], swapped: bool, reversed_axes: tuple[bool, bool]) -> Region:
    """A region of the upright picture of a size in the picture as it is stored."""
    spans = [(region.left, region.right), (region.top, region.bottom)]
    lengths = list(size)
    if swapped:
        spans.reverse()
        lengths.reverse()
    (left, right), (top, bottom) = (
        (length - span[1], length - span[0]) if backwards else span
        for span, length, backwards in zip(spans, lengths, reversed_axes, strict=True)
    )
    return Region(left, top, right, bottom)


def _load(file: Image.Image, box: Region, size: tuple[int, int]) -> float:
    """Decode a file, a JPEG scaled down as far as that leaves :data:`DRAFT` times what is needed; returns the scale.

    The last pixels of a scaled picture may stand for less than others: its size does not tell the scale.
    """
    width, scaled = file.width, None
    scale = DRAFT * max(size[0] / (box.right - box.left), size[1] / (box.bottom - box.top))
    if scale < 1 and file.format in ("JPEG", "MPO"):
        scaled = file.draft(None, (int(file.width * scale) + 1, int(file.height * scale) + 1))
    file.load()
    return 1.0 if scaled is None else scaled[1][2] / width


def _eight_bit_colours(image: Image.Image) -> Image.Image:
    """The picture in one of the modes L, RGB and, where it is transparent somewhere, RGBA."""
    flat = _eight_bits(image)
    if flat.has_transparency_data:
        return flat.convert("RGBA")
    return flat if flat.mode in ("L", "RGB") else flat.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey pictures of more than eight bits in eight, which Pillow's conversion to RGB would cut off at white.

    Whole numbers are taken as 16 bits; fractions as 0 to 1, where none is larger.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    image = image if image.mode in ("I", "I;16", "F") else image.convert("I")  # of the other byte order
    largest = float(np.asarray(image.getextrema(), dtype=np.float64).max(initial=0.0))
    whole = image.mode.startswith("I")
    divisor = 257.0 if whole and largest > 255 else 1 / 255.0 if not whole and largest <= 1 else 1.0
    result = Image.new("L", image.size)
    for top in range(0, image.height, ROWS):  # all at once would take eight times the picture's memory
        box = (0, top, image.width, min(top + ROWS, image.height))
        values = np.nan_to_num(np.asarray(image.crop(box), dtype=np.float64) / divisor)
        result.paste(Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)), box)
    return result
