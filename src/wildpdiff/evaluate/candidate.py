"""A baseline that is built, and timed, only if it takes part in a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wildpdiff.evaluate.results import Condition
from wildpdiff.evaluate.sections import SourceFamily
from wildpdiff.source import Source

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """A baseline before it is built.

    Attributes:
        name: of the source.
        family: what it is allowed to read.
        note: what it is, in a few words.
        make: builds it.
        trained: whether building it is a training worth timing.
        unlabelled: whether it is given the task's unlabelled images.
    """

    name: str
    family: SourceFamily
    note: str
    make: Callable[[], Source]
    trained: bool = False
    unlabelled: bool = False

    @property
    def condition(self) -> Condition:
        """Whether it is given the task's own description, or none because it reads none."""
        return "none" if self.family in ("no description", "checkpoints") else "own"
