"""Training by AdamW: one loop, learning-rate schedules, averaged parameters, early stopping, divergence."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from wildpdiff.errors import TrainingError

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Module = TypeVar("Module", bound=nn.Module)

RISES, RISE = 3, 0.1
"""A held-out loss has turned upwards after so many rises in a row, to more than this share above its lowest."""


def train(
    optimizer: Optimizer,
    objective: Callable[[], Tensor],
    steps: int,
    *,
    name: str,
    schedule: LRScheduler | None = None,
    clip: float | None = None,
    after: Callable[[int], bool] | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, " steps"]:
    """Losses of all updates that were made.

    Args:
        schedule: of the learning rate, advanced after every update.
        clip: largest norm of a gradient.
        after: called with the number of updates made; True ends the training.

    Raises:
        TrainingError: a loss is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses: list[float] = []
    for step in range(1, steps + 1):
        optimizer.zero_grad(set_to_none=True)
        loss = objective()
        losses.append(float(loss.detach()))
        check_finite(losses[-1], step, name)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if progress is not None:
            progress(step, steps)
        if after is not None and after(step):
            break
    return torch.tensor(losses)


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int) -> LambdaLR:
    """Linear warm-up over ``warmup`` steps, then half a cosine down to 0.

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5 without restarts; warm-up as Goyal et al. 2017.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)


def warmup_constant(optimizer: Optimizer, warmup: int) -> LambdaLR:
    """Linear warm-up, then constant rates: a run that is stopped early is the beginning of a longer one."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))


class ParameterAverage(Generic[Module]):
    """Exponential moving average of a module's parameters (Polyak & Juditsky 1992).

    Attributes:
        module: a frozen copy in evaluation mode that holds the average.
    """

    def __init__(self, source: Module, decay: float) -> None:
        self.module = copy.deepcopy(source).eval().requires_grad_(False)
        self._source, self._decay = source, decay

    def update(self, step: int) -> None:
        """Take in the parameters after ``step`` updates; a young average forgets its start faster than an old one."""
        decay = min(self._decay, step / (9.0 + step))
        current = [parameter.detach() for parameter in self._source.parameters()]
        torch._foreach_lerp_(list(self.module.parameters()), current, 1.0 - decay)


def check_finite(loss: float, step: int, name: str) -> None:
    """Refuse a loss that is not a number.

    Raises:
        TrainingError: the loss is NaN or infinite; the message names the network and the step.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"The training of the {name} diverged at step {step} (loss {loss}). Check the input for NaN, or lower the "
            "learning rate."
        )


def is_over(losses: Sequence[float], patience: int) -> bool:
    """Whether a training can end: its held-out loss has not fallen for long, or has clearly turned upwards.

    Args:
        losses: of all evaluations so far, at least one.
        patience: evaluations without a lower loss after which it ends.
    """
    lowest = min(losses)
    latest = losses[-RISES - 1 :]
    rising = len(latest) > RISES and all(before < after for before, after in pairwise(latest))
    turned = rising and latest[-1] > lowest + RISE * abs(lowest)
    return turned or len(losses) - 1 - losses.index(lowest) >= patience


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global CPU generator from ``seed`` inside the block, and as before afterwards.

    For the initial weights of torch's modules and for dropout, which take no generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Denormal floats are zero inside the block; the thread's setting is restored afterwards.

    Moments of the optimiser and averages of weights that no longer change decay into the denormal range (below
    1.2e-38), where a CPU is tens of times slower. The setting does not reach worker threads that run already, so what
    they compute is correct but not sped up. Torch has no getter: the setting shows in a product of a denormal number.
    """
    was_on = float(torch.full((1,), 1e-40).mul(1.0).mul(1e20)) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)
