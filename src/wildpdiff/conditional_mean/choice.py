"""Choice of the conditional mean on held-out seen tasks: weights of the estimators, alignment, anchor, and the table.

Weights are chosen by cross-validation of the estimators' predictions (stacking, Wolpert 1992), and are non-negative and
sum to one (Breiman 1996, "Stacked regressions"): a blend cannot be far worse than its best estimator on tasks like the
seen ones. Exactly what a generator delivers is scored, next to every simpler estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from wildpdiff.adapters.canonical import factor_pairs, squared_updates
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import over_adapters
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.centering import FeatureAlignment
from wildpdiff.conditional_mean.correction import HypernetworkEnsemble
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.mean import ADDITIVE, NETWORKS, Blend, ConditionalMean
from wildpdiff.conditional_mean.score_table import DELIVERED, FEW_TASKS, PRETRAINED, CrossValidation, MethodScore
from wildpdiff.conditional_mean.simple import MEAN, SimpleEstimators
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import folds
from wildpdiff.conditional_mean.words import WordAlignment
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.tasks.batch import batch_size, merge
from wildpdiff.tasks.metric import Metric

ANCHORS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the way from the estimate to a seen task's own adapter that are tried."""
BLEND_FOLDS = 4
"""Folds over which weights are cross-fitted where no networks were trained."""
FEWEST_TO_ALIGN = 10
"""With fewer seen tasks nothing is aligned."""
MOST_IMAGES = 256
WIDEST = 1e9
"""Half-width of an interval over one task, of a metric without bounds."""
TASKS_AT_ONCE = 16

Weights = tuple[int, ...]
"""Non-negative counts of each estimator that sum to :data:`SHARES`."""

SHARES = 8
MOVES = (8, 4, 2, 1)
"""Shares that are moved from one estimator to another, coarse to fine."""
ERRORS = 0.5
"""A blend replaces a better-founded one where its mean loss is lower by this many standard errors of the difference."""


@dataclass
class BlendSearch:
    """Coordinate search over blends; losses of a blend are computed once and shared by all searches.

    Attributes:
        losses: mean loss of every task with a blend of predictions that were made without it, at several
            temperatures (:meth:`Objective.likelihood_losses`), "k t". A blend is compared at its best one, so
            that no estimator is chosen for lower confidence alone: a single network of a fold is overconfident, their
            mean is not.
    """

    names: tuple[str, ...]
    losses: Callable[[Weights], Float[Tensor, "k t"]]
    _known: dict[Weights, Tensor] = field(default_factory=dict, init=False, repr=False)

    def of(self, weights: Weights, tasks: Bool[Tensor, " t"]) -> Float[Tensor, " s"]:
        """The loss of some tasks at the temperature with the lowest mean over them."""
        self._learn([weights])
        own = self._known[weights][:, tasks]
        return own[own.mean(1).argmin()]

    def search(self, start: Weights, tasks: Bool[Tensor, " t"]) -> Blend:
        """The blend with the lowest mean loss over some tasks that moves of shares from a start lead to.

        The start is kept where nothing is better by more than chance.
        """
        best = start
        for size in MOVES:
            while tried := list(self._moves(best, size)):
                self._learn(tried)
                found = min(tried, key=lambda entry: float(self.of(entry, tasks).mean()))
                if not self._better(found, best, tasks):
                    break
                best = found
        return Blend(self.names, tuple(count / SHARES for count in best))

    def _learn(self, blends: Sequence[Weights]) -> None:
        """Compute the losses of those blends that are not known yet."""
        missing = [weights for weights in dict.fromkeys(blends) if weights not in self._known]
        for weights, found in zip(missing, in_parallel(lambda entry, _: self.losses(entry), missing), strict=True):
            self._known[weights] = found.double()

    def _moves(self, weights: Weights, size: int) -> Iterator[Weights]:
        """All moves of so many shares from one estimator to another; of the coarsest size, of all that it has."""
        for giver, taker in permutations(range(len(self.names)), 2):
            moved = min(size, weights[giver])
            if moved and (moved == size or size == MOVES[0]):
                result = list(weights)
                result[giver] -= moved
                result[taker] += moved
                yield tuple(result)

    def _better(self, left: Weights, right: Weights, tasks: Bool[Tensor, " t"]) -> bool:
        difference = self.of(right, tasks) - self.of(left, tasks)
        error = float(difference.std()) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
        return float(difference.mean()) > ERRORS * error and float(difference.mean()) > 0


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of adapters that were predicted without the task they are scored on.

    Attributes:
        loss: mean loss by task.
        score: mean score by task.
        images: number of examples a task, the median.
    """

    loss: Float[Tensor, " t"]
    score: Float[Tensor, " t"]
    images: int


@dataclass(frozen=True)
class Scorer:
    """Task loss and score of normalised adapters on examples of their task that no other task is trained on."""

    backbone: Backbone
    codec: Codec
    images: TaskExamples

    def scores(
        self, vectors: Float[Tensor, "t d"], tasks: Sequence[int] | None = None, *, validation: bool = False
    ) -> HeldOutScores:
        """Scores of one adapter a task, for some of the tasks or all.

        With ``validation`` on the task's validation examples alone, which its own adapter was not trained on.
        """
        numbers = list(range(len(vectors))) if tasks is None else list(tasks)
        losses, scores, counts = torch.zeros(len(numbers)), torch.zeros(len(numbers)), []
        objective = self.backbone.objective
        tensors = self.codec.layout.unflatten(self.codec.decode(vectors))
        with torch.no_grad():
            for row, number in enumerate(numbers):
                batch = self.images.evaluation(number, MOST_IMAGES, validation=validation)
                outputs = self.backbone.outputs(batch, {name: value[number] for name, value in tensors.items()})
                losses[row] = objective.loss(outputs, batch).mean()
                scores[row] = objective.score(outputs, batch).mean()
                counts.append(batch_size(batch))
        return HeldOutScores(losses, scores, int(np.median(counts)))

    def tempered_losses(
        self, vectors: Float[Tensor, "t d"], tasks: Int[Tensor, " s"], most: int
    ) -> Float[Tensor, "k s"]:
        """Mean loss of some tasks' adapters at each temperature, on ``most`` fixed examples a task."""
        found, objective = [], self.backbone.objective
        with torch.no_grad():
            for part in torch.split(tasks, TASKS_AT_ONCE):
                batch = self.images.fixed(part, most)
                tensors = self.codec.layout.unflatten(self.codec.decode(vectors[part]))
                outputs = over_adapters(self.backbone.outputs)(batch, tensors)
                losses = objective.likelihood_losses(outputs.flatten(0, 1), merge(batch))
                found.append(losses.view(-1, len(part), most).mean(2))
        return torch.cat(found, dim=1)


def tabulate(
    scores: Mapping[str, HeldOutScores], weights: Mapping[str, float], delivered: HeldOutScores, *, metric: Metric
) -> CrossValidation:
    """Cross-validation table of the delivered estimate, next to every estimator, with the weights of its blend."""
    from scipy.special import stdtrit  # late: reading a generator needs no scipy

    rows, widest = [], WIDEST if metric.span is None else metric.scale * metric.span
    for name, own in (*scores.items(), (DELIVERED, delivered)):
        leads = metric.sign * metric.scale * (delivered.score - own.score).double().numpy()
        lead, reach = float(leads.mean()), 2 * widest
        if len(leads) > 1:
            reach = float(stdtrit(len(leads) - 1, 0.975) * np.std(leads, ddof=1) / len(leads) ** 0.5)
        score, loss = metric.scale * float(own.score.double().mean()), float(own.loss.double().mean())
        low, high = max(lead - reach, -widest), min(lead + reach, widest)
        rows.append(MethodScore(name, score, loss, lead, low, high, weights.get(name)))
    return CrossValidation(tuple(rows), len(delivered.loss), delivered.images, metric)


@dataclass(frozen=True)
class Estimators:
    """Estimators of adapters, fitted to the seen tasks."""

    kernel: KernelMean
    simple: SimpleEstimators
    correction: HypernetworkEnsemble

    def held_out(self) -> dict[str, Float[Tensor, "t d"]]:
        """By estimator, the prediction for each seen task without that task.

        Estimators without training leave out the task alone, networks its whole fold.
        """
        networks = {NETWORKS[basis]: vectors for basis, vectors in self.correction.held_out.items()}
        return {**self.simple.leave_one_out(), ADDITIVE: self.kernel.held_out(), **networks}


def without_images(estimators: Estimators, codec: Codec, names: Sequence[str]) -> ConditionalMean:
    """The mean of tasks without images: adapters alone can be scored, by their held-out errors in ``ΔW``.

    Of few tasks, and of adapters without factors, it is additive regression alone.

    Args:
        names: of the tasks, which decide the folds over which weights are cross-fitted.
    """
    kernel, count = estimators.kernel, len(names)
    fold, blend = torch.full((count,), -1), Blend((ADDITIVE,), (1.0,))
    if count < FEWEST_TO_ALIGN or not any(True for _ in factor_pairs(codec.layout.unflatten(kernel.targets[0]))):
        return ConditionalMean(kernel, estimators.simple, (), blend, (), kernel.held_out(), fold)
    estimates = {name: own for name, own in estimators.held_out().items() if name != PRETRAINED}

    def blended(weights: Sequence[float], rows: Tensor) -> Tensor:
        used = zip(estimates.values(), weights, strict=True)
        return torch.stack([weight * own[rows] for own, weight in used if weight]).sum(0)

    def losses(weights: Weights) -> Float[Tensor, "1 t"]:
        found = []
        for rows in torch.split(torch.arange(count), TASKS_AT_ONCE):
            truth = codec.layout.unflatten(codec.decode(kernel.targets[rows]))
            tensors = codec.layout.unflatten(codec.decode(blended([share / SHARES for share in weights], rows)))
            sizes = squared_updates(truth).clamp_min(torch.finfo(torch.float64).tiny)
            found.append(squared_updates(tensors, truth) / sizes)
        return torch.cat(found)[None]

    search = BlendSearch(tuple(estimates), losses)
    start = tuple(SHARES if name == ADDITIVE else 0 for name in estimates)
    held_out, parts = torch.empty_like(kernel.targets), folds(names, BLEND_FOLDS, 0, "blend")
    for part in range(BLEND_FOLDS):
        rows = (parts == part).nonzero()[:, 0]
        held_out[rows] = blended(search.search(start, parts != part).weights, rows)
    blend = search.search(start, torch.ones(count, dtype=torch.bool))
    return ConditionalMean(kernel, estimators.simple, (), blend, (), held_out, fold)


def cross_validated(
    estimators: Estimators, scorer: Scorer, centering: FeatureAlignment | WordAlignment | None, evaluation_images: int
) -> tuple[ConditionalMean, CrossValidation]:
    """The conditional mean whose parts were chosen on held-out seen tasks, and the table of its scores there.

    The weights that predict a task were chosen without it and its fold, in the table as in ``held_out``.

    Args:
        scorer: with the images of the seen tasks.
        centering: of any strength; None where there are neither images nor words to align with.
        evaluation_images: images a task on which blends are compared.
    """
    images, correction = scorer.images, estimators.correction
    estimates = estimators.held_out()
    names, count = tuple(estimates), len(images.names)  # of the tasks with images, which are the first
    stacked = torch.stack(list(estimates.values()))
    fold = correction.fold
    if not correction.members:
        own_folds = folds(images.names, min(BLEND_FOLDS, count), images.seed, "blend")
        fold = pad(own_folds, (0, len(fold) - count), value=-1)
    blends = _blends(scorer, estimates, fold, evaluation_images)
    held_out = blends[-1](stacked)
    for number, own in enumerate(blends[:-1]):
        held_out[fold == number] = own(stacked[:, fold == number])
    if centering is not None and count >= FEWEST_TO_ALIGN:
        centering = centering.fitted(scorer.backbone, held_out[:count], images, evaluation_images)
    if centering is None or not centering.strength:
        centering = None
    else:
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
    vectors = [*estimates.values(), held_out]
    *own_scores, delivered = in_parallel(lambda entry, _: scorer.scores(entry, scored), vectors)
    scores = dict(zip(names, own_scores, strict=True))
    metric = scorer.backbone.objective.metric
    plain = _plain_instead(scores, delivered, metric.sign)
    if plain is None:
        mean = replace(mean, delivered_fold=_delivered_fold(mean, scorer, estimates, evaluation_images))
    else:
        alone = Blend(names, tuple(float(name == plain) for name in names))
        blends, held_out, delivered = (alone,) * len(blends), estimates[plain], scores[plain]
        mean = replace(mean, blend=alone, fold_blends=blends[:-1], held_out=held_out, centering=None)
    table = tabulate(scores, dict(zip(names, blends[-1].weights, strict=True)), delivered, metric=metric)
    return replace(mean, anchor=_anchor(scorer, estimators.kernel.targets[:count], held_out[:count])), table


def _plain_instead(scores: Mapping[str, HeldOutScores], blended: HeldOutScores, sign: int) -> str | None:
    """The pretrained model or the mean adapter, where seen tasks are few and its score is better than the blend's.

    The lowest loss on a few tasks may be due to lower confidence alone.
    """
    if len(blended.score) >= FEW_TASKS:
        return None
    best = max((PRETRAINED, MEAN), key=lambda name: sign * float(scores[name].score.mean()))
    return best if sign * float(scores[best].score.mean()) > sign * float(blended.score.mean()) else None


def _delivered_fold(
    mean: ConditionalMean, scorer: Scorer, estimates: Mapping[str, Float[Tensor, "t d"]], images: int
) -> int | None:
    """The fold whose networks alone are delivered; None where their mean over the folds is as good.

    Held-out tasks are scored with the networks of their fold alone. A mean of adapters is better than one of them only
    where the networks agree up to small errors: networks that found different adapters of the same function (factors
    rotated, units exchanged) have a mean that is neither (the barrier of Frankle et al. 2020). So the mean is compared
    on the seen tasks with single folds: both have learned from the same tasks, but for one fold of each.
    """
    weights = mean.blend.used
    if mean.folds < 2 or not weights.keys() & NETWORKS.values():
        return None
    rest = sum(weight * estimates[name] for name, weight in weights.items() if name not in NETWORKS.values())
    blends = [rest + torch.zeros_like(mean.held_out) for _ in range(mean.folds)]
    for member in mean.members:
        weight = weights.get(NETWORKS[member.basis], 0.0)
        blends[member.fold] += weight * member.normalized(mean.seen, estimates[ADDITIVE])
    candidates = [torch.stack(blends).mean(0), *blends]
    if mean.centering is not None:
        candidates = [mean.centering(entry, mean.centering.seen) for entry in candidates]
    tasks = torch.arange(len(scorer.images.names))
    tempered = in_parallel(lambda entry, _: scorer.tempered_losses(entry, tasks, images), candidates)
    averaged, *single = (losses[losses.mean(1).argmin()] for losses in tempered)
    worse = averaged - torch.stack(single).mean(0)
    if float(worse.mean()) <= ERRORS * float(worse.std()) / len(worse) ** 0.5:
        return None
    return min(range(mean.folds), key=lambda fold: float(single[fold].mean()))


def _blends(
    scorer: Scorer, estimates: Mapping[str, Float[Tensor, "t d"]], fold: Int[Tensor, " t"], evaluation_images: int
) -> tuple[Blend, ...]:
    """One blend without each fold, then one of all tasks."""
    names, stacked = tuple(estimates), torch.stack(list(estimates.values()))
    known = fold >= 0
    scored = known.nonzero()[:, 0]

    def losses(weights: Weights) -> Float[Tensor, "k t"]:
        blended = Blend(names, tuple(count / SHARES for count in weights))(stacked)
        own = scorer.tempered_losses(blended, scored, evaluation_images)
        result = torch.zeros(len(own), len(fold))
        result[:, scored] = own
        return result

    search = BlendSearch(names, losses)
    # Equal shares of the families of networks; without networks, additive regression.
    trained = [name for name in NETWORKS.values() if name in names] or [ADDITIVE]
    start = tuple(SHARES // len(trained) if name in trained else 0 for name in names)
    parts = int(fold.max()) + 1
    own = tuple(search.search(start, known & (fold != part)) for part in range(parts)) if parts > 1 else ()
    return (*own, search.search(start, known))


def _anchor(scorer: Scorer, own: Float[Tensor, "t d"], held_out: Float[Tensor, "t d"]) -> float:
    """Share of the way to their own adapter that seen tasks move, by the loss on validation images."""

    def loss(share: float, _: Tick) -> float:
        return float(scorer.scores(held_out + share * (own - held_out), validation=True).loss.mean())

    losses = dict(zip(ANCHORS, in_parallel(loss, ANCHORS), strict=True))
    return min(losses, key=lambda share: losses[share])
