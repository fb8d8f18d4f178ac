"""Records of the sections that bring tasks and references of their own: interpolation, scaling, the paper's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InterpolationPath:
    """Accuracy of two seen tasks along a path between their adapters, the mean over samples and generator seeds.

    Attributes:
        first, second: the tasks.
        way: interpolated quantity: ``conditions`` (embeddings, generated at each point), ``latents`` or raw
            ``adapters``.
        places: positions from 0 (first) to 1 (second).
        first_accuracy, second_accuracy: of the adapter at each position, on each task's test images.
    """

    first: str
    second: str
    way: Literal["conditions", "latents", "adapters"]
    places: tuple[float, ...]
    first_accuracy: tuple[float, ...]
    second_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class InterpolationPair:
    """Similarity of two tasks, and the accuracies of the references on them.

    Attributes:
        first, second: the tasks.
        group: similarity of their descriptions.
        condition_distance: 1 minus the similarity of the two descriptions as the generator's kernel sees them; 0 is
            alike.
        alignment: numbers by name, from adapters alone; higher means better aligned.
        pretrained, finetuned: accuracies on the first and on the second.
    """

    first: str
    second: str
    group: Literal["high", "middle", "low"]
    condition_distance: float
    alignment: dict[str, float]
    pretrained: tuple[float, float]
    finetuned: tuple[float, float]


@dataclass(frozen=True)
class Interpolation:
    """RQ2 of the paper. ``alignments`` defines each number of ``InterpolationPair.alignment``."""

    alignments: dict[str, str]
    pairs: tuple[InterpolationPair, ...]
    paths: tuple[InterpolationPath, ...]


@dataclass(frozen=True)
class ScalingCell:
    """One fit of the scaling grid, scored on the fixed unseen tasks.

    Attributes:
        tasks, diversity, checkpoints: of the training: number of seen tasks, drawn from all (``wide``) or from the half
            around one of them (``narrow``), and checkpoints of each.
        seed: of the draw of tasks and of the fit.
        source: name of the source.
        accuracy: on each unseen task, mean over samples, in the order of ``Scaling.unseen``.
        seconds: of the fit.
    """

    tasks: int
    diversity: Literal["narrow", "wide"]
    checkpoints: int
    seed: int
    source: str
    accuracy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Scaling:
    """The scaling study: unseen tasks, accuracies of the references on each, and every cell of the grid."""

    unseen: tuple[str, ...]
    pretrained: tuple[float, ...]
    finetuned: tuple[float, ...]
    cells: tuple[ScalingCell, ...]


@dataclass(frozen=True)
class PublishedRow:
    """Numbers of the paper for a row, taken from secondary notes of it; None where it gives none."""

    pretrained: float | None
    finetuned: float | None
    generated: float | None
    words: str


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables, measured.

    Attributes:
        question: for example ``RQ1``.
        setting: for example ``one seen task, saving interval 10``.
        method: ``paper`` (its autoencoder, denoiser and condition) or ``wildpdiff``.
        tasks, samples, seeds: numbers of each in the means.
        pretrained, finetuned, generated: mean accuracies over tasks; of the generated over all samples and seeds.
        finetuned_interval, generated_interval, gap_interval: 95 % bootstrap intervals over tasks; the gap is generated
            minus fine-tuned.
        over_samples, over_seeds: standard deviation of the generated accuracy, mean over tasks.
        parameters_over_samples, parameters_over_seeds: as in :class:`ParameterSpread`.
        published: the paper's numbers.
    """

    question: str
    setting: str
    method: Literal["paper", "wildpdiff"]
    tasks: int
    samples: int
    seeds: int
    pretrained: float
    finetuned: float
    generated: float
    finetuned_interval: tuple[float, float] | None
    generated_interval: tuple[float, float] | None
    gap_interval: tuple[float, float] | None
    over_samples: float | None
    over_seeds: float | None
    parameters_over_samples: float | None
    parameters_over_seeds: float | None
    published: PublishedRow | None
