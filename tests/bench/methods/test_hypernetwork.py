from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted_priors import UNSEEN, accuracy, planted, with_seed

from refusals import refused
from wildbench.methods.hypernetwork import HypernetworkConfig, HypernetworkLoss, HypernetworkSource
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditional_mean.training import NetworkTraining
from wildpdiff.errors import DescriptionError, TrainingError
from wildpdiff.tasks.description import Description

LOSSES: tuple[HypernetworkLoss, ...] = ("reconstruction", "task")
TRAINING = NetworkTraining(steps=40, tasks=6, warmup=5, evaluate_every=8, averaging=0.9)
CONFIG = HypernetworkConfig(TRAINING, directions=4, hidden=16, learning_rate=1e-2, images=8)
SHORT = replace(CONFIG, training=replace(TRAINING, steps=4, evaluate_every=2))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> SeenTasks:
    return planted(tmp_path_factory.mktemp("hypernetwork") / "zoo")


@pytest.fixture(scope="module")
def trained(seen: SeenTasks) -> dict[HypernetworkLoss, HypernetworkSource]:
    return {loss: HypernetworkSource(seen, loss, CONFIG) for loss in LOSSES}


def tensors_of(source: HypernetworkSource, description: Description = UNSEEN[0].description) -> dict[str, torch.Tensor]:
    return dict(source.sample(description, 1, 0)[0].tensors)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_from_the_description(
    seen: SeenTasks, trained: dict[HypernetworkLoss, HypernetworkSource], loss: HypernetworkLoss
) -> None:
    source = trained[loss]
    assert accuracy(seen, source) > max(0.8, accuracy(seen, MeanSource(seen.adapters)) + 0.1)
    losses, looks = source.fit.losses, source.fit.held_out_losses
    assert len(losses) == source.fit.steps == TRAINING.evaluation_steps[int(looks.argmin())] > 0
    assert losses[-10:].mean() < 0.8 * losses[:5].mean()
    assert looks.min() < 0.8 * looks[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_before_the_first_update_it_is_the_mean_adapter(seen: SeenTasks, loss: HypernetworkLoss) -> None:
    still = replace(SHORT, learning_rate=0.0, direction_rate=0.0)
    mean = MeanSource(seen.adapters).sample(Description(), 1, 0)[0].tensors
    for name, value in tensors_of(HypernetworkSource(seen, loss, still)).items():
        torch.testing.assert_close(value, mean[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_factor_a_stays_where_fine_tuning_left_it(
    seen: SeenTasks, trained: dict[HypernetworkLoss, HypernetworkSource], loss: HypernetworkLoss
) -> None:
    found = tensors_of(trained[loss])
    initial = seen.zoo.initial.tensors
    for name, value in found.items():
        assert torch.allclose(value, initial[name], atol=1e-6) is (".lora_A." in name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("part", ["metadata", "backgrounds"])
def test_one_part_is_enough(
    trained: dict[HypernetworkLoss, HypernetworkSource], loss: HypernetworkLoss, part: str
) -> None:
    source = trained[loss]
    rows = []
    for task in (UNSEEN[0], UNSEEN[-1]):
        description = Description(**{part: getattr(task.description, part)})
        rows.append(tensors_of(source, description)["base_model.model.classifier.bias"])
    # Class 1 is rarer in the first of the two tasks.
    assert (rows[0][1] - rows[0][0]) < (rows[1][1] - rows[1][0])


@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_description_is_refused(
    trained: dict[HypernetworkLoss, HypernetworkSource], loss: HypernetworkLoss
) -> None:
    with refused(DescriptionError):
        trained[loss].sample(Description(), 1, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_seed_decides_the_bytes(seen: SeenTasks, loss: HypernetworkLoss) -> None:
    fixed = replace(SHORT, training=replace(SHORT.training, steps=6, evaluate_every=6))
    first, again, other = (tensors_of(HypernetworkSource(with_seed(seen, s), loss, fixed)) for s in (0, 0, 1))
    assert safetensors_bytes(first) == safetensors_bytes(again) != safetensors_bytes(other)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_diverging_rate_is_named(seen: SeenTasks, loss: HypernetworkLoss) -> None:
    with refused(TrainingError, "hypernetwork"):
        HypernetworkSource(seen, loss, replace(CONFIG, learning_rate=1e25))


def test_with_few_tasks_all_updates_are_made(seen: SeenTasks) -> None:
    names = seen.zoo.tasks[:3]
    few = replace(seen, zoo=seen.zoo.only(names), descriptions=seen.descriptions[:3])
    fit = HypernetworkSource(few, "reconstruction", SHORT).fit
    assert (fit.steps, len(fit.losses), len(fit.held_out_losses)) == (4, 4, 0)
