"""What trust must do with planted sources: none for what does not follow its description, use of what does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from test_trust_calibration import CONFIG as FOLDS
from test_trust_calibration import NOTHING, TASKS, TOLD, Center, Nearest, nearest
from test_trust_generated import CALIBRATION, CONFIG

import toys
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.fit import fit_generator
from wildpdiff.generator import Generator
from wildpdiff.posterior.decoder import ShiftDecoder
from wildpdiff.posterior.density import CodeDensity
from wildpdiff.rng import torch_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.trust.calibrate import calibrate
from wildpdiff.trust.folds import Fold
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport
from wildpdiff.zoo.build import build_zoo
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
    """The adapter of a seen task, drawn anew for every description and whatever it says."""

    adapters: tuple[Adapter, ...]
    name: str = "random task"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        rows = torch.randint(
            len(self.adapters), (n,), generator=torch_generator(seed, "task", repr(description.metadata))
        )
        return [self.adapters[row] for row in rows.tolist()]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    folder = tmp_path_factory.mktemp("contract") / "zoo"
    return build_zoo(folder, toy_backbone, TASKS, "toy-trust", toys.FINETUNE, per_shard=18)


def calibrated(zoo: Zoo, backbone: Backbone, fit_without: FitWithout) -> TrustModel:
    features, config = FeatureCache(backbone, TASKS, 8), replace(FOLDS, risk=RISK)
    return calibrate(zoo, TOLD, toys.SCHEMA, backbone, features, fit_without, config=config, seed=1)


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
        told = TOLD[task.name]
        found.append(model.assess(fit(Fold("one", (task.name,), False)).sample(told, 2, 7), told))
    source = fit(NOTHING)
    for new in NEW:
        for told in (new.description, replace(new.description, examples=new.data("train").images),
                     Description(metadata={"level": new.level})):  # fmt: skip
            found.append(model.assess(source.sample(told, 2, 7), told))
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
    assert not any(summary.tells for summary in model.held_out.values())
    assert {report.trust for report in reports(model, fit)} == {0.0}
    assert not any(report.use_generated for report in reports(model, fit))


def test_what_follows_its_description_is_used(zoo: Zoo, toy_backbone: Backbone) -> None:
    fit = nearest(zoo)
    model = calibrated(zoo, toy_backbone, fit)
    assert all(summary.tells for summary in model.held_out.values())
    found = reports(model, fit)
    assert sum(report.use_generated for report in found) > 0.5 * len(found)


@dataclass(frozen=True)
class Told(Nearest):
    """As a generator gives them: provenance says whether an adapter is a posterior sample."""

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
    told = replace(NEW[3].description, examples=NEW[3].data("train").images)
    adapters = nearest(zoo)(NOTHING).adapters
    estimate, sample = (Told(adapters, draw=draw).sample(told, 1, 0) for draw in ("estimate", "posterior"))
    for model in (both, again):
        assert model.assess(estimate, told).use_generated
        assert model.assess(estimate, told) == estimates.assess(estimate, told)
        assert model.assess(sample, told).trust == 0
        assert model.assess(sample, told) == samples.assess(sample, told)
    assert again.samples is not None
    assert again.samples.samples is None
    assert estimates.assess(sample, told) == estimates.assess(estimate, told), "without one of its own"


def test_a_posterior_of_noise_is_not_trusted_though_its_estimates_are(zoo: Zoo, toy_backbone: Backbone) -> None:
    features = FeatureCache(toy_backbone, TASKS, 8)
    generator = fit_generator(zoo, TOLD, toys.SCHEMA, toy_backbone, CONFIG, features=features, seed=1).generator
    assert generator.posterior is not None
    assert generator.mean is not None
    size = generator.codec.size
    wild = ShiftDecoder(20 * torch.randn(4, size, generator=torch.Generator().manual_seed(0)), 1.0)
    codes = torch.randn(len(TASKS), 4, generator=torch.Generator().manual_seed(1))
    noise = replace(generator.posterior, decoder=wild, density=CodeDensity("normal", generator.mean.seen, codes))
    planted: Generator = replace(generator, posterior=noise)
    calibration = replace(CALIBRATION, risk=RISK)
    model = calibrate_generator(planted, zoo, TOLD, toys.SCHEMA, CONFIG, features, calibration=calibration, seed=3)
    assert model.samples is not None
    assert all(summary.tells for summary in model.held_out.values())
    assert not any(summary.tells for summary in model.samples.held_out.values())
    used = 0
    for new in NEW:
        told = replace(new.description, examples=new.data("train").images)
        assert model.assess(planted.with_sampling(draw="posterior").sample(told, 2, 0), told).trust == 0
        used += model.assess(planted.sample(told, 1, 0), told).use_generated
    assert used > 0
