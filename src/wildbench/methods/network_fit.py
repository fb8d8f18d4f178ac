"""A single network of all seen tasks, whose number of updates was chosen on held-out ones."""

from __future__ import annotations

import torch

from wildpdiff.conditional_mean.training import (
    FittedNetwork,
    Network,
    NetworkTraining,
    TaskProblem,
    TaskTraining,
    evaluation_of,
)
from wildpdiff.rng import torch_generator
from wildpdiff.threads import one_thread
from wildpdiff.training import flush_denormals

FEWEST_TO_HOLD_OUT = 5
"""With fewer tasks nothing can be chosen on held-out ones; all updates are made."""


def fit_network(
    problem: TaskProblem[Network], count: int, config: NetworkTraining, *, seed: int, what: str
) -> FittedNetwork[Network]:
    """A network trained on all seen tasks, for a number of updates that was chosen on held-out ones.

    Args:
        problem: network and losses.
        count: number of seen tasks; the problem's tasks are ``0 … count - 1``.
        config: of the training.
        seed: of everything random; the same seed gives the same bytes for one number of threads.
        what: name of the network, for errors.

    Raises:
        TrainingError: a loss is not finite.
    """
    steps, held_out_losses = config.steps, torch.zeros(0)
    with flush_denormals(), one_thread():
        if count >= FEWEST_TO_HOLD_OUT:
            order = torch.randperm(count, generator=torch_generator(seed, what, "held out"))
            kept = max(1, round(config.held_out * count))
            held, rest = order[:kept].sort().values, order[kept:].sort().values.tolist()
            trial = TaskTraining(problem, rest, config, seed, what, evaluation_of(problem, held)).run(steps)
            held_out_losses, steps = trial.held_out_losses, trial.steps
        fitted = TaskTraining(problem, range(count), config, seed, what).run(steps)
    return FittedNetwork(fitted.network, steps, fitted.losses, held_out_losses)
