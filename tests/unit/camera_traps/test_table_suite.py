"""Tables and folders of images: what they give, and the sentence for every way they can be wrong."""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from refusals import refused
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
        writer = csv.DictWriter(file, columns, restval="")
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
    rows = task_rows(tmp_path, "a", "-" * 40)
    sizes, members = [], []
    for order in (rows, rows[::-1]):
        (task,) = TableSuite.from_csv(write_table(tmp_path, order, (*HEADER[:3], "split")), image_size=8).tasks("seen")
        splits = {split: {row.path for row in task.rows(split)} for split in ("train", "validation", "test")}
        sizes.append([len(paths) for paths in splits.values()])
        members.append(splits)
    assert sizes[0] == [24, 6, 10]
    assert members[0] == members[1]
    assert len(set.union(*members[0].values())) == 40


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
    path = write_table(tmp_path, rows, (*HEADER, "group"))
    suite = TableSuite.from_csv(path, image_size=8)
    assert [task.name for task in suite.tasks("pretraining")] == ["a"]
    assert [task.name for task in suite.tasks("unseen")] == ["b"]
    assert "give only one" in error_of(path, unseen=2)


def test_task_names_become_file_names_and_may_not_collide(tmp_path: Path) -> None:
    rows = task_rows(tmp_path, "cam 1")
    assert TableSuite.from_csv(write_table(tmp_path, rows), image_size=8).tasks("seen")[0].name == "cam-1"
    message = error_of(write_table(tmp_path, rows + task_rows(tmp_path, "cam/1")))
    assert "'cam 1' and 'cam/1' would share the name 'cam-1'" in message


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
    assert [len(task.data(split)) for split in ("train", "validation", "test")] == [12, 3, 5]
    assert task.description.backgrounds is not None
    assert task.description.backgrounds[0, 0, 0].tolist() == [1, 2, 3]
    with refused(DataError, tmp_path / "north", "TASK/CLASS/IMAGE"):
        TableSuite.from_folder(tmp_path / "north", image_size=8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"path,task\nx,y\n", "no column 'label'"),
        (b"path,label,task\n", "no rows below its header"),
        (b"path,label,task\n\xff\xfe,a,b\n", "not UTF-8"),
        (b"path,label,task,task\n", "column 'task' twice"),
        (b"path,label,task\na.png,cat\n", "line 2: 2 cells where the header has 3"),
        (b"path,label,task\n,cat,x\n", "line 2: the column 'path' is empty"),
        (b"path,label,task\na.png,,x\n", "line 2: the label is empty"),
        (b"path,label,task,split\na.png,cat,x,training\n", "line 2: the split is 'training'"),
        (b"path,label,task\na.png,cat,x\na.png,dog,x\n", "line 3: task 'x' has the image a.png twice"),
        (b"path,label,task,group\na.png,cat,x,new\n", "line 2: the group is 'new'"),
        (b"path,label,task,group\na,c,x,seen\nb,c,x,unseen\n", "'seen' above and 'unseen' here"),
        (b"path,label,task,hut\na,c,x,red\nb,c,x,blue\n", "task 'x' has two values of 'hut', 'red' and 'blue'"),
        (b"path,label,task,latitude\na,c,x,34 S\n", "decimal degrees"),
        (b"path,label,task,lat\na,c,x,134\n", "a latitude lies within"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    message = error_of(tmp_path / "table.csv")
    assert expected in message
    assert str(tmp_path / "table.csv") in message


def test_faults_of_tasks_and_images_are_named(tmp_path: Path) -> None:
    assert "is no file" in error_of(tmp_path / "absent.csv")
    rows = task_rows(tmp_path, "a")
    path = write_table(tmp_path, rows)
    assert "the label 'dog' is unknown; the classes are cat, cow" in error_of(path, classes=("cat", "cow"))
    assert "task 'a' has 9 training images" in error_of(path, minimum=10)
    assert "no task 'z'" in error_of(path, unseen=["z"])
    assert "unseen is 1 of 1 tasks" in error_of(path, unseen=1)
    assert "all 'cat'" in error_of(write_table(tmp_path, [{**row, "label": "cat"} for row in rows]))
    assert "no test images" in error_of(write_table(tmp_path, rows[:-2]))
    missing = error_of(write_table(tmp_path, [*rows, {**rows[0], "path": "a/none.png"}]))
    assert "line 15: image" in missing
    assert "none.png does not exist" in missing


def test_a_column_that_changes_within_a_task_can_be_ignored(tmp_path: Path) -> None:
    rows = [{**row, "hour": str(index)} for index, row in enumerate(task_rows(tmp_path, "a"))]
    path = write_table(tmp_path, rows, (*HEADER, "hour"))
    assert "two values of 'hour', '0' and '1'" in error_of(path)
    assert TableSuite.from_csv(path, image_size=8, ignore=["hour"]).metadata_schema.names == ()


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_an_unreadable_image_is_named_with_its_row(tmp_path: Path, damage: str) -> None:
    rows = task_rows(tmp_path, "a")
    file = tmp_path / "a" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:2000] if damage == "truncated" else b"not an image")
    (task,) = TableSuite.from_csv(write_table(tmp_path, rows), image_size=8).tasks("seen")
    assert len(task.data("test")) == 2
    with refused(DataError, "line 4", file):
        task.data("train")


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
