"""Reading image files: to RGB, cropped to the centred square, resized."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's names of what is opened, whatever a file is called: no other decoder, some of which start programs."""

MOST_PIXELS = 100_000_000
"""Of one picture, width times height; decoded, it takes 3 bytes each."""

ROWS = 256
"""Rows of a deep picture that are converted at once."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Inverse of each orientation that a camera may note (Exif 2.3, tag 274)."""


def read_images(paths: Iterable[Path | str], image_size: int) -> Images:
    """Images as ``uint8 [n, image_size, image_size, 3]``, RGB, in the order of the paths.

    The orientation that a camera noted in the file is applied. The largest centred square is cut out and resized
    bilinearly, so that shapes keep their proportions; what lies outside of the square is lost.

    Memory is that of the largest decoded picture, and of the result.

    Raises:
        DataError: there are no paths, or a file is missing, no image of :data:`IMAGE_FORMATS`, truncated, or of more
            than :data:`MOST_PIXELS` pixels.
    """
    if image_size < 1:
        raise DataError(f"image_size is {image_size}; give 1 or more pixels.")
    images = [_read_image(Path(path), image_size) for path in paths]
    if not images:
        raise DataError("There are no images. Give at least one.")
    return np.stack(images)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey pictures of more than eight bits in eight, which Pillow's conversion to RGB would cut off at white.

    Whole numbers are taken as 16 bits; fractions as 0 to 1, where none is larger.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    largest = float(np.asarray(image.getextrema(), dtype=np.float64).max(initial=0.0))
    whole = image.mode.startswith("I")
    divisor = 257.0 if whole and largest > 255 else 1 / 255.0 if not whole and largest <= 1 else 1.0
    result = Image.new("L", image.size)
    for top in range(0, image.height, ROWS):  # all at once would take eight times the picture's memory
        box = (0, top, image.width, min(top + ROWS, image.height))
        values = np.nan_to_num(np.asarray(image.crop(box), dtype=np.float64) / divisor)
        result.paste(Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)), box)
    return result


def _read_image(path: Path, image_size: int) -> Images:
    if not path.is_file():
        fault = "is a folder, not an image" if path.is_dir() else "does not exist"
        raise DataError(f"Image {path} {fault}; correct the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd files
            with Image.open(path, formats=IMAGE_FORMATS) as file:
                if file.width * file.height <= MOST_PIXELS:
                    return _centred_square(file, image_size)
                size = f"{file.width}×{file.height}"
    except Image.DecompressionBombError:
        size = "far too many"
    except UnidentifiedImageError:
        raise DataError(
            f"Image {path} cannot be read (it is none of {', '.join(IMAGE_FORMATS)}, or broken at its beginning); "
            "replace the file or leave it out."
        ) from None
    except Exception as error:  # a decoder may raise anything on a broken file
        raise DataError(f"Image {path} cannot be read ({error}); replace the file or leave it out.") from None
    raise DataError(
        f"Image {path} has {size} pixels; {MOST_PIXELS // 1_000_000} million are the most that are read. Scale it "
        "down, or leave it out."
    )


def _centred_square(file: Image.Image, image_size: int) -> Images:
    """Scaled down first, then turned upright and made RGB where that gives the same: nothing large is copied."""
    file.load()
    flat = _eight_bits(file)
    flat = flat if flat.mode in ("L", "RGB") else flat.convert("RGB")
    square = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.BILINEAR)
    method = _UPRIGHT.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    upright = square if method is None else square.transpose(method)
    return np.asarray(upright.convert("RGB"), dtype=np.uint8)
