"""``wildpdiff refine`` from a folder of labels to an adapter that predicts, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tiny_world import Run, World

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.refine.starts import FREE


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "ridge" / ("impala" if number % 2 else "giraffe") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 24), (40 * number, 90, 60)).save(path)
    return tmp_path / "ridge"


def test_refine_with_the_generator_and_without(world: World, run: Run, tmp_path: Path, labels: Path) -> None:
    verb = ["refine", world.adapter, "--images", labels, "--backbone", world.backbone]
    plain = run(*verb, "--out", tmp_path / "plain", "--json").json
    assert (plain["labels"], plain["unlabelled"], plain["prior"]) == (6, 0, None)
    more = ["--generator", world.generator, "--unlabelled", world.images]
    values = run(*verb, *more, "--out", tmp_path / "informed", "--json").json
    assert set(values["start_losses"]) == {"generated", FREE, "mean adapter", "pretrained"}
    assert set(values["cross_validated_losses"]) == set(values["start_losses"])
    assert values["unlabelled"] > 0
    refined = Adapter.load(tmp_path / "informed")
    assert refined.provenance["start"] == values["start"]
    assert refined.provenance["labels"] == 6
    assert refined.provenance["refined_from"]["source"] == "generated"
    assert refined.distance(Adapter.load(world.adapter)) > 0
    predict = ["predict", tmp_path / "informed", labels, "--backbone", world.backbone, "--json"]
    assert len(run(*predict).json) == 6


def test_remarks_name_missing_inputs(world: World, run: Run, tmp_path: Path, labels: Path) -> None:
    outcome = run("refine", world.adapter, "--images", labels, "--backbone", world.backbone, "--out", tmp_path / "out")
    assert "refined from the" in outcome.out
    assert "The start was chosen by cross-validation" in outcome.err
    assert "Without --generator" in outcome.err
    assert "Without --unlabelled" in outcome.err


def test_several_adapters_are_several_starts(world: World, run: Run, tmp_path: Path, labels: Path) -> None:
    """A folder as ``generate -n`` writes it, and one adapter beside it."""
    first = Adapter.load(world.adapter)
    for number, factor in enumerate((1.0, 0.5, 30.0)):
        tensors = {name: factor * value for name, value in first.tensors.items()}
        Adapter(tensors, first.config, {"source": "generated", "sample": number}).save(
            tmp_path / "many" / f"{number:03d}"
        )
    verb = ["refine", tmp_path / "many", world.adapter, "--images", labels, "--backbone", world.backbone]
    values = run(*verb, "--generator", world.generator, "--out", tmp_path / "out", "--json").json
    assert set(values["start_losses"]) >= {"generated", "sample 1", "sample 2", "sample 3"}
    assert len([name for name in values["cross_validated_losses"] if name.startswith("sample")]) == 2
    assert "sample 2" not in values["cross_validated_losses"]  # thirty times too large
    provenance = Adapter.load(tmp_path / "out").provenance
    assert provenance["cross_validated_losses"] == values["cross_validated_losses"]
    assert provenance["refined_from"]["sample"] == 0


def test_refusals_in_one_sentence(world: World, run: Run, tmp_path: Path, labels: Path) -> None:
    out = ["--out", tmp_path / "out"]
    verb = ["refine", world.adapter, "--backbone", world.backbone]
    (tmp_path / "empty").mkdir()
    for images, expected in ((tmp_path / "empty", "holds no labelled images"), (tmp_path / "no", "does not exist")):
        outcome = run(*verb, "--images", images, *out)
        assert (outcome.status, outcome.out) == (2, "")
        assert expected in outcome.err.strip().splitlines()[-1]
    (labels / "impala").rename(labels / "impalla")
    outcome = run(*verb, "--images", labels, *out)
    assert outcome.status == 2
    assert "Did you mean 'impala'?" in outcome.err
    outcome = run("refine", world.adapter, "--backbone", "savanna-cnn", "--images", labels, *out)
    assert outcome.status == 2
    assert "Load the backbone that the adapter was made for" in outcome.err
    assert not (tmp_path / "out").exists()
