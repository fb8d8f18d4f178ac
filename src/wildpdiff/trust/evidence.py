"""What can be measured of a generated adapter without labels: predictions on unlabelled images, and its place."""

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

EM_STEPS = 30
PRIOR_IMAGES = 10.0


@dataclass(frozen=True)
class AdapterSpace:
    """Where the seen adapters lie.

    Attributes:
        layout: names and shapes behind the vectors.
        initial: the adapter that leaves the pretrained model as it is.
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
        """Measure the seen adapters, one row a task."""
        center = seen.mean(0)
        move = float((seen - initial).square().sum(1).mean().sqrt())
        spread = float((seen - center).square().sum(1).mean().sqrt())
        return cls(layout, initial, center, max(move, 1e-12), max(spread, 1e-12))

    def evidence(self, adapters: Sequence[Adapter]) -> dict[str, float]:
        """How far the adapters move the pretrained model, and how unlike the mean adapter they are."""
        vectors = torch.stack([self.layout.flatten(adapter.tensors) for adapter in adapters])
        return {
            "move": float((vectors - self.initial).norm(dim=1).mean()) / self.move,
            "own": float((vectors - self.center).norm(dim=1).mean()) / self.spread,
        }

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the space."""
        return {"layout": self.layout.to_json(), "move": self.move, "spread": self.spread}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The initial adapter and the mean."""
        return {name: getattr(self, name) for name in ("initial", "center")}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdapterSpace:
        """Restore from :attr:`config` and :attr:`tensors`."""
        layout = Layout.from_json(config["layout"])
        return cls(layout, move=config["move"], spread=config["spread"], **tensors)


def prediction_evidence(
    backbone: Backbone, images: Tensor, adapters: Sequence[Adapter], prior: Float[Tensor, " c"]
) -> dict[str, float]:
    """What changes between the pretrained model's predictions and those with the adapters.

    Args:
        backbone: the frozen model.
        images: unlabelled images behind the stem, ``[n, …]``.
        adapters: samples for one task; what is measured of each is averaged.
        prior: the pretrained model's mean probabilities over the seen tasks, in place of its training prior.
    """
    before = backbone.predict(images).double().softmax(1)
    stacked: Mapping[str, Tensor] = {
        name: torch.stack([adapter.tensors[name] for adapter in adapters]) for name in adapters[0].tensors
    }
    after = backbone.predict_many(images, stacked).double().softmax(2)
    found = [_compared(before, own, prior) for own in after]
    evidence = {name: sum(row[name] for row in found) / len(found) for name in found[0]}
    answers = after.argmax(2)
    pairs = [float((answers[i] != answers[j]).double().mean()) for i in range(len(answers)) for j in range(i)]
    evidence["samples_disagree"] = sum(pairs) / len(pairs) if pairs else 0.0
    return evidence


def _compared(
    before: Float[Tensor, "n c"], after: Float[Tensor, "n c"], usual: Float[Tensor, " c"]
) -> dict[str, float]:
    old, new = before.argmax(1), after.argmax(1)
    corrected = _prior_corrected(before, usual)

    def gap(belief: Tensor) -> float:
        """How much more often the new answer is right than the old one, if ``belief`` were the truth."""
        return float((belief.gather(1, new[:, None]) - belief.gather(1, old[:, None])).mean())

    prior, target = before.mean(0), after.mean(0)
    return {
        "changed": float((old != new).double().mean()),
        "gain_by_generated": gap(after),
        "gain_by_pretrained": gap(before),
        "gain_by_prior": gap(corrected),
        "confidence_pretrained": float(before.amax(1).mean()),
        "confidence_change": float((after.amax(1) - before.amax(1)).mean()),
        "prior_shift": float((prior - target).abs().sum() / 2),
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
