"""Tables of known formats: WILDS, LILA's index, Wildlife Insights."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.records import EMPTY, PictureTable
from wildpdiff.camera_traps.wilds import SPLIT
from wildpdiff.errors import DataError

WILDS = (
    "",
    "split",
    "location_remapped",
    "location",
    "sequence_remapped",
    "seq_id",
    "y",
    "category_id",
    "datetime",
    "filename",
    "image_id",
)
LILA = (
    "dataset_name",
    "url_gcp",
    "url_aws",
    "image_id",
    "sequence_id",
    "location_id",
    "frame_num",
    "original_label",
    "scientific_name",
    "common_name",
    "datetime",
    "annotation_level",
    "kingdom",
)
INSIGHTS = (
    "project_id",
    "deployment_id",
    "image_id",
    "filename",
    "location",
    "is_blank",
    "identified_by",
    "wi_taxon_id",
    "class",
    "order",
    "family",
    "genus",
    "species",
    "common_name",
    "timestamp",
    "number_of_objects",
)


def write(path: Path, header: tuple[str, ...], *rows: Mapping[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def wilds_row(number: int, **others: object) -> dict[str, object]:
    row = {"": number, "split": "train", "location_remapped": 5, "location": 12, "seq_id": "s", "y": 1}
    time = "2013-06-05 05:44:19.000000"
    return {**row, "datetime": time, "filename": f"{number}.jpg", "image_id": number, **others}


def wilds(folder: Path, *rows: Mapping[str, object], names: bool = True) -> PictureTable:
    path = write(folder / "metadata.csv", WILDS, *rows)
    if names:
        classes = [("0", "empty"), ("1", "ocelot"), ("2", "puma"), ("99999", "start"), ("99999", "unused")]
        rows = tuple({"y": y, "category_id": y, "name": name} for y, name in classes)
        write(folder / "categories.csv", ("y", "category_id", "name"), *rows)
    assert find_reader(path).format == "WILDS metadata"
    return read_pictures(path)


def test_wilds_gives_what_its_protocol_needs(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    splits = ("train", "val", "test", "id_val", "id_test")
    table = wilds(tmp_path, *(wilds_row(number, split=split, y=number % 3) for number, split in enumerate(splits)))
    assert table.root == tmp_path / "train"
    assert [picture.values for picture in table.pictures] == [{SPLIT: split} for split in splits]
    assert [picture.labels for picture in table.pictures] == [
        (EMPTY,), ("ocelot",), ("puma",), (EMPTY,), ("ocelot",),
    ]  # fmt: skip
    first = table.pictures[0]
    assert (first.path, first.camera, first.sequence, first.split) == ("0.jpg", "12", "s", "")
    assert first.time == datetime(2013, 6, 5, 5, 44, 19)
    assert read_pictures(tmp_path).pictures == table.pictures, "the folder stands for its table"


def test_wilds_without_names_or_locations(tmp_path: Path) -> None:
    table = wilds(tmp_path, wilds_row(1, location=""), wilds_row(2, y=0), names=False)
    assert [(picture.camera, picture.labels) for picture in table.pictures] == [("5", ("1",)), ("12", (EMPTY,))]
    remarked(table.remarks, "categories.csv")


def test_wilds_classes_may_be_written_with_a_fraction(tmp_path: Path) -> None:
    table = wilds(tmp_path, wilds_row(1, y="1.0"), wilds_row(2, y="2.0"))
    assert [picture.labels for picture in table.pictures] == [("ocelot",), ("puma",)]
    rows = ({"y": "1.0", "category_id": 1, "name": "ocelot"}, {"y": "2.0", "category_id": 2, "name": "puma"})
    write(tmp_path / "categories.csv", ("y", "category_id", "name"), *rows)
    assert wilds(tmp_path, wilds_row(1), wilds_row(2, y=2), names=False).pictures[1].labels == ("puma",)


def test_wilds_rows_at_fault(tmp_path: Path) -> None:
    table = wilds(tmp_path, wilds_row(1, filename=""), wilds_row(2, y=99999), wilds_row(3), wilds_row(3))
    assert [(picture.path, picture.labels) for picture in table.pictures] == [("2.jpg", ()), ("3.jpg", ("ocelot",))]
    remarked(table.remarks, "filename", "line 2")
    remarked(table.remarks, "99999", "line 3")
    remarked(table.remarks, "'3.jpg'")
    with refused(DataError, "metadata.csv", "line 3", "holdout", "id_val"):
        wilds(tmp_path, wilds_row(1), wilds_row(2, split="holdout"))
    write(tmp_path / "categories.csv", ("id", "name"), {"id": 1, "name": "x"})
    with refused(DataError, "categories.csv", "'y'"):
        read_pictures(tmp_path)


def lila_row(number: int, **others: object) -> dict[str, object]:
    base = "https://storage.googleapis.com/public-datasets-lila/swg"
    row = {"dataset_name": "SWG", "url_gcp": f"{base}/c%201/{number}.jpg", "image_id": f"SWG : {number}"}
    places = {"sequence_id": "SWG : s1", "location_id": "SWG : loc_9", "frame_num": 2, "annotation_level": "image"}
    names = {
        "original_label": "leopard_cat",
        "scientific_name": "prionailurus bengalensis",
        "common_name": "leopard cat",
    }
    return {**row, **places, **names, "datetime": "05-07-2019 02:54:02", **others}


def lila(folder: Path, *rows: Mapping[str, object], **columns: str) -> PictureTable:
    path = write(folder / "index.csv", LILA, *rows)
    assert find_reader(path).format == "LILA index"
    return read_pictures(path, columns)


def test_lila_rows_are_annotations_of_pictures(tmp_path: Path) -> None:
    table = lila(tmp_path, lila_row(1), lila_row(1, common_name="", scientific_name="bovidae", original_label="cow"))
    (picture,) = table.pictures
    assert picture.path == "public-datasets-lila/swg/c 1/1.jpg"
    assert picture.labels == ("leopard cat", "bovidae")
    assert (picture.camera, picture.sequence, picture.frame) == ("SWG : loc_9", "SWG : s1", 2)
    assert picture.time == datetime(2019, 5, 7, 2, 54, 2), "LILA writes the month first"
    assert picture.identifier == "SWG : 1"
    assert picture.values == {"dataset_name": "SWG"}
    assert table.remarks == ()


def test_lila_pictures_are_found_where_they_were_downloaded(tmp_path: Path) -> None:
    (tmp_path / "swg" / "c 1").mkdir(parents=True)
    (tmp_path / "swg" / "c 1" / "2.jpg").touch()
    table = lila(tmp_path, lila_row(1), lila_row(2))
    assert [picture.path for picture in table.pictures] == ["swg/c 1/1.jpg", "swg/c 1/2.jpg"]


def test_lila_words_for_what_is_not_known(tmp_path: Path) -> None:
    table = lila(
        tmp_path,
        lila_row(1, location_id="SWG", sequence_id="SWG : unknown", frame_num=-1, datetime=""),
        lila_row(2, original_label="Empty", common_name="", scientific_name="", annotation_level="sequence"),
        lila_row(3, url_gcp="", url_aws="http://h/x/3.jpg", original_label="", common_name="", scientific_name=""),
        lila_row(4, url_gcp=""),
    )
    first, second, third = table.pictures
    assert (first.camera, first.sequence, first.frame, first.time) == ("", "", None, None)
    assert [second.labels, third.labels, third.path] == [(EMPTY,), (), "x/3.jpg"]
    remarked(table.remarks, "line 3")
    remarked(table.remarks, "line 5")


def test_lila_labels_of_another_column(tmp_path: Path) -> None:
    (picture,) = lila(tmp_path, lila_row(1), label="original_label", path="Not here").pictures
    assert picture.labels == ("leopard_cat",)


def insights_row(number: int, deployment: str = "D1", **others: object) -> dict[str, object]:
    row = {"deployment_id": deployment, "image_id": f"g{number}", "filename": f"IMG_{number}.JPG", "is_blank": 0}
    store = {"location": f"gs://bucket/deployment/77{deployment}/g{number}.JPG", "identified_by": "Ada"}
    taxa = {"class": "Mammalia", "order": "Carnivora", "family": "Felidae", "genus": "Panthera", "species": "onca"}
    return {**row, **store, **taxa, "common_name": "Jaguar", "timestamp": "2021-09-15 23:12:00", **others}


def nobody(number: int, **others: object) -> dict[str, object]:
    taxa = dict.fromkeys(("class", "order", "family", "genus", "species", "common_name"), "")
    return {**insights_row(number), **taxa, **others}


def insights(folder: Path, *rows: Mapping[str, object]) -> PictureTable:
    path = write(folder / "images_2004.csv", INSIGHTS, *rows)
    assert find_reader(path).format == find_reader(folder).format == "Wildlife Insights"
    return read_pictures(path)


def test_insights_labels(tmp_path: Path) -> None:
    table = insights(
        tmp_path,
        insights_row(1),
        insights_row(2, common_name=""),
        nobody(3, is_blank=1),
        nobody(4, common_name="Blank"),
        nobody(5, common_name="No CV Result"),
        nobody(6, common_name="Misfire"),
        nobody(7),
        nobody(8, family="Felidae"),
    )
    labels = [picture.labels for picture in table.pictures]
    assert labels == [("Jaguar",), ("Panthera onca",), (EMPTY,), (EMPTY,), (), (EMPTY,), (), ("Felidae",)]
    first = table.pictures[0]
    assert first.path == "deployment/77D1/g1.JPG"
    assert (first.camera, first.deployment, first.identifier) == ("D1", "D1", "g1")
    assert first.time == datetime(2021, 9, 15, 23, 12)
    remarked(table.remarks, "deployments.csv")
    assert len(table.remarks) == 1


def test_insights_people_come_before_machines(tmp_path: Path) -> None:
    machine = {"identified_by": "Computer vision", "common_name": "Puma"}
    table = insights(
        tmp_path,
        insights_row(1, **machine),
        insights_row(1),
        insights_row(1, common_name="Ocelot"),
        insights_row(2, **machine),
        insights_row(3, is_blank="true"),
    )
    assert [picture.labels for picture in table.pictures] == [("Jaguar", "Ocelot"), ("Puma",), ("Jaguar",)]
    remarked(table.remarks, "line 5")
    remarked(table.remarks, "Jaguar", "line 6")


def test_insights_cameras_are_places(tmp_path: Path) -> None:
    header = ("deployment_id", "placename", "longitude", "latitude", "start_date", "sensor_height", "camera_id")
    write(
        tmp_path / "deployments.csv",
        header,
        {"deployment_id": "D1", "placename": "Río 1", "latitude": -8.5, "longitude": -62, "sensor_height": "Knee"},
        {"deployment_id": "D2", "placename": "Río 1", "latitude": -8.5, "longitude": -62, "sensor_height": "Chest"},
        {"deployment_id": "D3", "placename": ""},
    )
    table = insights(tmp_path, *(insights_row(number, f"D{number}") for number in (1, 2, 3, 4)))
    assert [picture.camera for picture in table.pictures] == ["Río 1", "Río 1", "D3", "D4"]
    assert [picture.deployment for picture in table.pictures] == ["D1", "D2", "D3", "D4"]
    assert table.cameras == {"Río 1": {"latitude": "-8.5", "longitude": "-62", "sensor_height": "Knee"}, "D3": {}}
    remarked(table.remarks, "sensor_height")


@pytest.mark.parametrize("file", ["deployment/77D2/g1.JPG", "D2/IMG_1.JPG", "77D2/g1.JPG", "IMG_1.JPG"])
def test_insights_pictures_lie_under_either_name(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    table = insights(tmp_path, insights_row(1, "D2"), insights_row(2, "D3"))
    assert (table.root / table.pictures[0].path).is_file()


def test_insights_in_several_files_is_one_table(tmp_path: Path) -> None:
    write(tmp_path / "images_1.csv", INSIGHTS, insights_row(1))
    write(tmp_path / "images_2.csv", INSIGHTS, insights_row(2), insights_row(3, location="", filename=""))
    table = read_pictures(tmp_path)
    assert [picture.identifier for picture in table.pictures] == ["g1", "g2"]
    remarked(table.remarks, "line 3")


def test_a_name_that_no_file_system_takes_is_a_picture_that_is_missing(tmp_path: Path) -> None:
    long = "x" * 5000
    table = insights(tmp_path, insights_row(1, location=f"gs://b/{long}.jpg", filename=f"{long}.jpg"))
    assert table.pictures[0].path == f"{long}.jpg"
    for table in (
        wilds(tmp_path, wilds_row(1, filename=long)),
        lila(tmp_path, lila_row(1, url_gcp=f"https://h/{long}")),
    ):
        assert table.pictures[0].path == long
