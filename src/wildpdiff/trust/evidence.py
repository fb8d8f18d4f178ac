"""Label-free evidence on a generated adapter: its distance from the seen ones and its predictions on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.tasks.batch import Batch
from wildpdiff.trust.space import DescriptionSpace, Novelty

EM_STEPS = 30
PRIOR_IMAGES = 10.0


@dataclass(frozen=True)
class AdapterSpace:
    """First moments of the seen adapters as flat vectors.

    Attributes:
        initial: the adapter of the unchanged pretrained model.
        center: mean of the seen adapters.
        move: root mean square distance of the seen adapters from ``initial``.
        spread: root mean square distance of the seen adapters from ``center``.
    """

    layout: Layout
    initial: Float[Tensor, " d"]
    center: Float[Tensor, " d"]
    move: float
    spread: float

    @classmethod
    def fit(cls, layout: Layout, initial: Float[Tensor, " d"], seen: Float[Tensor, "t d"]) -> AdapterSpace:
        """Moments of one vector a seen task."""
        center = seen.mean(0)
        move, spread = (float((seen - origin).square().sum(1).mean().sqrt()) for origin in (initial, center))
        return cls(layout, initial, center, max(move, 1e-12), max(spread, 1e-12))

    def evidence(self, adapters: Sequence[Adapter]) -> dict[str, float]:
        """Mean distances from the pretrained model (``move``) and the mean adapter (``own``), in those of seen ones."""
        vectors = torch.stack([self.layout.flatten(adapter.tensors) for adapter in adapters])
        return {
            "move": float((vectors - self.initial).norm(dim=1).mean()) / self.move,
            "own": float((vectors - self.center).norm(dim=1).mean()) / self.spread,
        }

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {"layout": self.layout.to_json(), "move": self.move, "spread": self.spread}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state."""
        return {"initial": self.initial, "center": self.center}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdapterSpace:
        """Inverse of :attr:`config` and :attr:`tensors`."""
        layout = Layout.from_json(config["layout"])
        return cls(layout, move=config["move"], spread=config["spread"], **tensors)


@dataclass(frozen=True, eq=False)
class Spaces:
    """Seen descriptions and adapters as points, and the pretrained model's mean probabilities over the seen tasks."""

    descriptions: DescriptionSpace
    adapters: AdapterSpace
    prior: Float[Tensor, " c"]

    def evidence(
        self, backbone: Backbone, novelty: Novelty, adapters: Sequence[Adapter], images: Batch | None
    ) -> dict[str, float]:
        """Evidence on one task's adapters: description, parameters and, where there are images, predictions.

        Args:
            images: a batch of unlabelled images, or None.
        """
        found = {**novelty.evidence, **self.adapters.evidence(adapters)}
        return found if images is None else found | prediction_evidence(backbone, images, adapters, self.prior)


def prediction_evidence(
    backbone: Backbone, images: Batch, adapters: Sequence[Adapter], prior: Float[Tensor, " c"]
) -> dict[str, float]:
    """Differences between the predictions with the adapters, averaged over these, and the pretrained model's.

    Args:
        images: a batch of unlabelled images.
        adapters: samples for one task.
        prior: the pretrained model's mean probabilities over the seen tasks, in place of its training prior.
    """
    if not backbone.classes:
        return _outputs_evidence(backbone, images, adapters)
    before = backbone.predict(images).double().softmax(1)
    after = backbone.predict_many(images, stacked_tensors(adapters)).double().softmax(2)
    found = [_compared(before, own, prior) for own in after]
    evidence = {name: sum(row[name] for row in found) / len(found) for name in found[0]}
    answers = after.argmax(2)
    pairs = [float((answers[i] != answers[j]).double().mean()) for i in range(len(answers)) for j in range(i)]
    evidence["samples_disagree"] = sum(pairs) / len(pairs) if pairs else 0.0
    return evidence


def _outputs_evidence(backbone: Backbone, images: Batch, adapters: Sequence[Adapter]) -> dict[str, float]:
    """Root mean square differences of outputs that are no classes, in standard deviations of the pretrained model's."""
    before = backbone.predict(images).double()
    after = backbone.predict_many(images, stacked_tensors(adapters)).double()
    unit = float((before - before.mean(0)).square().mean().sqrt()) + 1e-12
    pairs = [float((after[i] - after[j]).square().mean().sqrt()) for i in range(len(after)) for j in range(i)]
    changed = float((after - before).square().mean().sqrt()) / unit
    return {"changed": changed, "samples_disagree": sum(pairs) / len(pairs) / unit if pairs else 0.0}


def stacked_tensors(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """Tensors of adapters of one layout, ``[adapter, …]`` by name."""
    return {name: torch.stack([adapter.tensors[name] for adapter in adapters]) for name in adapters[0].tensors}


def _compared(
    before: Float[Tensor, "n c"], after: Float[Tensor, "n c"], usual: Float[Tensor, " c"]
) -> dict[str, float]:
    old, new = before.argmax(1), after.argmax(1)

    def gap(belief: Tensor) -> float:
        """Expected gain in accuracy of the new answers over the old ones under the probabilities ``belief``."""
        return float((belief.gather(1, new[:, None]) - belief.gather(1, old[:, None])).mean())

    return {
        "changed": float((old != new).double().mean()),
        "gain_by_generated": gap(after),
        "gain_by_pretrained": gap(before),
        "gain_by_prior": gap(_prior_corrected(before, usual)),
        "confidence_pretrained": float(before.amax(1).mean()),
        "confidence_change": float((after.amax(1) - before.amax(1)).mean()),
        "prior_shift": float((before.mean(0) - after.mean(0)).abs().sum() / 2),
    }


def _prior_corrected(probabilities: Float[Tensor, "n c"], usual: Float[Tensor, " c"]) -> Float[Tensor, "n c"]:
    """Probabilities under the classes' shares in these images, by expectation maximisation (Saerens et al. 2002).

    The usual shares count as ten more images, so that a handful of images cannot rule a class out.
    """
    usual = usual.double().clamp_min(1e-6)
    prior, corrected = usual, probabilities
    for _ in range(EM_STEPS):
        corrected = probabilities * (prior / usual)
        corrected = corrected / corrected.sum(1, keepdim=True).clamp_min(1e-12)
        prior = (corrected.sum(0) + PRIOR_IMAGES * usual) / (len(probabilities) + PRIOR_IMAGES)
    return corrected
