"""One table that every kind of problem passes: zoo, generator, evaluation, for any objective and model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from problems import FINETUNE, PROBLEMS, Chain, chain_of, config, pictures
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.results import provenance
from wildpdiff.evaluate.score import mean_scores, test_set
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.refine.refining import refine
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.tasks.dataset import Dataset, PlainTask
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.recipe import RecipeSearch


def better(chain: Chain, one: float, other: float) -> bool:
    return chain.generator.backbone.objective.metric.sign * (one - other) > 0


def test_fine_tuning_and_generated_adapters_are_better_than_the_pretrained_model(chain: Chain) -> None:
    backbone, zoo = chain.generator.backbone, chain.training_set.zoo
    adapters = zoo.task_adapters()
    both = [[zoo.initial, adapters[task.name]] for task in chain.suite.tasks("seen")]
    rows = [
        mean_scores(backbone, test_set(backbone, task), pair)
        for task, pair in zip(chain.suite.tasks("seen"), both, strict=True)
    ]
    assert better(chain, *np.mean(rows, 0)[::-1])
    rows = []
    for task in chain.suite.tasks("unseen"):
        (made,) = chain.generator.sample(task.description, n=1, seed=0)
        rows.append(mean_scores(backbone, test_set(backbone, task), [zoo.initial, made]))
    assert better(chain, *np.mean(rows, 0)[::-1])


def test_the_table_of_cross_validation_has_the_metric_s_unit_and_direction(chain: Chain) -> None:
    table, metric = chain.generator.cross_validation, chain.generator.backbone.objective.metric
    assert table is not None
    pretrained = table.row("pretrained")
    assert pretrained is not None
    lead = metric.sign * (table.delivered.accuracy - pretrained.accuracy)
    assert pretrained.lead == pytest.approx(lead, abs=1e-4)
    assert metric.contains(pretrained.accuracy / metric.scale)
    assert table.metric == metric
    assert metric.unit in table.verdict


def test_an_adapter_s_folder_gives_peft_s_outputs(chain: Chain) -> None:
    peft = pytest.importorskip("peft")
    backbone, task = chain.generator.backbone, chain.suite.tasks("unseen")[0]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    made.save(chain.folder / "adapter")
    batch = backbone.stem(task.data("test").inputs)
    ours = backbone.predict(batch, Adapter.load(chain.folder / "adapter").tensors)
    inputs = backbone.collate(task.data("test").inputs)
    plain = next(iter(inputs.values())) if not hasattr(backbone.module, "config") else None
    import copy

    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.module), str(chain.folder / "adapter")).eval()
    with torch.no_grad():
        theirs = model(plain) if plain is not None else model(**inputs).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, backbone.predict(batch), atol=1e-3)


def test_a_few_labels_refine_and_the_recipe_is_found(chain: Chain) -> None:
    backbone, task = chain.generator.backbone, chain.suite.tasks("unseen")[1]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    features = FeatureCache(backbone, [task])(task.name)
    refined = refine(
        backbone,
        made,
        features,
        RefineConfig(posterior=MapConfig(steps=8, batch=8), folds=2),
        points=Starts.of_generator(chain.generator),
    )
    before, after = (
        float(backbone.objective.loss(backbone.predict(features.train, entry.tensors), features.train).mean())
        for entry in (made, refined.adapter)
    )
    assert after < before
    tasks = [chain.training_set.features(name) for name in chain.training_set.tasks[:2]]  # type: ignore[misc]
    short = replace(FINETUNE, steps=4, checkpoints=1)
    found = RecipeSearch(backbone, tasks, chain.training_set.zoo.initial.tensors, 0).choose(short)
    assert len(found.trials) > len(tasks)


def test_an_evaluation_scores_every_method(chain: Chain) -> None:
    backbone, zoo, suite = chain.generator.backbone, chain.training_set.zoo, chain.suite
    features = chain.training_set.features
    assert isinstance(features, FeatureCache)
    reference = build_zoo(
        chain.folder / "reference", backbone, suite.tasks("unseen"), suite.fingerprint, config=FINETUNE, per_shard=3
    )
    comparison = Comparison(suite, backbone, zoo, reference, (chain.generator,), {}, features, seen_tasks=2)
    results = compare_sources(comparison, made=provenance("test", 0), samples=1)
    means = {
        name: np.mean([row.accuracy for row in results.rows if row.source == name and row.split == "unseen"])
        for name in ("pretrained", "fine-tuned")
    }
    assert better(chain, float(means["fine-tuned"]), float(means["pretrained"]))


@pytest.mark.parametrize("problem", ["image classification", "vector regression"])
def test_trust_is_calibrated_on_gains_of_any_metric(problem: str, tmp_path: Path) -> None:
    chain = chain_of(problem, tmp_path, tuple(np.linspace(-1, 1, 18)))
    calibration = CalibrationConfig(random_folds=2, group_folds=1, samples=1)
    model = calibrate_generator(chain.generator, chain.training_set, config(), calibration=calibration)
    task = chain.suite.tasks("unseen")[0]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    report = model.assess(made, task.description)
    assert report.basis == "description"
    assert 0 <= report.trust <= 1
    assert report.low <= report.gain <= report.high
    assert model.held_out["description"].tasks == 18
    assert ("examples" in model.held_out) == (problem == "image classification")
    model.save(chain.folder / "trust")
    again = TrustModel.load(chain.folder / "trust", chain.generator.backbone)
    assert again.assess(made, task.description) == report


def test_a_target_that_the_objective_does_not_know_is_refused() -> None:
    from wildpdiff.errors import DataError

    task = PROBLEMS["image classification"].task(0.0)
    strange = Dataset(task.data("train").inputs, np.full(24, 7))
    wrong = PlainTask(task.name, {**task.splits, "train": strange})
    with refused(DataError, task.name, 7, "bright"):
        FeatureCache(pictures(), [wrong])(task.name)
