"""Folders of pictures by camera and species."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from refusals import refused
from wildpdiff.camera_traps.folders import FolderReader
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_cameras_species_and_special_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Föhrenwald 北/Red fox/2.JPG",
        "Föhrenwald 北/Red fox/1.jpg",
        "B/_background/3.png",
        "B/_unlabelled/4.jpeg",
    )
    touch(tmp_path, "B/deer/notes.txt", "B/deer/.5.jpg", ".hidden/deer/6.jpg", "B/@eaDir/7.jpg")
    table = read_pictures(tmp_path)
    assert [(p.camera, p.labels, p.split, p.path) for p in table.pictures] == [
        ("B", (), "background", "B/_background/3.png"),
        ("B", (), "unlabelled", "B/_unlabelled/4.jpeg"),
        ("Föhrenwald 北", ("Red fox",), "", "Föhrenwald 北/Red fox/1.jpg"),
        ("Föhrenwald 北", ("Red fox",), "", "Föhrenwald 北/Red fox/2.JPG"),
    ]
    assert table.remarks == ()


def test_pictures_at_other_depths_are_read_or_counted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "A/fox/2020-05/1.jpg",
        "A/fox/2020-05/SD/2.jpg",
        "A/3.jpg",
        "4.jpg",
        "5.jpg",
        "A/fox/6.mp4",
        "A/fox/7.heic",
    )
    table = read_pictures(tmp_path)
    assert [(p.path, p.labels) for p in table.pictures] == [
        ("A/3.jpg", ()),
        ("A/fox/2020-05/1.jpg", ("fox",)),
        ("A/fox/2020-05/SD/2.jpg", ("fox",)),
    ]
    for named in ("A/3.jpg", "4.jpg", "A/fox/2020-05/1.jpg", "A/fox/6.mp4", "A/fox/7.heic"):
        assert sum(named in remark for remark in table.remarks) == 1, named


def test_folders_of_a_cameras_card_are_no_species(tmp_path: Path) -> None:
    touch(tmp_path, "A/DCIM/100RECNX/1.jpg", "A/dcim/fox/101EK113/2.jpg", "A/100_BTCF/deer/3.jpg", "A/7/4.jpg")
    table = read_pictures(tmp_path)
    assert {p.path.rsplit("/", 1)[1]: p.labels for p in table.pictures} == {
        "1.jpg": (),
        "2.jpg": ("fox",),
        "3.jpg": ("deer",),
        "4.jpg": (),
    }
    (remark,) = table.remarks
    assert "A/7/4.jpg" in remark


TREES: dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]] = {
    "years and seasons": (
        ("A/2024/spring/fox/1.jpg", "A/2024/Herbst/Reh/1.jpg", "B/2023-05/1.jpg", "B/2024/verano 2024/fox/1.jpg"),
        [("A", "Reh"), ("A", "fox"), ("B", ""), ("B", "fox")],
    ),
    "numbered deployments": (
        (
            "A/D1/fox/1.jpg",
            "A/D2/1.jpg",
            "B/D1/deer/1.jpg",
            "B/D1/night heron/sub/1.jpg",
            "B/fox/1.jpg",
            "B/cat 2/1.jpg",
        ),
        [("A", "fox"), ("A", ""), ("B", "deer"), ("B", "night heron"), ("B", "cat 2"), ("B", "fox")],
    ),
    "named deployments": (
        ("A/Anna/fox/1.jpg", "A/Anna/deer/1.jpg", "B/Beat/fox/1.jpg", "B/Beat/deer/1.jpg", "B/Beat/1.jpg"),
        [("A", "deer"), ("A", "fox"), ("B", ""), ("B", "deer"), ("B", "fox")],
    ),
    "few names above many": (
        tuple(
            f"{c}/{place}/{name}/1.jpg" for c in "AB" for place in ("hill", "lake") for name in ("cat", "elk", "fox")
        ),
        [(c, name) for c in "AB" for _ in range(2) for name in ("cat", "elk", "fox")],
    ),
    "parts of a species": (
        tuple(f"{c}/{name}/{age}/1.jpg" for c in "AB" for name in ("cat", "elk") for age in ("adult", "young")),
        [(c, name) for c in "AB" for name in ("cat", "elk") for _ in range(2)],
    ),
    "a station with cameras": (
        ("S/Cam 1/fox/1.jpg", "S/Cam 2/deer/1.jpg", "T/Cam 1/deer/1.jpg"),
        [("S", "fox"), ("S", "deer"), ("T", "deer")],
    ),
    "years above": (
        ("2023/A/fox/1.jpg", "2024/A/100EK113/fox/1.jpg", "2024/B/deer/1.jpg", "2024/B/1.jpg", "2024/2.jpg"),
        [("A", "fox"), ("A", "fox"), ("B", ""), ("B", "deer")],
    ),
    "cameras with names of years": (("2023/fox/1.jpg", "2024/deer/1.jpg"), [("2023", "fox"), ("2024", "deer")]),
    "classes with numbers alone": (("A/0/1.jpg", "A/1/1.jpg", "B/0/1.jpg"), [("A", "0"), ("A", "1"), ("B", "0")]),
    "one camera": (("A/may/fox/1.jpg", "A/may/adult deer/1.jpg"), [("A", "adult deer"), ("A", "fox")]),
    "special folders below a year": (("A/2024/_background/1.jpg", "A/2024/fox/1.jpg"), [("A", ""), ("A", "fox")]),
}


@pytest.mark.parametrize("kind", TREES)
def test_the_species_is_found_below_times_and_deployments(kind: str, tmp_path: Path) -> None:
    paths, expected = TREES[kind]
    touch(tmp_path, *paths)
    table = read_pictures(tmp_path)
    assert [(p.camera, *(p.labels or ("",))) for p in table.pictures] == expected
    between = [(p.path, p.labels) for p in table.pictures if p.labels and p.path.split("/")[1:2] != list(p.labels)]
    if between and kind != "years above":
        (path, (label,)), *_ = between
        assert sum(path in remark and label in remark for remark in table.remarks) == 1, "what is guessed is remarked"
    if kind == "years above":
        assert sum("2023/A/fox/1.jpg" in remark for remark in table.remarks) == 1
    splits = {p.split for p in table.pictures}
    assert splits == ({"", "background"} if "special" in kind else {""})


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "tree", "A/fox/1.jpg")
    touch(tmp_path / "elsewhere", "2.jpg")
    (tmp_path / "tree" / "A" / "fox" / "loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "A" / "deer").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "A" / "self").symlink_to("self")
    table = read_pictures(tmp_path / "tree")
    assert [p.path for p in table.pictures] == ["A/deer/2.jpg", "A/fox/1.jpg"]
    assert any("A/fox/loop" in remark for remark in table.remarks)


def test_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "A/fox/1.jpg")
    with open(os.fsencode(tmp_path) + b"/A/fox/\xff.jpg", "wb"):
        pass
    table = read_pictures(tmp_path)
    assert [p.path for p in table.pictures] == ["A/fox/1.jpg"]
    assert len(table.remarks) == 1


def test_a_folder_without_pictures_of_cameras_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with refused(DataError, tmp_path, "TASK/CLASS/IMAGE"):
        read_pictures(tmp_path)
    assert not FolderReader().reads(tmp_path / "1.jpg")


def test_files_of_known_formats_in_a_folder_are_named(tmp_path: Path) -> None:
    """They state what folders do not, so they are not passed over in silence."""
    coco = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": []}
    touch(tmp_path, "1.jpg", "notes.txt")
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "labels.csv").write_text("filepath,label\n1.jpg,fox\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "datapackage.json").write_text("{}")
    files = ("coco.json (COCO Camera Traps)", "labels.csv (CSV table)", "package (Camtrap DP)")
    with refused(DataError, tmp_path, ", ".join(files) + "."):
        read_pictures(tmp_path)
    touch(tmp_path, "A/fox/2.jpg")
    (tmp_path / "self.csv").symlink_to("self.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    table = read_joined([tmp_path])
    assert [p.path for p in table.pictures] == ["A/fox/2.jpg"]
    assert sum("coco.json" in remark and "3" in remark for remark in table.remarks) == 1
    (tmp_path / "batch.json").write_text('{"images": [{"file": "A/fox/2.jpg", "detections": []}]}')
    shutil.rmtree(tmp_path / "package")
    for name in ("coco.json", "labels.csv"):
        (tmp_path / name).unlink()
    assert read_joined([tmp_path, tmp_path / "batch.json"]).remarks == table.remarks[:1]
