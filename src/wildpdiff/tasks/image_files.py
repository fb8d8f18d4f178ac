"""Reading image files: to RGB, cropped to the centred square, resized."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images

__all__ = ["IMAGE_SUFFIXES", "read_images"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_images(paths: Iterable[Path | str], image_size: int) -> Images:
    """Images as ``uint8 [n, image_size, image_size, 3]``, RGB, in the order of the paths.

    The orientation that a camera noted in the file is applied. The largest centred square is cut out and resized
    bilinearly, so that shapes keep their proportions; what lies outside of the square is lost.

    Raises:
        DataError: there are no paths, or a file is missing, no image, or truncated.
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
    values = np.asarray(image, dtype=np.float64)
    largest = float(values.max(initial=0.0))
    if image.mode.startswith("I"):
        values = values / (257.0 if largest > 255 else 1.0)
    elif largest <= 1:
        values = values * 255.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _read_image(path: Path, image_size: int) -> Images:
    if not path.is_file():
        what = "is a folder, not an image" if path.is_dir() else "does not exist"
        raise DataError(f"Image {path} {what}; correct the path.")
    try:
        with Image.open(path) as file:
            upright = _eight_bits(ImageOps.exif_transpose(file)).convert("RGB")
            square = ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports a broken file by any of these, and a picture too large to be meant by the last.
        raise DataError(f"Image {path} cannot be read ({error}); replace the file or leave it out.") from None
    return np.asarray(square, dtype=np.uint8)
