"""Times of exposure that cameras note in the pictures themselves."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from PIL import ExifTags, Image

from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.times import parse_time
from wildpdiff.tasks.decoding import IMAGE_FORMATS

TAGS = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)


def exposure_time(path: Path) -> datetime | None:
    """The time in a picture's Exif data, without a zone; None where there is none or the file cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd files
            with Image.open(path, formats=IMAGE_FORMATS) as file:
                exif = file.getexif()
                noted = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # a decoder may raise anything on a broken file
        return None
    found = (parse_time(str(noted[tag])) for tag in TAGS if tag in noted)
    return next((time for time in found if time is not None), None)


def with_times(pictures: Iterable[Picture], root: Path = Path()) -> list[Picture]:
    """Pictures with the time in their file where they have none; files are opened in threads, and not decoded."""
    given = list(pictures)
    with ThreadPoolExecutor(8) as threads:
        times = threads.map(lambda picture: picture.time or exposure_time(root / picture.path), given)
        return [replace(picture, time=time) for picture, time in zip(given, times, strict=True)]
