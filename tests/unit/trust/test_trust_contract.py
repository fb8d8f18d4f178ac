"""What trust must do with planted sources: none for what does not follow its description, use of what does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from eighteen_tasks import CALIBRATION, DESCRIPTIONS, TASKS, Toy
from test_trust_calibration import CONFIG as FOLDS
from test_trust_calibration import NOTHING, Center, Nearest, nearest

import toys
from trust_calibration import calibrate
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.posterior.decoder import ShiftDecoder
from wildpdiff.posterior.density import CodeDensity
from wildpdiff.rng import torch_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.trust.folds import Fold
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

NEW = tuple(toys.ToyTask(f"new-{level}", float(level), known=False) for level in range(75, 225, 15))
FitWithout = Callable[[Fold], Source]
RISK = 0.2
"""With eighteen tasks no threshold bounds a smaller one."""


@dataclass(frozen=True)
class Noise:
    """Adapters of random values."""

    name: str = "noise"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        return [toys.random_adapter(toys.backbone(), seed % 100_000 + number, 2.0) for number in range(n)]


@dataclass(frozen=True)
class RandomTask:
    """The adapter of a seen task, drawn anew for every description and whatever the description."""

    adapters: tuple[Adapter, ...]
    name: str = "random task"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        rows = torch.randint(
            len(self.adapters), (n,), generator=torch_generator(seed, "task", repr(description.metadata))
        )
        return [self.adapters[row] for row in rows.tolist()]


def calibrated(zoo: Zoo, backbone: Backbone, fit_without: FitWithout) -> TrustModel:
    features, config = FeatureCache(backbone, TASKS, 8), replace(FOLDS, risk=RISK)
    return calibrate(zoo, DESCRIPTIONS, toys.SCHEMA, backbone, features, fit_without, config=config, seed=1)


def mean_without(zoo: Zoo) -> FitWithout:
    adapters = zoo.task_adapters()

    def fit(fold: Fold) -> Center:
        kept = [adapter for name, adapter in adapters.items() if name not in fold.held_out]
        tensors = {key: torch.stack([entry.tensors[key] for entry in kept]).mean(0) for key in kept[0].tensors}
        return Center(Adapter(tensors, kept[0].config))

    return fit


def reports(model: TrustModel, fit: FitWithout) -> list[TrustReport]:
    """Of every held-out task by the source that was made without it, and of new ones; with and without images."""
    found = []
    for task in TASKS:
        description = DESCRIPTIONS[task.name]
        found.append(model.assess(fit(Fold("one", (task.name,), False)).sample(description, 2, 7), description))
    source = fit(NOTHING)
    for new in NEW:
        for description in (new.description, replace(new.description, examples=new.data("train").images),
                     Description(metadata={"level": new.level})):  # fmt: skip
            found.append(model.assess(source.sample(description, 2, 7), description))
    return found


PLANTED: dict[str, Callable[[Zoo], FitWithout]] = {
    "noise": lambda zoo: lambda fold: Noise(),
    "random seen task": lambda zoo: (
        lambda fold: RandomTask(
            tuple(adapter for name, adapter in zoo.task_adapters().items() if name not in fold.held_out)
        )
    ),
    "mean adapter": mean_without,
    "one adapter for all": lambda zoo: lambda fold: Center(zoo.task_adapters()[TASKS[8].name]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_does_not_follow_its_description_is_never_used(zoo: Zoo, toy_backbone: Backbone, name: str) -> None:
    fit = PLANTED[name](zoo)
    model = calibrated(zoo, toy_backbone, fit)
    assert not any(summary.descriptions_matter for summary in model.held_out.values())
    assert {report.trust for report in reports(model, fit)} == {0.0}
    assert not any(report.use_generated for report in reports(model, fit))


def test_what_follows_its_description_is_used(zoo: Zoo, toy_backbone: Backbone) -> None:
    fit = nearest(zoo)
    model = calibrated(zoo, toy_backbone, fit)
    assert all(summary.descriptions_matter for summary in model.held_out.values())
    found = reports(model, fit)
    assert sum(report.use_generated for report in found) > 0.5 * len(found)


@dataclass(frozen=True)
class WithProvenance(Nearest):
    """As a generator gives them: provenance records whether an adapter is a posterior sample."""

    draw: str = "estimate"

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        found = super().sample(description, n, seed)
        return [replace(one, provenance={**one.provenance, "sampling": {"draw": self.draw}}) for one in found]


def test_estimates_and_samples_have_a_trust_of_their_own_and_are_restored(
    zoo: Zoo, toy_backbone: Backbone, tmp_path: Path
) -> None:
    estimates = calibrated(zoo, toy_backbone, nearest(zoo))
    samples = calibrated(zoo, toy_backbone, lambda fold: Noise())
    both = replace(estimates, samples=samples)
    again = TrustModel.load(both.save(tmp_path / "trust"), toy_backbone)
    description = replace(NEW[3].description, examples=NEW[3].data("train").images)
    adapters = nearest(zoo)(NOTHING).adapters
    estimate, sample = (
        WithProvenance(adapters, draw=draw).sample(description, 1, 0) for draw in ("estimate", "posterior")
    )
    for model in (both, again):
        assert model.assess(estimate, description).use_generated
        assert model.assess(estimate, description) == estimates.assess(estimate, description)
        assert model.assess(sample, description).trust == 0
        assert model.assess(sample, description) == samples.assess(sample, description)
    assert again.samples is not None
    assert again.samples.samples is None
    assert estimates.assess(sample, description) == estimates.assess(estimate, description), "without one of its own"


def test_a_posterior_of_noise_is_not_trusted_though_its_estimates_are(toy: Toy) -> None:
    generator = toy.generator
    assert generator.posterior is not None
    assert generator.mean is not None
    draws = torch.Generator().manual_seed(0)
    wild = ShiftDecoder(20 * torch.randn(4, generator.codec.size, generator=draws), 1.0)
    density = CodeDensity("normal", generator.mean.seen, torch.randn(len(TASKS), 4, generator=draws))
    planted = replace(generator, posterior=replace(generator.posterior, decoder=wild, density=density))
    model = toy.calibrate(planted, replace(CALIBRATION, risk=RISK))
    assert model.samples is not None
    assert all(summary.descriptions_matter for summary in model.held_out.values())
    assert not any(summary.descriptions_matter for summary in model.samples.held_out.values())
    used = 0
    for new in NEW:
        description = replace(new.description, examples=new.data("train").images)
        assert model.assess(planted.with_sampling(draw="posterior").sample(description, 2, 0), description).trust == 0
        used += model.assess(planted.sample(description, 1, 0), description).use_generated
    assert used > 0
