"""Named sub-seeds from one seed. Nothing in the package seeds globally."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def sub_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and on the names, and on nothing else.

    The same names always give the same value, on every machine and Python version, so that adding a consumer
    of randomness never shifts the draws of another.
    """
    text = "/".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def first_by_name(names: Sequence[str], count: int, seed: int, *purpose: str | int) -> list[int]:
    """Indices, ascending, of ``count`` names, drawn by the hash of each; a further name displaces at most one."""
    order = sorted(range(len(names)), key=lambda index: sub_seed(seed, *purpose, names[index]))
    return sorted(order[:count])


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the named purpose."""
    return np.random.Generator(np.random.PCG64(sub_seed(seed, *names)))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A torch CPU generator for the named purpose."""
    # Imported late: intervals over tasks are drawn where no torch is.
    import torch

    return torch.Generator().manual_seed(sub_seed(seed, *names))
