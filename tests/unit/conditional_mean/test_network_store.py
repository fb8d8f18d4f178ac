"""Networks that a killed fit has finished are those of an undisturbed one, and belong to one fit alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from refusals import refused
from wildpdiff.conditional_mean.training import NetworkStore, NetworkTraining, fit_ensemble, folds
from wildpdiff.errors import TrainingError

NAMES = tuple(f"task-{number}" for number in range(12))
CONFIG = NetworkTraining(steps=8, tasks=4, evaluate_every=2, patience=4)


class Noisy:
    """A network of one layer whose loss can be made to fail after some calls."""

    def __init__(self, calls: int | None = None) -> None:
        self.calls = calls
        self.trained = 0

    def network(self, tasks: list[int]) -> nn.Linear:
        return nn.Linear(2, 1)

    def groups(self, network: nn.Linear) -> list[dict[str, Any]]:
        return [{"params": list(network.parameters()), "lr": 0.1}]

    def loss(self, network: nn.Linear, tasks: Tensor, draws: torch.Generator) -> Tensor:
        self.trained += 1
        if self.calls is not None and self.trained > self.calls:
            raise TrainingError("killed")
        return (network(torch.randn(len(tasks), 2, generator=draws)) - tasks[:, None]).square().mean()

    def held_out_loss(self, network: nn.Linear, tasks: Tensor) -> Tensor:
        return (network(torch.ones(len(tasks), 2)) - tasks[:, None]).square().mean()


def fitted(problem: Noisy, store: NetworkStore | None) -> list[dict[str, Tensor]]:
    found = fit_ensemble([problem, problem], folds(NAMES, 3, 0, "noisy"), CONFIG, seed=0, what="noisy", store=store)  # type: ignore[list-item]
    states = [dict(network.state_dict()) for network in found.networks]
    assert not any(p.requires_grad or network.training for network in found.networks for p in network.parameters())
    return [*states, {"losses": found.losses, "fold": found.fold, "steps": torch.tensor(found.steps)}]


def alike(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(own[name], other[name]) for own, other in zip(left, right, strict=True) for name in own)


def test_a_stopped_ensemble_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    calm = fitted(Noisy(), None)
    store = NetworkStore(tmp_path / "networks", "key")
    with refused(TrainingError, "killed"):
        fitted(Noisy(calls=20), store)
    assert len(list(store.folder.iterdir())) == 2
    rest = Noisy()
    assert alike(fitted(rest, store), calm)
    assert rest.trained == 4 * CONFIG.steps, "two of six networks were there"
    again = Noisy(calls=0)
    assert alike(fitted(again, store), calm)


def test_networks_of_another_fit_and_damaged_files_are_not_taken(tmp_path: Path) -> None:
    store = NetworkStore(tmp_path, "key")
    fitted(Noisy(), store)
    other = Noisy()
    fitted(other, replace(store, key="other"))
    assert other.trained == 6 * CONFIG.steps
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    damaged = Noisy()
    assert alike(fitted(damaged, store), fitted(Noisy(), None))
    assert damaged.trained == 6 * CONFIG.steps


@pytest.mark.parametrize("damage", ["negated", "exchanged"])
def test_whole_files_of_another_content_are_not_taken(tmp_path: Path, damage: str) -> None:
    store = NetworkStore(tmp_path, "key")
    fitted(Noisy(), store)
    first, second, *_ = sorted(tmp_path.iterdir())
    if damage == "negated":
        tensors = load_file(first)
        first.write_bytes(save({**tensors, **{name: -tensors[name] for name in tensors if name[:8] == "network."}}))
    else:
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
    damaged = Noisy()
    assert alike(fitted(damaged, store), fitted(Noisy(), None))
    assert damaged.trained == (1 if damage == "negated" else 2) * CONFIG.steps


@pytest.mark.parametrize("change", ["tensors", "settings"])
def test_the_key_is_a_hash_of_tensors_and_settings(change: str, tmp_path: Path) -> None:
    tensors, settings = {"a": torch.ones(2)}, {"seed": 0}
    key = NetworkStore.of(tmp_path, tensors, settings).key
    assert key == NetworkStore.of(tmp_path, {"a": torch.ones(2)}, {"seed": 0}).key
    if change == "tensors":
        tensors["a"][0] = 2.0
    else:
        settings["seed"] = 1
    assert NetworkStore.of(tmp_path, tensors, settings).key != key


def test_progress_runs_evenly_to_its_end_though_trainings_are_stopped_early() -> None:
    calls: list[tuple[int, int]] = []
    config = NetworkTraining(steps=1000, tasks=4, evaluate_every=2, patience=3)
    fit_ensemble(
        [Noisy()],
        folds(NAMES, 3, 0, "noisy"),
        config,
        seed=0,
        what="noisy",
        progress=lambda *counts: calls.append(counts),
    )  # type: ignore
    done = [entry[0] for entry in calls]
    assert {entry[1] for entry in calls} == {3 * config.steps}
    assert done == sorted(done)
    assert done[-1] == 3 * config.steps
    assert len(done) < 600
    middle = done.index(2 * config.steps)
    assert max(after - before for before, after in pairwise(done[:middle])) < 0.95 * config.steps
