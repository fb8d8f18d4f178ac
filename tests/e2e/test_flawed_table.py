"""A table as people have it, from ``suite check`` to adapters; changes outside of what was learned rebuild nothing."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_zoo_resume import files_of
from tiny_world import Outcome, Run, refused_run

SPECIES = {"Red_Fox": (200, 80, 20), "hare": (120, 110, 60), "blank": None}
HEADER = ("", "File", "Species", "Station", "DateTime", "Temperature", "Latitude", "Elevation")
UNLABELLED, FEW, ONE = "neu/ä", "few", "one"
NETWORKS = {"steps": 10, "folds": 2, "bases": ["nothing"], "tasks": 4, "images": 4, "evaluation_images": 4}
SETTINGS = {"parts": ["metadata"], "task_loss": NETWORKS, "diffusion": {"steps": 4}, "posterior": {"scales": [0.5]}}
Row = dict[str, str]


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, HEADER, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return path


def camera(folder: Path, name: str, number: int, bursts: int) -> list[Row]:
    """Bursts of two frames, six hours apart."""
    rng = np.random.default_rng(number)
    rows = []
    for index in range(2 * bursts):
        label = "hare" if name == ONE else list(SPECIES)[(index // 2 + number) % 3]
        label = "red fox" if label == "Red_Fox" and index < 2 else label
        picture = np.clip(rng.normal(60 + 10 * number, 12, (18, 24, 3)), 0, 255).astype(np.uint8)
        colour = SPECIES.get(label, SPECIES["Red_Fox"])
        if colour is not None:
            picture[6:16, 4:14] = colour
        file = folder / f"cam{number}" / f"IMG_{index:03}.JPG"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
        time = datetime(2024, 3, 1) + timedelta(hours=6 * (index // 2), seconds=2 * (index % 2))
        values = (str(number), f"cam{number}\\{file.name}", "" if name == UNLABELLED else label, name)
        cells = (f"{time:%d.%m.%Y %H:%M:%S}", f"{index},5", f"46,{number:03}", f"{400 + 10 * number} m")
        rows.append(dict(zip(HEADER, (*values, *cells), strict=True)))
    return rows


@dataclass(frozen=True)
class Flawed:
    """Eleven cameras that may teach, three that do not, and two faulty pictures."""

    folder: Path
    rows: list[Row]

    @property
    def table(self) -> Path:
        return self.folder / "bilder.csv"


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Flawed:
    folder = tmp_path_factory.mktemp("flawed")
    names = [*(f"Süd {number}" for number in range(11)), ONE, FEW, UNLABELLED]
    rows = [row for number, name in enumerate(names) for row in camera(folder, name, number, 2 if name == FEW else 15)]
    whole = (folder / "cam2" / "IMG_004.JPG").read_bytes()
    (folder / "cam2" / "IMG_004.JPG").write_bytes(whole[: len(whole) // 2])
    (folder / "cam3" / "IMG_005.JPG").unlink()
    write(folder / "bilder.csv", rows)
    return Flawed(folder, rows)


def test_check_opens_every_picture_and_names_all_that_is_wrong(flawed: Flawed, run: Run) -> None:
    found = run("suite", "check", flawed.table, "--json")
    values = found.json
    assert values["pictures"] == len(flawed.rows)
    assert values["left_out"] == {"damaged": ["cam2/IMG_004.JPG"], "missing": ["cam3/IMG_005.JPG"]}
    assert values["species"].keys() == {"Red_Fox", "hare", "empty"}
    assert values["bursts"] == 13 * 15 + 2
    faults = {row["camera"]: row["fault"] for row in values["cameras"] if row["group"] == "described"}
    assert {ONE, FEW, UNLABELLED} <= faults.keys()
    assert values["groups"]["seen"] + values["groups"]["unseen"] + len(faults) == 14
    assert values["metadata"] == {"Latitude": "number", "Elevation": "number"}
    assert values["next"][-1].startswith("wildpdiff backbone pretrain --suite ")
    shown = run("suite", "check", flawed.table)
    assert shown.status == 0
    for name in ("Süd 0", UNLABELLED, "IMG_004.JPG", "Red_Fox", values["next"][-1].split(" --out")[0]):
        assert name in "".join(shown.out.splitlines())


def test_check_names_all_faults_of_the_table_at_once(flawed: Flawed, run: Run, tmp_path: Path) -> None:
    lines = [
        "path,label,task,split,group",
        "a.png,cat,x,sometimes,seen",
        "b.png,dog,x,train,new",
        "c.png,dog,x,train,unseen",
    ]
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    values = run("suite", "check", tmp_path / "bad.csv", "--json").json
    assert [word for word in ("'sometimes'", "'new'", "x") if any(word in fault for fault in values["faults"])] == [
        "'sometimes'",
        "'new'",
        "x",
    ]
    assert values["left_out"] == {"missing": ["a.png", "b.png", "c.png"]}
    (tmp_path / "empty.csv").write_bytes(b"")
    several = run("suite", "check", tmp_path / "absent.csv", tmp_path / "empty.csv")
    assert several.status == 2
    assert "absent.csv" in several.err
    assert "empty.csv" in several.err
    refused_run(run("suite", "check", flawed.table, "--columns", "label=Art"), "'Art'")
    refused_run(run("suite", "check", "savanna", "-o", "seen=9"), "savanna")
    refused_run(run("suite", "check", flawed.table, "--columns", "label"), "'label'")


def test_one_camera_that_can_teach_is_told_to_be_too_few(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "one.csv", camera(tmp_path, "alone", 0, 15))
    values = run("suite", "check", tmp_path / "one.csv", "--json").json
    assert values["groups"]["seen"] == 1
    (following,) = values["next"]
    assert following.startswith("# ")
    assert "two cameras" in following
    assert "datetime=" not in run("suite", "check", tmp_path / "one.csv").out
    text = (tmp_path / "one.csv").read_text(encoding="utf-8").replace("DateTime", "Note")
    (tmp_path / "one.csv").write_text(re.sub(r"\d\d:\d\d:\d\d", "x", text), encoding="utf-8")
    assert "datetime=" in run("suite", "check", tmp_path / "one.csv").out


def test_the_screen_has_the_reason_for_a_picture_that_is_there_and_not_read(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "one.csv", camera(tmp_path, "alone", 0, 15))
    Image.new("1", (20_000, 6_000)).save(tmp_path / "cam0" / "IMG_004.JPG", "PNG")
    shown = run("suite", "check", tmp_path / "one.csv")
    assert shown.status == 0
    assert "20000×6000" in shown.out


def test_changes_outside_of_what_was_learned_rebuild_nothing(flawed: Flawed, run: Run, tmp_path: Path) -> None:
    def suite(table: Path) -> list[str | Path]:
        named = ["--columns", "path=File,label=Species,task=Station", "-o", f"root={flawed.folder}"]
        return ["--suite", table, *named, "--threads", "1"]

    own = tmp_path / "own"
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    model = ["--backbone", own / "backbone"]
    size = ["--architecture", "savanna-cnn", "--epochs", "1", "-o", "image_size=24"]
    steps = ["--steps", "4", "--checkpoints", "2", "--batch", "8"]
    pretrained = run("backbone", "pretrain", *suite(flawed.table), *size, "--out", own / "backbone")
    _succeeded(pretrained)
    assert "group pretraining" in " ".join(pretrained.err.split())
    zoo = ["zoo", "build", *model, *steps, "--out", own / "zoo"]
    _succeeded(run(*zoo, *suite(flawed.table)))
    unseen = ["zoo", "build", *model, "--group", "unseen", "--recipe", own / "zoo", "--out", own / "reference"]
    _succeeded(run(*unseen, *suite(flawed.table)))
    fit = ["fit", *model, "--zoo", own / "zoo", "--no-trust", "--config", tmp_path / "settings.json"]
    _succeeded(run(*fit, *suite(flawed.table), "--out", own / "generator"))

    shown = run("suite", "show", flawed.table, "-o", "image_size=24", "--json").json
    rows = run("suite", "check", flawed.table, "-o", "image_size=24", "--json").json["cameras"]
    seen = next(row for row in rows if row["group"] == "seen" and row["test"] > 2)
    tested = _test_picture(flawed, seen["camera"])
    kept = [row for row in flawed.rows if (row["Station"], row["File"]) != tested]
    kept += camera(flawed.folder, "anderswo", 20, 1)[:1]
    kept[-1]["Species"] = ""
    changed = write(tmp_path / "changed.csv", kept[::-1])
    again = run("suite", "show", changed, "-o", f"root={flawed.folder}", "-o", "image_size=24", "--json").json
    assert again["fingerprint"] == shown["fingerprint"]

    before = files_of(own / "zoo"), files_of(own / "reference")
    _succeeded(run(*zoo, *suite(changed)))
    _succeeded(run(*unseen, *suite(changed)))
    assert (files_of(own / "zoo"), files_of(own / "reference")) == before
    compared = ["evaluate", *model, "--zoo", own / "zoo", "--reference", own / "reference", "--samples", "1"]
    found = run(*compared, *suite(changed), "--generator", own / "generator", "--out", own / "report")
    _succeeded(found)
    made = run(
        "generate", own / "generator", *model, *suite(changed)[:-2], "--task", "anderswo", "--out", own / "adapter"
    )
    _succeeded(made)
    assert (own / "adapter" / "adapter_config.json").is_file()
    refused_run(
        run("generate", own / "generator", *model, *suite(changed)[:-2], "--task", "nirgends", "--out", own / "b"),
        "'nirgends'",
    )


def _succeeded(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.err


def _test_picture(flawed: Flawed, title: str) -> tuple[str, str]:
    from wildpdiff.camera_traps.table_suite import TableSuite

    task = TableSuite.of(flawed.table, image_size=24).find(title)
    assert task is not None
    path = task.rows("test")[0].path
    return title, path.replace("/", "\\")
