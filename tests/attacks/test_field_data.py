"""Field data that are hostile, contradict themselves, or lie where their own output is to go."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_world import Run, World, refused_run

from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.tasks.framing import View
from wildpdiff.tasks.image_files import read_views
from wildpdiff.tasks.picture_cache import SUFFIX, PictureCache

HEADER = ("path", "label", "task", "datetime", "latitude", "longitude")
Change = Callable[[dict[str, Any]], object]


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, "JPEG")
    return path


def table(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """A table of two cameras with three pictures each, one of which begins like a formula."""
    rows = []
    for camera in "ab":
        for number in range(3):
            path = f"={camera}.jpg" if number == 0 else f"{camera}{number}.jpg"
            picture(tmp_path / path, number + 10 * (camera == "b"))
            rows.append((path, "blank", camera, f"2021-05-01 1{number}:00:00", "1.5", "2.5"))
    return table(tmp_path / "table.csv", rows)


# Tables --------------------------------------------------------------------------------------------------------------


def suite_of(path: Path) -> TableSuite:
    return TableSuite.of(path, minimum=1, unreadable=1.0, image_size=8)


def remarks_of(suite: TableSuite, *words: str) -> list[str]:
    return [text for text in suite.remarks if all(word in text for word in words)]


def test_a_path_that_no_file_system_takes_is_a_missing_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    suite = suite_of(table(tmp_path / "t.csv", [("a.jpg", "x", "c"), (f"{'z' * 5000}.jpg", "y", "c")], HEADER[:3]))
    assert list(suite.unreadable.faults.values()) == ["missing"]


def test_a_picture_of_two_cameras_is_named(tmp_path: Path) -> None:
    rows = [(f"{number}.jpg", "xy"[number % 2], camera) for camera in ("one", "two") for number in range(8)]
    for number in range(8):
        picture(tmp_path / f"{number}.jpg", number)
    assert remarks_of(suite_of(table(tmp_path / "t.csv", rows, HEADER[:3])), "8 pictures", "0.jpg", "one, two")


def test_spellings_of_a_camera_are_named(tmp_path: Path) -> None:
    rows = [(f"{number}.jpg", "x", ("North", "NORTH ", "south")[number % 3]) for number in range(9)]
    assert remarks_of(suite_of(table(tmp_path / "t.csv", rows, HEADER[:3])), "NORTH, North")


def test_a_camera_of_ambiguous_pictures_does_not_lack_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    rows = [("a.jpg", label, "c") for label in ("deer", "fox")]
    (task,) = suite_of(table(tmp_path / "t.csv", rows, HEADER[:3])).all_tasks
    assert "species" in task.fault
    assert "read" not in task.fault


def test_joined_tables_have_one_clock(tmp_path: Path) -> None:
    local = table(tmp_path / "local.csv", [("1.jpg", "x", "c", "2021-05-01 10:00:00", "1", "2")])
    zoned = table(tmp_path / "zoned.csv", [(f"{n}.jpg", "x", "c", f"2021-05-01T1{n}:00:00Z", "1", "2") for n in (1, 2)])
    joined = read_joined([local, zoned])
    assert {picture.time.tzinfo for picture in joined.pictures if picture.time} == {None}
    assert any("zone" in text for text in joined.remarks)


def test_bursts_of_the_hour_that_comes_twice_have_names_of_their_own(tmp_path: Path) -> None:
    times = ("2021-10-31T02:30:00+02:00", "2021-10-31T02:30:00+01:00")
    rows = [(f"{number}.jpg", "x", "c", time, "1", "2") for number, time in enumerate(times)]
    found = bursts(read_joined([table(tmp_path / "t.csv", rows)]).pictures)
    assert len({burst.name for burst in found}) == len(found) == 2


def test_a_file_without_pictures_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"images": [], "detection_categories": {"1": "animal"}}')
    refused_run(run("suite", "check", tmp_path / "none.json"), "none.json")
    refused_run(run("suite", "export", tmp_path / "none.json", "--format", "camtrap-dp", "--out", tmp_path / "out"))


# Packages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latitude", "longitude"), [("47°06'N", "8°30'E"), ("47,1", "8,5"), ("47.1 N", "8.5")])
def test_coordinates_of_a_package_are_decimal_degrees(run: Run, tmp_path: Path, latitude: str, longitude: str) -> None:
    rows = [("a.jpg", "x", "c", "2021-05-01 10:00:00", latitude, longitude)]
    out = tmp_path / "out"
    words = ("suite", "export", table(tmp_path / "t.csv", rows), "--format", "camtrap-dp", "--out", out)
    assert run(*words).status == 0
    (row,) = cells(out / "deployments.csv")
    assert (float(row["latitude"]), float(row["longitude"])) == (47.1, 8.5)
    content = json.loads((out / "datapackage.json").read_text(), parse_constant=pytest.fail)
    assert content["spatial"]["coordinates"] == [[8.5, 47.1]]


@pytest.mark.parametrize("latitude", ["1e400", "95", "north"])
def test_impossible_coordinates_of_a_package_are_refused(run: Run, tmp_path: Path, latitude: str) -> None:
    rows = [("a.jpg", "x", "c", "2021-05-01 10:00:00", latitude, "8")]
    words = ("suite", "export", table(tmp_path / "t.csv", rows), "--format", "camtrap-dp", "--out", tmp_path / "out")
    refused_run(run(*words), latitude, "'c'")
    assert not (tmp_path / "out").exists()


def test_pictures_outside_of_a_package_are_refused(run: Run, tmp_path: Path) -> None:
    rows = [("../a.jpg", "x", "c", "2021-05-01 10:00:00", "1", "2")]
    words = ("suite", "export", table(tmp_path / "t.csv", rows), "--format", "camtrap-dp", "--out", tmp_path / "out")
    refused_run(run(*words), "../a.jpg", "root=")


def test_a_file_of_two_cameras_is_two_media(run: Run, tmp_path: Path) -> None:
    rows = [("a.jpg", "x", camera, "2021-05-01 10:00:00", "1", "2") for camera in ("one", "two")]
    out = tmp_path / "out"
    words = ("suite", "export", table(tmp_path / "t.csv", rows), "--format", "camtrap-dp", "--out", out)
    assert run(*words).status == 0
    assert len({row["mediaID"] for row in cells(out / "media.csv")}) == 2


def test_identifiers_and_paths_of_a_package_lead_where_they_did(
    run: Run, tmp_path: Path, field: Path, world: World
) -> None:
    package = field.parent / "package"
    assert run("suite", "export", field, "--format", "camtrap-dp", "--out", package).status == 0
    assert {row.path for row in read_joined([package]).pictures} == {row["path"] for row in cells(field)}
    for name in ("media", "deployments", "observations"):  # identifiers as some programs make them
        rows = cells(package / f"{name}.csv")
        for row in rows:
            row.update({key: f"-N{text}" for key, text in row.items() if key in ("mediaID", "deploymentID")})
        table(package / f"{name}.csv", [list(row.values()) for row in rows], list(rows[0]))
    for file in field.parent.glob("*.jpg"):
        os.link(file, package / file.name)
    out = tmp_path / "out"
    words = ("predict", world.generator, "--suite", package, "--format", "camtrap-dp", "--out", out)
    assert run(*words).status == 0
    for key, name in (("mediaID", "media"), ("deploymentID", "deployments")):
        assert {row[key] for row in cells(out / "observations.csv")} == {row[key] for row in cells(out / f"{name}.csv")}


# Output over input ---------------------------------------------------------------------------------------------------


def test_no_file_that_is_read_is_replaced_under_another_name(
    run: Run, tmp_path: Path, field: Path, world: World
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "link.csv").symlink_to(field)
    (other / "link.jpg").symlink_to(tmp_path / "a1.jpg")
    table(other / "t.csv", [("link.jpg", "blank", "a", "2021-05-01 10:00:00", "1", "2")])
    (other / "species.csv").write_text("species\nblank\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    predict = ("predict", world.generator, "--suite")
    options = ("-o", f"root={tmp_path}", "--format", "csv", "--out")
    refused_run(run(*predict, other / "link.csv", *options, field), "table.csv")
    refused_run(run(*predict, field, *options, other / "link.csv"), "link.csv")
    refused_run(run(*predict, other / "t.csv", "--format", "csv", "--out", tmp_path / "a1.jpg"), "a1.jpg")
    refused_run(
        run(*predict, field, "--species", other / "species.csv", *options, other / "species.csv"), "species.csv"
    )
    assert {path: path.read_bytes() for path in before} == before


def test_an_export_replaces_nothing_in_the_folder_that_it_reads(run: Run, tmp_path: Path) -> None:
    taken = picture(tmp_path / "in" / "camera" / "deer" / "1.jpg")
    before = taken.read_bytes()
    refused_run(run("suite", "export", tmp_path / "in", "--format", "csv", "--out", taken), "1.jpg")
    table(
        tmp_path / "in" / "metadata.csv",
        [("train", "1", "1", "1.jpg")],
        ("split", "location_remapped", "y", "filename"),
    )
    refused_run(
        run("suite", "export", tmp_path / "in", "--format", "coco", "--out", tmp_path / "in" / "metadata.csv"),
        "metadata.csv",
    )
    assert taken.read_bytes() == before


# Cache of pictures ---------------------------------------------------------------------------------------------------


def altered(header: dict[str, Any], **values: Any) -> None:
    header["__metadata__"].update({name: json.dumps(value) for name, value in values.items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda header: altered(header, keys=json.loads(header["__metadata__"]["keys"])[::-1]),
        lambda header: altered(header, keys=[[], {}, None]),
        lambda header: altered(header, checksums=["a", None, 0.5]),
        lambda header: header["images"].update(shape=[3, -8, -8, 3]),
        lambda header: header["images"].update(shape=[3.0, 8.0, 8.0, 3.0]),
        lambda header: header["images"].update(data_offsets=[-1, 3 * 8 * 8 * 3 - 1]),
        lambda header: header.update(__metadata__=[]),
    ],
    ids=["exchanged", "no keys", "no checksums", "negative", "fractions", "before", "no metadata"],
)
def test_an_altered_cache_is_as_good_as_none(tmp_path: Path, change: Change) -> None:
    views = [View(picture(tmp_path / f"{number}.jpg", number)) for number in range(3)]
    right = read_views(views, 8)
    read_views(views, 8, cache=PictureCache(tmp_path / "cache"))
    (shard,) = (tmp_path / "cache").glob(f"*{SUFFIX}")
    data = shard.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    assert np.array_equal(read_views(views, 8, cache=PictureCache(tmp_path / "cache")), right)


def test_a_picture_without_a_time_does_not_mix_past_and_future_in_silence(tmp_path: Path) -> None:
    rows = [(f"{n}.jpg", "xy"[n % 2], "c", f"2021-05-{n + 1:02} 10:00:00" if n else "", "1", "2") for n in range(20)]
    suite = TableSuite.of(table(tmp_path / "t.csv", rows), minimum=1, unreadable=1.0, image_size=8, by_time=True)
    assert remarks_of(suite, "without a time", "(c)")


def test_a_camera_that_is_named_twice_is_answered_once(run: Run, tmp_path: Path, field: Path, world: World) -> None:
    (tmp_path / "species.csv").write_text("camera,species\nA,giraffe\n")
    words = ("predict", world.generator, "--suite", field, "--species", tmp_path / "species.csv", "--out")
    assert run(*words, tmp_path / "out.csv", "--task", "b", "--task", "a", "--task", "b").status == 0
    rows = cells(tmp_path / "out.csv")
    assert [row["camera"] for row in rows] == ["b"] * 3 + ["a"] * 3
    assert {row["class"] for row in rows if row["camera"] == "a"} <= {"giraffe", "blank"}


def test_names_like_formulas_are_the_same_in_an_exported_table(run: Run, tmp_path: Path) -> None:
    names = ("=deer", "-1", "+a", "@x", "'quoted", "‐ 2")
    source = table(tmp_path / "t.csv", [(f"{n}.jpg", name, f"-{name}") for n, name in enumerate(names)], HEADER[:3])
    out = tmp_path / "out.csv"
    assert run("suite", "export", source, "--format", "csv", "--out", out).status == 0
    assert not any(text.startswith(("=", "-", "+", "@")) for row in cells(out) for text in row.values())
    first, second = (read_joined([path]).pictures for path in (source, out))
    assert [(row.path, row.labels, row.camera) for row in first] == [
        (row.path, row.labels, row.camera) for row in second
    ]
