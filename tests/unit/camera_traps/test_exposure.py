"""Times of exposure in the pictures themselves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from wildpdiff.camera_traps.exposure import exposure_time, with_times
from wildpdiff.camera_traps.records import Picture
from wildpdiff.disk import write_file


def picture(path: Path, text: str | None, tag: int = ExifTags.Base.DateTimeOriginal) -> Path:
    image, exif = Image.new("RGB", (8, 8)), Image.Exif()
    if text is not None and tag == ExifTags.Base.DateTime:
        exif[tag] = text
    elif text is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[tag] = text
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("text", "tag", "time"),
    [
        ("2021:05:31 08:25:38", ExifTags.Base.DateTimeOriginal, datetime(2021, 5, 31, 8, 25, 38)),
        ("2021:05:31 08:25:38", ExifTags.Base.DateTime, datetime(2021, 5, 31, 8, 25, 38)),
        ("0000:00:00 00:00:00", ExifTags.Base.DateTimeOriginal, None),
        (None, ExifTags.Base.DateTime, None),
    ],
)
def test_the_time_that_the_camera_noted(tmp_path: Path, text: str | None, tag: int, time: datetime | None) -> None:
    assert exposure_time(picture(tmp_path / "a.jpg", text, tag)) == time


def test_files_that_cannot_be_opened_have_no_time(tmp_path: Path) -> None:
    broken = tmp_path / "b.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    assert exposure_time(broken) is None
    assert exposure_time(tmp_path / "none.jpg") is None


def test_stated_times_stand(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", "2021:05:31 08:25:38")
    stated = datetime(1999, 1, 1)
    found = with_times([Picture("a.jpg", 1, time=stated), Picture("a.jpg", 2), Picture("c.jpg", 3)], tmp_path)
    assert [entry.time for entry in found] == [stated, datetime(2021, 5, 31, 8, 25, 38), None]


def test_a_text_that_fails_half_way_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def fill(stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_file(path, fill)
    assert list(tmp_path.iterdir()) == []
    write_file(path, lambda stream: stream.write(b"whole"))
    with pytest.raises(RuntimeError):
        write_file(path, fill)
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]
