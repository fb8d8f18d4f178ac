"""Where a generated adapter is not trusted, the pretrained model classifies a camera's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image
from tiny_world import Run, World, refused_run

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.tasks.description import Description
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport

CAMERAS = {"A": "woodland", "B": "grassland"}


@pytest.fixture
def table(world: World, tmp_path: Path) -> Path:
    pictures = sorted(world.images.iterdir())[:4]
    rows = [f"{picture},{camera},{habitat}" for picture, (camera, habitat) in
            zip(pictures, [*CAMERAS.items()] * 2, strict=True)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["path,task,habitat", *rows]) + "\n", encoding="utf-8")
    return tmp_path / "t.csv"


def trusting(seen: list[float | None]) -> Mock:
    """A model of trust that trusts cameras in woodland alone."""

    def assess(adapter: Adapter, description: Description, min_trust: float | None = None) -> Any:
        seen.append(min_trust)
        value = 0.9 if (description.metadata or {})["habitat"] == "woodland" else 0.1
        return Mock(spec=TrustReport, trust=value, use_generated=value >= 0.5)

    def delivered(adapter: Adapter, description: Description, report: Any) -> Adapter:
        return adapter

    return Mock(spec=TrustModel, assess=assess, delivered=delivered)


def test_each_camera_has_the_model_that_trust_gives_it(
    world: World, run: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []
    monkeypatch.setattr(TrustModel, "of_generator", lambda *_: trusting(seen))
    words: Sequence[str | Path] = ("predict", world.generator, "--suite", table, "--backbone", world.backbone)
    outcome = run(*words, "--min-trust", "0.5", "--json")
    assert outcome.status == 0, outcome.err
    cameras = {entry["camera"]: (entry["model"], entry["trust"]) for entry in outcome.json["cameras"]}
    assert cameras == {"A": ("generated", 0.9), "B": ("pretrained", 0.1)}
    assert {row["trust"] for row in outcome.json["predictions"] if row["camera"] == "B"} == {0.1}
    assert seen == [0.5, 0.5]


def test_a_camera_that_nothing_describes_has_the_pretrained_model(world: World, run: Run, tmp_path: Path) -> None:
    picture = sorted(world.images.iterdir())[0]
    (tmp_path / "t.csv").write_text(f"path,task\n{picture},A\n", encoding="utf-8")
    words = ("predict", world.generator, "--suite", tmp_path / "t.csv", "--backbone", world.backbone, "--json")
    outcome = run(*words)
    assert outcome.status == 0, outcome.err
    (camera,) = outcome.json["cameras"]
    assert camera["model"] == "pretrained"
    assert "A" in outcome.err


def test_a_label_that_the_model_lacks_stops_no_prediction(world: World, run: Run, tmp_path: Path) -> None:
    """Nothing is learned from a camera with labels, though it has enough of them to teach."""
    labels, rows = ("impala", "blank", "unicorn"), []
    for number in range(30):
        Image.new("RGB", (24, 24), (8 * number, 100, 50)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,A,{labels[number % 3]},woodland")
    (tmp_path / "t.csv").write_text("\n".join(["path,task,label,habitat", *rows]) + "\n", encoding="utf-8")
    words = ("--suite", tmp_path / "t.csv", "--backbone", world.backbone)
    refused_run(run("zoo", "build", *words, "--out", tmp_path / "zoo"), "'unicorn'")
    outcome = run("predict", world.generator, *words, "--json")
    assert outcome.status == 0, outcome.err
    assert len(outcome.json["predictions"]) == len(rows)
    assert "unicorn" in outcome.err
    words = (*words, "--task", "A", "--out", tmp_path / "adapter")
    assert run("generate", world.generator, *words).status == 0


def test_thresholds_that_are_no_probabilities(world: World, run: Run, table: Path) -> None:
    words = ("predict", world.generator, "--suite", table, "--backbone", world.backbone)
    refused_run(run(*words, "--min-trust", "2"), "2")
