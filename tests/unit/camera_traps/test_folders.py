"""Folders of pictures by camera and species."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

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
        "4.jpg": ("7",),
    }
    (remark,) = table.remarks
    assert "A/DCIM/100RECNX/1.jpg" in remark


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
