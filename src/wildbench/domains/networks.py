"""Small networks of domains: trained once on pooled examples of pretraining tasks, kept in the folder of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildbench.run_folder import Tick, kept
from wildpdiff.artifact import read_artifact, write_artifact
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.task import Task
from wildpdiff.threads import one_thread
from wildpdiff.training import seeded, train

KIND = "domain network"


@dataclass(frozen=True)
class PooledTraining:
    """A training on pooled examples, by AdamW with a one-cycle learning rate.

    Attributes:
        augment: changes a batch of inputs at random.
    """

    steps: int
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    augment: Callable[[Tensor, torch.Generator], Tensor] = field(default=lambda values, draws: values)


def trained_once(
    make: Callable[[], nn.Module],
    folder: Path,
    claim: Mapping[str, Any],
    examples: Callable[[], tuple[Float[Tensor, "n ..."], Int[Tensor, " n"]]],
    *,
    training: PooledTraining,
    seed: int,
    progress: Tick | None = None,
) -> nn.Module:
    """A classifier trained on some examples; where the folder has its weights, these.

    Args:
        make: an untrained module; its weights are drawn by the seed.
        claim: plain JSON values that, with the seed, decide the weights.
        examples: inputs and classes; called only where the network is not kept.

    Raises:
        TrainingError: the training diverged.
        ArtifactError: the disk is full.
    """
    with seeded(sub_seed(seed, "domain network", "weights")):
        module = make()
    wanted = {**claim, "seed": seed, "steps": training.steps, "batch": training.batch, "rate": training.learning_rate}

    def weights() -> dict[str, Tensor]:
        _fit(
            module, *examples(), training=training, seed=sub_seed(seed, "domain network", "batches"), progress=progress
        )
        return dict(module.state_dict())

    module.load_state_dict(kept_weights(folder, KIND, wanted, weights))
    return module


def kept_weights(
    folder: Path, kind: str, wanted: Mapping[str, Any], train: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The weights in a folder where they are of this configuration, else new ones, which are written there.

    Raises:
        ArtifactError: the disk is full.
    """
    found = kept(lambda: read_artifact(folder, kind), lambda artifact: artifact.config == wanted)
    if found is not None:
        return dict(found.tensors["weights"])
    weights = {name: value.clone() for name, value in train().items()}
    write_artifact(folder, kind, dict(wanted), {"weights": weights})
    return weights


@one_thread()
def _fit(
    module: nn.Module, inputs: Tensor, classes: Tensor, *, training: PooledTraining, seed: int, progress: Tick | None
) -> None:
    draws = torch_generator(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=max(2, training.steps))

    def loss() -> Tensor:
        rows = torch.randint(len(classes), (min(training.batch, len(classes)),), generator=draws)
        return cross_entropy(module(training.augment(inputs[rows], draws)), classes[rows])

    train(optimizer, loss, training.steps, name="domain's network", schedule=cycle, progress=progress)


def pooled_examples(tasks: Sequence[Task], name: str | None = None) -> tuple[Tensor, Tensor]:
    """Inputs and classes of the training examples of some tasks, together; of named inputs those of one name."""
    parts = [task.data("train") for task in tasks]
    given = [part.inputs if name is None else part.inputs[name] for part in parts]
    inputs = torch.from_numpy(np.concatenate([np.asarray(values, np.float32) for values in given]))
    return inputs, torch.from_numpy(np.concatenate([np.asarray(part.targets, np.int64) for part in parts]))
