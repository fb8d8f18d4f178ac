"""Calibration of trust on seen tasks: hold some out, generate their adapters, measure the gain, learn to predict it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DescriptionError
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.trust.folds import Fold, calibration_folds
from wildpdiff.trust.gain import GainPrediction, HeldOutGain, fit_gain_predictor, held_out_predictions
from wildpdiff.trust.model import BASES, TrustModel, gather_evidence
from wildpdiff.trust.seen import CalibrationConfig, SeenTasks, Spaces
from wildpdiff.trust.summary import mean_over_tasks, summarise
from wildpdiff.trust.threshold import safe_threshold
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo

FitWithout = Callable[[Fold], Source]
"""Held-out seen tasks to a source that was fitted without them."""

HUNDREDTHS = 100
"""Parts of a fold in which progress is reported."""


@dataclass(frozen=True)
class HeldOutTask:
    """One seen task while it was held out: evidence by basis, and the gain that was measured.

    Attributes:
        task: its name.
        fold: that it was held out with.
        partial: whether a part of its description was hidden.
        evidence: by basis, where the task has the images for it.
        gain: accuracy with the generated adapters, the mean over samples, minus that of the pretrained model.
        over_shuffled: the same, minus that with adapters for the description of another task of the fold; 0 where
            this was not measured, which is for groups and partial descriptions.
        images: that it was measured on.
        noise: variance of the gain that comes from their number alone.
    """

    task: str
    fold: Fold
    partial: bool
    evidence: Mapping[str, Mapping[str, float]]
    gain: float
    over_shuffled: float
    images: int
    noise: float


def calibrate(
    zoo: Zoo,
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    backbone: Backbone,
    features: Callable[[str], TaskFeatures],
    fit_without: FitWithout,
    *,
    parts: Sequence[str] = ("metadata", "backgrounds"),
    folds: Sequence[Fold] | None = None,
    config: CalibrationConfig = CalibrationConfig(),
    seed: int = 0,
    generator: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> TrustModel:
    """Learn on seen tasks when generated adapters help.

    Args:
        zoo: adapters of the seen tasks.
        descriptions: by task name, one for every task of the zoo.
        schema: of the metadata.
        backbone: that the zoo was built on.
        features: gives the labelled images of a seen task, behind the stem, by its name.
        fit_without: fits a generator, or only its conditional mean, to the seen tasks but those of a fold; called
            once a fold, perhaps in another process.
        parts: of the description that the generator reads.
        folds: what is held out; by default as the configuration says.
        config: folds, images and thresholds.
        seed: of the folds and the samples.
        generator: fingerprint of the generator that is spoken of.
        progress: called with (hundredths of folds done, in all).

    Raises:
        DataError: too few seen tasks.
        DescriptionError: a task has no description, or none tells anything.
    """
    missing = [name for name in zoo.tasks if name not in descriptions]
    if missing:
        raise DescriptionError(f"Task {missing[0]!r} of the zoo has no description. Give one for every task.")
    told = {name: replace(descriptions[name], task_id=None) for name in zoo.tasks}
    if folds is None:
        folds = calibration_folds(
            zoo.tasks,
            told,
            schema,
            backbone.image_features,
            random=config.random_folds,
            groups=config.group_folds,
            seed=seed,
        )
    seen = SeenTasks.of(zoo, told, schema, backbone, features, tuple(parts), config)
    (rows,) = hold_out_folds(seen, folds, lambda fold, _: (fit_without(fold),), seed, progress)
    return fit_trust(seen, rows, generator)


def hold_out_folds(
    seen: SeenTasks,
    folds: Sequence[Fold],
    fit_without: Callable[[Fold, Tick], Sequence[Source]],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[HeldOutTask]]:
    """Evidence and gains of all folds' tasks, for one or several kinds of source; folds are independent jobs.

    Args:
        seen: the seen tasks.
        folds: what is held out.
        fit_without: fits the sources, one of each kind, to the seen tasks but those of a fold; may report its progress.
        seed: of the samples.
        progress: called with (hundredths of folds done, in all).

    Returns:
        By kind of source, the rows of all folds.
    """

    def job(fold: Fold, tick: Tick) -> list[list[HeldOutTask]]:
        sources = fit_without(fold, lambda share: tick(share / 2))
        spaces = seen.spaces(fold.held_out)
        rows = []
        for number, source in enumerate(sources):
            rows.append(hold_out(seen, spaces, fold, source, seed))
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


def hold_out(seen: SeenTasks, spaces: Spaces, fold: Fold, source: Source, seed: int) -> list[HeldOutTask]:
    """Evidence and gain of a fold's tasks, with the adapters of a source that was fitted without them.

    In random folds each task is also described with one of its parts hidden, where it has several: what a poorer
    description is worth is measured too.
    """
    rows = []
    others = (*fold.held_out[1:], *fold.held_out[:1])
    for name, other in zip(fold.held_out, others, strict=True):
        full = seen.descriptions[name]
        shuffled = None if fold.extrapolation else seen.descriptions[other]
        rows += _measured(seen, spaces, fold, name, full, source, seed, shuffled)
        present = [part for part in seen.parts if getattr(full, part, None) is not None]
        if len(present) > 1 and not fold.extrapolation:
            hidden = present[int(numpy_generator(seed, "trust", "hidden", name).integers(len(present)))]
            told = replace(full, **{hidden: None})
            rows += [replace(row, partial=True) for row in _measured(seen, spaces, fold, name, told, source, seed)]
    return rows


def _measured(
    seen: SeenTasks,
    spaces: Spaces,
    fold: Fold,
    name: str,
    told: Description,
    source: Source,
    seed: int,
    other: Description | None = None,
) -> list[HeldOutTask]:
    """Two rows: each half of the task's images is once what is looked at and once what the gain is measured on."""
    backbone, data = seen.backbone, seen.features(name)
    adapters = source.sample(told, seen.config.samples if source.stochastic else 1, sub_seed(seed, "trust", name))
    images, labels = data.labelled(seen.unshared[seen.names.index(name)])
    before = (backbone.predict(images).argmax(1) == labels).double()
    after = _right(backbone, adapters, images, labels)
    without = after
    if other is not None:
        count = seen.config.samples if source.stochastic else 1
        without = _right(backbone, source.sample(other, count, sub_seed(seed, "trust", name)), images, labels)
    novelty = spaces.descriptions.novelty(told, backbone.image_features)
    looked: dict[str, Tensor | None] = {"description": None}
    # The backgrounds may be looked at even where they were hidden from the generator: they are unlabelled images.
    backgrounds = seen.descriptions[name].backgrounds
    if backgrounds is not None and len(backgrounds):
        looked["backgrounds"] = backbone.stem(backgrounds)
    shared = {
        basis: gather_evidence(backbone, spaces.adapters, spaces.prior, novelty, adapters, own)
        for basis, own in looked.items()
    }
    order = torch.from_numpy(numpy_generator(seed, "trust", "halves", name).permutation(len(labels)))
    halves = order.tensor_split(2)
    rows = []
    for shown, measured in (halves, halves[::-1]):
        examples = gather_evidence(backbone, spaces.adapters, spaces.prior, novelty, adapters, images[shown])
        gain, over_shuffled = (float((after - other)[measured].mean()) for other in (before, without))
        evidence = {**shared, "examples": examples}
        noise = float((after - before)[measured].var(correction=0)) / len(measured)
        rows.append(HeldOutTask(name, fold, False, evidence, gain, over_shuffled, len(measured), noise))
    return rows


def _right(backbone: Backbone, adapters: Sequence[Adapter], images: Tensor, labels: Tensor) -> Float[Tensor, " n"]:
    """For each image the share of the adapters that answer right."""
    stacked = {key: torch.stack([adapter.tensors[key] for adapter in adapters]) for key in adapters[0].tensors}
    return (backbone.predict_many(images, stacked).argmax(2) == labels).double().mean(0)


def fit_trust(seen: SeenTasks, rows: Sequence[HeldOutTask], generator: str = "") -> TrustModel:
    """Fit predictors, thresholds and summaries to what was measured on held-out tasks."""
    spaces = seen.spaces()
    ahead: dict[str, list[float]] = {}
    for row in rows:
        if not row.fold.extrapolation and not row.partial:
            ahead.setdefault(row.task, []).append(row.over_shuffled)
    over_shuffled = mean_over_tasks(ahead)
    predictors, thresholds, summaries = {}, {}, {}
    for basis in BASES:
        own = [
            HeldOutGain(row.task, row.fold.name, row.fold.extrapolation, row.partial, row.evidence[basis], row.gain,
                        row.images, row.noise)
            for row in rows
            if basis in row.evidence
        ]  # fmt: skip
        if len(own) < len(rows):  # a basis that some seen tasks lack is not calibrated
            continue
        spreading = SPREADING[basis]
        predictors[basis] = fit_gain_predictor(own, spreading)
        predictions = held_out_predictions(own, spreading)
        thresholds[basis] = _thresholds(own, predictions, seen.config)
        summaries[basis] = summarise(own, predictions, seen.config.loss, over_shuffled)
    return TrustModel(
        backbone=seen.backbone,
        space=spaces.descriptions,
        adapters=spaces.adapters,
        prior=spaces.prior,
        predictors=predictors,
        min_trust=thresholds,
        held_out=summaries,
        generator=generator,
    )


SPREADING = {
    "description": ("move", "distance", "unknown_categories"),
    "backgrounds": ("changed", "distance", "unknown_categories"),
    "examples": ("changed", "distance", "unknown_categories"),
}
"""Evidence on which the size of the prediction's error depends, by basis."""


def _thresholds(
    rows: Sequence[HeldOutGain], predictions: Sequence[GainPrediction], config: CalibrationConfig
) -> dict[str, float]:
    """A threshold for descriptions near the seen ones and one for those far from them, never below the floor.

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


def _harm(rows: Sequence[HeldOutGain], predictions: Sequence[GainPrediction], loss: float) -> NDArray[np.float64]:
    """By row, the probability that its task truly lost more than it may, from its measured gain and what was predicted.

    A normal gain around the prediction, measured with normal chance on all images of the task: a handful of images that
    happen to show a loss are no proof of harm, many images that do are.
    """
    keys = [(row.task, row.fold, row.partial) for row in rows]
    found = np.zeros(len(rows))
    for key in dict.fromkeys(keys):
        own = [number for number, other in enumerate(keys) if other == key]
        gain, expected = (float(np.mean([entry.gain for entry in part])) for part in
                          ([rows[number] for number in own], [predictions[number] for number in own]))  # fmt: skip
        noise = max(float(np.mean([rows[number].noise for number in own])) / len(own), 1e-8)
        spread = max(float(np.mean([predictions[number].spread for number in own])), 1e-3) ** 2
        share = spread / (spread + noise)
        expected += share * (gain - expected)
        found[own] = ndtr((-loss - expected) / (share * noise) ** 0.5)
    return found
