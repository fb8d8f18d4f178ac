"""Number of CPU threads of a stage, within what the user allows.

Images behind a frozen stem are worth all threads. Trainings are not, nor is scoring many adapters: their tensors are
small, and on a busy machine the threads wait for each other at every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_allowed: int | None = None
"""Inside a block of :func:`one_thread`: the threads that there were before it."""


def allowed_threads() -> int:
    """Number of threads that the user allows, also inside :func:`one_thread`: as many processes may work."""
    return torch.get_num_threads() if _allowed is None else _allowed


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread inside the block, and as many as before afterwards.

    For work whose tensors are so small that handing them to other threads takes longer than the work. What is
    computed inside does not depend on the number of threads that the user gave.
    """
    global _allowed
    threads, before = torch.get_num_threads(), _allowed
    _allowed = allowed_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _allowed = before
