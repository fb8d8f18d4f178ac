"""Methods of a comparison: the generator, every baseline, the controls and references, each with its training time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import FinetunedSource, MeanSource, PretrainedSource
from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource, NearestTaskSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Condition, SourceFamily, SourceInfo
from wildpdiff.evaluate.run import Method
from wildpdiff.evaluate.score import TestSet
from wildpdiff.generator import Generator
from wildpdiff.registry import registered
from wildpdiff.source import Source
from wildpdiff.tasks.description import Inputs

Baselines = Literal["core", "all"]
"""``core`` are those with almost no training; ``all`` adds trained networks, labels and controls."""

CORE_NAMES = ("mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression")
"""Baselines of this package, in the order of evaluation."""


@dataclass(frozen=True)
class Candidate:
    """A baseline before it is built.

    Attributes:
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
        """``none`` for methods that read no description, else the task's own."""
        return "none" if self.family in ("no description", "checkpoints") else "own"


@dataclass(frozen=True)
class MethodInputs:
    """Inputs that a method of a comparison may be built from.

    Attributes:
        seen: the training set of the baselines.
        labelled: labelled training images of seen and unseen tasks; without it, methods that use labels are left out.
        tasks: names of the evaluated tasks, so that such methods can prepare them together.
        settings: texts by key, for methods that need a setting of their own.
        tests: the test examples of the evaluated tasks.
        unlabelled: a task's unlabelled images by its name, for methods that are given them.
    """

    seen: SeenTasks
    generators: Sequence[Generator]
    labelled: LabelledData | None = None
    tasks: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    tests: Sequence[TestSet] = ()
    unlabelled: Callable[[str], Inputs] | None = None


@runtime_checkable
class MethodProvider(Protocol):
    """Methods that a package adds by an entry point of the group ``wildpdiff.methods``."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all its methods, in the order of evaluation."""

    @property
    def settings(self) -> Sequence[str]:
        """The keys of its methods' settings."""

    def check(self, settings: Mapping[str, str]) -> None:
        """Refuse impossible settings, before any work; raises :class:`wildpdiff.errors.WildpdiffError`."""

    def candidates(self, inputs: MethodInputs) -> Sequence[Candidate]:
        """Those that can be built from these inputs."""

    def of_samples(
        self, sampled: Source, backbone: Backbone, labelled: LabelledData | None
    ) -> Sequence[tuple[Source, SourceInfo]]:
        """Sources made of the posterior samples of a generator, for every comparison."""


@dataclass(frozen=True)
class Methods:
    """Methods in the order of evaluation, and a note on each source."""

    methods: tuple[Method, ...]
    sources: tuple[SourceInfo, ...]


def build_methods(
    inputs: MethodInputs,
    finetuned: Mapping[str, Adapter],
    *,
    baselines: Baselines = "core",
    without: Sequence[str] = (),
    further: Sequence[tuple[Method, SourceInfo]] = (),
    best_of: bool = True,
    fit_seconds: float | None = None,
) -> Methods:
    """Build every method of a comparison but the baselines ``without``; ``finetuned`` is the reference, by task.

    Raises:
        DataError: ``without`` names an unknown baseline.
    """
    candidates = _core(inputs.seen)
    if baselines == "all":
        candidates += [entry for provider in _providers() for entry in provider.candidates(inputs)]
    names = baseline_names()
    unknown = [name for name in without if name not in names]
    if unknown:
        raise DataError(f"There is no baseline {unknown[0]!r} to leave out; there are {', '.join(names)}.")
    methods = [(Method(PretrainedSource(inputs.seen.zoo.initial), "none"),
                SourceInfo("pretrained", "reference", None, "the backbone without an adapter"))]  # fmt: skip
    methods += [_built(entry, inputs) for entry in candidates if entry.name not in without]
    methods += further
    info = SourceInfo("generated", "description", fit_seconds, "this generator's estimate")
    conditions: tuple[Condition, ...] = ("own", "shuffled", "random")
    for generator in inputs.generators:
        seed = int(generator.training["seed"])
        methods += [(Method(generator, condition, seed), info) for condition in conditions]
    for generator in inputs.generators:
        if generator.mean is None or generator.posterior is None:
            continue
        sampled, seed = generator.with_sampling(draw="posterior"), int(generator.training["seed"])
        note = "a posterior sample of this generator"
        methods.append((Method(sampled, "own", seed), SourceInfo(sampled.name, "description", None, note)))
        for provider in _providers() if best_of else ():
            found = provider.of_samples(sampled, generator.backbone, inputs.labelled)
            methods += [(Method(source, "own", seed), info) for source, info in found]
    reference = SourceInfo("fine-tuned", "reference", None, "trained on all of the task's labels")
    methods.append((Method(FinetunedSource(finetuned), "own"), reference))
    return Methods(tuple(method for method, _ in methods), tuple(dict.fromkeys(info for _, info in methods)))


def _core(seen: SeenTasks) -> list[Candidate]:
    described = (seen.encoder, seen.descriptions, seen.adapters)
    mean, nearest, kernel, additive = CORE_NAMES
    notes = ("description to adapter, one kernel over everything", "description to adapter, a kernel for each factor")
    return [
        Candidate(mean, "no description", "mean of all seen adapters", lambda: MeanSource(seen.adapters)),
        Candidate(nearest, "description", "adapter of the seen task with the most similar description",
                  lambda: NearestTaskSource(*described, seen.features)),
        Candidate(kernel, "description", notes[0], lambda: KernelRegressionSource(*described, seen.features), True),
        Candidate(additive, "description", notes[1], lambda: AdditiveKernelSource(*described), True),
    ]  # fmt: skip


def _built(entry: Candidate, inputs: MethodInputs) -> tuple[Method, SourceInfo]:
    started = time.perf_counter()
    source = entry.make()
    seconds = time.perf_counter() - started if entry.trained else None
    info = SourceInfo(source.name, entry.family, seconds, entry.note)
    return Method(source, entry.condition, unlabelled=inputs.unlabelled if entry.unlabelled else None), info


def _providers() -> tuple[MethodProvider, ...]:
    return tuple(registered("methods").values())


def check_method_settings(settings: Mapping[str, str]) -> None:
    """Refuse unknown or impossible settings of added methods, before any work.

    Raises:
        DataError: no installed method has a setting of this key.
        WildpdiffError: a method refuses its setting.
    """
    known = [name for provider in _providers() for name in provider.settings]
    for name in settings:
        if name not in known:
            raise DataError(f"No method has a setting {name!r}; there are: {', '.join(known) or 'none'}.")
    for provider in _providers():
        provider.check({name: value for name, value in settings.items() if name in provider.settings})


def baseline_names() -> tuple[str, ...]:
    """Every baseline that can be left out, in the order of evaluation."""
    return (*CORE_NAMES, *(name for provider in _providers() for name in provider.names))
