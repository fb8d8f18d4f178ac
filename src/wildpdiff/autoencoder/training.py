"""The parts that the training loops share: progress, learning rate, divergence, denormal numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from wildpdiff.errors import TrainingError

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

RISES, RISE = 3, 0.1
"""A held-out loss has turned upwards when it has risen so often in a row, to more than this share above its lowest."""


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear from 0 to 1 over ``warmup`` steps, then half a cosine down to 0.

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5 without restarts; warm-up as Goyal et al. 2017.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def check_finite(loss: float, step: int, what: str) -> None:
    """Stop a training whose loss is not a number.

    Raises:
        TrainingError: the loss is NaN or infinite; the message names the step and what to change.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"The training of the {what} diverged at step {step} (loss {loss}); check the input for NaN, "
            "or lower the learning rate."
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
    """Inside the block, torch's global CPU generator starts from ``seed``; afterwards it is as it was.

    Needed where torch takes no generator of ours: the initial weights of its modules, and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal floats as zero inside the block, and give the thread's setting back afterwards.

    Moments of the optimiser and moving averages of weights that no longer change decay into the denormal range
    (below 1.2e-38), where a CPU is tens of times slower. The setting belongs to the thread; it does not reach worker
    threads that run already, so what they compute is correct but not sped up. Torch has no getter: whether the
    setting was on is found by looking at what becomes of a denormal number.
    """
    was_on = float(torch.full((1,), 1e-40).mul(1.0).mul(1e20)) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)
