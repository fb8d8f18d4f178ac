from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

import toys
from refusals import refused
from wildbench.methods.classifier import classifier_of
from wildbench.methods.prior_correction import (
    PSEUDO_COUNTS,
    PredictedPriorSource,
    UnlabelledPriorSource,
    expectation_maximisation,
    label_priors,
)
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditional_mean.kernel import fit_kernel_mean
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.disk import write_file
from wildpdiff.errors import AdapterMismatchError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import INITIAL, Zoo, ZooPlan

SCHEMA = MetadataSchema((MetadataField("x", "number"),))
CLASSES = ("dark", "grey", "bright")
GREYS = np.array([90.0, 128.0, 166.0])
NOISE = 28.0
SITES = np.linspace(-1.0, 1.0, 24)


def prior_at(x: float) -> npt.NDArray[np.float64]:
    """Bright pictures are common where x is high and dark ones where it is low."""
    raw = np.exp(2.5 * x * np.array([-1.0, 0.0, 1.0]))
    return np.asarray(raw / raw.sum())


POOLED = np.mean([prior_at(x) for x in SITES], axis=0)


def pictures(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One grey a picture, normally distributed about that of its class, in every task alike."""
    grey = GREYS[labels] + NOISE * rng.normal(size=len(labels))
    return np.broadcast_to(np.clip(grey, 0, 255)[:, None, None, None], (len(labels), 4, 4, 3)).astype(np.uint8)


def labels_at(x: float, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.choice(3, n, p=prior_at(x)).astype(np.int64)


class BayesClassifier(nn.Module):
    """The right answer under the pooled label frequencies: logits linear in the picture's grey."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(1, 3)
        centres, noise = torch.from_numpy((GREYS / 255 - 0.5) / 0.25), NOISE / 255 / 0.25
        with torch.no_grad():
            self.classifier.weight.copy_((centres / noise**2)[:, None])
            self.classifier.bias.copy_(-centres.square() / (2 * noise**2) + torch.from_numpy(POOLED).log())

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.classifier(inputs.mean((1, 2, 3))[:, None])
        return hidden


def backbone_with(saved: tuple[str, ...]) -> Backbone:
    lora = LoraSpec(1, 1.0, (), saved)
    return Backbone.wrap(BayesClassifier(), name="bayes", classes=CLASSES, image_size=4, lora=lora)


def seen_tasks(folder: Path, saved: tuple[str, ...] = ("classifier",)) -> SeenTasks:
    """Sites that differ in their label frequencies and in nothing else."""
    backbone = backbone_with(saved)
    names = tuple(f"t{number}" for number in range(len(SITES)))
    parameters = backbone.module.named_parameters()
    initial = {f"{PEFT_PREFIX}{name}": value.detach().clone() for name, value in parameters if saved}
    write_file(folder / INITIAL, safetensors_bytes(initial))
    zoo = Zoo(folder, ZooPlan(backbone.adapter_config, "planted", names, 20, {}, 0), pa.table({}))
    descriptions = [Description(metadata={"x": float(x)}) for x in SITES]
    known = {}
    for name, x in zip(names, SITES, strict=True):
        rng = numpy_generator(0, "planted priors", name)
        train, held_out = labels_at(x, 120, rng), labels_at(x, 60, rng)
        stems = [backbone.stem(pictures(labels, rng)) for labels in (train, held_out)]
        known[name] = TaskFeatures(
            name, toys.batch(stems[0], torch.from_numpy(train)), toys.batch(stems[1], torch.from_numpy(held_out))
        )
    encoder = fit_fusion(descriptions, SCHEMA, backbone.image_features, ("metadata",))
    return SeenTasks(backbone, zoo, descriptions, encoder, {}, known.__getitem__, seed=0)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> SeenTasks:
    return seen_tasks(tmp_path_factory.mktemp("priors") / "zoo")


@pytest.fixture(scope="module")
def predicted(seen: SeenTasks) -> PredictedPriorSource:
    return PredictedPriorSource(seen)


@pytest.fixture(scope="module")
def estimated(seen: SeenTasks) -> UnlabelledPriorSource:
    return UnlabelledPriorSource(seen)


def accuracy(backbone: Backbone, adapter: Adapter, x: float) -> float:
    rng = numpy_generator(9, "test", str(x))
    labels = labels_at(x, 3000, rng)
    found = backbone.predict(backbone.stem(pictures(labels, rng)), adapter.tensors).argmax(1)
    return float((found.numpy() == labels).mean())


def described(x: float, images: int = 400) -> Description:
    rng = numpy_generator(8, "unlabelled", str(x))
    return Description(metadata={"x": x}, examples=pictures(labels_at(x, images, rng), rng), task_id="new")


# Label frequencies ------------------------------------------------------------------------------------------------


def test_label_priors_by_hand() -> None:
    found = label_priors([torch.tensor([0, 0, 1]), torch.tensor([1])], 3)
    pooled = np.array([3, 3, 1]) / 7
    assert found.pooled.exp().numpy() == pytest.approx(pooled, rel=1e-6)
    assert found.tasks[0].exp().numpy() == pytest.approx((np.array([2, 1, 0]) + 3 * pooled) / 6, rel=1e-6)
    assert found.tasks.exp().sum(1).numpy() == pytest.approx(1.0, rel=1e-6)


def test_the_bias_is_found_and_its_absence_refused(seen: SeenTasks, tmp_path: Path) -> None:
    assert classifier_of(seen.zoo.initial, "test")[1] == f"{PEFT_PREFIX}classifier.bias"
    bare = seen_tasks(tmp_path / "zoo", saved=())
    for source in (PredictedPriorSource, UnlabelledPriorSource):
        with refused(AdapterMismatchError, "bayes"):
            source(bare)


# Expectation maximisation -----------------------------------------------------------------------------------------


def posteriors(prior: npt.NDArray[np.float64], n: int, seed: int = 0) -> Tensor:
    """Predictions of a right classifier, trained under the pooled frequencies, on pictures with other frequencies."""
    rng = numpy_generator(seed, "posteriors")
    labels = rng.choice(3, n, p=prior)
    grey = GREYS[labels] + NOISE * rng.normal(size=n)
    logits = -((grey[:, None] - GREYS) ** 2) / (2 * NOISE**2) + np.log(POOLED)
    return torch.from_numpy(logits).softmax(1).float()


@pytest.mark.parametrize("prior", [(0.7, 0.2, 0.1), (0.05, 0.05, 0.9), (0.1, 0.8, 0.1)])
def test_em_recovers_a_planted_prior(prior: tuple[float, ...]) -> None:
    found = expectation_maximisation(posteriors(np.array(prior), 6000), torch.from_numpy(POOLED).float())
    assert found.log_prior.exp().numpy() == pytest.approx(np.array(prior), abs=0.04)
    assert float(found.log_prior.exp().sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("pseudo_count", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_em_never_lowers_what_it_maximises(pseudo_count: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(25, 6, generator=draws)).softmax(1)
    trained = torch.rand(6, generator=draws) + 0.05
    found = expectation_maximisation(probabilities, trained / trained.sum(), pseudo_count, tolerance=0.0)
    steps = found.log_likelihoods
    assert bool((steps.diff() >= -1e-9).all())
    assert float(steps[-1] - steps[0]) > 0.1


def test_em_changes_nothing_where_the_prior_is_right() -> None:
    rotated = [torch.tensor([0.6, 0.3, 0.1]).roll(shift) for shift in range(3)]
    found = expectation_maximisation(torch.stack(rotated), torch.full((3,), 1 / 3))
    assert found.log_prior.exp().numpy() == pytest.approx(1 / 3, abs=1e-6)
    assert len(found.log_likelihoods) == 2


def test_em_equals_a_twin_that_takes_one_image_at_a_time() -> None:
    probabilities = posteriors(np.array([0.5, 0.4, 0.1]), 30)
    prior = [float(value) for value in POOLED]
    for _ in range(7):
        sums = [2.0 * float(value) for value in POOLED]
        for row in probabilities.tolist():
            joint = [p * now / float(train) for p, now, train in zip(row, prior, POOLED, strict=True)]
            sums = [total + value / sum(joint) for total, value in zip(sums, joint, strict=True)]
        prior = [total / 32 for total in sums]
    found = expectation_maximisation(probabilities, torch.from_numpy(POOLED).float(), 2.0, iterations=7, tolerance=0.0)
    assert found.log_prior.exp().numpy() == pytest.approx(np.array(prior), abs=1e-6)


def test_many_imagined_images_keep_the_pooled_prior() -> None:
    pooled = torch.from_numpy(POOLED).float()
    found = expectation_maximisation(posteriors(np.array([0.9, 0.05, 0.05]), 50), pooled, 1e7)
    assert found.log_prior.numpy() == pytest.approx(np.log(POOLED), abs=1e-3)


def test_an_absent_class_is_made_impossible_and_stays_finite() -> None:
    sure = torch.tensor([[1.0, 0.0, 0.0]]).expand(20, 3)
    found = expectation_maximisation(sure, torch.full((3,), 1 / 3)).log_prior
    assert bool(torch.isfinite(found).all())
    assert float(found[1]) == pytest.approx(-12.0)


# Sources ----------------------------------------------------------------------------------------------------------


def test_the_adapter_shifts_the_logits_and_nothing_else(seen: SeenTasks, estimated: UnlabelledPriorSource) -> None:
    query = described(0.7)
    adapter = estimated.sample(query, 1, 0)[0]
    seen.backbone.check(adapter)
    assert query.examples is not None
    features = seen.backbone.stem(query.examples)
    shift = seen.backbone.predict(features, adapter.tensors) - seen.backbone.predict(features)
    pooled = label_priors([seen.data(name).train["targets"] for name in seen.zoo.tasks], 3).pooled
    assert torch.allclose(shift, (estimated.log_prior(query) - pooled).expand_as(shift), atol=1e-4)
    assert float(shift.abs().max()) > 0.5


@pytest.mark.parametrize("x", [-0.9, 0.75])
def test_both_priors_are_near_the_truth_and_help_where_only_labels_shift(
    seen: SeenTasks, predicted: PredictedPriorSource, estimated: UnlabelledPriorSource, x: float
) -> None:
    query, floor = described(x), accuracy(seen.backbone, seen.zoo.initial, x)
    for source in (predicted, estimated):
        assert source.log_prior(query).exp().numpy() == pytest.approx(prior_at(x), abs=0.1)
        assert accuracy(seen.backbone, source.sample(query, 1, 0)[0], x) > floor + 0.04


def test_strength_and_smoothing_suit_tasks_where_bayes_rule_holds(
    predicted: PredictedPriorSource, estimated: UnlabelledPriorSource
) -> None:
    assert 0.5 <= predicted.strength <= 1.6
    assert estimated.pseudo_count in PSEUDO_COUNTS
    assert estimated.pseudo_count <= 30.0
    assert predicted.mean.relative_error < 0.2


def test_descriptions_independent_of_labels_hardly_move_the_logits(seen: SeenTasks) -> None:
    order = numpy_generator(3, "shuffled").permutation(len(SITES))
    descriptions = [seen.descriptions[int(row)] for row in order]
    shuffled = replace(seen, descriptions=descriptions)
    source = PredictedPriorSource(shuffled)
    right = PredictedPriorSource(seen)
    query = described(0.9)
    pooled = torch.from_numpy(POOLED).log().float()
    away = [float((entry.strength * (entry.log_prior(query) - pooled)).norm()) for entry in (source, right)]
    assert away[0] < 0.35 * away[1]


def test_leave_one_out_equals_regression_without_the_task(seen: SeenTasks) -> None:
    targets = label_priors([seen.data(name).train["targets"] for name in seen.zoo.tasks], 3).tasks
    mean = fit_kernel_mean(seen.encoder, seen.embeddings, targets)
    kernel, values = mean.kernel_between(mean.seen, mean.seen).double().numpy(), targets.double().numpy()
    found = mean.leave_one_out().numpy()
    assert mean.terms
    for i in (0, 7, 23):
        rest = [j for j in range(len(values)) if j != i]
        system = np.ones((len(rest) + 1, len(rest) + 1))
        system[:-1, :-1] = kernel[np.ix_(rest, rest)] + mean.ridge * np.eye(len(rest))
        system[-1, -1] = 0.0
        solved = np.linalg.solve(system, np.vstack([values[rest], np.zeros(3)]))
        assert found[i] == pytest.approx(kernel[i, rest] @ solved[:-1] + solved[-1], abs=1e-5)


def test_a_lone_task_has_only_itself(seen: SeenTasks) -> None:
    alone = torch.tensor([[-1.0, -2.0, -0.7]])
    mean = fit_kernel_mean(seen.encoder, seen.embeddings[:1], alone)
    assert torch.equal(mean.leave_one_out(), alone)


def test_em_needs_images(estimated: UnlabelledPriorSource) -> None:
    with refused(DescriptionError, "metadata", "examples"):
        estimated.sample(Description(metadata={"x": 0.1}), 1, 0)
    with refused(DescriptionError, "examples"):
        estimated.sample(Description(examples=np.zeros((0, 4, 4, 3), np.uint8)), 1, 0)
