"""What results.json holds beside accuracies: novelty, distances, calibration, interpolation, scaling, pictures.

Each section is None (or empty) where it was not measured. All are plain values, so that reading and drawing them
needs no torch. Accuracies and shares are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Calibration",
    "CalibrationBin",
    "ConditionDistance",
    "Interpolation",
    "InterpolationPair",
    "InterpolationPath",
    "LatentMap",
    "LatentPoint",
    "Memorisation",
    "NoveltyPoint",
    "PaperRow",
    "ParameterSpread",
    "Picture",
    "PublishedRow",
    "Scaling",
    "ScalingCell",
    "SourceFamily",
    "SourceInfo",
]

SourceFamily = Literal["reference", "no description", "description", "unlabelled images", "labels", "checkpoints"]
"""What a source uses of the task: nothing, its description, its unlabelled images, its labels; ``checkpoints`` are the
controls made from stored checkpoints; ``reference`` are pretrained and fine-tuned."""


@dataclass(frozen=True)
class SourceInfo:
    """A source of the table.

    Attributes:
        name: as in the rows.
        family: what it uses of the task.
        training_seconds: wall-clock seconds of its training beyond the zoo, mean over seeds; None where it has none.
        note: one short phrase on what it is.
    """

    name: str
    family: SourceFamily
    training_seconds: float | None
    note: str


@dataclass(frozen=True)
class ParameterSpread:
    """How far the generated parameters and their accuracy vary, by what varies.

    Attributes:
        split, source: of the rows.
        over_samples: root mean square distance (over n − 1) of samples of one generator to their mean, as a share of
            the distance of that mean to the pretrained adapter; mean over tasks and seeds. None for one sample.
        over_seeds: the same between the mean adapters of generators of different seeds. None for one seed.
        accuracy_over_samples, accuracy_over_seeds: standard deviation (over n − 1) of the accuracy, and of its mean
            over samples; means over tasks.
    """

    split: str
    source: str
    over_samples: float | None
    over_seeds: float | None
    accuracy_over_samples: float | None
    accuracy_over_seeds: float | None


@dataclass(frozen=True)
class NoveltyPoint:
    """One adapter in the accuracy-novelty plane (Zeng et al. 2025, 2506.07998).

    Attributes:
        split, source, condition, generator_seed, task, sample: as in a row of the results.
        accuracy: on the task's test images.
        distance: L2 distance of the flat adapter to the nearest stored checkpoint, in units of ``Memorisation.unit``.
        overlap: largest intersection over union of its wrong test predictions with those of a stored checkpoint;
            lower is newer behaviour.
        nearest_own: whether that nearest checkpoint is of the task's own run; never so on unseen tasks.
        nearest_accuracy: accuracy of that nearest checkpoint on the same images: what looking it up would give.
        mean_accuracy: accuracy of the mean of all stored checkpoints on the same images.
        mean_distance: distance to the mean of all stored checkpoints, in units.
        average_distance: distance to the nearest weighted average (weights from 0, adding up to 1) of the seen tasks'
            runs, each run at the mean of its checkpoints, in units. Near 0: it is an average.
        span_distance: distance to the nearest weighted sum of the same runs, weights adding up to 1 but of any sign,
            in units: what of it lies in no direction in which seen tasks differ.
        finetuned_distance: distance to the task's own fine-tuned adapter, in units; None where there is none.
    """

    split: str
    source: str
    condition: str
    generator_seed: int | None
    task: str
    sample: int
    accuracy: float
    distance: float
    overlap: float
    nearest_own: bool
    nearest_accuracy: float
    mean_accuracy: float
    mean_distance: float
    average_distance: float
    span_distance: float
    finetuned_distance: float | None


@dataclass(frozen=True)
class Memorisation:
    """Are generated adapters new, or copies of stored checkpoints?

    Attributes:
        unit: the L2 distance that counts as 1: the mean distance of a fine-tuned adapter to the nearest checkpoint of
            another run.
        checkpoint_distance: for each seen task that was scored, distance of its fine-tuned adapter to the nearest
            checkpoint of another run, in units.
        checkpoint_overlap: the same for the overlap of errors.
        checkpoint_mean_distance: the same for the distance to the mean of all stored checkpoints.
        within_run: root mean square distance between two checkpoints of one run, in units; 0 for one a run.
        directions: in how many directions the seen tasks' runs differ.
        parameters: in how many an adapter can move: the values that fine-tuning changed. Where ``directions`` is no
            small share of it, ``span_distance`` says nothing.
        points: of the generator and of every other source.
    """

    unit: float
    checkpoint_distance: tuple[float, ...]
    checkpoint_overlap: tuple[float, ...]
    checkpoint_mean_distance: tuple[float, ...]
    within_run: float
    directions: int
    parameters: int
    points: tuple[NoveltyPoint, ...]


@dataclass(frozen=True)
class ConditionDistance:
    """How far a task's description lies from the nearest *other* seen task's; 1 is the mean over pairs of seen tasks.

    Attributes:
        split, task: which.
        distance: root of the mean, over the parts that both have, of the squared distance in that part divided by its
            mean over pairs of seen tasks.
    """

    split: str
    task: str
    distance: float


@dataclass(frozen=True)
class CalibrationBin:
    """Test images by confidence: how many, their mean confidence and their accuracy."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Reliability of a source's probabilities over all tasks of a split (Guo et al. 2017).

    Attributes:
        split, source, condition: as in a row.
        bins: equal-width bins of the largest probability that hold an image, rising.
        error: expected calibration error: mean over images of |accuracy − confidence| of their bin.
        negative_log_likelihood: mean, in nats.
    """

    split: str
    source: str
    condition: str
    bins: tuple[CalibrationBin, ...]
    error: float
    negative_log_likelihood: float


@dataclass(frozen=True)
class LatentPoint:
    """A task's mean adapter in the plane of the map. ``kind`` is what the adapter is: fine-tuned or generated."""

    split: str
    kind: Literal["fine-tuned", "generated"]
    task: str
    x: float
    y: float


@dataclass(frozen=True)
class LatentMap:
    """Latents, each as the normalised adapter that it decodes to, on the first two principal components of the seen
    tasks' fine-tuned ones.

    Attributes:
        explained: share of the seen tasks' variance on each of the two axes.
        points: fine-tuned and generated.
    """

    explained: tuple[float, float]
    points: tuple[LatentPoint, ...]


@dataclass(frozen=True)
class Picture:
    """A test image with what the models say.

    Attributes:
        split, task: where it was taken.
        role: whether the generated adapter gains most or least on this task.
        label, pretrained, generated: class names: the truth, and what two models say.
        png: the image, base64.
    """

    split: str
    task: str
    role: Literal["best", "worst"]
    label: str
    pretrained: str
    generated: str
    png: str


@dataclass(frozen=True)
class InterpolationPath:
    """Accuracy of two seen tasks along a path between their adapters, the mean over samples and generator seeds.

    Attributes:
        first, second: the tasks.
        way: what is interpolated: ``conditions`` (embeddings, generated at each point), ``latents`` or raw
            ``adapters``.
        places: 0 (first) to 1 (second).
        first_accuracy, second_accuracy: of the adapter at each place, on each task's test images.
    """

    first: str
    second: str
    way: Literal["conditions", "latents", "adapters"]
    places: tuple[float, ...]
    first_accuracy: tuple[float, ...]
    second_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class InterpolationPair:
    """How alike two tasks are, and what the references reach on them.

    Attributes:
        first, second: the tasks.
        group: whether their descriptions are near, between or far.
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
    """RQ2 of the paper. ``alignments`` names what each number of ``InterpolationPair.alignment`` is."""

    alignments: dict[str, str]
    pairs: tuple[InterpolationPair, ...]
    paths: tuple[InterpolationPath, ...]


@dataclass(frozen=True)
class ScalingCell:
    """One fit of the scaling grid, scored on the fixed unseen tasks.

    Attributes:
        tasks, diversity, checkpoints: of the training: how many seen tasks, drawn from all (``wide``) or from the half
            around one of them (``narrow``), and checkpoints of each.
        seed: of the draw of tasks and of the fit.
        source: which source.
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
    """How many tasks does it take? The unseen tasks, what the references reach on each, and every cell."""

    unseen: tuple[str, ...]
    pretrained: tuple[float, ...]
    finetuned: tuple[float, ...]
    cells: tuple[ScalingCell, ...]


@dataclass(frozen=True)
class PublishedRow:
    """What the paper gives for a row, taken from secondary notes of it; None where it gives nothing."""

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
        tasks, samples, seeds: what the means are over.
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
