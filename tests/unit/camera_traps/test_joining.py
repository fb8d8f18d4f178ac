"""Several sources of the same pictures as one table."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.joining import join, read_joined
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.matching import match_paths
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.refine.labels import labelled_files

FIXTURES = Path(__file__).parents[4] / "shared" / "data" / "fixtures"
BOX = Box(0.1, 0.1, 0.2, 0.2, confidence=0.9)


def table(*pictures: Picture, root: Path = Path("/data"), name: str = "a", **others: object) -> PictureTable:
    return PictureTable(root / name, name, root, pictures, **others)  # type: ignore[arg-type]


def test_what_one_source_lacks_comes_from_the_next() -> None:
    labels = table(Picture("1.jpg", 2, "A", ("fox",), values={"count": "1"}), columns=("count",))
    boxes = table(
        Picture("1.jpg", 1, boxes=(BOX,), time=datetime(2020, 1, 1), values={"count": "2", "iso": "100"}),
        name="b",
        columns=("iso",),
        blanks=frozenset({"leer"}),
        threshold=0.2,
    )
    cameras = table(name="c", cameras={"A": {"habitat": "wood"}, "B": {"habitat": "fen"}})
    joined = join([labels, boxes, cameras])
    (picture,) = joined.pictures
    assert (picture.camera, picture.labels, picture.boxes) == ("A", ("fox",), (BOX,))
    assert picture.time == datetime(2020, 1, 1)
    assert picture.values == {"count": "1", "iso": "100"}
    assert joined.cameras == {"A": {"habitat": "wood"}, "B": {"habitat": "fen"}}
    assert (joined.columns, joined.blanks, joined.threshold) == (("count", "iso"), {"leer"}, 0.2)
    assert joined.remarks == ()


def test_differing_statements_are_the_first_tables_and_counted() -> None:
    first = table(Picture("1.jpg", 1, "A", ("fox",)), Picture("2.jpg", 2, "A", ("Red_fox",), datetime(2020, 1, 1)))
    second = table(Picture("1.jpg", 1, "A", ("deer",)), Picture("2.jpg", 2, "A", ("red fox",), datetime(2021, 1, 1)))
    joined = join([first, second])
    assert joined.pictures == first.pictures
    assert len(joined.remarks) == 2
    assert any("labels" in remark and "1.jpg" in remark for remark in joined.remarks)
    assert any("times" in remark and "2.jpg" in remark for remark in joined.remarks)


def test_videos_among_the_pictures_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path,label,task\n1.jpg,fox,A\nDCIM/2.MP4,fox,A\n3.avi,hare,A\n4.jpg,hare,A\n")
    joined = read_joined([path])
    assert [picture.path for picture in joined.pictures] == ["1.jpg", "4.jpg"]
    remarked(joined.remarks, 2, "DCIM/2.MP4")


def test_pictures_that_only_one_source_has(tmp_path: Path) -> None:
    labels = table(Picture("1.jpg", 1, "A", ("fox",)), Picture("2.jpg", 1, "A"), root=tmp_path)
    detections = table(Picture("1.jpg", 1, boxes=()), Picture("3.jpg", 2, boxes=(BOX,)), root=tmp_path, name="md")
    joined = join([labels, detections])
    assert [(p.path, p.boxes) for p in joined.pictures] == [("1.jpg", ()), ("2.jpg", None)]
    assert any("3.jpg" in remark for remark in joined.remarks)
    assert any("1 of 2" in remark for remark in joined.remarks)
    turned = join([detections, labels])
    assert [(p.path, p.camera, p.boxes) for p in turned.pictures] == [("1.jpg", "A", ()), ("2.jpg", "A", None)]
    years = join([labels, table(Picture("9.jpg", 1, "a"), root=tmp_path / "2024", name="b")])
    assert [(p.path, p.camera) for p in years.pictures[2:]] == [("2024/9.jpg", "A")]
    with refused(DataError, "md", "4.jpg", "1.jpg"):
        join([labels, table(Picture("4.jpg", 1), root=tmp_path, name="md")])
    with refused(DataError, "no tables"):
        join([])


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        (["a/1.jpg"], ["a/1.jpg"], {"a/1.jpg": "a/1.jpg"}),
        (["a/1.JPG"], ["A/1.jpg"], {"A/1.jpg": "a/1.JPG"}),
        (["Cafe\u0301/1.jpg"], ["Caf\u00e9/1.jpg"], {"Caf\u00e9/1.jpg": "Cafe\u0301/1.jpg"}),
        (["a/1.jpg", "b/1.jpg"], ["d/x/a/1.jpg", "d/x/b/1.jpg"], {"d/x/a/1.jpg": "a/1.jpg", "d/x/b/1.jpg": "b/1.jpg"}),
        (
            ["r/a/1.jpg", "r/b/1.jpg"],
            ["D:/a/1.jpg", "D:/b/1.jpg"],
            {"D:/a/1.jpg": "r/a/1.jpg", "D:/b/1.jpg": "r/b/1.jpg"},
        ),
        (["r/a/1.jpg"], ["D:/a/1.jpg", "D:/b/1.jpg"], {"D:/a/1.jpg": "r/a/1.jpg"}),
        (["1.jpg", "2.jpg"], ["a/1.jpg", "b/2.jpg"], {"a/1.jpg": "1.jpg", "b/2.jpg": "2.jpg"}),
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"], {}),
        (["a/1.jpg", "b/1.jpg"], ["1.jpg"], {}),
        (["a/1.jpg", "a/2.jpg"], ["a/1.jpg", "b/2.jpg"], {"a/1.jpg": "a/1.jpg"}),
        (["x/a/1.jpg"], ["Y/A/1.JPG", "Y/B/1.JPG"], {"Y/A/1.JPG": "x/a/1.jpg"}),
    ],
)
def test_paths_match_equal_or_by_an_end_that_no_other_has(
    first: list[str], second: list[str], pairs: dict[str, str]
) -> None:
    assert match_paths(first, second).pairs == pairs


NUMBERED = [Picture("1.jpg", 2, "North Ridge"), Picture("2.jpg", 3, "North Ridge"), Picture("1.jpg", 4, "Föhre/3")]
ON_CARDS = ["x/north_ridge/DCIM/1.jpg", "x/north_ridge/DCIM/2.jpg", "x/Föhre/3/1.jpg"]


@pytest.mark.parametrize("turned", [False, True])
def test_pictures_that_cameras_number_alike_are_told_apart_by_the_cameras_folders(turned: bool) -> None:
    boxes = [Box(0.1, 0.1, number / 10, 0.1) for number in (1, 2, 3, 4)]
    paths = [*ON_CARDS, "x/elsewhere/1.jpg"]
    detections = [Picture(path, 1, boxes=(box,)) for path, box in zip(paths, boxes, strict=True)]
    sources = [table(*NUMBERED, name="labels"), table(*detections, name="md")]
    joined = join(sources[::-1] if turned else sources)
    found = {(p.camera, p.path.rpartition("/")[2]): p.boxes for p in joined.pictures}
    wanted = {(p.camera, p.path): (box,) for p, box in zip(NUMBERED, boxes, strict=False)}
    assert found == wanted


def test_pictures_that_stay_ambiguous_are_refused_with_their_number() -> None:
    labels = table(*(replace(picture, camera=picture.camera + "?") for picture in NUMBERED), name="labels")
    detections = table(*(Picture(f"x/{path}.jpg", 1, boxes=()) for path in ("p/1", "q/1", "p/2", "q/2")), name="md")
    one = table(*NUMBERED[:2], name="labels")
    with refused(DataError, "md", "labels", "2 pictures", "x/p/1.jpg", "--columns folder"):
        join([one, detections])
    with refused(DataError, "md", "2.jpg"):
        join([labels, detections])
    assert match_paths(["a/1.jpg", "b/1.jpg"], ["1.jpg"]).ambiguous == {"1.jpg": ["a/1.jpg", "b/1.jpg"]}
    assert match_paths(["a/1.jpg", "b/1.jpg"], ["r/a/1.jpg", "r/b/1.jpg", "1.jpg"]).ambiguous == {}


def test_a_number_alone_is_no_evidence_where_folders_are_cameras() -> None:
    cameras = {"1.jpg": "a", "2.jpg": "a", "9.jpg": "a"}
    found = match_paths(cameras, ["x/a/1.jpg", "x/a/2.jpg", "x/b/1.jpg", "x/b/9.jpg"], (cameras, {}))
    assert found.pairs == {"x/a/1.jpg": "1.jpg", "x/a/2.jpg": "2.jpg"}


@pytest.mark.parametrize("turned", [False, True])
def test_folders_of_a_camera_that_number_pictures_alike_are_told_apart(turned: bool) -> None:
    every = [f"{camera}/{card}/{n}.jpg" for camera in ("a", "b") for card in ("100", "101") for n in (1, 2)]
    labelled = {f"mine/{path}": path[0] for path in every if "101/1" not in path}
    sources: list[dict[str, str]] = [labelled, {f"all/{path}": "" for path in every}]
    first, second = sources[::-1] if turned else sources
    found = match_paths(first, second, (first, second))
    own = {f"all/{path}": f"mine/{path}" for path in every if f"mine/{path}" in labelled}
    assert found.ambiguous == {}
    assert found.pairs == ({path: other for other, path in own.items()} if turned else own)


def test_equal_paths_below_two_roots_are_two_pictures_where_both_are_files(tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        (tmp_path / year).mkdir()
        (tmp_path / year / "1.jpg").write_text(year)
        (tmp_path / year / "labels.csv").write_text(f"path,label,task\n1.jpg,fox {year},A\n")
        write_detections(tmp_path / year / "md.json", "1.jpg", 0.1 if year == "2023" else 0.2)
    names = ("2023/labels.csv", "2024/labels.csv", "2023/md.json", "2024/md.json")
    joined = read_joined([tmp_path / name for name in names])
    assert {p.labels: p.boxes and p.boxes[0].left for p in joined.pictures} == {("fox 2023",): 0.1, ("fox 2024",): 0.2}
    assert all((joined.root / p.path).is_file() for p in joined.pictures)


def test_paths_are_read_in_the_spelling_on_disk_where_it_is_the_only_one(tmp_path: Path) -> None:
    names = ("Cam 1/Ä.JPG", "cam 2/b.jpg", "cam 2/B.jpg", "cam 2/c.jpg", "cam 2/d.jpg", "cam 2/d.txt", "e.jpg", "e.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if len(list(tmp_path.rglob("*.*"))) < len(names):
        pytest.skip("the file system does not tell case apart")
    written = ("cam 1/a\u0308.jpg", "cam 2/D", "CAM 2/b.JPG", "cam 2/c.jpg", "cam 2/C.JPG", "cam 3/d.jpg", "e")
    (tmp_path / "t.csv").write_text("\n".join(["path,label,task", *(f"{path},fox,A" for path in written)]))
    joined = read_joined([tmp_path / "t.csv"])
    assert [p.path for p in joined.pictures] == ["Cam 1/Ä.JPG", "cam 2/d.jpg", *written[2:]]
    remarked(joined.remarks, "Cam 1/Ä.JPG")
    labelled = labelled_files(tmp_path / "t.csv", ("fox",))
    assert labelled.files[0] == tmp_path / "Cam 1/Ä.JPG"


def test_file_names_alone_are_in_the_folders_of_their_cameras(tmp_path: Path) -> None:
    for folder in ("cam_a", "Cam B"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
    (tmp_path / "t.csv").write_text("path,label,task\n1.jpg,fox,Cam A\n1.jpg,hare,Cam B\n")
    joined = read_joined([tmp_path / "t.csv"])
    assert [(p.camera, p.path) for p in joined.pictures] == [("Cam A", "cam_a/1.jpg"), ("Cam B", "Cam B/1.jpg")]
    assert len(joined.remarks) == 1


def write_detections(path: Path, file: str, left: float) -> None:
    found = [{"category": "1", "conf": 0.9, "bbox": [left, 0.1, 0.2, 0.2]}]
    content = {"info": {"format_version": "1.4"}, "detection_categories": {"1": "animal"},
               "images": [{"file": file, "detections": found}]}  # fmt: skip
    path.write_text(json.dumps(content))


def test_the_path_is_where_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.jpg").touch()
    labels = table(Picture("a/1.jpg", 1, "A"), Picture("a/2.jpg", 1, "A"), root=tmp_path)
    boxes = table(Picture("photos/a/1.jpg", 1, boxes=()), root=tmp_path, name="md")
    joined = join([labels, boxes])
    assert (joined.root / joined.pictures[0].path).is_file()
    assert any("photos/a/1.jpg" in remark for remark in joined.remarks)


def test_cameras_match_in_any_spelling() -> None:
    pictures = table(Picture("1.jpg", 1, "Cam_1"), Picture("2.jpg", 1, "Cam 2"), Picture("3.jpg", 1, "Föhrenwald"))
    cameras = table(name="c", cameras={"CAM 1": {"x": "1"}, "cam-2": {"x": "2"}, "New": {"x": "3"}})
    joined = join([pictures, cameras])
    assert joined.cameras == {"Cam_1": {"x": "1"}, "Cam 2": {"x": "2"}, "New": {"x": "3"}}
    assert any("'Föhrenwald'" in remark for remark in joined.remarks)
    with refused(DataError, "'Z'", "'Cam_1'"):
        join([pictures, replace(cameras, cameras={"Z": {}})])


def test_a_cameras_name_is_one_in_either_form_of_unicode() -> None:
    names = ("Föhre", "Fo\u0308hre")
    pictures = [Picture(f"{number}.jpg", 1, name) for number, name in enumerate(names)]
    joined = join([table(*pictures, cameras={names[1]: {"x": "1"}, names[0]: {"y": "2"}})])
    assert {p.camera for p in joined.pictures} == {names[0]}
    assert joined.cameras == {names[0]: {"x": "1", "y": "2"}}


def test_cameras_that_are_numbers_match_as_numbers() -> None:
    pictures = table(Picture("1.jpg", 1, "1.0"), Picture("2.jpg", 1, "2.0"), Picture("3.jpg", 1, "1.5"))
    joined = join([pictures, table(name="c", cameras={"01": {"x": "1"}, "2": {"x": "2"}, "15": {"x": "3"}})])
    assert joined.cameras == {"1.0": {"x": "1"}, "2.0": {"x": "2"}, "15": {"x": "3"}}
    apart = table(Picture("1.jpg", 1, "1"), Picture("2.jpg", 1, "01"))
    with refused(DataError, "'1.0'"):
        join([apart, table(name="c", cameras={"1.0": {"x": "1"}})])


def test_cameras_match_by_their_deployments() -> None:
    pictures = table(Picture("1.jpg", 1, "A", deployment="d1"), Picture("2.jpg", 1, "A", deployment="d2"))
    joined = join([pictures, table(name="c", cameras={"d1": {"x": "1"}, "d2": {"x": "2", "y": "3"}})])
    assert joined.cameras == {"A": {"x": "1", "y": "3"}}
    assert any("'d1'" in remark for remark in joined.remarks)


def test_each_table_takes_the_columns_that_it_has(tmp_path: Path) -> None:
    (tmp_path / "pictures.csv").write_text("Bild;Art;Ort\na.jpg;Fuchs;Nord\n")
    (tmp_path / "cameras.csv").write_text("Ort,Höhe\nNord,1480\n", encoding="cp1252")
    (tmp_path / "md.json").write_text(
        json.dumps(
            {
                "info": {"format_version": "1.4"},
                "detection_categories": {"1": "animal"},
                "images": [
                    {"file": "A.JPG", "detections": [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.2, 0.2]}]}
                ],
            }
        )
    )
    paths = [tmp_path / name for name in ("pictures.csv", "md.json", "cameras.csv")]
    columns = {"path": "Bild", "label": "Art", "task": "Ort"}
    joined = read_joined(paths, columns)
    (picture,) = joined.pictures
    assert (picture.path, picture.labels, picture.camera) == ("a.jpg", ("Fuchs",), "Nord")
    assert picture.boxes is not None
    assert joined.cameras == {"Nord": {"Höhe": "1480"}}
    with refused(DataError, "'Zeit'", "datetime"):
        read_joined(paths, {**columns, "datetime": "Zeit"})


@pytest.mark.parametrize("folder", ["", "labels"])
@pytest.mark.parametrize("path", ["a/1.jpg", "{root}/a/1.jpg", "D:\\old\\a\\1.jpg", "../photos/a/1.jpg"])
def test_a_stated_root_stands_before_the_tables_own(tmp_path: Path, path: str, folder: str) -> None:
    root = tmp_path / "photos"
    for made in (root / "a", tmp_path / "labels"):
        made.mkdir(parents=True)
    (root / "a" / "1.jpg").touch()
    (tmp_path / folder / "t.csv").write_text(f"path,label,task\n{path.format(root=root)},fox,A\n")
    joined = read_joined([tmp_path / folder / "t.csv"], root=root)
    assert joined.root == root
    assert (root / joined.pictures[0].path).is_file()


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no local copy of the fixtures in ../shared/data")
def test_three_forms_of_the_same_photographs_have_the_same_labels() -> None:
    folder = FIXTURES / "ena24_small"
    forms = [
        read_pictures(folder / "coco_annotations.json"),
        read_joined([folder / "md_annotations.json", folder / "labels.csv"]),
        read_pictures(folder / "labels.csv"),
    ]
    found = []
    for form in forms:
        names = joined_labels(label for picture in form.pictures for label in picture.labels)
        found.append({picture.path: names.of(picture.labels) for picture in form.pictures})
        assert all((form.root / picture.path).is_file() for picture in form.pictures)
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 21
    assert all(found[0].values())
    assert all(picture.boxes for form in forms[:2] for picture in form.pictures)
