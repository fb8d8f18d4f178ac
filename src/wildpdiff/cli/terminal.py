"""Output: results on stdout, progress and remarks on stderr; and the machine's settings for training."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from wildpdiff.disk import COMMANDS, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress, TaskID
    from rich.segment import Segment

    from wildpdiff.conditional_mean.score_table import CrossValidation

PIPE_WIDTH = 120
"""Columns of a table that goes into a pipe or a file."""


def print_json(value: Any) -> None:
    """A result as JSON on stdout."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write(COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


class _Visible:
    """A table whose cells cannot command the terminal; its own colours can."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def show(result: RenderableType) -> None:
    """A result for people on stdout: a text as it is, or a table."""
    if isinstance(result, str):
        typer.echo(visible(result))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
    console.print(_Visible(result))


def answer(as_json: bool, values: Any, *results: RenderableType) -> None:
    """The result of a verb: its values as JSON, or texts and tables for people."""
    if as_json:
        print_json(values)
        return
    for result in results:
        show(result)


def show_cross_validation(scores: CrossValidation, *, verdict: bool = True) -> None:
    """A generator's delivered estimate next to its alternatives, on held-out seen tasks, and the verdict."""
    from wildpdiff.report.tables import cross_validation_table
    from wildpdiff.report.terminal import terminal_table

    show(terminal_table(cross_validation_table(scores, f"Held-out seen tasks ({scores.tasks})")))
    if verdict:
        show(scores.verdict)


def show_parameter_errors(errors: Mapping[str, float], tasks: int) -> None:
    """Errors of imported adapters' parameters on held-out tasks, by method."""
    from wildpdiff.report.terminal import plain_table

    table = plain_table("", f"held-out tasks ({tasks})", "relative squared error of ΔW (1: no adapter)")
    for method, error in errors.items():
        table.add_row(method, f"{error:.3g}")
    show(table)


def remark(text: str) -> None:
    """Print a sentence next to the result, on stderr."""
    typer.echo(visible(text), err=True)


_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=("wildpdiff",))


def remember_command(arguments: Sequence[str], program: str = "wildpdiff") -> None:
    """Keep the command line: the words after the program's name."""
    _arguments.set((program, *arguments))


def recorded_command() -> str:
    """The command line, for the provenance of a result."""
    return shlex.join(_arguments.get())


def prepare_torch(threads: int | None) -> None:
    """Set the threads, and treat denormal numbers as zero. To be called before anything runs in parallel.

    Moments of optimisers decay into the denormal range, where a CPU is many times slower; the setting reaches
    torch's worker threads only if it is made before they exist.
    """
    import torch

    torch.set_flush_denormal(True)
    if threads is None and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        threads = max(1, int(os.environ["OMP_NUM_THREADS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or cores or 1)


QUIET_SECONDS = (10.0, 30.0)
"""Without a terminal: seconds until the first line about how far a stage is, and between later ones."""

EARLIEST_SHARE, EARLIEST_SECONDS, EARLIEST_MOVES = 0.02, 5.0, 3
"""Share of a stage, seconds, and calls that found more done, before its end is estimated."""

MEMORY = (60.0, 1 / 3)
"""Time constant of the mean rate: so many seconds, or this share of the stage's time where that is more."""


class TimeLeft:
    """Seconds until a stage ends, from the exponential mean of its rate.

    Tasks differ in cost, and so does the machine's load; but a training that is stopped early leaps ahead, so that the
    latest rate alone means little. Work done in the first second does not count: an earlier call has left it, or it is
    quick to set up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._last = (0.0, 0)
        self._begin, self._moves, self._work, self._time = 0, 0, 0.0, 0.0

    def __call__(self, done: int, total: int) -> float | None:
        """Seconds of a stage of which so much is done; None before there is an estimate."""
        now = self._clock()
        if self._first is None or now - self._first < 1.0:
            self._first = now if self._first is None else self._first
            self._begin, self._last = done, (now, done)
            return None
        passed, more, since = now - self._last[0], max(0, done - self._last[1]), now - self._first
        self._last = (now, done)
        kept = math.exp(-passed / max(MEMORY[0], MEMORY[1] * since))
        self._work, self._time = kept * self._work + more, kept * self._time + passed
        self._moves += more > 0
        early = self._moves < EARLIEST_MOVES or since < EARLIEST_SECONDS
        if early or done - self._begin < EARLIEST_SHARE * (total - self._begin):
            return None
        return max(0, total - done) * self._time / self._work


def duration(seconds: float) -> str:
    """A rounded duration: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Stages:
    """Stages as they run, with the time left: bars on a terminal, elsewhere a line at the start and now and then.

    Called with the name of a stage as it starts, it returns the progress callback (done, in all) of the stage.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Stages:
        """Start the display where stderr is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        if self._progress is not None:
            if kind is None:
                self._finish()
            self._progress.stop()

    def __call__(self, name: str) -> Callable[[int, int], None]:
        """Begin a stage, and end the one before."""
        left = TimeLeft()
        if self._progress is None:
            remark(f"{name} …")
            return _lines(name, left)
        progress = self._progress
        self._finish()
        task = self._task = progress.add_task(visible(name), total=None, left="")

        def tick(done: int, total: int) -> None:
            seconds = left(done, total)
            about = "" if seconds is None or done >= total else f"about {duration(seconds)} left"
            progress.update(task, completed=done, total=total, left=about)

        return tick

    def _finish(self) -> None:
        if self._progress is not None and self._task is not None:
            total = self._progress.tasks[self._task].total or 1
            self._progress.update(self._task, completed=total, total=total, left="")


def _lines(name: str, left: TimeLeft, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Progress in a pipe or a file: a line every half minute, the first one sooner."""
    following = clock() + QUIET_SECONDS[0]

    def tick(done: int, total: int) -> None:
        nonlocal following
        seconds = left(done, total)
        if seconds is None or done >= total or clock() < following:
            return
        following = clock() + QUIET_SECONDS[1]
        remark(f"{name}: {100 * done // total} %, about {duration(seconds)} left")

    return tick
