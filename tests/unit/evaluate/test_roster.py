from pathlib import Path

import pytest

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import Results, provenance
from wildpdiff.fit import FittedGenerator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.store import Zoo

SUITE = toys.ToySuite()
SLOW = (
    "CMA-ES in the latent space, 5 labels a class",
    "multi-task adapter",
    "hypernetwork, task loss",
    "hypernetwork, reconstruction",
    "column-wise merge",
    "feature prompt",
    "CMA-ES on raw LoRA, 5 labels a class",
    "generated, refined on 5 labels a class",
    "generated, refined on 20 labels a class",
    "mean adapter, refined on 5 labels a class",
)
"""Each has tests of its own."""


@pytest.fixture(scope="module")
def comparison(
    tmp_path_factory: pytest.TempPathFactory, toy_zoo: Zoo, toy_fit: FittedGenerator, toy_backbone: Backbone
) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("roster") / "zoo"
    reference = build_zoo(folder, toy_backbone, SUITE.tasks("unseen"), SUITE.fingerprint, config=toys.FINETUNE)
    return Comparison(
        SUITE, toy_backbone, toy_zoo, reference, [toy_fit.generator], {}, baselines="all", without=SLOW, seen_tasks=1
    )


@pytest.fixture(scope="module")
def results(comparison: Comparison) -> Results:
    return compare_sources(comparison, made=provenance("a test", 3), samples=1)


def test_every_method_is_evaluated_but_those_left_out(results: Results) -> None:
    named = {row.source for row in results.rows}
    lacking = {"unconditional p-diff", "event smoothing", "crop first"}  # a setting, bursts, boxes
    assert named == {"pretrained", *baseline_names(), "generated", "fine-tuned"} - {*SLOW, *lacking}
    assert {info.name for info in results.sources} == named


def test_families_and_training_times_are_recorded(results: Results) -> None:
    families = {info.name: info.family for info in results.sources}
    assert families["prior by EM on unlabelled images"] == "unlabelled images"
    assert families["fine-tuned, 5 labels a class"] == "labels"
    assert families["average of 16 checkpoints"] == "checkpoints"
    trained = {info.name for info in results.sources if info.training_seconds is not None}
    assert {"multi-task adapter with description", "fine-tuned, 5 labels a class", "linear ridge regression"} <= trained
    assert "mean adapter" not in trained
    lines = {line.source: line.training_seconds for line in results.summary}
    assert {name for name, seconds in lines.items() if seconds is not None} == trained


def test_an_unknown_name_cannot_be_left_out(comparison: Comparison) -> None:
    wrong = Comparison(**{**vars(comparison), "without": ("p-diff",)})
    with refused(DataError, "'p-diff'", *baseline_names()):
        compare_sources(wrong, made=provenance("a test", 3), samples=1)
