"""Who takes part in a comparison: the generator, everything simpler, and the controls, each with its training time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wildpdiff.adapter import Adapter
from wildpdiff.baselines.additive_kernel import AdditiveKernelSource
from wildpdiff.baselines.best_of import BEST_BY_IMAGES, BEST_BY_LABELS, BestOfSource
from wildpdiff.baselines.centred import CentredPretrainedSource
from wildpdiff.baselines.checkpoints import (
    CheckpointAverageSource,
    CheckpointNoiseSource,
    GaussianSource,
    pool_statistics,
)
from wildpdiff.baselines.column_merge import ColumnMergeSource
from wildpdiff.baselines.feature_prompt import FeaturePromptSource
from wildpdiff.baselines.finetuned import FinetunedSource
from wildpdiff.baselines.hypernetwork import HypernetworkSource
from wildpdiff.baselines.kernel_regression import KernelRegressionSource
from wildpdiff.baselines.linear_ridge import LinearRidgeSource
from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.baselines.mean import MeanSource
from wildpdiff.baselines.merge import TopKMergeSource
from wildpdiff.baselines.multitask import MultiTaskSource
from wildpdiff.baselines.nearest import NearestTaskSource
from wildpdiff.baselines.pdiff import UnconditionalPDiffSource
from wildpdiff.baselines.pretrained import PretrainedSource
from wildpdiff.baselines.prior_correction import PredictedPriorSource, UnlabelledPriorSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.candidate import Candidate
from wildpdiff.evaluate.labelled_roster import LABELLED_NAMES, labelled_candidates
from wildpdiff.evaluate.results import Condition
from wildpdiff.evaluate.run import Entrant
from wildpdiff.evaluate.sections import SourceFamily, SourceInfo
from wildpdiff.generator import Generator
from wildpdiff.source import Source

__all__ = ["SOURCE_NAMES", "Baselines", "Roster", "assemble"]

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


def _further(seen: SeenTasks) -> list[Candidate]:
    told = (seen.encoder, seen.descriptions, seen.adapters)
    return [
        Candidate(
            "top-K merge",
            "description",
            "softmax-weighted mean of the nearest seen adapters",
            lambda: TopKMergeSource(*told, seen.features),
            trained=True,
        ),
        Candidate(
            "linear ridge regression",
            "description",
            "description to adapter, linear",
            lambda: LinearRidgeSource(*told, seen.features),
            trained=True,
        ),
        Candidate(
            "pretrained, centred",
            "description",
            "pretrained, its classifier centred on the images of the place",
            lambda: CentredPretrainedSource(seen),
            trained=True,
        ),
        Candidate(
            "prior from the description",
            "description",
            "pretrained, its label prior predicted from the description",
            lambda: PredictedPriorSource(seen),
            trained=True,
        ),
        Candidate(
            "prior by EM on unlabelled images",
            "unlabelled images",
            "pretrained, its label prior fitted to the task's unlabelled images",
            lambda: UnlabelledPriorSource(seen),
            trained=True,
            unlabelled=True,
        ),
        Candidate(
            "multi-task adapter",
            "no description",
            "one adapter trained on all seen tasks",
            lambda: MultiTaskSource(seen, False),
            trained=True,
        ),
        Candidate(
            "multi-task adapter with description",
            "description",
            "one adapter whose classifier reads the description",
            lambda: MultiTaskSource(seen, True),
            trained=True,
        ),
    ]


def _networks(seen: SeenTasks) -> list[Candidate]:
    return [
        Candidate(
            "hypernetwork, reconstruction",
            "description",
            "network from description to adapter, trained on adapters",
            lambda: HypernetworkSource(seen, "reconstruction"),
            trained=True,
        ),
        Candidate(
            "hypernetwork, task loss",
            "description",
            "network from description to adapter, trained through the backbone",
            lambda: HypernetworkSource(seen, "task"),
            trained=True,
        ),
        Candidate(
            "column-wise merge",
            "description",
            "seen adapters merged column by column, by a network trained through the backbone",
            lambda: ColumnMergeSource(seen),
            trained=True,
        ),
        Candidate(
            "feature prompt",
            "description",
            "scale and bias of the features, by a network that reads the description's images",
            lambda: FeaturePromptSource(seen),
            trained=True,
        ),
    ]


def _controls(seen: SeenTasks) -> list[Candidate]:
    zoo = seen.zoo
    statistics = pool_statistics(zoo)
    noise = [
        Candidate(
            CheckpointNoiseSource(zoo, scale, relative, statistics).name,
            "checkpoints",
            f"a stored checkpoint plus noise of {scale:g}{' of the spread' if relative else ''}",
            lambda scale=scale, relative=relative: CheckpointNoiseSource(zoo, scale, relative, statistics),  # type: ignore[misc]
        )
        for scale, relative in ((0.06, False), (0.12, False), (0.05, True), (0.15, True))
    ]
    return [
        *noise,
        Candidate(
            "average of 16 checkpoints",
            "checkpoints",
            "mean of 16 random stored checkpoints",
            lambda: CheckpointAverageSource(zoo, 16),
        ),
        Candidate(
            "Gaussian per coordinate",
            "checkpoints",
            "normal draws with the mean and spread of each value",
            lambda: GaussianSource(zoo, statistics),
        ),
    ]


def _pdiff(seen: SeenTasks, folder: Path) -> Candidate:
    """p-diff takes an hour of one core: trained once, it is kept."""

    def make() -> Source:
        if not (folder / "manifest.json").is_file():
            UnconditionalPDiffSource.fit(seen.zoo, seed=seen.seed).save(folder)
        return UnconditionalPDiffSource.load(folder)

    note = "p-diff's autoencoder and diffusion, without a condition"
    return Candidate("unconditional p-diff", "no description", note, make, trained=True)


def assemble(
    seen: SeenTasks,
    generators: Sequence[Generator],
    finetuned: Mapping[str, Adapter],
    *,
    baselines: Baselines = "core",
    without: Sequence[str] = (),
    further: Sequence[tuple[Entrant, SourceInfo]] = (),
    labelled: LabelledData | None = None,
    tasks: Sequence[str] = (),
    pdiff: Path | None = None,
    fit_seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Roster:
    """Build every source that takes part.

    Args:
        seen: what the baselines are trained on.
        generators: one a training seed.
        finetuned: the reference's adapters by task.
        baselines: which.
        without: names of baselines that are left out.
        further: more entrants, with what they are.
        labelled: labelled training images of seen and unseen tasks, for sources that use labels; without it these
            are left out.
        tasks: names of the tasks that will be asked for, so that those sources can prepare them together.
        pdiff: folder of a trained unconditional p-diff, trained and written there where it is missing, which takes an
            hour of one core for a few thousand checkpoints; without it p-diff is left out.
        fit_seconds: training time of one generator, where it is known.
        progress: called with (sources built, in all).

    Raises:
        DataError: ``without`` names an unknown baseline.
    """
    candidates = _core(seen)
    if baselines == "all":
        candidates += _further(seen) + _networks(seen) + _controls(seen)
        if pdiff is not None:
            candidates.append(_pdiff(seen, pdiff))
        if labelled is not None:
            candidates += labelled_candidates(seen, generators[0], labelled, tasks)
    unknown = [name for name in without if name not in SOURCE_NAMES]
    if unknown:
        raise DataError(f"There is no baseline {unknown[0]!r} to leave out; there are {', '.join(SOURCE_NAMES)}.")
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


SOURCE_NAMES = (
    "mean adapter",
    "nearest task",
    "kernel ridge regression",
    "additive kernel regression",
    "top-K merge",
    "linear ridge regression",
    "pretrained, centred",
    "prior from the description",
    "prior by EM on unlabelled images",
    "multi-task adapter",
    "multi-task adapter with description",
    "hypernetwork, reconstruction",
    "hypernetwork, task loss",
    "column-wise merge",
    "feature prompt",
    "checkpoint + noise .06",
    "checkpoint + noise .12",
    "checkpoint + relative noise .05",
    "checkpoint + relative noise .15",
    "average of 16 checkpoints",
    "Gaussian per coordinate",
    "unconditional p-diff",
    *LABELLED_NAMES,
)
"""Every baseline that can be left out, in the order of evaluation."""
