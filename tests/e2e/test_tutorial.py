"""The tutorial, and the README's commands for cameras of one's own, on a folder as an ecologist has it."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tiny_world import Outcome, Run

import field_cameras
from documents import README, TUTORIAL, blocks, commands
from megadetector_rules import faults
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.camera_traps.task_names import task_names

SETTINGS = {
    "parts": ["metadata", "backgrounds"],
    "task_loss": {"steps": 4, "folds": 2, "bases": ["nothing"], "tasks": 4, "images": 4, "evaluation_images": 4},
    "diffusion": {"steps": 4},
    "posterior": {"scales": [0.5]},
}
QUICK = {
    "backbone pretrain": ("--architecture", "savanna-cnn", "--epochs", "1", "-o", "image_size=24"),
    "zoo build": ("--steps", "4", "--checkpoints", "2", "--batch", "8"),
    "fit": ("--no-trust", "--config", "settings.json"),
    "evaluate": ("--samples", "1"),
}
"""Further words of a command, so that it takes seconds."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> field_cameras.Field:
    return field_cameras.write(tmp_path_factory.mktemp("field"))


@pytest.fixture
def field(
    written: field_cameras.Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> field_cameras.Field:
    """The folder, copied and entered."""
    shutil.copytree(written.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("settings.json").write_text(json.dumps(SETTINGS))
    return written


def run_all(run: Run, document: Path, word: str) -> dict[str, Outcome]:
    """The document's commands that have the word, one after the other, by verb; each has to succeed."""
    done: dict[str, Outcome] = {}
    for words in commands(document):
        if not any(word in part for part in words):
            continue
        verb = next(name for name in (" ".join(words[:2]), words[0]) if name in QUICK or name == words[0])
        more = () if "--recipe" in words else QUICK.get(verb, ())
        done[verb] = run(*words, *more)
        assert done[verb].status == 0, (words, done[verb].err)
    return done


def read_rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def test_the_tutorial_runs_from_a_detectors_file_to_timelapse(field: field_cameras.Field, run: Run) -> None:
    checked = run(*commands(TUTORIAL)[0])
    (screen,) = [block for block in blocks(TUTORIAL, "text") if " can teach" in block]
    wanted = [line.rstrip() for line in screen.splitlines() if line != "…"]
    assert [line for line in wanted if line not in map(str.rstrip, checked.out.splitlines())] == []

    done = run_all(run, TUTORIAL, "model")
    assert "13 cameras" in done["predict"].out or "1 camera" in done["predict"].out
    answers: dict[str, Any] = json.loads(Path("answers.json").read_bytes())
    assert faults(answers) == []
    pictures = {image["file"]: image for image in answers["images"]}
    assert len(pictures) == len(field.frames)
    assert sum("failure" in image for image in pictures.values()) == 2
    boxes = {f"pictures/{frame.path}": frame.box for frame in field.frames if frame.box}
    kept = [path for path, image in pictures.items() if image.get("detections") and path in boxes]
    assert len(kept) == len(boxes) - 2
    assert all(tuple(pictures[path]["detections"][0]["bbox"]) == boxes[path] for path in kept)

    new = read_rows("new.csv")
    assert {row["camera"] for row in new} == {field_cameras.NEW}
    assert len(new) == len(field.of(field_cameras.NEW))
    assert Adapter.load(Path("model/north-ridge-2")).provenance["source"] == "refined"
    assert "labelled images" in done["check"].out
    assert json.loads(Path("model/report/results.json").read_bytes())["kind"]


def test_the_readmes_own_cameras_need_a_path_a_label_and_a_task(field: field_cameras.Field, run: Run) -> None:
    assert Path("images.csv").read_text(encoding="utf-8-sig").splitlines()[0] == "path,label,task"
    done = run_all(run, README, "images.csv")
    assert list(done) == ["suite", "backbone pretrain", "zoo build", "fit", "predict", "evaluate", "generate", "check"]
    answers = json.loads(Path("answers.json").read_bytes())
    assert faults(answers) == []
    assert len(answers["images"]) == sum(frame.camera in field_cameras.NAMES for frame in field.frames)
    results = json.loads(Path("own/report/results.json").read_bytes())
    assert {row["task"] for row in results["rows"]} == set(field_cameras.NAMES)
    assert (Path("own/report") / "report.html").is_file()

    seen = next(name for name in field_cameras.NAMES if not name.isascii())
    words = ("--suite", "images.csv", "--task", seen, "--out", "own/seen")
    assert run("generate", "own/generator", *words).status == 0
    assert Adapter.load(Path("own/seen")).provenance["task"] == seen
    checked = ("check", "own/seen", "--backbone", "own/backbone", "--images", "images.csv", "--json", "--task")
    named = [run(*checked, task) for task in (seen, task_names([seen])[seen], unicodedata.normalize("NFD", seen))]
    assert {outcome.json["pictures"] for outcome in named} == {len(field.of(seen))}
