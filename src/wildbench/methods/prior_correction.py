"""The pretrained model under another label prior: no weight of the network changes but the classifier's bias.

By Bayes' rule a classifier trained under label frequencies ``p_train`` becomes right for a site with frequencies
``p_task``, but pictures of each class that look as before, when ``log p_task - log p_train`` is added to its logits
(Saerens, Latinne & Decaestecker 2002, section 2). As an adapter that is the pretrained one with another bias. What
stands for ``p_train`` is the pooled label frequency of the seen tasks' training images: the pretraining's own labels
are not part of a zoo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildbench.methods.classifier import classifier_of
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.conditional_mean.kernel import KernelMean, fit_kernel_mean
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import TARGETS

STRENGTHS = tuple(step / 10 for step in range(21))
"""Strengths that are tried: 0 leaves the pretrained model, 1 is Bayes' rule."""

PSEUDO_COUNTS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10000.0)
"""Numbers of imagined images, labelled as the seen tasks on average, tried in addition to the unlabelled ones."""

LEAST_LOG_PRIOR = -12.0
"""Below this a class counts as impossible; EM drives the prior of absent classes to exactly zero."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelPriors:
    """Label frequencies of the seen tasks, smoothed.

    Attributes:
        tasks: log frequencies of each task.
        pooled: log frequencies of all tasks' images together.
    """

    tasks: Float[Tensor, "t c"]
    pooled: Float[Tensor, " c"]


def label_priors(labels: Sequence[Int[Tensor, " _"]], classes: int) -> LabelPriors:
    """Log label frequencies of each task's training labels.

    Every class gets one more image in the pool; every task gets as many more images as there are classes, labelled
    as the pool. So no frequency is zero, and a class that a task has not shown is rare there and not impossible.
    """
    counts = torch.stack([torch.bincount(entry, minlength=classes) for entry in labels]).double()
    pooled = counts.sum(0) + 1.0
    pooled = pooled / pooled.sum()
    smoothed = counts + classes * pooled
    return LabelPriors((smoothed / smoothed.sum(1, keepdim=True)).log().float(), pooled.log().float())


class PredictedPriorSource:
    """Label prior predicted from the description, as geographic priors of species do (Mac Aodha et al. 2019).

    The log label frequencies of the seen tasks are regressed on their descriptions by the additive kernel regression
    that also gives the generator's mean (:func:`fit_kernel_mean`), so that it stands or falls with what the description
    informs about labels alone. The correction's strength is the one with the best mean accuracy on the seen tasks'
    validation images, each task corrected by the prior predicted without it (:func:`leave_one_out`).
    """

    name = "prior from the description"
    stochastic = False

    def __init__(self, seen: SeenTasks, *, strengths: Sequence[float] = STRENGTHS) -> None:
        """Fit the regression and choose the strength.

        Args:
            seen: the seen tasks with their labels.
            strengths: that are tried; the first of equally good ones is taken.

        Raises:
            DataError, AdapterMismatchError: as :func:`classifier_of`.
        """
        self._seen = seen
        self._initial = seen.zoo.initial
        _, self._bias = classifier_of(self._initial, "correction of the prior")
        data = [seen.data(name) for name in seen.zoo.tasks]
        self._priors = label_priors([task.train[TARGETS] for task in data], len(seen.backbone.classes))
        self._mean = fit_kernel_mean(seen.encoder, seen.embeddings, self._priors.tasks)
        predicted = self._mean.leave_one_out().log_softmax(1)
        scores = torch.zeros(len(strengths), dtype=torch.float64)
        for task, log_prior in zip(data, predicted, strict=True):
            logits = seen.backbone.predict(task.validation)
            for index, strength in enumerate(strengths):
                found = (logits + strength * (log_prior - self._priors.pooled)).argmax(1)
                scores[index] += (found == task.validation[TARGETS]).double().mean()
        self._strength = float(strengths[int(scores.argmax())])

    @property
    def strength(self) -> float:
        """The factor of the correction."""
        return self._strength

    @property
    def mean(self) -> KernelMean:
        """The regression of log priors that was fitted."""
        return self._mean

    def log_prior(self, description: Description) -> Float[Tensor, " c"]:
        """Predicted log label frequencies; raises :class:`DescriptionError` on an empty or bad description."""
        embedding = self._seen.encoder.encode(description).values
        return self._mean.predict(embedding[None])[0].log_softmax(0)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the corrected pretrained adapter; raises as :meth:`log_prior`."""
        shift = self._strength * (self.log_prior(description) - self._priors.pooled)
        adapter = _shifted(self._initial, self._bias, shift)
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, strength=self._strength)


class UnlabelledPriorSource:
    """Label prior estimated by EM on the task's unlabelled images (Saerens, Latinne & Decaestecker 2002, section 2).

    With few images maximum likelihood goes to extremes. So some imagined images with the pooled labels (a Dirichlet
    prior) may be added in the M-step; how many is chosen by mean accuracy on the seen tasks' validation images after EM
    on their training images, whose labels are not used. With none of them, which is one of the values tried, the
    algorithm is the paper's; with very many the prior stays the pooled one. EM takes every difference for one of
    labels: where pictures of a class look different from task to task too, it can end below the pretrained model, and a
    large number is chosen.
    """

    name = "prior by EM on unlabelled images"
    stochastic = False

    def __init__(self, seen: SeenTasks, *, pseudo_counts: Sequence[float] = PSEUDO_COUNTS) -> None:
        """Choose the smoothing.

        Args:
            seen: the seen tasks; their labels give ``p_train`` and score the smoothing.
            pseudo_counts: that are tried; the first of equally good ones is taken.

        Raises:
            DataError, AdapterMismatchError: as :func:`classifier_of`.
        """
        self._backbone = seen.backbone
        self._initial = seen.zoo.initial
        _, self._bias = classifier_of(self._initial, "correction of the prior")
        data = [seen.data(name) for name in seen.zoo.tasks]
        self._pooled = label_priors([task.train[TARGETS] for task in data], len(seen.backbone.classes)).pooled
        scores = torch.zeros(len(pseudo_counts), dtype=torch.float64)
        for task in data:
            unlabelled, logits = seen.backbone.predict(task.train), seen.backbone.predict(task.validation)
            for index, pseudo_count in enumerate(pseudo_counts):
                log_prior = expectation_maximisation(unlabelled.softmax(1), self._pooled.exp(), pseudo_count).log_prior
                found = (logits + log_prior - self._pooled).argmax(1)
                scores[index] += (found == task.validation[TARGETS]).double().mean()
        self._pseudo_count = float(pseudo_counts[int(scores.argmax())])

    @property
    def pseudo_count(self) -> float:
        """Number of imagined images with the pooled labels that join the unlabelled ones; 0 is the paper's EM."""
        return self._pseudo_count

    def log_prior(self, description: Description) -> Float[Tensor, " c"]:
        """Estimated log label frequencies.

        Raises:
            DescriptionError: the description has no ``examples``.
            DataError: they are of another size than the backbone takes.
        """
        description.require_any(["examples"])
        images = description.examples
        if images is None or not count(images):
            raise DescriptionError("The description's examples is empty. Give at least one image.")
        probabilities = self._backbone.predict(self._backbone.stem(images)).softmax(1)
        return expectation_maximisation(probabilities, self._pooled.exp(), self._pseudo_count).log_prior

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the corrected pretrained adapter; raises as :meth:`log_prior`."""
        adapter = _shifted(self._initial, self._bias, self.log_prior(description) - self._pooled)
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, pseudo_count=self._pseudo_count)


@dataclass(frozen=True)
class Expectation:
    """Result of EM.

    Attributes:
        log_prior: log label frequencies, not below :data:`LEAST_LOG_PRIOR`.
        log_likelihoods: of the images, before each iteration and at the end, up to a constant; with imagined images
            the log posterior. It never falls.
    """

    log_prior: Float[Tensor, " c"]
    log_likelihoods: Float[Tensor, " steps"]


def expectation_maximisation(
    probabilities: Float[Tensor, "n c"],
    train_prior: Float[Tensor, " c"],
    pseudo_count: float = 0.0,
    *,
    iterations: int = 300,
    tolerance: float = 1e-4,
) -> Expectation:
    """Label frequencies of unlabelled images by EM (Saerens et al. 2002, section 2).

    The E-step is Bayes' rule, ``q(c|x) ∝ p(c|x) π(c) / p_train(c)``; the M-step is ``π(c) = mean_x q(c|x)``.

    Args:
        probabilities: the classifier's, one row an image.
        train_prior: label frequencies ``p_train`` that the classifier was trained under, all positive; EM starts there.
        pseudo_count: imagined images with labels ``train_prior`` that are added in the M-step.
        iterations: most iterations.
        tolerance: stop when no frequency moves by more.
    """
    given = probabilities.double().numpy()
    trained = train_prior.double().numpy()
    trained = trained / trained.sum()
    prior, steps = trained, []
    for _ in range(iterations):
        joint = given * (prior / trained)
        evidence = joint.sum(1, keepdims=True)
        steps.append(_log_posterior(evidence, prior, trained, pseudo_count))
        following = ((joint / evidence).sum(0) + pseudo_count * trained) / (len(given) + pseudo_count)
        moved = float(np.abs(following - prior).max())
        prior = following
        if moved <= tolerance:
            break
    steps.append(_log_posterior((given * (prior / trained)).sum(1), prior, trained, pseudo_count))
    log_prior = torch.from_numpy(np.log(np.maximum(prior, np.exp(LEAST_LOG_PRIOR)))).float()
    return Expectation(log_prior, torch.tensor(steps, dtype=torch.float64))


def _log_posterior(evidence: Numbers, prior: Numbers, trained: Numbers, pseudo_count: float) -> float:
    total = float(np.log(evidence).sum())
    return total + (pseudo_count * float((trained * np.log(prior)).sum()) if pseudo_count else 0.0)


def _shifted(adapter: Adapter, bias: str, shift: Tensor) -> Adapter:
    return replace(adapter, tensors={**adapter.tensors, bias: adapter.tensors[bias] + shift})
