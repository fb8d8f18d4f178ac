"""What the conditional mean is made of: weights, alignment and anchor, chosen on seen tasks by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.blend import SHARES, Blend, BlendSearch, Weights, start_weights
from wildpdiff.conditional_mean.centering import Centering, fit_centering
from wildpdiff.conditional_mean.correction import Correction
from wildpdiff.conditional_mean.cross_validation import (
    TEMPERATURES,
    HeldOutScores,
    score_held_out,
    tabulate,
    tempered_losses,
)
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.mean import ADDITIVE, NETWORKS, ConditionalMean
from wildpdiff.conditional_mean.score_table import FEW_TASKS, CrossValidation
from wildpdiff.conditional_mean.simple import MEAN, PRETRAINED, SimpleEstimators
from wildpdiff.conditional_mean.task_images import TaskImages
from wildpdiff.conditional_mean.training import folds
from wildpdiff.parallel import Tick, in_parallel

ANCHORS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the way from the estimate to a seen task's own adapter that are tried."""
BLEND_FOLDS = 4
"""Folds over which weights are cross-fitted where no networks were trained."""
FEWEST_TO_ALIGN = 10
"""With fewer seen tasks nothing is aligned."""


@dataclass(frozen=True)
class Estimators:
    """Everything that predicts adapters, fitted to the seen tasks."""

    backbone: Backbone
    codec: Codec
    kernel: KernelMean
    simple: SimpleEstimators
    correction: Correction

    def held_out(self) -> dict[str, Float[Tensor, "t d"]]:
        """By estimator, the prediction for each seen task without that task.

        Estimators without training leave out the task alone, networks its whole fold.
        """
        networks = {NETWORKS[basis]: vectors for basis, vectors in self.correction.held_out.items()}
        return {**self.simple.leave_one_out(), ADDITIVE: self.kernel.held_out(), **networks}


def without_images(estimators: Estimators) -> ConditionalMean:
    """Additive regression alone: without images, and with a single task, nothing is scored and nothing is chosen."""
    kernel = estimators.kernel
    fold = torch.full((len(kernel.seen),), -1)
    held_out = kernel.held_out()
    return ConditionalMean(kernel, estimators.simple, (), Blend((ADDITIVE,), (1.0,)), (), held_out, fold)


def cross_validated(
    estimators: Estimators, tasks: Sequence[str], images: TaskImages, centering: Centering | None, looked_at: int
) -> tuple[ConditionalMean, CrossValidation]:
    """The conditional mean whose parts were chosen on held-out seen tasks, and the table of its scores there.

    The weights that predict a task were chosen without it and its fold, in the table as in ``held_out``.

    Args:
        estimators: fitted to the seen tasks.
        tasks: their names.
        images: of the seen tasks.
        centering: of any strength; None where there are no images to align with.
        looked_at: images a task on which blends are compared.
    """
    backbone, codec, correction = estimators.backbone, estimators.codec, estimators.correction
    estimates = estimators.held_out()
    names, count = tuple(estimates), len(tasks)
    stacked = torch.stack(list(estimates.values()))
    fold = correction.fold if correction.members else folds(tasks, min(BLEND_FOLDS, count), images.seed, "blend")
    blends = _blends(estimators, names, stacked, fold, images, looked_at)
    held_out = blends[-1](stacked)
    for number, own in enumerate(blends[:-1]):
        held_out[fold == number] = own(stacked[:, fold == number])
    if centering is not None and count >= FEWEST_TO_ALIGN:
        found = fit_centering(centering, backbone, held_out, images, looked_at)
        centering = found if found.strength else None
    else:
        centering = None
    if centering is not None:
        held_out = centering(held_out, centering.seen)
    mean = ConditionalMean(
        estimators.kernel,
        estimators.simple,
        correction.members,
        blends[-1],
        blends[:-1],
        held_out,
        correction.fold,
        centering=centering,
    )
    scored = (fold >= 0).nonzero()[:, 0].tolist()

    def score(vectors: Tensor, _: Tick) -> HeldOutScores:
        return score_held_out(backbone, codec, vectors, images, scored)

    *own_scores, delivered = in_parallel(score, [*estimates.values(), held_out])
    scores = dict(zip(names, own_scores, strict=True))
    plain = _plain_instead(scores, delivered)
    if plain is not None:
        alone = Blend(names, tuple(float(name == plain) for name in names))
        blends, held_out, delivered = (alone,) * len(blends), estimates[plain], scores[plain]
        mean = replace(mean, blend=alone, fold_blends=blends[:-1], held_out=held_out, centering=None)
    table = tabulate(scores, dict(zip(names, blends[-1].weights, strict=True)), delivered)
    return replace(mean, anchor=_anchor(estimators, held_out, images)), table


def _plain_instead(scores: Mapping[str, HeldOutScores], blended: HeldOutScores) -> str | None:
    """The pretrained model or the mean adapter, where seen tasks are few and it is right more often than the blend.

    The lowest loss of a few tasks may be that of answers that are less sure and no more right.
    """
    if len(blended.accuracy) >= FEW_TASKS:
        return None
    best = max((PRETRAINED, MEAN), key=lambda name: float(scores[name].accuracy.mean()))
    return best if float(scores[best].accuracy.mean()) > float(blended.accuracy.mean()) else None


def _blends(
    estimators: Estimators,
    names: tuple[str, ...],
    stacked: Float[Tensor, "m t d"],
    fold: Int[Tensor, " t"],
    images: TaskImages,
    looked_at: int,
) -> tuple[Blend, ...]:
    """One blend without each fold, then one of all tasks."""
    known = fold >= 0
    scored = known.nonzero()[:, 0]

    def losses(weights: Weights) -> Float[Tensor, "k t"]:
        blended = Blend(names, tuple(count / SHARES for count in weights))(stacked)
        result = torch.zeros(len(TEMPERATURES), len(fold))
        backbone, codec = estimators.backbone, estimators.codec
        result[:, scored] = tempered_losses(backbone, codec, blended, images, scored, looked_at)
        return result

    search = BlendSearch(names, losses)
    start = _start(names)
    parts = int(fold.max()) + 1
    own = tuple(search.search(start, known & (fold != part)) for part in range(parts)) if parts > 1 else ()
    return (*own, search.search(start, known))


def _start(names: tuple[str, ...]) -> Weights:
    """Equal shares of the families of networks; without networks, additive regression."""
    trained = [name for name in NETWORKS.values() if name in names] or [ADDITIVE]
    return start_weights(names, dict.fromkeys(trained, SHARES // len(trained)))


def _anchor(estimators: Estimators, held_out: Float[Tensor, "t d"], images: TaskImages) -> float:
    """How far seen tasks move to their own adapter, by the loss on validation images that it was not trained on."""
    own = estimators.kernel.targets

    def loss(share: float, _: Tick) -> float:
        vectors = held_out + share * (own - held_out)
        scores = score_held_out(estimators.backbone, estimators.codec, vectors, images, validation=True)
        return float(scores.loss.mean())

    losses = dict(zip(ANCHORS, in_parallel(loss, ANCHORS), strict=True))
    return min(losses, key=lambda share: losses[share])
