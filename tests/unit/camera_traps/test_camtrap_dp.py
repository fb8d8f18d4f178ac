"""Camtrap DP packages: folders and zip files, the standard's own examples, and what real ones hold."""

from __future__ import annotations

import csv
import gzip
import json
import random
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from refusals import refused
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.errors import DataError

FIXTURES = Path(__file__).parents[4] / "shared" / "data" / "fixtures"
PROFILE = "https://raw.githubusercontent.com/tdwg/camtrap-dp/{}/camtrap-dp-profile.json"
TIME = "2020-05-01T10:00:{:02}Z"

DEPLOYMENTS = "deploymentID,locationID,locationName,latitude,longitude,cameraHeight,deploymentTags\n"
MEDIA = "mediaID,deploymentID,timestamp,filePath,fileName,fileMediatype\n"
OBSERVATIONS = (
    "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,observationType,scientificName,"
    "classificationMethod,classificationProbability,bboxX,bboxY,bboxWidth,bboxHeight\n"
)


def medium(number: int, deployment: str = "d1", file: str = "", kind: str = "image/jpeg", name: str = "") -> str:
    return f"m{number},{deployment},{TIME.format(number)},{file or f'{number}.jpg'},{name},{kind}\n"


def observation(media: int | str, kind: str, species: str = "", more: str = "", event: str = "e") -> str:
    start = TIME.format(media) if isinstance(media, int) else ""
    name = f"m{media}" if isinstance(media, int) else media
    return f"o,d1,{name},{event},{start},{start},media,{kind},{species},{more or 'human,,,,,'}\n"


def event(first: int, last: int, kind: str, species: str = "", name: str = "e", deployment: str = "d1") -> str:
    return f"o,{deployment},,{name},{TIME.format(first)},{TIME.format(last)},event,{kind},{species},human,,,,,\n"


def package(
    folder: Path, media: str, observations: str = "", deployments: str = "d1,loc,,,,,\n", version: str = "1.0.2"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "deployments": DEPLOYMENTS + deployments,
        "media": MEDIA + media,
        "observations": OBSERVATIONS + observations,
    }
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    resources = [{"name": name, "path": f"{name}.csv"} for name in tables]
    descriptor = {"profile": PROFILE.format(version), "resources": resources}
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    return folder


def by_id(table: PictureTable) -> dict[str, Picture]:
    return {picture.identifier: picture for picture in table.pictures}


def zipped(folder: Path, target: Path, inner: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, inner + path.relative_to(folder).as_posix())
    return target


def test_deployments_describe_cameras(tmp_path: Path) -> None:
    deployments = (
        "d1,loc,Wood,50.5,4.5,1.2,bait:none | edge\n"
        "d2,loc,Wood,50.5,4.5,0.8,\n"
        "d3,,Föhrenwald 北,NA,NaN,,\n"
        "d4,,,,,,habitat:fen\n"
    )
    media = medium(1, "d2") + medium(2, "d2") + medium(3) + medium(4, "d3") + medium(5, "d9")
    table = read_pictures(package(tmp_path, media, deployments=deployments))
    assert table.format == "Camtrap DP"
    assert [p.camera for p in table.pictures] == ["loc", "loc", "loc", "Föhrenwald 北", "d9"]
    assert [p.deployment for p in table.pictures] == ["d2", "d2", "d1", "d3", "d9"]
    assert table.cameras == {
        "loc": {"latitude": "50.5", "longitude": "4.5", "cameraHeight": "0.8", "bait": "none", "edge": "true"},
        "Föhrenwald 北": {},
        "d4": {"habitat": "fen"},
    }
    assert any("'cameraHeight'" in remark for remark in table.remarks)
    assert any("'d9'" in remark for remark in table.remarks)
    assert table.pictures[0].time == datetime(2020, 5, 1, 10, 0, 1, tzinfo=UTC)


def test_observations_of_media_are_labels_and_boxes(tmp_path: Path) -> None:
    observations = (
        observation(1, "animal", "Vulpes vulpes", "human,,.1,.1,.2,.2")
        + observation(1, "animal", "Meles meles", "human,,.5,.5,.2,.2")
        + observation(1, "animal", "Vulpes vulpes", "human,,.3,.3,.2,.2")
        + observation(2, "blank")
        + observation(3, "human", "Homo sapiens")
        + observation(4, "vehicle", "", "human,,.1,.1,.2,.2")
        + observation(5, "unknown")
        + observation(6, "animal")
        + observation(7, "animal", "Vulpes vulpes", "human,,.9,NA,.2,.2")
        + observation("gone", "blank")
    )
    table = read_pictures(package(tmp_path, "".join(map(medium, range(1, 9))), observations))
    found = by_id(table)
    assert [found[f"m{n}"].labels for n in range(1, 9)] == [
        ("Vulpes vulpes", "Meles meles"),
        (EMPTY,),
        ("human",),
        ("vehicle",),
        (),
        (),
        ("Vulpes vulpes",),
        (),
    ]
    assert [box.label for box in found["m1"].boxes or ()] == ["Vulpes vulpes", "Meles meles", "Vulpes vulpes"]
    assert found["m4"].boxes is not None
    assert found["m4"].boxes[0].category == "vehicle"
    assert found["m2"].boxes is None
    assert found["m7"].boxes == ()
    assert found["m1"].sequence == "e"
    assert any("'gone'" in remark for remark in table.remarks)


def test_machines_label_boxes_and_no_pictures(tmp_path: Path) -> None:
    observations = (
        observation(1, "animal", "Vulpes vulpes", "machine,.9,.1,.1,.2,.2")
        + observation(2, "blank", "", "machine,.9,,,,")
        + observation(3, "animal", "Meles meles", "machine,.9,.1,.1,.2,.2")
        + observation(3, "animal", "Vulpes vulpes")
    )
    found = by_id(read_pictures(package(tmp_path, medium(1) + medium(2) + medium(3), observations)))
    assert [found[name].labels for name in ("m1", "m2", "m3")] == [(), (), ("Vulpes vulpes",)]
    (box,) = found["m1"].boxes or ()
    assert (box.label, box.confidence, box.label_confidence) == ("Vulpes vulpes", 0.9, 0.9)
    assert found["m2"].boxes == ()


def test_names_by_machines_are_no_peoples_where_they_have_no_probability(tmp_path: Path) -> None:
    table = read_pictures(package(tmp_path, medium(1), observation(1, "animal", "Lynx lynx", "machine,,0.1,0,0.5,1")))
    (box,) = table.pictures[0].boxes or ()
    assert (box.label, box.confidence, box.label_confidence) == ("Lynx lynx", None, 0.0)


def test_events_label_pictures_that_have_no_observation(tmp_path: Path) -> None:
    observations = (
        event(1, 3, "animal", "Vulpes vulpes", "e1")
        + event(2, 3, "animal", "Meles meles", "e2")
        + event(5, 5, "blank", "", "e3")
        + event(1, 9, "animal", "Lynx lynx", "e4", "d2")
        + event(6, 7, "animal", "Sus scrofa", "e5")
        + observation(3, "animal", "Martes martes", event="e1")
        + observation(6, "unknown", event="e5")
        + observation(7, "unclassified", event="e5")
    )
    table = read_pictures(package(tmp_path, "".join(map(medium, range(1, 8))), observations))
    found = by_id(table)
    assert [found[f"m{n}"].labels for n in range(1, 8)] == [
        ("Vulpes vulpes",),
        ("Vulpes vulpes", "Meles meles"),
        ("Martes martes",),
        (),
        (EMPTY,),
        (),
        ("Sus scrofa",),
    ]
    assert [found[f"m{n}"].sequence for n in range(1, 8)] == ["e1", "e1", "e1", "", "e3", "e5", "e5"]
    assert any("event" in remark and "5, first 1.jpg" in remark for remark in table.remarks)


def test_media_without_an_identifier_of_their_own_have_the_labels_of_their_events(tmp_path: Path) -> None:
    media = medium(1) + medium(2).replace("m2", "") + medium(3).replace("m3", "") + medium(4).replace("m4", "m1")
    observations = event(2, 2, "animal", "Vulpes vulpes", "e1") + event(3, 3, "blank", "", "e2")
    observations += event(4, 4, "animal", "Meles meles", "e3") + observation(1, "unclassified", event="")
    table = read_pictures(package(tmp_path, media, observations))
    assert [p.labels for p in table.pictures] == [(), ("Vulpes vulpes",), (EMPTY,), ("Meles meles",)]
    assert [p.sequence for p in table.pictures] == ["", "e1", "e2", "e3"]


def test_media_with_an_address_are_looked_for_by_name(tmp_path: Path) -> None:
    media = (
        medium(1, file="https://x.org/m1/file", name="A.JPG")
        + medium(2, file="https://x.org/B%20b.jpg?size=1")
        + medium(3, file="https://x.org/m3/file", name="R0001.JPG")
        + medium(4, "d2", file="https://x.org/m4/file", name="R0001.JPG")
        + medium(5, file="sub\\5.jpg")
        + medium(6, file="../6.jpg")
        + medium(7, file="/etc/7.jpg")
        + medium(8, file="8.mp4", kind="video/mp4")
    )
    folder = package(tmp_path, media)
    for name in ("media/A.JPG", "media/d1/R0001.JPG", "media/d2/R0001.JPG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    table = read_pictures(folder)
    assert [p.path for p in table.pictures] == [
        "media/A.JPG",
        "B b.jpg",
        "media/d1/R0001.JPG",
        "media/d2/R0001.JPG",
        "sub/5.jpg",
    ]
    assert any("line 9" in remark for remark in table.remarks)
    assert any("line 7" in remark and "2," in remark for remark in table.remarks)


def test_the_descriptor_says_where_tables_lie(tmp_path: Path) -> None:
    folder = package(tmp_path, medium(1))
    (folder / "data").mkdir()
    (folder / "data" / "media-2.csv.gz").write_bytes(gzip.compress((MEDIA + medium(2)).encode()))
    descriptor = json.loads((folder / "datapackage.json").read_text())
    descriptor["resources"][1]["path"] = ["media.csv", "data/media-2.csv.gz"]
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    for path in (folder, folder / "datapackage.json"):
        assert [p.identifier for p in read_pictures(path).pictures] == ["m1", "m2"]


def test_parts_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    folder = package(tmp_path, medium(1))
    rows = [",".join(reversed(line.split(","))) for line in (MEDIA + medium(2)).splitlines()]
    (folder / "2.csv").write_text("\n".join(rows))
    descriptor = json.loads((folder / "datapackage.json").read_text())
    descriptor["resources"][1]["path"] = ["media.csv", "2.csv"]
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    assert [(p.identifier, p.path) for p in read_pictures(folder).pictures] == [("m1", "1.jpg"), ("m2", "2.jpg")]


@pytest.mark.parametrize("kind", [list, dict])
def test_tables_may_be_in_the_descriptor_itself(tmp_path: Path, kind: type) -> None:
    folder = package(tmp_path, medium(1) + medium(2), observation(1, "animal", "Vulpes vulpes"))
    plain = read_pictures(folder)
    descriptor = json.loads((folder / "datapackage.json").read_text())
    for resource in descriptor["resources"]:
        text = (folder / resource.pop("path")).read_text().splitlines()
        resource["data"] = list(csv.reader(text) if kind is list else csv.DictReader(text))
    descriptor["resources"][0]["data"][-1].update(latitude=1.5) if kind is dict else None
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    found = read_pictures(folder)
    assert found.pictures == plain.pictures
    assert found.cameras == {"loc": {"latitude": "1.5"} if kind is dict else {}}
    descriptor["resources"][1]["data"] = [1]
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    with refused(DataError, folder, "'media'"):
        read_pictures(folder)


@pytest.mark.parametrize("path", ["../media.csv", "/etc/passwd", "https://x.org/media.csv", "absent.csv", 3, []])
def test_tables_outside_of_the_package_are_refused(tmp_path: Path, path: object) -> None:
    folder = package(tmp_path / "p", medium(1))
    (tmp_path / "media.csv").write_text(MEDIA)
    descriptor = json.loads((folder / "datapackage.json").read_text())
    descriptor["resources"][1]["path"] = path
    (folder / "datapackage.json").write_text(json.dumps(descriptor))
    with refused(DataError, folder, "'media'"):
        read_pictures(folder)


@pytest.mark.parametrize("inner", ["", "package/", "branch/package/"])
def test_a_zip_file_without_pictures_is_read_like_its_folder(tmp_path: Path, inner: str) -> None:
    folder = package(tmp_path / "p", medium(1) + medium(2), observation(1, "animal", "Vulpes vulpes"))
    plain, packed = read_pictures(folder), read_pictures(zipped(folder, tmp_path / "p.zip", inner))
    assert packed.pictures == plain.pictures
    assert packed.cameras == plain.cameras
    assert packed.root == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.zip"], "nothing is unpacked"


@pytest.mark.parametrize("inner", ["", "package/"])
def test_pictures_in_a_zip_file_are_unpacked_next_to_it(tmp_path: Path, inner: str) -> None:
    folder = package(tmp_path / "p", medium(1, file="media/1.jpg") + medium(2, file="https://x.org/2", name="2.jpg"))
    (folder / "media").mkdir()
    for name in ("media/1.jpg", "media/2.jpg", "other.jpg", "notes.txt"):
        (folder / name).write_text(name)
    path = zipped(folder, tmp_path / "p.zip", inner)
    table = read_pictures(path)
    assert table.root == tmp_path / "p.zip.pictures"
    assert [(table.root / picture.path).read_text() for picture in table.pictures] == ["media/1.jpg", "media/2.jpg"]
    assert {entry.name for entry in table.root.rglob("*")} == {"media", "1.jpg", "2.jpg", ".content.json"}
    before = (table.root / "media" / "1.jpg").stat().st_mtime_ns
    assert read_pictures(path).pictures == table.pictures
    assert (table.root / "media" / "1.jpg").stat().st_mtime_ns == before, "unpacked once"
    (folder / "media" / "1.jpg").write_text("new")
    table = read_pictures(zipped(folder, path, inner))
    assert (table.root / table.pictures[0].path).read_text() == "new"
    (table.root / ".content.json").unlink()
    with refused(DataError, "p.zip.pictures", "p.zip"):
        read_pictures(path)


def test_damaged_and_hostile_zip_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path / "p", medium(1) * 5000)
    good = zipped(folder, tmp_path / "p.zip")
    monkeypatch.setattr("wildpdiff.camera_traps.data_package.MOST_BYTES", 1 << 16)
    with refused(DataError, "p.zip", "media.csv"):
        read_pictures(good)
    monkeypatch.undo()
    (folder / "1.jpg").write_bytes(bytes(1 << 16))
    packed = zipped(folder, tmp_path / "p.zip")
    monkeypatch.setattr("wildpdiff.camera_traps.data_package.MOST_PICTURES", 1 << 15)
    with refused(DataError, "p.zip", "Unpack"):
        read_pictures(packed)
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        for name in ("datapackage.json", "deployments.csv", "media.csv", "observations.csv"):
            archive.write(folder / name, name)
        archive.writestr("../1.jpg", b"outside")
    assert read_pictures(tmp_path / "out.zip").root == tmp_path
    assert not (tmp_path / "1.jpg").exists()
    assert not (tmp_path / "out.zip.pictures").exists()
    (tmp_path / "cut.zip").write_bytes(good.read_bytes()[:200])
    with refused(DataError, "cut.zip"):
        read_pictures(tmp_path / "cut.zip")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"resources": [1]}', '{"resources": []}'])
def test_damaged_descriptors_are_refused(tmp_path: Path, content: str) -> None:
    folder = package(tmp_path, medium(1))
    (folder / "datapackage.json").write_text(content)
    with refused(DataError, folder):
        read_pictures(folder / "datapackage.json")


def test_other_versions_and_missing_columns_are_named(tmp_path: Path) -> None:
    with refused(DataError, "0.1.6"):
        read_pictures(package(tmp_path / "old", medium(1), version="0.1.6"))
    folder = package(tmp_path / "new", medium(1))
    (folder / "media.csv").write_text("media_id,deployment_id\nm1,d1\n")
    with refused(DataError, "media.csv", "'mediaID'"):
        read_pictures(folder)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no local copy of the fixtures in ../shared/data")
def test_the_standards_example_is_equal_to_its_tables() -> None:
    folder = FIXTURES / "camtrap_dp_example"
    table = read_pictures(folder)
    with open(folder / "media.csv", encoding="utf-8") as stream:
        media = {row["mediaID"]: row for row in csv.DictReader(stream)}
    with open(folder / "observations.csv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["mediaID"] and row["classificationMethod"] == "human"]
    found = by_id(table)
    assert found.keys() == media.keys()
    for name, picture in found.items():
        assert picture.time is not None
        assert picture.time.isoformat() == media[name]["timestamp"]
        own = {row["scientificName"] for row in rows if row["mediaID"] == name and row["observationType"] == "animal"}
        assert set(picture.labels) - {EMPTY, "human", "vehicle"} == own - {""}
    kinds = Counter(row["observationType"] for row in rows)
    counts = Counter(label for picture in table.pictures for label in picture.labels)
    assert [counts[label] for label in (EMPTY, "human", "vehicle")] == [kinds[k] for k in ("blank", "human", "vehicle")]
    assert sum((table.root / picture.path).is_file() for picture in table.pictures) == 10
    assert table.cameras["e254a13c"]["cameraHeight"] == "1.30"
    assert table.cameras["e254a13c"]["area"] == "HS"


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no local copy of the fixtures in ../shared/data")
def test_the_small_package() -> None:
    table = read_pictures(FIXTURES / "camtrap_dp_small")
    assert [(p.path, p.camera, p.labels) for p in table.pictures] == [
        ("small_cat.jpg", "loc1", ("Felis catus",)),
        ("wild_dog_jackal.jpg", "loc1", ("Canis aureus",)),
        ("chimpanzee_bonobo.jpeg", "loc2", ("Pan",)),
        ("equid.webp", "loc2", ("Equus",)),
    ]
    assert all(len(picture.boxes or ()) == 1 for picture in table.pictures)


def test_overlapping_events_of_one_name_label_what_lies_in_any_of_them(tmp_path: Path) -> None:
    draws = random.Random(3)
    rows = [(first, first + draws.randrange(8), draws.choice("ab"), draws.choice("xyz")) for first in range(20)]
    observations = "".join(event(first, last, "animal", label, name) for first, last, name, label in rows)
    found = by_id(read_pictures(package(tmp_path, "".join(map(medium, range(30))), observations)))
    for number in range(30):
        around = [row for row in rows if row[0] <= number <= row[1]]
        assert set(found[f"m{number}"].labels) == {label for *_, label in around}
        assert (found[f"m{number}"].sequence in {name for *_, name, _ in around}) == bool(around)
