"""Trust calibrated for a generator from what its own networks predict for tasks that they have not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from eighteen_tasks import CALIBRATION, CONFIG, DESCRIPTIONS, TASKS, Toy
from torch import Tensor

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.fit import FittedMean, fit_conditional_mean
from wildpdiff.conditional_mean.mean import ADDITIVE, RESIDUAL
from wildpdiff.errors import DataError
from wildpdiff.posterior.decoder import ShiftDecoder
from wildpdiff.tasks.description import Description
from wildpdiff.trust.calibrate import hold_out_folds
from wildpdiff.trust.folds import Fold
from wildpdiff.trust.generated import MOST_MEASURED, EstimateSource, _some, _Sources, calibrate_generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import SeenTasks
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.training_set import TrainingSet


@pytest.fixture(scope="module")
def trust(toy: Toy) -> TrustModel:
    return toy.calibrate()


def test_a_mean_without_a_part_of_the_tasks_is_what_was_held_out_for_them(toy: Toy) -> None:
    mean = toy.generator.mean
    assert mean is not None
    alone_of = {**mean.simple.leave_one_out(), ADDITIVE: mean.kernel.leave_one_out()}
    for part in range(3):
        rows = mean.fold == part
        alone = mean.without(part)
        assert len(alone.seen) == int((~rows).sum())
        assert len(alone.members) == 2
        assert alone.blend == mean.fold_blends[part]
        # Leaving out a whole part is not leaving out one: where nothing is trained, held-out estimates miss one task
        # alone, and half of the networks stand on such a regression.
        expected = torch.zeros(int(rows.sum()), mean.adapters.shape[1])
        for name, weight in alone.blend.used.items():
            if name in alone_of:
                expected += weight * alone_of[name][rows]
            else:
                expected += weight * alone.estimate(name, mean.seen[rows])
                if name == RESIDUAL:
                    expected += weight * (alone_of[ADDITIVE][rows] - alone.kernel.predict(mean.seen[rows]))
        if mean.centering is not None:
            expected = mean.centering(expected, mean.centering.seen[rows])
        assert torch.allclose(mean.held_out[rows], expected, atol=1e-4)
        assert not torch.allclose(alone.predict(mean.seen[rows]), mean.adapters[rows], atol=1e-3)


def test_trust_is_calibrated_on_all_tasks_of_this_generator(toy: Toy, trust: TrustModel) -> None:
    assert trust.generator == toy.generator.fingerprint
    description = Description(metadata={"level": 117.0})
    report = trust.assess(toy.generator.sample(description, 2, 0), description)
    assert report.low <= report.gain <= report.high
    assert 0 <= report.trust <= 1
    assert trust.held_out["description"].tasks == len(TASKS)


def test_a_description_outside_the_seen_range_is_not_trusted_whatever_its_images(toy: Toy, trust: TrustModel) -> None:
    for level in (1e5, -1e300):
        description = Description(metadata={"level": level}, backgrounds=DESCRIPTIONS["seen-03"].backgrounds)
        report = trust.assess(toy.generator.sample(Description(metadata={"level": 117.0}), 2, 0), description)
        assert report.trust == 0
        assert not report.use_generated
        assert "level" in report.recommendation
        assert "level" in report.reasons[0]


def test_a_refit_never_learns_from_what_those_it_was_made_without_are_judged_by(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tasks are validated by the same images; nobody learns from them, nor do the others alone."""
    common = toy.features("seen-00")
    pooled = {}
    for task in TASKS:
        own = toy.features(task.name)
        keys = (*own.keys[: own.train_size], *common.keys[common.train_size :])
        pooled[task.name] = replace(own, validation=common.validation, keys=keys)
    taught: list[tuple[TaskFeatures, ...]] = []

    def spied(encoded: EncodedTasks, config: TaskLossConfig, seed: int, **named: Any) -> FittedMean:
        assert encoded.features is not None
        taught.append(tuple(encoded.features(name) for name in encoded.tasks))
        return fit_conditional_mean(encoded, config, seed, **named)

    monkeypatch.setattr("wildpdiff.trust.generated.fit_conditional_mean", spied)
    training_set = replace(toy.training_set, features=pooled.__getitem__)
    calibrate_generator(toy.generator, training_set, CONFIG, calibration=CALIBRATION, seed=3)
    assert len(taught) == CALIBRATION.group_folds
    for tasks in taught:
        assert 0 < len(tasks) < len(TASKS)
        assert all(task.train_size and not task.validation_size for task in tasks)


def test_a_resumed_calibration_reads_finished_networks_and_counts_from_its_folds(
    toy: Toy, trust: TrustModel, tmp_path: Path
) -> None:
    """All three calibrations give the same bytes: trust is a function of the seed."""
    counts: list[list[tuple[int, int]]] = [[], []]
    models = [
        calibrate_generator(
            toy.generator,
            toy.training_set,
            CONFIG,
            calibration=CALIBRATION,
            seed=3,
            progress=lambda done, total, seen=calls: seen.append((done, total)),
            store=tmp_path,
        )
        for calls in counts
    ]
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == len(CONFIG.task_loss.bases) * CALIBRATION.group_folds, "nothing was trained twice"
    saved = []
    for number, model in enumerate((*models, trust)):
        folder = tmp_path / f"trust-{number}"
        model.save(folder)
        saved.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert saved[0] == saved[1] == saved[2]
    for calls in counts:
        assert len({total for _, total in calls}) == 1
        assert calls[-1][0] == calls[-1][1]
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(counts[0]) > 10, "the training inside a fold counts"


def test_the_tasks_that_are_measured_are_drawn_and_not_the_first_of_a_sorted_zoo() -> None:
    names = [f"task-{index:03d}" for index in range(100)]
    drawn = _some(names, 1, 0)
    assert len(drawn) == MOST_MEASURED == len(set(drawn))
    assert list(drawn) == sorted(drawn)
    assert drawn == _some(names, 1, 0) != _some(names, 2, 0)
    assert 15 < sum(int(name[-3:]) < 50 for name in _some(names, 1, 0) + _some(names, 1, 1)) < 45
    assert _some(names[:7], 1, 0) == tuple(names[:7])


def test_the_mean_as_a_source_gives_what_an_unseen_task_would_get(toy: Toy) -> None:
    generator = toy.generator
    assert generator.mean is not None
    source = EstimateSource(generator.mean, generator.conditions, generator.codec, generator.adapter_config)
    (adapter,) = source.sample(DESCRIPTIONS["seen-03"], 1, 5)
    vector = generator.codec.encode(generator.codec.layout.flatten(adapter.tensors)[None])
    description = DESCRIPTIONS["seen-03"]
    expected = generator.mean.predict(
        generator.conditions.encode(description).values[None], generator.mean.shifts([description])
    )
    assert torch.allclose(vector, expected, atol=1e-4)
    assert adapter.provenance["seed"] == 5


def test_a_generator_without_a_conditional_mean_is_refused(toy: Toy) -> None:
    with refused(DataError):
        toy.calibrate(replace(toy.generator, mean=None))


def test_samples_without_a_group_lie_around_its_estimates_in_the_posteriors_own_space(toy: Toy) -> None:
    generator = toy.generator
    assert generator.mean is not None
    assert generator.posterior is not None
    size = generator.mean.adapters.shape[1]
    codes = generator.posterior.density.sample(generator.mean.seen[:1], torch.Generator().manual_seed(0)).shape[1]
    directions = torch.randn(codes, size, generator=torch.Generator().manual_seed(1))
    spread = replace(generator.posterior, decoder=ShiftDecoder(directions, 1.0))
    group = Fold("end of level", ("seen-15", "seen-16", "seen-17"), True)
    sources = _Sources(
        replace(generator, posterior=spread), generator.mean, toy.training_set, CONFIG, (group,), 3, None
    )  # fmt: skip
    estimates, samples = sources(group, lambda share: None)
    assert isinstance(estimates, EstimateSource)
    assert estimates.codec is not generator.codec

    def normalised(adapter: Adapter) -> Tensor:
        layout = generator.codec.layout
        return generator.codec.encode(layout.flatten(adapter.tensors)[None])[0]

    for name in ("seen-16", "seen-02"):
        (estimate,), drawn = estimates.sample(DESCRIPTIONS[name], 1, 5), samples.sample(DESCRIPTIONS[name], 2, 5)
        for adapter in drawn:
            shift = normalised(adapter) - normalised(estimate)
            along = torch.linalg.lstsq(directions.T, shift[:, None]).solution
            assert float(along.norm()) > 0.01
            assert torch.allclose((directions.T @ along)[:, 0], shift, atol=1e-3)


def test_groups_of_one_name_are_all_measured(toy: Toy) -> None:
    training_set = TrainingSet(toy.zoo, DESCRIPTIONS, toys.SCHEMA, toy.generator.backbone, toy.features)
    seen = SeenTasks.of(training_set, ("metadata",), CALIBRATION)
    folds = [Fold("end", (name,), True) for name in ("seen-00", "seen-17")]
    generator = toy.generator
    assert generator.mean is not None
    source = EstimateSource(generator.mean, generator.conditions, generator.codec, generator.adapter_config)
    (rows,) = hold_out_folds(seen, folds, lambda fold, tick: (source,), seed=0)
    assert [row["description"].task for row in rows] == ["seen-00", "seen-00", "seen-17", "seen-17"]
