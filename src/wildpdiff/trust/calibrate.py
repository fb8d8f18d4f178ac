"""Calibration of trust: gains of held-out seen tasks, and predictors, thresholds and summaries fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr, stdtrit
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.batch import Batch, take
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import of_many
from wildpdiff.trust.evidence import Spaces, stacked_tensors
from wildpdiff.trust.folds import Fold
from wildpdiff.trust.gain import (
    GainPrediction,
    HeldOutGain,
    Matrix,
    fit_gain_predictor,
    held_out_predictions,
    safe_threshold,
)
from wildpdiff.trust.model import BASES, TrustModel
from wildpdiff.trust.report import HeldOutSummary
from wildpdiff.trust.seen import CalibrationConfig, SeenTasks

HUNDREDTHS = 100
"""Parts of a fold in which progress is reported."""

WIDEST = 100.0
"""Half-width in points of the interval of a mean over one task."""

SPREADING = {
    "description": ("move", "distance", "unknown_categories"),
    "backgrounds": ("changed", "distance", "unknown_categories"),
    "examples": ("changed", "distance", "unknown_categories"),
}
"""Evidence that the size of the prediction's error depends on, by basis."""


Measured = Mapping[str, HeldOutGain]
"""A held-out gain with the evidence of every basis for which the task has the images."""


def hold_out_folds(
    seen: SeenTasks,
    folds: Sequence[Fold],
    fit_without: Callable[[Fold, Tick], Sequence[Source]],
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Measured]]:
    """Evidence and measured gains of all folds' tasks, for one or several kinds of source; folds are independent jobs.

    Args:
        fit_without: sources, one of each kind, fitted to the seen tasks but those of a fold.

    Returns:
        By kind of source, the rows of all folds.
    """

    def job(fold: Fold, tick: Tick) -> list[list[Measured]]:
        sources = fit_without(fold, lambda share: tick(share / 2))
        spaces = seen.spaces(fold.held_out)
        rows = []
        for number, source in enumerate(sources):
            rows.append(_Measurement(seen, spaces, fold, source, seed).rows())
            tick(0.5 + 0.5 * (number + 1) / len(sources))
        return rows

    total = HUNDREDTHS * len(folds)
    advance = None if progress is None else lambda share: progress(round(share * total), total)
    # Groups first: their sources are trained anew, which takes longest.
    order = sorted(range(len(folds)), key=lambda number: not folds[number].extrapolation)
    results = in_parallel(job, [folds[number] for number in order], advance)
    by_number = dict(zip(order, results, strict=True))
    found = [by_number[number] for number in range(len(folds))]
    return [[row for fold in found for row in fold[kind]] for kind in range(len(found[0]))]


@dataclass(frozen=True)
class _Measurement:
    """Measurement of a fold's tasks with the adapters of a source that was fitted without them."""

    seen: SeenTasks
    spaces: Spaces
    fold: Fold
    source: Source
    seed: int

    def rows(self) -> list[Measured]:
        """Evidence and gains; in random folds also with one part of the description hidden, where it has several."""
        seen, held_out = self.seen, self.fold.held_out
        rows = []
        for name, other in zip(held_out, (*held_out[1:], *held_out[:1]), strict=True):
            full = seen.training_set.descriptions[name]
            if self.fold.extrapolation:
                rows += self.measure(name, full)
                continue
            rows += self.measure(name, full, shuffled=seen.training_set.descriptions[other])
            present = [part for part in seen.parts if getattr(full, part, None) is not None]
            if len(present) > 1:
                hidden = present[int(numpy_generator(self.seed, "trust", "hidden", name).integers(len(present)))]
                for row in self.measure(name, replace(full, **{hidden: None})):
                    rows.append({basis: replace(gain, partial=True) for basis, gain in row.items()})
        return rows

    def measure(self, name: str, description: Description, shuffled: Description | None = None) -> list[Measured]:
        """Two-fold cross-over: evidence from one half of the task's images, gain measured on the other."""
        seen, spaces, backbone = self.seen, self.spaces, self.seen.training_set.backbone
        count = seen.config.samples if self.source.stochastic else 1
        seed = sub_seed(self.seed, "trust", name)
        adapters = self.source.sample(description, count, seed)
        batch = seen.features(name).labelled(seen.leak_free[seen.training_set.tasks.index(name)])
        before = backbone.objective.score(backbone.predict(batch), batch).double() / seen.gain_unit
        after = _scores(backbone, adapters, batch) / seen.gain_unit
        without = after
        if shuffled is not None:
            without = _scores(backbone, self.source.sample(shuffled, count, seed), batch) / seen.gain_unit
        novelty = spaces.descriptions.novelty(description, backbone.image_features)

        def evidence(unlabelled: Batch | None) -> dict[str, float]:
            return spaces.evidence(backbone, novelty, adapters, unlabelled)

        shared = {"description": evidence(None)}
        # Backgrounds are unlabelled images: they are evidence even where they were hidden from the generator.
        backgrounds = seen.training_set.descriptions[name].backgrounds if backbone.classes else None
        if backgrounds is not None and len(backgrounds):
            shared["backgrounds"] = evidence(backbone.stem(backgrounds))
        order = torch.from_numpy(numpy_generator(self.seed, "trust", "halves", name).permutation(len(before)))
        halves = order.tensor_split(2)
        rows: list[Measured] = []
        for visible, measured in (halves, halves[::-1]):
            # Differences of predictions are those of classes.
            found = {**shared, "examples": evidence(take(batch, visible))} if backbone.classes else shared
            gain, over_shuffled = (float((after - other)[measured].mean()) for other in (before, without))
            noise = float((after - before)[measured].var(correction=0)) / len(measured)
            held_out = HeldOutGain(
                name, self.fold.name, self.fold.extrapolation, False, {}, gain, len(measured), noise, over_shuffled
            )
            rows.append({basis: replace(held_out, evidence=own) for basis, own in found.items()})
        return rows


def _scores(backbone: Backbone, adapters: Sequence[Adapter], batch: Batch) -> Float[Tensor, " n"]:
    """Mean score of the adapters, by example."""
    outputs = backbone.predict_many(batch, stacked_tensors(adapters))
    return of_many(backbone.objective.score, outputs, batch).double().mean(0)


def fit_trust(seen: SeenTasks, rows: Sequence[Measured], generator: str = "") -> TrustModel:
    """Predictors, thresholds and summaries of the held-out tasks."""
    gains = [row["description"] for row in rows]
    random = [row for row in gains if not row.extrapolation and not row.partial]
    over_shuffled = mean_over_tasks([row.task for row in random], [row.over_shuffled for row in random])
    predictors, thresholds, summaries = {}, {}, {}
    for basis in BASES:
        if not all(basis in row for row in rows):  # a basis that some seen tasks lack is not calibrated
            continue
        own = [row[basis] for row in rows]
        predictors[basis] = fit_gain_predictor(own, SPREADING[basis])
        predictions = held_out_predictions(own, SPREADING[basis])
        thresholds[basis] = _thresholds(own, predictions, seen.config)
        summaries[basis] = summarise(own, predictions, seen.config.loss, over_shuffled)
    return TrustModel(
        seen.training_set.backbone,
        seen.spaces(),
        predictors=predictors,
        min_trust=thresholds,
        held_out=summaries,
        generator=generator,
    )


def mean_over_tasks(tasks: Sequence[str], differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean over tasks of differences of accuracies and its 95 % interval (Student's, over tasks), in points."""
    points = 100 * _means_by_task(tasks, differences)
    middle, reach = float(points.mean()), WIDEST
    if len(points) > 1:
        reach = float(stdtrit(len(points) - 1, 0.975) * points.std(ddof=1) / len(points) ** 0.5)
    return middle, middle - reach, middle + reach


def summarise(
    rows: Sequence[HeldOutGain],
    predictions: Sequence[GainPrediction],
    loss: float,
    over_shuffled: tuple[float, float, float],
) -> HeldOutSummary:
    """Summary of one basis.

    Args:
        loss: accuracy that a task loses at least to count as harmed.
        over_shuffled: lead over adapters for other tasks' descriptions (:func:`mean_over_tasks`).
    """
    random = [row for row in rows if not row.extrapolation and not row.partial]
    near = _means_by_task([row.task for row in random], [row.gain for row in random])
    far = [row.gain for row in rows if row.extrapolation]
    covered = [entry.low <= row.gain <= entry.high for row, entry in zip(rows, predictions, strict=True)]
    return HeldOutSummary(
        tasks=len({row.task for row in rows}),
        images=int(np.median([row.images for row in rows])),
        random_gain=100 * float(np.mean(near)),
        group_gain=100 * float(np.mean(far)) if far else None,
        helped=float(np.mean(near > 0)),
        harmed=float(np.mean(near < -loss)),
        coverage=float(np.mean(covered)),
        over_shuffled=over_shuffled,
    )


def _means_by_task(tasks: Sequence[str], values: Sequence[float]) -> Matrix:
    by_task: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        by_task.setdefault(task, []).append(value)
    return np.array([np.mean(own) for own in by_task.values()])


def _thresholds(
    rows: Sequence[HeldOutGain], predictions: Sequence[GainPrediction], config: CalibrationConfig
) -> dict[str, float]:
    """Thresholds for descriptions near the seen ones and far from them, never below the floor.

    Each is safe on the held-out tasks of its own kind (Mondrian categories; Vovk et al. 2005), and that of the far is
    never below that of the near.
    """
    trust = np.array([entry.probability for entry in predictions])
    harmed = _harm(rows, predictions, config.loss)
    far = np.array([row.evidence["far"] > 0.5 for row in rows])
    found = []
    for kind in (~far, far):
        tasks = [row.task for row, own in zip(rows, kind, strict=True) if own]
        found.append(safe_threshold(trust[kind], harmed[kind], tasks, config.risk) if tasks else 1.0)
    near = max(config.floor, found[0])
    return {"near": near, "far": max(near, found[1])}


def _harm(rows: Sequence[HeldOutGain], predictions: Sequence[GainPrediction], loss: float) -> Matrix:
    """By row, the posterior probability that its task truly lost more than ``loss``.

    A normal gain around the prediction, measured with normal chance on all images of the task: a handful of images that
    happen to show a loss are no proof of harm, many images that do are.
    """
    measured = np.array([(row.gain, row.noise) for row in rows])
    predicted = np.array([(entry.gain, entry.spread) for entry in predictions])
    indices: dict[tuple[str, str, bool], list[int]] = {}
    for index, row in enumerate(rows):
        indices.setdefault((row.task, row.fold, row.partial), []).append(index)
    found = np.zeros(len(rows))
    for own in indices.values():
        gain, noise = (float(np.mean(column)) for column in measured[own].T)
        expected, spread = (float(np.mean(column)) for column in predicted[own].T)
        noise = max(noise / len(own), 1e-8)
        variance = max(spread, 1e-3) ** 2
        share = variance / (variance + noise)
        expected += share * (gain - expected)
        found[own] = ndtr((-loss - expected) / (share * noise) ** 0.5)
    return found
