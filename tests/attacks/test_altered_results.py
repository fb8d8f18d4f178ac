"""A results.json whose table contradicts its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_world import Run, World, refused_run

from refusals import refused
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import read_results

Change = Callable[[dict[str, Any]], None]


def line(**changes: Any) -> Change:
    def apply(data: dict[str, Any]) -> None:
        (generated,) = (row for row in data["summary"] if (row["split"], row["label"]) == ("unseen", "generated"))
        generated.update(changes)

    return apply


def better_rows(data: dict[str, Any]) -> None:
    for row in data["rows"]:
        if row["source"] == "generated":
            row["accuracy"] = 1.0


def fewer_rows(data: dict[str, Any]) -> None:
    task = data["rows"][0]["task"]
    data["rows"] = [row for row in data["rows"] if row["task"] != task]


def fewer_tasks(data: dict[str, Any]) -> None:
    data["suite"]["unseen"] = 2


CHANGES = {
    "tasks of the suite": fewer_tasks,
    "accuracy": line(accuracy=0.999),
    "a little accuracy": line(accuracy=0.2501),
    "accuracy interval": line(accuracy_interval=[0.9, 0.99]),
    "gain": line(recovered_gain=0.999),
    "gain interval": line(recovered_gain_interval=[0.98, 0.99]),
    "label": line(label="fine-tuned, but better"),
    "tasks": line(tasks=400),
    "samples": line(samples=3),
    "seeds": line(seeds=3),
    "rows": better_rows,
    "fewer rows": fewer_rows,
    "too large a number": line(accuracy=10**400),
}


def changed(world: World, folder: Path, name: str) -> Path:
    data = json.loads((world.run / "results.json").read_bytes())
    CHANGES[name](data)
    path = folder / "results.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("name", CHANGES)
def test_a_contradicting_summary_is_refused(world: World, tmp_path: Path, name: str) -> None:
    path = changed(world, tmp_path, name)
    with refused(ArtifactError, path):
        read_results(path)


def test_every_verb_refuses_a_contradicting_summary(world: World, run: Run, tmp_path: Path) -> None:
    path = changed(world, tmp_path, "accuracy")
    refused_run(run("report", path, "--out", tmp_path / "out"), "results.json")
    refused_run(run("compare", path, "generated", "fine-tuned"), "results.json")
    refused_run(run("inspect", path), "results.json")
    refused_run(run("report", world.run / "results.json", path, "--out", tmp_path / "out"), "results.json")
    assert not (tmp_path / "out").exists()


def test_rounding_contradicts_nothing(world: World, run: Run, tmp_path: Path) -> None:
    data = json.loads((world.run / "results.json").read_bytes())
    for row in data["summary"]:
        row["accuracy"] += 1e-12
        row["seconds_per_adapter"] = 5.0  # is not in the rows
        low, high = row["accuracy_interval"]
        row["accuracy_interval"] = [low - 0.0005, high + 0.0005]  # other random draws
    path = tmp_path / "results.json"
    path.write_text(json.dumps(data))
    assert run("compare", path, "generated", "fine-tuned").status == 0
