"""Baselines that are built, and timed, only if they take part in a comparison; also those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.evaluate.results import Condition
from wildpdiff.evaluate.sections import SourceFamily
from wildpdiff.generator import Generator
from wildpdiff.source import Source


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


@dataclass(frozen=True)
class MethodInputs:
    """Everything that a method of a comparison may be built from.

    Attributes:
        seen: the training set of the baselines.
        generators: one a training seed.
        labelled: labelled training images of seen and unseen tasks, for methods that use labels; without it these are
            left out.
        tasks: names of the tasks that will be evaluated, so that such methods can prepare them together.
        settings: texts by key, for methods that need a setting of their own.
    """

    seen: SeenTasks
    generators: Sequence[Generator]
    labelled: LabelledData | None = None
    tasks: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class MethodProvider(Protocol):
    """Methods that a package adds by an entry point of the group ``wildpdiff.methods``."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all its methods, in the order of evaluation."""

    @property
    def settings(self) -> Sequence[str]:
        """The keys of the settings that its methods have."""

    def check(self, settings: Mapping[str, str]) -> None:
        """Refuse settings that cannot be, before any work; raises :class:`wildpdiff.errors.WildpdiffError`."""

    def candidates(self, inputs: MethodInputs) -> Sequence[Candidate]:
        """Those that can be built from these inputs."""
