"""Who takes part in a comparison: the generator, everything simpler, and the controls, each with its training time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.additive_kernel import AdditiveKernelSource
from wildpdiff.baselines.best_of import BEST_BY_IMAGES, BEST_BY_LABELS, BestOfSource
from wildpdiff.baselines.finetuned import FinetunedSource
from wildpdiff.baselines.kernel_regression import KernelRegressionSource
from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.baselines.mean import MeanSource
from wildpdiff.baselines.nearest import NearestTaskSource
from wildpdiff.baselines.pretrained import PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.candidate import Candidate, MethodInputs, MethodProvider
from wildpdiff.evaluate.results import Condition
from wildpdiff.evaluate.run import Entrant
from wildpdiff.evaluate.sections import SourceFamily, SourceInfo
from wildpdiff.generator import Generator
from wildpdiff.registry import registered

Baselines = Literal["core", "all"]
"""``core`` are those that take no training worth speaking of; ``all`` adds trained networks, labels and controls."""


@dataclass(frozen=True)
class Roster:
    """The entrants of a comparison, in the order of evaluation, and what each source is."""

    entrants: tuple[Entrant, ...]
    sources: tuple[SourceInfo, ...]


def _core(seen: SeenTasks) -> list[Candidate]:
    told = (seen.encoder, seen.descriptions, seen.adapters)
    return [
        Candidate("mean adapter", "no description", "mean of all seen adapters", lambda: MeanSource(seen.adapters)),
        Candidate(
            "nearest task",
            "description",
            "adapter of the seen task described most alike",
            lambda: NearestTaskSource(*told, seen.features),
        ),
        Candidate(
            "kernel ridge regression",
            "description",
            "description to adapter, one kernel over everything",
            lambda: KernelRegressionSource(*told, seen.features),
            trained=True,
        ),
        Candidate(
            "additive kernel regression",
            "description",
            "description to adapter, a kernel for each factor",
            lambda: AdditiveKernelSource(*told),
            trained=True,
        ),
    ]


def assemble(
    inputs: MethodInputs,
    finetuned: Mapping[str, Adapter],
    *,
    baselines: Baselines = "core",
    without: Sequence[str] = (),
    further: Sequence[tuple[Entrant, SourceInfo]] = (),
    fit_seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Roster:
    """Build every source that takes part.

    Args:
        inputs: what sources are built from.
        finetuned: the reference's adapters by task.
        baselines: which.
        without: names of baselines that are left out.
        further: more entrants, with what they are.
        fit_seconds: training time of one generator, where it is known.
        progress: called with (sources built, in all).

    Raises:
        DataError: ``without`` names an unknown baseline.
    """
    seen, generators, labelled = inputs.seen, inputs.generators, inputs.labelled
    candidates = _core(seen)
    if baselines == "all":
        candidates += [entry for provider in _providers() for entry in provider.candidates(inputs)]
    names = baseline_names()
    unknown = [name for name in without if name not in names]
    if unknown:
        raise DataError(f"There is no baseline {unknown[0]!r} to leave out; there are {', '.join(names)}.")
    candidates = [entry for entry in candidates if entry.name not in without]
    entrants = [Entrant(PretrainedSource(seen.zoo.initial), "none")]
    infos = [SourceInfo("pretrained", "reference", None, "the backbone without an adapter")]
    for number, entry in enumerate(candidates):
        started = time.perf_counter()
        source = entry.make()
        seconds = time.perf_counter() - started if entry.trained else None
        entrants.append(Entrant(source, entry.condition, unlabelled=entry.unlabelled))
        infos.append(SourceInfo(source.name, entry.family, seconds, entry.note))
        if progress is not None:
            progress(number + 1, len(candidates))
    entrants += [entrant for entrant, _ in further]
    infos += dict.fromkeys(info for _, info in further)
    for generator in generators:
        seed = int(generator.training["seed"])
        conditions: tuple[Condition, ...] = ("own", "shuffled", "random")
        entrants += [Entrant(generator, condition, seed) for condition in conditions]
    infos.append(SourceInfo("generated", "description", fit_seconds, "this generator's estimate"))
    sampled = [entrant for generator in generators for entrant in _sampled(generator, labelled)]
    entrants += sampled
    infos += [SourceInfo(name, *SAMPLED[name]) for name in dict.fromkeys(entrant.source.name for entrant in sampled)]
    infos.append(SourceInfo("fine-tuned", "reference", None, "trained on all of the task's labels"))
    return Roster((*entrants, Entrant(FinetunedSource(finetuned), "own")), tuple(infos))


SAMPLED: Mapping[str, tuple[SourceFamily, float | None, str]] = {
    "one sample": ("description", None, "a posterior sample of this generator"),
    BEST_BY_IMAGES: ("unlabelled images", None, "of 8 posterior samples the one that is most certain of its images"),
    BEST_BY_LABELS: ("labels", None, "of 8 posterior samples the one under which 5 labels are most probable"),
}
"""What posterior samples are evaluated as."""


def _sampled(generator: Generator, labelled: LabelledData | None) -> list[Entrant]:
    """Posterior samples of a generator, and the best of several; none where it has no posterior."""
    if generator.mean is None or generator.posterior is None:
        return []
    seed, sampled = int(generator.training["seed"]), generator.with_sampling(draw="posterior")
    found = [Entrant(sampled, "own", seed)]
    if labelled is not None:
        for by_labels in (False, True):
            found.append(Entrant(BestOfSource(sampled, generator.backbone, labelled, by_labels=by_labels), "own", seed))
    return found


CORE_NAMES = ("mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression")
"""Baselines that need no package beside this one, in the order of evaluation."""


def _providers() -> tuple[MethodProvider, ...]:
    return tuple(registered("methods").values())


def check_method_settings(settings: Mapping[str, str]) -> None:
    """Refuse settings of added methods that no package knows, or that cannot be, before any work.

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
