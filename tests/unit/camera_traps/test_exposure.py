"""Times of exposure in the pictures themselves."""

from __future__ import annotations

import json
import os
import zlib
from datetime import datetime
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from remarked import remarked
from wildpdiff.camera_traps import exposure
from wildpdiff.camera_traps.exposure import exposure_time, with_times
from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.disk import write_file


def picture(path: Path, text: str | None, tag: int = ExifTags.Base.DateTimeOriginal) -> Path:
    colour = tuple(zlib.crc32(path.name.encode()).to_bytes(4)[:3])
    image, exif = Image.new("RGB", (8, 8), colour), Image.Exif()
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
    os.mkfifo(tmp_path / "pipe.jpg")
    assert exposure_time(tmp_path / "pipe.jpg") is None


def test_stated_times_stand(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", "2021:05:31 08:25:38")
    stated = datetime(1999, 1, 1)
    found = with_times([Picture("a.jpg", 1, time=stated), Picture("a.jpg", 2), Picture("c.jpg", 3)], tmp_path)
    assert [entry.time for entry in found] == [stated, datetime(2021, 5, 31, 8, 25, 38), None]


def folder_of(root: Path, times: dict[str, list[str]]) -> Path:
    for camera, own in times.items():
        for number, text in enumerate(own):
            file = root / camera / ("fox", "hare")[number // 2 % 2] / f"{number:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(file, text)
    return root


def test_folders_have_bursts_by_the_times_in_their_files(tmp_path: Path) -> None:
    minutes = [f"2021:05:31 08:{minute:02}:{second:02}" for minute in range(0, 60, 4) for second in (1, 5)]
    folder_of(tmp_path / "a", {"Süd/ä".replace("/", " "): minutes, "still": ["2000:01:01 00:00:00"] * 12})
    suite = TableSuite.from_folder(tmp_path / "a", image_size=8)
    bursts = {task.title: task.placement.bursts for task in suite.all_tasks}
    assert bursts == {"Süd ä": 15, "still": len({entry.path for entry in suite.table.pictures}) - 30}
    for task in suite.all_tasks:
        by_burst: dict[str, set[str]] = {}
        for entry in task.placement.pictures:
            by_burst.setdefault(str(entry.picture.time or entry.path)[:16], set()).add(entry.split)
        assert all(len(splits) == 1 for splits in by_burst.values())
    remarked(suite.remarks, "30 of 42", "2021-05-31 08:00:01")
    remarked(suite.remarks, "12", "2000-01-01 00:00:00")
    for number, path in enumerate(sorted((tmp_path / "a").rglob("*.jpg"))[:3]):
        (tmp_path / "t.csv").write_text(f"path,label,task\n{path.relative_to(tmp_path)},fox,A\n", encoding="utf-8")
        (entry,) = read_joined([tmp_path / "t.csv"]).pictures
        assert entry.time is not None, number


def test_stated_times_of_a_camera_leave_its_files_alone(tmp_path: Path) -> None:
    folder_of(tmp_path, {"A": ["2021:05:31 08:00:00"] * 2, "B": ["2021:05:31 09:00:00"]})
    rows = ["A/fox/000.jpg,fox,A,2022-01-01 10:00", "A/fox/001.jpg,fox,A,", "B/fox/000.jpg,fox,B,"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,task,datetime", *rows]))
    times = [entry.time for entry in read_joined([tmp_path / "t.csv"]).pictures]
    assert times == [datetime(2022, 1, 1, 10), None, datetime(2021, 5, 31, 9)]


def test_times_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILDPDIFF_CACHE", str(tmp_path / "cache"))
    folder = folder_of(tmp_path / "a", {"A": ["2021:05:31 08:00:00", "2021:05:31 09:00:00", "0000:00:00 00:00:00"]})
    opened: list[str] = []

    def counted(path: Path) -> datetime | None:
        opened.append(path.name)
        return exposure_time(path)

    monkeypatch.setattr(exposure, "exposure_time", counted)
    first, again = read_joined([folder]).pictures, read_joined([folder]).pictures
    assert first == again
    assert sorted(opened) == ["000.jpg", "001.jpg", "002.jpg"]
    picture(folder / "A" / "fox" / "001.jpg", "2021:05:31 10:00:00 and longer"[:19])
    changed = {entry.path: entry.time for entry in read_joined([folder]).pictures}
    assert changed["A/fox/001.jpg"] == datetime(2021, 5, 31, 10)
    assert opened[3:] == ["001.jpg"]
    (kept,) = (tmp_path / "cache").glob("*.times.json")
    for damage in ("[]", '{"version": 1, "times": {"A/fox/000.jpg": [1]}}', kept.read_text()[:-9]):
        kept.write_text(damage)
        assert {entry.path: entry.time for entry in read_joined([folder]).pictures} == changed


def test_times_of_files_that_are_gone_and_the_oldest_beyond_a_number_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WILDPDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exposure, "MOST_OTHERS", 2)

    def read(*names: str) -> list[str]:
        rows = "".join(f"{name},fox,A\n" for name in names)
        (tmp_path / "t.csv").write_text(f"path,label,task\n{rows}", encoding="utf-8")
        assert all(entry.time for entry in read_joined([tmp_path / "t.csv"]).pictures)
        (kept,) = (tmp_path / "cache").glob("*.times.json")
        return list(json.loads(kept.read_bytes())["times"])

    for name in "abcdefg":
        picture(tmp_path / f"{name}.jpg", "2021:05:31 08:00:00")
    assert read("a.jpg", "b.jpg", "c.jpg") == ["a.jpg", "b.jpg", "c.jpg"]
    assert read("d.jpg") == ["b.jpg", "c.jpg", "d.jpg"], "two besides those of the table"
    (tmp_path / "d.jpg").unlink()
    picture(tmp_path / "c.jpg", "2021:05:31 08:00:00 and")
    assert read("e.jpg", "f.jpg") == ["e.jpg", "f.jpg"], "one is gone, one has changed"
    assert read("b.jpg", "f.jpg") == ["e.jpg", "f.jpg", "b.jpg"]


def test_a_time_that_a_program_for_pictures_wrote_is_none_of_exposure(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (8, 8)), Image.Exif()
    exif[ExifTags.Base.DateTime], exif[ExifTags.Base.Software] = "2024:01:01 10:00:00", "Editor 5"
    for name in ("a.jpg", "a.png", "a.webp"):
        image.save(tmp_path / name, exif=exif)
        assert exposure_time(tmp_path / name) is None
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:01:01 10:00:00"
        image.save(tmp_path / name, exif=exif)
        assert exposure_time(tmp_path / name) == datetime(2021, 1, 1, 10)
        del exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]


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
