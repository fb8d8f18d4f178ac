"""Independent jobs in processes of one thread each, as many as the user allows threads.

The tensors of this package are small: threads that share one operation wait for each other, processes do not. A job
gives the same bytes in a process as here, since it runs on one thread in both.

Processes are forked, so a job may close over anything without a copy; results are copied. Where the
system cannot fork safely (other than Linux, or after CUDA was used), and inside a job, jobs run one after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from wildpdiff.errors import TrainingError
from wildpdiff.threads import allowed_threads, one_thread

Item = TypeVar("Item")
Result = TypeVar("Result")
Tick = Callable[[float], None]
"""Progress callback of a job: the share of it that is done, 0 to 1."""

FORK = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
POLL_SECONDS = 0.2
AHEAD = 2
"""Jobs a process that are started before the first result is taken, so that results do not pile up."""
PR_SET_PDEATHSIG = 1

_job: tuple[Callable[[Any, Tick], Any], Sequence[Any], Any] | None = None
"""The job of forked processes: function, items, and the shared shares of them that are done."""
_inside = False
"""Whether this process is one of them."""


def workers(jobs: int) -> int:
    """Number of processes that :func:`in_parallel` uses for so many jobs; 1 means that none is forked."""
    # Daemonic processes of another pool may have no children.
    if _inside or multiprocessing.current_process().daemon or sys.platform != "linux" or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 1
    return max(1, min(allowed_threads(), jobs))


def in_parallel(
    function: Callable[[Item, Tick], Result], items: Sequence[Item], progress: Callable[[float], None] | None = None
) -> Iterator[Result]:
    """The results of a function on some items, in their order, each as soon as it and those before it are there.

    Args:
        function: called with an item and a progress callback; its changes of memory may be lost.
        items: one a job.
        progress: called with the share of all jobs that is done, 0 to 1.

    Raises:
        TrainingError: a process was killed.
        Exception: whatever a job raises; the other jobs are then stopped.
    """
    report = progress or (lambda share: None)
    count = workers(len(items))
    pool = _pool(count) if count > 1 else None
    if pool is not None:
        yield from _forked(function, items, report, count, pool=pool)
        return
    yield from one_by_one(function, items, report)


def one_by_one(
    function: Callable[[Item, Tick], Result], items: Sequence[Item], report: Callable[[float], None]
) -> Iterator[Result]:
    """The results of a function on some items, computed in this process on one thread."""
    for number, item in enumerate(items):
        with one_thread():
            result = function(item, lambda share, before=number: report((before + share) / len(items)))  # type: ignore[misc]
        report((number + 1) / len(items))
        yield result


def _forked(
    function: Callable[[Item, Tick], Result],
    items: Sequence[Item],
    report: Callable[[float], None],
    count: int,
    *,
    pool: ProcessPoolExecutor,
) -> Iterator[Result]:
    global _job
    shares = memoryview(mmap.mmap(-1, 8 * len(items))).cast("d")  # without a file, as full disks and limits refuse one
    before, _job = _job, (function, items, shares)
    waiting: deque[Future[bytes]] = deque()
    try:
        for number in range(len(items)):
            while len(waiting) < AHEAD * count and number + len(waiting) < len(items):
                waiting.append(pool.submit(_run, number + len(waiting)))
            first = waiting.popleft()
            while not first.done():
                wait([first], POLL_SECONDS)
                report(sum(shares) / len(items))
            result: Result = pickle.loads(first.result())  # from a process of our own
            report(sum(shares) / len(items))
            yield result
    except BrokenProcessPool:
        raise TrainingError(
            f"One of {count} processes was killed, most likely for lack of memory. Call again with one thread "
            "(--threads 1), or with smaller shards."
        ) from None
    finally:
        _job = before
        _stop(pool)


def _pool(count: int) -> ProcessPoolExecutor | None:
    """Processes that are forked at the first job; None where the system has no semaphores (no ``/dev/shm``)."""
    try:
        return ProcessPoolExecutor(count, mp_context=FORK, initializer=_begin)
    except (ImportError, NotImplementedError, OSError):
        return None


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the processes, also those that are at work: after an error their results are of no use."""
    processes = list((pool._processes or {}).values())
    idle = not pool._pending_work_items
    if not idle:
        for process in processes:
            process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Make a new process one of the pool: one thread, deaf to Ctrl-C, and gone when the main process is."""
    global _inside
    _inside = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)


def _run(number: int) -> bytes:
    """One job in a forked process. Bytes, since tensors would be sent through shared memory, which may be small."""
    assert _job is not None
    function, items, shares = _job

    def tick(share: float) -> None:
        shares[number] = share

    result = function(items[number], tick)
    shares[number] = 1.0
    return pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
