"""Tables and folders of images: what they give, and the sentence for every way they can be wrong."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.table_suite import MAX_EXAMPLES, TableSuite
from wildpdiff.errors import DataError
from wildpdiff.tasks.image_files import read_images

PROJECT = Path(__file__).parents[3]
DATA = PROJECT.parent / "shared" / "data"
HEADER = ("path", "label", "task", "split")


def save_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_table(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = HEADER) -> Path:
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "table.csv"


def task_rows(folder: Path, task: str, splits: str = "tttttttttvvee", **extra: str) -> list[dict[str, str]]:
    """One image per letter: t rain, v alidation, e (test), u nlabelled, b ackground, - (none stated)."""
    names = {"t": "train", "v": "validation", "e": "test", "u": "unlabelled", "b": "background", "-": ""}
    rows = []
    for index, letter in enumerate(splits):
        path = f"{task}/{index}.png"
        save_image(folder / path, (index, 100 * (letter == "u"), 100 * (letter == "b")))
        label = "" if letter in "ub" else ("cat", "dog")[index % 2]
        rows.append({"path": path, "label": label, "task": task, "split": names[letter], **extra})
    return rows


def error_of(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        TableSuite.from_csv(path, image_size=8, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_table_gives_its_images_labels_and_description(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", "tttttttttvveeeub") + task_rows(tmp_path, "b")
    suite = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8)
    first, second = suite.tasks("seen")
    assert suite.classes == ("cat", "dog")
    assert suite.tasks("unseen") == suite.tasks("pretraining") == ()
    train = first.data("train")
    assert train.images.shape == (9, 8, 8, 3)
    assert train.images[:, 0, 0, 0].tolist() == list(range(9))
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert first.data("test").images[:, 0, 0, 0].tolist() == [11, 12, 13]
    description = first.description
    assert description.parts == ("backgrounds", "examples", "task_id")
    assert description.examples is not None
    assert description.backgrounds is not None
    assert description.examples[:, 0, 0].tolist() == [[14, 100, 0]]
    assert description.backgrounds[:, 0, 0].tolist() == [[15, 0, 100]]
    # Without unlabelled rows the examples are the training images, none of validation or test.
    examples = second.description.examples
    assert examples is not None
    assert sorted(examples[:, 0, 0, 0].tolist()) == list(range(9))


def test_examples_from_training_images_are_limited(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", "t" * 40 + "ve")
    (task,) = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8).tasks("seen")
    examples = task.description.examples
    assert examples is not None
    assert len(examples) == MAX_EXAMPLES


def test_rows_without_a_split_are_divided_60_15_25_whatever_their_order(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", "-" * 200)
    members = []
    for order in (rows, rows[::-1], rows[:150]):
        (task,) = TableSuite.from_csv(write_table(tmp_path, order), image_size=8).tasks("seen")
        members.append({row.path: row.split for row in task.placement.pictures})
    sizes = Counter(members[0].values())
    assert sizes["train"] == pytest.approx(120, abs=25)
    assert sizes["validation"] == pytest.approx(30, abs=18)
    assert sizes["test"] == pytest.approx(50, abs=20)
    assert members[0] == members[1]
    assert members[2].items() <= members[0].items()


def test_metadata_is_typed_and_belongs_to_the_task(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", latitude="-2.5", habitat="wood", trees="3")
    rows += task_rows(tmp_path, "b", latitude="1", habitat="", trees="nan")
    columns = (*HEADER, "latitude", "habitat", "trees", "empty")
    suite = TableSuite.from_csv(write_table(tmp_path, rows, columns), image_size=8, unseen=["b"])
    fields = {entry.name: (entry.kind, entry.geographic) for entry in suite.metadata_schema.fields}
    assert fields == {"latitude": ("number", "latitude"), "habitat": ("category", None), "trees": ("number", None)}
    assert suite.tasks("seen")[0].description.metadata == {"latitude": -2.5, "habitat": "wood", "trees": 3.0}
    unseen = suite.tasks("unseen")[0].description
    assert unseen.metadata == {"latitude": 1.0}
    assert unseen.task_id is None


def test_groups_come_from_the_column_or_are_drawn_by_the_seed(tmp_path: Path) -> None:
    rows = [row for name in "abcdefgh" for row in task_rows(tmp_path, name)]
    path = write_table(tmp_path, rows)
    drawn = {
        seed: [task.name for task in TableSuite.from_csv(path, image_size=8, unseen=0.25, seed=seed).tasks("unseen")]
        for seed in range(6)
    }
    assert {len(names) for names in drawn.values()} == {2}
    assert len({tuple(names) for names in drawn.values()}) > 1
    assert drawn[3] == [t.name for t in TableSuite.from_csv(path, image_size=8, unseen=2, seed=3).tasks("unseen")]
    for row in rows:
        row["group"] = {"a": "pretraining", "b": "unseen"}.get(row["task"], "seen")
    rows[1]["group"] = ""  # the camera's other rows state it
    path = write_table(tmp_path, rows, (*HEADER, "group"))
    suite = TableSuite.from_csv(path, image_size=8)
    assert [task.name for task in suite.tasks("pretraining")] == ["a"]
    assert [task.name for task in suite.tasks("unseen")] == ["b"]
    assert "give only one" in error_of(path, unseen=2)


def test_about_a_fifth_of_ten_cameras_or_more_are_unseen_and_a_further_one_moves_none(tmp_path: Path) -> None:
    rows = [row for number in range(30) for row in task_rows(tmp_path, f"c{number}")]
    suites = [
        TableSuite.from_csv(write_table(tmp_path, rows[: 13 * count]), image_size=8, **options)
        for count, options in ((9, {}), (20, {}), (30, {}), (30, {"unseen": 0}))
    ]
    few, some, all_, none = ({task.name for task in suite.tasks("unseen")} for suite in suites)
    assert few == none == set()
    assert 2 <= len(all_) <= 11
    assert some == all_ & {f"c{number}" for number in range(20)}
    assert len(suites[3].tasks("seen")) == 30


def test_task_names_become_file_names_and_titles_stay(tmp_path: Path) -> None:
    rows = [row for name in ("cam 1", "cam/1", "Föhrenwald Süd/3", "カメラ") for row in task_rows(tmp_path, name)]
    suite = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8)
    names = [task.name for task in suite.tasks("seen")]
    assert "cam-1" in names
    assert len(set(names)) == 4
    assert all(name.isascii() and "/" not in name and " " not in name for name in names)
    for title in ("cam 1", "cam/1", "Fo\u0308hrenwald Su\u0308d/3", "カメラ"):
        task = suite.find(title)
        assert task is not None
        assert suite.find(task.name) is task
    alone = TableSuite.from_csv(write_table(tmp_path, rows[13:26]), image_size=8).tasks("seen")[0]
    assert suite.find("cam/1").name == alone.name  # type: ignore[union-attr]


def test_the_fingerprint_follows_content_not_folder_or_time(tmp_path: Path) -> None:
    prints = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        path = write_table(folder, task_rows(folder, "a"))
        prints.append(TableSuite.from_csv(path, image_size=8).fingerprint)
    assert prints[0] == prints[1]
    assert TableSuite.from_csv(path, image_size=9).fingerprint != prints[0]
    save_image(folder / "a" / "3.png", (9, 9, 9), (40, 31))
    assert TableSuite.from_csv(path, image_size=8).fingerprint != prints[0]


def test_the_fingerprint_covers_only_what_is_learned_from(tmp_path: Path) -> None:
    rows = [row for name in "abc" for row in task_rows(tmp_path, name, group="seen", height="1.5")]
    rows += task_rows(tmp_path, "d", group="unseen", height="2")
    columns = (*HEADER, "group", "height")

    def prints(changed: list[dict[str, str]]) -> tuple[str, str, str]:
        suite = TableSuite.from_csv(write_table(tmp_path, changed, columns), image_size=8)
        return suite.fingerprint, suite.learned_fingerprint("unseen"), suite.content_hash

    before = prints(rows)
    new = task_rows(tmp_path, "new", "uuuu", group="unseen", height="high")
    without_test = [row for row in rows if row["path"] != "a/11.png"]
    for changed in (rows[::-1], without_test, [*rows, *new]):
        assert prints(changed)[:2] == before[:2]
    assert prints(rows[::-1]) == before
    assert prints(without_test)[2] != before[2] != prints([*rows, *new])[2]
    assert prints([row for row in rows if row["path"] != "d/0.png"])[0] == before[0]
    assert prints([row for row in rows if row["path"] != "d/0.png"])[1] != before[1]
    for changed in (
        [row for row in rows if row["path"] != "a/0.png"],
        [{**row, "label": "dog"} if row["path"] == "a/0.png" else row for row in rows],
        [{**row, "height": "1.6"} if row["task"] == "a" else row for row in rows],
    ):
        assert prints(changed)[0] != before[0]


def test_folders_of_tasks_and_classes(tmp_path: Path) -> None:
    for task in ("north", "south"):
        for label in ("cat", "dog"):
            for index in range(10):
                save_image(tmp_path / task / label / f"{index}.png", (index, 0, 0))
    save_image(tmp_path / "north" / "_background" / "night.png", (1, 2, 3))
    (tmp_path / "north" / "cat" / "notes.txt").write_text("no image")
    suite = TableSuite.from_folder(tmp_path, image_size=8, unseen=["south"])
    (task,) = suite.tasks("seen")
    assert suite.classes == ("cat", "dog")
    sizes = [len(task.data(split)) for split in ("train", "validation", "test")]
    assert sum(sizes) == 20
    assert all(sizes)
    assert task.description.backgrounds is not None
    assert task.description.backgrounds[0, 0, 0].tolist() == [1, 2, 3]
    with refused(DataError, tmp_path / "north" / "cat", "TASK/CLASS/IMAGE"):
        TableSuite.from_folder(tmp_path / "north" / "cat", image_size=8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"path,label,task\n", "no rows below its header"),
        (b"path,label,task,task\n", "task"),
        (b"path,label,task\na.png,cat\n", "line 2"),
        (b"path,label,task,split\na.png,cat,x,sometimes\n", "line 2: the split is 'sometimes'"),
        (b"path,label,task,group\na,c,x,seen\nb,c,x,unseen\n", "'seen' above and 'unseen' here"),
        (b"path,label,task,lat\na,c,x,134\n", "a latitude lies within"),
        (b"path,label,task,latitude\na,c,x,north\n", "decimal degrees"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    message = error_of(tmp_path / "table.csv", unreadable=1.0)
    assert expected in message
    assert str(tmp_path / "table.csv") in message


def test_faults_of_options_and_labels_are_named(tmp_path: Path) -> None:
    assert "absent.csv" in error_of(tmp_path / "absent.csv")
    path = write_table(tmp_path, task_rows(tmp_path, "a"))
    assert "the label 'dog' is unknown; the classes are cat, cow" in error_of(path, classes=("cat", "cow"))
    assert "no camera 'z'" in error_of(path, unseen=["z"])
    assert "unseen is 1 of 1 cameras" in error_of(path, unseen=1)
    assert "unreadable is 2" in error_of(path, unreadable=2.0)


def test_cameras_that_cannot_teach_stand_in_the_suite(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "good", height="1") + task_rows(tmp_path, "few", "ttve", height="2")
    rows += [{**row, "label": "cat"} for row in task_rows(tmp_path, "one", height="3")]
    rows += [{**row, "split": "", "label": ""} for row in task_rows(tmp_path, "new", "----", height="4")]
    suite = TableSuite.from_csv(write_table(tmp_path, rows, (*HEADER, "height")), image_size=8)
    assert [task.title for task in suite.tasks("seen")] == ["good"]
    assert [task.title for task in suite.described] == ["few", "new", "one"]
    (told,) = [sentence for sentence in suite.remarks if "do not teach" in sentence]
    assert all(name in told for name in ("few", "one", "new"))
    new = suite.find("new")
    assert new is not None
    assert new.description.metadata == {"height": 4.0}
    assert new.description.examples is not None
    assert len(new.description.examples) == 4
    assert len(new.data("train")) == 0
    assert "few" in suite.why_none("seen")


def test_unseen_cameras_with_few_pictures_are_measured_on_all_the_same(tmp_path: Path) -> None:
    rows = [*task_rows(tmp_path, "a", group="seen"), *task_rows(tmp_path, "new", group="unseen")]
    rows += task_rows(tmp_path, "Föhre/3", "ttee", group="unseen") + task_rows(tmp_path, "none", "uu", group="unseen")
    rows += task_rows(tmp_path, "few", "ttee", group="seen")
    suite = TableSuite.from_csv(write_table(tmp_path, rows, (*HEADER, "group")), image_size=8)
    assert [task.title for task in suite.tasks("unseen")] == ["new"]
    assert [task.title for task in suite.untuned] == ["Föhre/3"]
    assert len(suite.untuned[0].data("test")) == 2
    remarked(suite.remarks, "Föhre/3", "1 camera")
    named = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8, unseen=["Föhre/3", "few"])
    assert [task.title for task in named.untuned] == ["Föhre/3", "few"]
    assert "under 8 to train" in named.why_none("unseen")


def test_where_nothing_names_cameras_folders_are_cameras(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a") + task_rows(tmp_path, "b")
    suite = TableSuite.from_csv(write_table(tmp_path, rows, ("path", "label", "split")), image_size=8)
    assert [task.title for task in suite.tasks("seen")] == ["a", "b"]
    assert any("--columns task=" in sentence for sentence in suite.remarks)


@pytest.mark.skipif(not (DATA / "fixtures").is_dir(), reason="no local copy of the fixtures in ../shared/data")
def test_three_forms_of_the_same_photographs_are_the_same_suite() -> None:
    folder = DATA / "fixtures" / "ena24_small"
    forms = [
        ["coco_annotations.json"],
        ["md_annotations.json", "labels.csv"],
        ["labels.csv"],
        ["labels.csv", "md_annotations.json"],
    ]
    suites = [TableSuite.of(*(folder / name for name in names), image_size=32) for names in forms]
    assert {suite.content_hash for suite in suites} == {suites[0].content_hash}
    assert {suite.classes for suite in suites} == {suites[0].classes}
    assert [len(suite.all_tasks[0].placement.pictures) for suite in suites] == [21] * 4


def test_a_species_that_nothing_teaches_is_left_out_where_nothing_is_learned(tmp_path: Path) -> None:
    rows = [{**row, "group": "seen"} for row in task_rows(tmp_path, "a")]
    rows += [{**row, "group": "unseen"} for row in task_rows(tmp_path, "b", "t" * 12 + "vvee")]
    rows[-1]["label"] = "stoat"
    path = write_table(tmp_path, rows, (*HEADER, "group"))
    assert TableSuite.from_csv(path, image_size=8).classes == ("cat", "dog", "stoat")
    suite = TableSuite.from_csv(path, image_size=8, trained=True)
    assert suite.classes == ("cat", "dog")
    assert len(suite.tasks("unseen")[0].data("test")) == 1
    assert any("stoat 1" in sentence for sentence in suite.remarks)


def test_a_species_of_validation_pictures_alone_is_left_out_with_the_classes_of_a_pretraining(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", "t" * 10 + "vvvee")
    rows[10]["label"] = "stoat"
    path = write_table(tmp_path, rows)
    inferred = TableSuite.from_csv(path, image_size=8, trained=True)
    given = TableSuite.from_csv(path, image_size=8, classes=inferred.classes)
    assert given.classes == ("cat", "dog")
    assert given.fingerprint == inferred.fingerprint
    assert len(given.tasks("seen")[0].data("validation")) == 2


def test_absolute_paths_of_another_machine_are_below_the_stated_root(tmp_path: Path) -> None:
    rows = task_rows(tmp_path / "sd", "a")
    rows = [{**row, "path": "D:\\traps\\" + row["path"].replace("/", "\\")} for row in rows]
    suite = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8, root=tmp_path / "sd")
    assert not suite.unreadable.faults
    assert suite.tasks("seen")[0].rows("train")[0].path.startswith("a/")


def test_variants_of_a_label_are_one_class(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a")
    for row, label in zip(rows, ("Red_Fox", "red fox ", "Red_fox", "Red_Fox", "hare", "Hare", "hare"), strict=False):
        row["label"] = label
    suite = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8)
    assert suite.classes == ("Red_Fox", "cat", "dog", "hare")
    assert any("Red_Fox" in sentence for sentence in suite.remarks)


def test_columns_of_pictures_are_no_metadata(tmp_path: Path) -> None:
    rows = [row for name in "ab" for row in task_rows(tmp_path, name, habitat="wood")]
    rows = [{**row, "count": str(index % 3), "note": "x" if index else "y"} for index, row in enumerate(rows)]
    path = write_table(tmp_path, rows, (*HEADER, "count", "note", "habitat"))
    suite = TableSuite.from_csv(path, image_size=8)
    assert suite.metadata_schema.names == ("note", "habitat")
    (told,) = [sentence for sentence in suite.remarks if "'count'" in sentence]
    assert "left out" in told
    assert suite.tasks("seen")[0].description.metadata == {"note": "x", "habitat": "wood"}
    assert TableSuite.from_csv(path, image_size=8, ignore=["note"]).metadata_schema.names == ("habitat",)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "absent"])
def test_unreadable_images_are_left_out_up_to_a_share(tmp_path: Path, damage: str) -> None:
    rows = task_rows(tmp_path, "a")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = tmp_path / "a" / "2.png"
    Image.fromarray(noise).save(file)
    whole = file.read_bytes()
    contents = {"truncated": whole[:2000], "text": b"not an image", "empty": b""}
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(contents[damage])
    path = write_table(tmp_path, rows)
    suite = TableSuite.from_csv(path, image_size=8)
    (task,) = suite.tasks("seen")
    assert task.data("train").images[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
    assert task.data("train").labels.tolist() == [0, 1, 1, 0, 1, 0, 1, 0]
    assert list(suite.unreadable.faults) == ["a/2.png"]
    assert any("a/2.png" in sentence for sentence in suite.unreadable.remarks)
    with refused(DataError, "a/2.png"):
        TableSuite.from_csv(path, image_size=8, unreadable=0.05).tasks("seen")[0].data("train")
    assert len(TableSuite.from_csv(path, image_size=8, unreadable=0.1).tasks("seen")[0].data("train")) == 8


def test_a_broken_picture_moves_no_other(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "a", "-" * 60)
    path = write_table(tmp_path, rows)
    before = {
        row.path: row.split for row in TableSuite.from_csv(path, image_size=8).tasks("seen")[0].placement.pictures
    }
    (tmp_path / "a" / "7.png").unlink()
    (task,) = TableSuite.from_csv(path, image_size=8).tasks("seen")
    assert {row.path: row.split for row in task.placement.pictures} == {
        name: split for name, split in before.items() if name != "a/7.png"
    }


def test_read_images_crops_the_centred_square_and_turns_upright(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    tall = Image.fromarray(np.repeat(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None], 10, 1).repeat(3, 2))
    turned = Image.Exif()
    turned[0x0112] = 3  # the camera was upside down
    tall.save(tmp_path / "turned.png", exif=turned)
    Image.new("L", (10, 10), 77).save(tmp_path / "grey.png")
    names = ("wide", "turned", "grey")
    images = read_images([tmp_path / f"{name}.png" for name in names], 10)
    assert images.shape == (3, 10, 10, 3)
    assert (images[0] == 200).all()
    assert images[1, :, 0, 0].tolist() == list(range(180, -1, -20))
    assert (images[2] == 77).all()
    with refused(DataError, "no images"):
        read_images([], 10)
    with refused(DataError, tmp_path / "absent.png"):
        read_images([tmp_path / "absent.png"], 10)
    with refused(DataError, tmp_path, "folder"):
        read_images([tmp_path], 10)


def load_make_sites() -> ModuleType:
    path = PROJECT / "benchmarks" / "experiments" / "pacs_sites" / "make_sites.py"
    spec = importlib.util.spec_from_file_location("make_sites", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_sites"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not (DATA / "pacs").is_dir(), reason="no local copy of PACS in ../shared/data")
def test_pacs_sites_share_no_image_between_splits(tmp_path: Path) -> None:
    make_sites = load_make_sites()
    table = DATA / "metadata" / "conservision_site_label.csv"
    arguments = ["--pacs", str(DATA / "pacs"), "--table", str(table), "--sites", "12", "--unseen", "4"]
    make_sites.main([*arguments, "--out", str(tmp_path / "one")])
    make_sites.main([*arguments, "--out", str(tmp_path / "two")])
    assert (tmp_path / "one" / "sites.csv").read_bytes() == (tmp_path / "two" / "sites.csv").read_bytes()

    suite = TableSuite.from_csv(tmp_path / "one" / "sites.csv", image_size=32, root=DATA / "pacs")
    assert [len(suite.tasks(group)) for group in ("pretraining", "seen", "unseen")] == [4, 8, 4]
    pools: dict[str, set[str]] = defaultdict(set)
    for group in ("pretraining", "seen", "unseen"):
        for task in suite.tasks(group):
            for split in ("train", "validation", "test", "unlabelled"):
                key = f"pretraining {split}" if group == "pretraining" else split
                pools[key] |= {row.path for row in task.rows(split)}
    assert sum(map(len, pools.values())) == len(set.union(*pools.values()))
    for task in (*suite.tasks("seen"), *suite.tasks("unseen")):
        sizes = [len(task.rows(split)) for split in ("train", "validation", "test", "unlabelled")]
        assert sizes == [120, 30, 80, 24]
        counts = [Counter(row.label for row in task.rows(split)) for split in ("train", "test")]
        shares = [{label: n / found.total() for label, n in found.items()} for found in counts]
        assert all(abs(shares[0].get(c, 0) - shares[1].get(c, 0)) < 0.03 for c in suite.classes)
    assert suite.tasks("unseen")[0].data("validation").images.shape == (30, 32, 32, 3)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_grey_pictures_of_more_than_eight_bits_are_not_cut_off_at_white(tmp_path: Path, mode: str) -> None:
    ramp = np.tile(np.arange(16, dtype=np.float64) * 17, (16, 1))
    values = {"I;16": (ramp * 257).astype(np.uint16), "I": (ramp * 257).astype(np.int32), "F": (ramp / 255)}[mode]
    name = tmp_path / ("deep.png" if mode == "I;16" else "deep.tif")
    Image.fromarray(values.astype(np.float32) if mode == "F" else values).save(name)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = read_images([name, tmp_path / "plain.png"], 16)
    assert np.abs(deep.astype(int) - plain.astype(int)).max() <= 1
    assert plain.max() == 255


def test_files_without_a_picture_are_refused_and_cameras_alone_are_not(tmp_path: Path) -> None:
    batch = {"detection_categories": {"1": "animal"}, "images": [{"file": "\ud800.jpg", "detections": []}]}
    for name, content in (
        ("coco.json", {"images": [], "annotations": [], "categories": []}),
        ("batch.json", {**batch, "images": []}),
        ("half.json", batch),
        ("species.json", {"predictions": []}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        with refused(DataError, tmp_path / name, "picture"):
            TableSuite.of(tmp_path / name, image_size=8)
    (tmp_path / "cameras.csv").write_text("camera,latitude\nA,1.5\nB,2\n")
    suite = TableSuite.of(tmp_path / "cameras.csv", image_size=8)
    assert [(task.title, task.metadata) for task in suite.described] == [
        ("A", {"latitude": 1.5}),
        ("B", {"latitude": 2}),
    ]


def test_a_name_that_no_file_can_have_is_a_missing_picture(tmp_path: Path) -> None:
    rows = [*task_rows(tmp_path, "a"), {"path": "x" * 5000 + ".png", "label": "cat", "task": "a"}]
    assert set(TableSuite.of(write_table(tmp_path, rows), image_size=8).unreadable.faults.values()) == {"missing"}


@pytest.mark.parametrize(
    ("splits", "known", "expected"),
    [
        ("-" * 14, {}, 1),
        ("-" * 14, {"sequence": "one"}, 0),
        ("-" * 14, {"datetime": "2024-03-01 11:00:00"}, 0),
        ("tttttttttvvee", {}, 0),
    ],
)
def test_drawn_splits_of_pictures_without_time_and_sequence_are_remarked(
    tmp_path: Path, splits: str, known: dict[str, str], expected: int
) -> None:
    rows = task_rows(tmp_path, "a") + task_rows(tmp_path, "b", splits, **known)
    suite = TableSuite.from_csv(write_table(tmp_path, rows, (*HEADER, *known)), image_size=8)
    assert sum("sequence=COLUMN" in sentence for sentence in suite.remarks) == expected
