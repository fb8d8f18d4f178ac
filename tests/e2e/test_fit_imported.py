"""``zoo import`` and ``fit`` with labelled data of some of the adapters' tasks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tiny_world import Run, tiny_backbone

from wildpdiff.trust import generated
from wildpdiff.zoo.store import Zoo

SIZES = ("train=24", "validation=8", "test=4", "backgrounds=3")
NETWORKS = {"steps": 10, "folds": 3, "bases": ["nothing"], "tasks": 4, "images": 4, "evaluation_images": 4}
SETTINGS = {"parts": ["metadata"], "task_loss": NETWORKS, "diffusion": {"steps": 4}, "posterior": {"scales": [0.5]}}


def test_data_of_some_tasks_gives_cross_validation_and_from_enough_of_them_trust(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine_settings: None
) -> None:
    backbone, loras = tiny_backbone(tmp_path / "backbone"), tmp_path / "loras"

    def suite(seen: int) -> list[str | Path]:
        words = [word for pair in (*SIZES, f"seen={seen}") for word in ("-o", pair)]
        return ["--suite", "savanna", *words, "--backbone", backbone, "--threads", "1"]

    assert (
        run(
            "zoo",
            "build",
            "--steps",
            "6",
            "--checkpoints",
            "2",
            "--batch",
            "16",
            "--out",
            tmp_path / "built",
            *suite(15),
        ).status
        == 0
    )
    for name, adapter in Zoo.open(tmp_path / "built").task_adapters().items():
        (adapter.save(loras / name) / "provenance.json").unlink()
    with open(tmp_path / "tasks.csv", "w", newline="") as stream:
        rows = [(path.name, number) for number, path in enumerate(sorted(loras.iterdir()))]
        csv.writer(stream).writerows([("task", "height"), *rows])
    words = ("zoo", "import", loras, "--descriptions", tmp_path / "tasks.csv", "--out", tmp_path / "zoo")
    assert run(*words).status == 0
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    fit = ("fit", "--config", tmp_path / "settings.json", "--zoo", tmp_path / "zoo", "--out")

    few = run(*fit, tmp_path / "few" / "g", *suite(5), "--json").json
    assert (few["trust"], few["tasks_with_data"], few["cross_validation"]["tasks"]) == (False, 5, 5)
    assert "not calibrated" in few["note"]
    monkeypatch.setattr(generated, "FEWEST_TASKS", 13)
    enough = run(*fit, tmp_path / "enough" / "g", *suite(13))
    assert "the 13 of 15 tasks that have data" in enough.out
    assert "Held-out seen tasks (13)" in enough.out
    assert 0 <= run("trust", tmp_path / "enough" / "g", "--metadata", "height=3", "--json").json["trust"] <= 1
