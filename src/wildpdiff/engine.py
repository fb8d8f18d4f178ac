"""Engines: independent jobs one after the other, in processes of this machine, or on a Ray cluster.

A job gives the same bytes on every engine (of one kind of machine): it runs on one thread and depends on its item
alone.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from wildpdiff.errors import TrainingError
from wildpdiff.parallel import in_parallel, one_by_one
from wildpdiff.threads import one_thread

Job = Callable[[Any, Callable[[float], None]], Any]
"""A function of an item and of a callback for the share of the job that is done, 0 to 1."""

AHEAD = 2
"""Jobs a worker that are handed out before the first result is taken, so that results do not pile up."""
CONNECT_SECONDS = 5.0
RETRIES = 3
"""How often a job is given to another worker after its worker has died."""


@runtime_checkable
class Engine(Protocol):
    """A way to run independent jobs."""

    def map(
        self, function: Job, items: Sequence[Any], progress: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """The function's results in the order of the items, each as soon as it and those before it are there.

        Args:
            function: of an item and of a callback for the share of the job that is done; what it changes in memory
                may be lost.
            items: one a job.
            progress: called with the share of all jobs that is done, 0 to 1.

        Raises:
            TrainingError: a worker died, again and again where jobs are repeated.
            Exception: whatever a job raises.
        """


@dataclass(frozen=True)
class SerialEngine:
    """One job after the other, in this process."""

    def map(
        self, function: Job, items: Sequence[Any], progress: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """See :class:`Engine`."""
        return one_by_one(function, items, progress or _silent)


@dataclass(frozen=True)
class ProcessEngine:
    """Forked processes, as many as torch may use threads; see :mod:`wildpdiff.parallel`."""

    def map(
        self, function: Job, items: Sequence[Any], progress: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """See :class:`Engine`."""
        return in_parallel(function, items, progress)


@dataclass(frozen=True)
class RayEngine:
    """Workers of a Ray cluster (package ``ray``), which repeats the job of a worker that died.

    Function, items and results travel between the machines in Ray's own format, which executes code when it is read:
    use a cluster that you trust.

    Attributes:
        address: of a running cluster, ``auto`` for the one that the environment names, or ``local`` to start one on
            this machine.
        workers: jobs at a time; the cluster's cores by default.
    """

    address: str = "local"
    workers: int | None = None

    def map(
        self, function: Job, items: Sequence[Any], progress: Callable[[float], None] | None = None
    ) -> Iterator[Any]:
        """See :class:`Engine`; progress is reported by whole jobs."""
        report, ray = progress or _silent, self._connected()
        job = ray.remote(num_cpus=1, max_retries=RETRIES)(_run_in_worker)
        shared = ray.put(function)
        count = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        try:
            for number in range(len(items)):
                while len(waiting) < AHEAD * count and number + len(waiting) < len(items):
                    waiting.append(job.remote(shared, items[number + len(waiting)]))
                yield ray.get(waiting.popleft())
                report((number + 1) / len(items))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise TrainingError(
                f"A job was lost on the Ray cluster after {RETRIES + 1} attempts ({type(error).__name__}). Look at the "
                "cluster's logs, or run again without --engine ray."
            ) from error
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError:
            raise TrainingError("The engine ray needs the package ray: pip install 'wildpdiff[ray]'.") from None
        if ray.is_initialized():
            return ray
        settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            settings["num_cpus"] = self.workers
        host, _, port = self.address.rpartition(":")
        try:
            if host:  # Ray itself waits for minutes before it gives up
                socket.create_connection((host.removeprefix("ray://"), int(port)), CONNECT_SECONDS).close()
            ray.init(address=self.address, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            raise TrainingError(f"There is no Ray cluster at {self.address!r} ({error}). Check the address.") from error
        return ray


ENGINES: Mapping[str, Callable[[], Engine]] = {"serial": SerialEngine, "processes": ProcessEngine, "ray": RayEngine}
"""Engines by the name that ``--engine`` takes."""


def _run_in_worker(function: Job, item: Any) -> Any:
    """One job in a worker's process."""
    with one_thread():
        return function(item, _silent)


def _silent(share: float) -> None:
    """A callback for progress that is not shown."""
