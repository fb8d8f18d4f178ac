"""The methods that are allowed a few labels of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wildbench.methods.evolution import EvolutionSource, latent_space, raw_space
from wildbench.methods.few_labels import FewLabelsSource
from wildbench.methods.refined import RefinedSource
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.evaluate.methods import Candidate
from wildpdiff.generator import Generator
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.starts import Starts
from wildpdiff.source import Source

LABELS = (5, 20)
"""Labels a class of the few-label references."""


def labelled_candidates(
    seen: SeenTasks, generator: Generator, labelled: LabelledData, tasks: Sequence[str]
) -> list[Candidate]:
    """Fine-tuning, evolution and refining on a few labels of each class.

    Args:
        seen: what the baselines are trained on.
        generator: whose adapters are refined, and whose latents are searched.
        labelled: labelled training images of the tasks.
        tasks: names of the tasks that will be requested.
    """
    initial = seen.zoo.initial
    adapters = SeenAdapters.of(seen.adapters)

    def few(count: int) -> Source:
        source = FewLabelsSource(labelled, seen.backbone, initial, labels_per_class=count, seed=seen.seed)
        source.prepare(tasks)
        return source

    trained = [
        Candidate(
            f"fine-tuned, {count} labels a class",
            "labels",
            f"fine-tuned on {count} labelled examples of each class of the task",
            lambda count=count: few(count),  # type: ignore[misc]
            trained=True,
        )
        for count in LABELS
    ]
    searched = [
        Candidate(
            f"CMA-ES {suffix}, {LABELS[0]} labels a class",
            "labels",
            f"evolution strategy {suffix} on {LABELS[0]} labelled examples of each class",
            lambda space=space: EvolutionSource(  # type: ignore[misc]
                space(), labelled, seen.backbone, labels_per_class=LABELS[0], seed=seen.seed
            ),
        )
        for suffix, space in (
            ("in the latent space", lambda: latent_space(generator.codec, generator.autoencoder, adapters)),
            ("on raw LoRA", lambda: raw_space(initial, adapters)),
        )
    ]
    refined = [] if generator.mean is None else _refined(seen, generator, labelled)
    return [*trained, *searched, *refined]


def _refined(seen: SeenTasks, generator: Generator, labelled: LabelledData) -> list[Candidate]:
    """A few labels on top of the generator; and of the mean adapter, which isolates the effect of the description."""

    posterior = generator.with_sampling(draw="posterior") if generator.posterior is not None else None

    def make(source: Source, points: Callable[[], Starts], count: int, further: Source | None = None) -> Source:
        return RefinedSource(source, points(), labelled, count, further=further, seed=seen.seed)

    def spread() -> Starts:
        adapters = SeenAdapters.of(seen.adapters)
        errors = adapters.vectors - adapters.vectors.mean(0)
        prior = RefinementPrior.of_errors(adapters.layout, errors, "spread of the seen tasks")
        return Starts(seen.backbone, prior, ())

    generated = [
        Candidate(
            f"generated, refined on {count} labels a class",
            "labels",
            f"generated, then {count} labelled examples of each class under the generator's prior",
            lambda count=count: make(generator, lambda: Starts.of_generator(generator), count, posterior),  # type: ignore[misc]
        )
        for count in LABELS
    ]
    mean = Candidate(
        f"mean adapter, refined on {LABELS[0]} labels a class",
        "labels",
        f"mean adapter, then {LABELS[0]} labelled examples of each class under the spread of the seen adapters",
        lambda: make(MeanSource(seen.adapters), spread, LABELS[0]),
    )
    return [*generated, mean]


LABELLED_NAMES = (
    *(f"fine-tuned, {count} labels a class" for count in LABELS),
    *(f"CMA-ES {suffix}, {LABELS[0]} labels a class" for suffix in ("in the latent space", "on raw LoRA")),
    *(f"generated, refined on {count} labels a class" for count in LABELS),
    f"mean adapter, refined on {LABELS[0]} labels a class",
)
"""In the order of evaluation."""
