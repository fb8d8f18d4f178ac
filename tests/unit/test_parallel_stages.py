"""Every stage that uses several cores gives the bytes that one core gives, and the numbers of the commits before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest
import torch

from toy_chain import chain
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.parallel import workers
from wildpdiff.zoo.store import Zoo

GOLDEN = Path(__file__).parents[1] / "golden" / "toy-1"


@dataclass(frozen=True)
class Runs:
    """The chain on one core and on two."""

    folder: Path
    one: dict[str, bytes]
    two: dict[str, bytes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Runs:
    torch.set_num_threads(2)
    if workers(2) < 2:
        torch.set_num_threads(1)
        pytest.skip("this system cannot fork")
    folder = tmp_path_factory.mktemp("chain")
    one, two = (chain(folder / str(cores), toy_backbone, cores) for cores in (1, 2))
    torch.set_num_threads(1)
    return Runs(folder, one, two)


def test_a_run_on_two_cores_is_the_run_on_one(runs: Runs) -> None:
    assert runs.one.keys() == runs.two.keys()
    assert [name for name in runs.one if runs.one[name] != runs.two[name]] == []
    assert Zoo.open(runs.folder / "2" / "zoo").tasks == Zoo.open(runs.folder / "1" / "zoo").tasks


def accuracies(rows: list[dict[str, object]]) -> dict[str, float]:
    """Mean accuracy by source, condition and split."""
    found: dict[str, list[float]] = {}
    for row in rows:
        accuracy = row["accuracy"]
        assert isinstance(accuracy, float)
        found.setdefault(f"{row['source']}, {row['condition']}, {row['split']}", []).append(accuracy)
    return {name: fmean(values) for name, values in found.items()}


def test_the_chain_gives_the_numbers_of_the_commits_before(runs: Runs) -> None:
    """Roughly: processors differ in last bits, and choices follow; ``tests/golden/compare.py`` compares bytes."""
    expected = json.loads((GOLDEN / "accuracies.json").read_text())
    measured = accuracies(json.loads(runs.one["rows"]))
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=0.1), name
