"""Sections that this package adds to results.json: their records, and their pages of the report.

All are plain values. Accuracies are fractions of 1. Drawing is imported late: reading results needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from wildbench.study_sections import (
    Interpolation,
    PaperRow,
    Scaling,
)
from wildpdiff.evaluate.results import Calibration, ResultRow, SectionKind, TrustSection


@dataclass(frozen=True)
class ParameterSpread:
    """Spread of the generated parameters and of their accuracy over samples and over seeds.

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
        nearest_accuracy: accuracy of that nearest checkpoint on the same images.
        mean_accuracy: accuracy of the mean of all stored checkpoints on the same images.
        mean_distance: distance to the mean of all stored checkpoints, in units.
        average_distance: distance to the nearest weighted average (weights from 0, adding up to 1) of the seen tasks'
            runs, each run at the mean of its checkpoints, in units. Near 0: it is an average.
        span_distance: distance to the nearest weighted sum of the same runs, weights adding up to 1 but of any sign,
            in units: its part in no direction in which seen tasks differ.
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
    """Distances of generated adapters to stored checkpoints, in weights and in errors.

    Attributes:
        unit: the L2 distance that counts as 1: the mean distance of a fine-tuned adapter to the nearest checkpoint of
            another run.
        checkpoint_distance: for each seen task that was scored, distance of its fine-tuned adapter to the nearest
            checkpoint of another run, in units.
        checkpoint_overlap: the same for the overlap of errors.
        checkpoint_mean_distance: the same for the distance to the mean of all stored checkpoints.
        within_run: root mean square distance between two checkpoints of one run, in units; 0 for one a run.
        directions: number of directions in which the seen tasks' runs differ.
        parameters: number of values that fine-tuning changed. ``span_distance`` is uninformative unless ``directions``
            is a small share of it.
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
    """Distance of a task's description to the nearest *other* seen one; 1 is the mean over pairs of seen tasks.

    Attributes:
        split, task: which.
        distance: root of the mean, over the parts that both have, of the squared distance in that part divided by its
            mean over pairs of seen tasks.
    """

    split: str
    task: str
    distance: float


@dataclass(frozen=True)
class LatentPoint:
    """A task's mean adapter, fine-tuned or generated, in the plane of the map."""

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
    """A test image with the predictions of the models.

    Attributes:
        split, task: of the image.
        role: whether the generated adapter gains most or least on this task.
        label, pretrained, generated: class names: the truth, and the predictions of two models.
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
class PooledCounts:
    """Counts of one method on one task, for a score of many tasks' examples together (for example macro-F1).

    Attributes:
        score: name of the score's metric.
        split, task, source, condition, generator_seed: as in a row of the results.
        counts: numbers that add up over tasks, means over samples.
    """

    score: str
    split: str
    task: str
    source: str
    condition: str
    generator_seed: int | None
    counts: tuple[float, ...]


POOLED_SCORES = "pooled_scores"


def _drawn(name: str, module: str = "wildbench.report.pages") -> Callable[[Any], Any]:
    """A function of a module that draws, imported on first use."""
    return lambda inputs: getattr(import_module(module), name)(inputs)


EVALUATE, PAPER_STUDY = "wildpdiff evaluate", "wildpdiff reproduce paper"

HELD_OUT: SectionKind[tuple[ResultRow, ...]] = SectionKind(
    "held_out",
    tuple[ResultRow, ...],
    True,
    "whole groups of tasks held out",
    "wildpdiff reproduce groups",
    _drawn("group_pages"),
    find=lambda results: tuple(row for row in results.rows if row.split.startswith("held-out ")) or None,
)
TRUST: SectionKind[TrustSection] = SectionKind(
    "trust",
    TrustSection,
    False,
    "trust",
    EVALUATE,
    _drawn("trust_pages"),
    _drawn("trust_table", "wildbench.report.trust"),
)
CALIBRATION: SectionKind[tuple[Calibration, ...]] = SectionKind(
    "calibration", tuple[Calibration, ...], True, "calibration", EVALUATE, _drawn("calibration_pages")
)
DISTANCES: SectionKind[tuple[ConditionDistance, ...]] = SectionKind(
    "distances",
    tuple[ConditionDistance, ...],
    True,
    "the distance of the conditions",
    EVALUATE,
    _drawn("distance_pages"),
)
MEMORISATION: SectionKind[Memorisation] = SectionKind(
    "memorisation", Memorisation, True, "novelty and memorisation", EVALUATE, _drawn("novelty_pages")
)
LATENT_MAP: SectionKind[LatentMap] = SectionKind("latent_map", LatentMap, True, "the map of the latents", EVALUATE)
SPREAD: SectionKind[tuple[ParameterSpread, ...]] = SectionKind(
    "spread", tuple[ParameterSpread, ...], True, "the spread of generated parameters", EVALUATE
)
INTERPOLATION: SectionKind[Interpolation] = SectionKind(
    "interpolation",
    Interpolation,
    False,
    "interpolation between tasks",
    PAPER_STUDY,
    _drawn("interpolation_pages"),
)
SCALING: SectionKind[Scaling] = SectionKind(
    "scaling",
    Scaling,
    False,
    "the number of training tasks",
    "wildpdiff reproduce scaling",
    _drawn("scaling_pages"),
)
PAPER: SectionKind[tuple[PaperRow, ...]] = SectionKind(
    "paper", tuple[PaperRow, ...], False, "the paper's tables", PAPER_STUDY, _drawn("paper_pages")
)
PICTURES: SectionKind[tuple[Picture, ...]] = SectionKind(
    "pictures", tuple[Picture, ...], True, "sample pictures", EVALUATE, _drawn("picture_pages")
)
POOLED: SectionKind[tuple[PooledCounts, ...]] = SectionKind(
    POOLED_SCORES, tuple[PooledCounts, ...], True, "scores of all examples together", ""
)

SECTIONS: tuple[SectionKind[Any], ...] = (
    HELD_OUT,
    TRUST,
    DISTANCES,
    MEMORISATION,
    LATENT_MAP,
    SPREAD,
    INTERPOLATION,
    SCALING,
    PAPER,
    PICTURES,
    CALIBRATION,
    POOLED,
)
"""In the order of the report."""
