"""The conditional mean: the best estimate of an adapter from its description, a blend of several estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.centering import FeatureAlignment
from wildpdiff.conditional_mean.correction import Basis, EnsembleMember
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork
from wildpdiff.conditional_mean.score_table import PRETRAINED
from wildpdiff.conditional_mean.simple import SIMPLE, SimpleEstimators
from wildpdiff.conditional_mean.words import WordAlignment, WordReader
from wildpdiff.records import encode
from wildpdiff.tasks.description import Description

ADDITIVE = "additive kernel regression"
RESIDUAL = "residual networks"
DIRECT = "direct networks"
NETWORKS: Mapping[Basis, str] = {"regression": RESIDUAL, "nothing": DIRECT}
"""Names of the network families by what they are trained on top of."""


OWN = 0.5
"""Weight of a seen task from which on a description counts as its own."""


@dataclass(frozen=True)
class Blend:
    """Estimators and their weights, which sum to 1: a weighted soup of adapters (Wortsman et al. 2022)."""

    names: tuple[str, ...]
    weights: tuple[float, ...]

    def __call__(self, predictions: Float[Tensor, "m n d"]) -> Float[Tensor, "n d"]:
        """The weighted mean of the estimators' normalised adapters, in the order of the names."""
        return torch.einsum("m,mnd->nd", torch.tensor(self.weights), predictions)

    @property
    def used(self) -> dict[str, float]:
        """The estimators of positive weight, the largest first."""
        pairs = sorted(zip(self.names, self.weights, strict=True), key=lambda pair: -pair[1])
        return {name: weight for name, weight in pairs if weight > 0}


def _alignment(config: Mapping[str, Any]) -> type[FeatureAlignment | WordAlignment]:
    """The kind of a stored alignment."""
    return WordAlignment if config["part"] == WordReader.part else FeatureAlignment


@dataclass(frozen=True, eq=False)
class ConditionalMean:
    """Fused embeddings of descriptions to normalised adapter vectors.

    ``m(c) = g(c) + α Σ_j p_j(c) (a_j - g(c_j))`` with ``g`` a blend of estimators (pretrained model, mean adapter,
    nearest task, kernel regressions, networks trained with the task loss) whose weights were chosen on held-out seen
    tasks, ``a_j`` the adapters of the seen tasks and weights ``p_j`` that are 1 at a seen task's own description and 0
    away from all of them. So unseen tasks get ``g``, and seen ones move to their own adapter as far (``α``) as lowers
    the loss on images that these adapters were not trained on. Where ``g`` is the pretrained model alone, only a seen
    task's own description moves it. Where a description has images, ``g`` is aligned with
    their mean features (:mod:`wildpdiff.conditional_mean.centering`).

    Attributes:
        kernel: the additive regression, which holds the seen tasks' embeddings and adapters.
        members: the networks; none where nothing was trained with the task loss.
        fold_blends: by fold, the weights as chosen without that fold's tasks.
        held_out: for each seen task ``g`` without that task, "t d".
        fold: of each seen task; -1 where no network was trained without it.
        anchor: ``α``, 0 to 1.
        centering: alignment with a site's images, or with the words of a description; None where there are none.
        delivered_fold: fold whose networks alone predict; None for the mean over the networks of all folds.
    """

    kernel: KernelMean
    simple: SimpleEstimators
    members: tuple[EnsembleMember, ...]
    blend: Blend
    fold_blends: tuple[Blend, ...]
    held_out: Float[Tensor, "t d"]
    fold: Int[Tensor, " t"]
    anchor: float = 1.0
    centering: FeatureAlignment | WordAlignment | None = None
    delivered_fold: int | None = None
    _own: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def seen(self) -> Float[Tensor, "t e"]:
        """Embeddings of the seen tasks."""
        return self.kernel.seen

    @property
    def adapters(self) -> Float[Tensor, "t d"]:
        """Normalised adapters of the seen tasks."""
        return self.kernel.targets

    @property
    def folds(self) -> int:
        """Number of folds of the seen tasks that networks were trained without."""
        return 1 + max((member.fold for member in self.members), default=-1)

    def without(self, fold: int) -> ConditionalMean:
        """The mean without one fold of the seen tasks: the networks trained without it, on the regression of the rest.

        Exact but for what is chosen or fitted on all tasks together: the codec, the encoder of descriptions, the terms
        of the regressions, mean and strength of the alignment. The fold's own images also decided when the training of
        these networks stopped.
        """
        rows = self.fold == fold
        kernel = self.kernel.without(rows)
        return replace(
            self,
            kernel=kernel,
            simple=self.simple.without(rows),
            members=tuple(member for member in self.members if member.fold == fold),
            blend=self.fold_blends[fold] if fold < len(self.fold_blends) else self.blend,
            fold_blends=(),
            held_out=self.held_out[~rows],
            fold=torch.full((len(kernel.seen),), -1),
            centering=None if self.centering is None else self.centering.without(rows),
            delivered_fold=None,
        )

    def shifts(self, descriptions: Sequence[Description]) -> Float[Tensor, "n f"] | None:
        """Feature shift of each description's images; None without an alignment."""
        return None if self.centering is None else self.centering.reader.of(descriptions)

    def seen_shifts(self, mask: int | None = None) -> Float[Tensor, "t f"] | None:
        """The same of the seen tasks, of descriptions without the parts that a mask hides; of whole ones by default."""
        if self.centering is None:
            return None
        seen = self.kernel.seen if mask is None else self.kernel.masked_embeddings(mask)
        flags = seen[:, seen.shape[1] - len(self.kernel.parts) + self.kernel.parts.index(self.centering.reader.part)]
        return self.centering.seen * flags[:, None]

    def estimate(self, name: str, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """Normalised adapters of one estimator; raises ``KeyError`` where it is not part of this mean."""
        if name in SIMPLE:
            return self.simple.predict(name, embeddings)
        regressed = self.kernel.predict(embeddings)
        if name == ADDITIVE:
            return regressed
        own = [
            member
            for member in self.members
            if NETWORKS[member.basis] == name and (self.delivered_fold is None or member.fold == self.delivered_fold)
        ]
        if not own:
            raise KeyError(name)
        return torch.stack([member.normalized(embeddings, regressed) for member in own]).mean(0)

    def predict(
        self, embeddings: Float[Tensor, "n e"], shifts: Float[Tensor, "n f"] | None = None
    ) -> Float[Tensor, "n d"]:
        """``g``: the estimate for an unseen task, also at the seen ones; without shifts nothing is aligned."""
        result = torch.zeros(len(embeddings), self.adapters.shape[1])
        for name, weight in self.blend.used.items():
            result += weight * self.estimate(name, embeddings)
        return result if self.centering is None or shifts is None else self.centering(result, shifts)

    def __call__(
        self, embeddings: Float[Tensor, "n e"], shifts: Float[Tensor, "n f"] | None = None
    ) -> Float[Tensor, "n d"]:
        """The mean; parts whose presence flag is 0 are not read."""
        result = self.predict(embeddings, shifts)
        masks = self.kernel.presence_masks(embeddings)
        for mask in sorted(set(masks.tolist())) if self.anchor else ():
            rows = masks == mask
            weights = self.kernel.anchor_weights(embeddings[rows])
            if self.blend.used.keys() == {PRETRAINED}:  # a part of another task's adapter was not checked to help
                weights *= weights.amax(1, keepdim=True) >= OWN
            if weights.any():
                result[rows] += self.anchor * (weights @ self._residuals(mask))
        return result

    def _residuals(self, mask: int) -> Tensor:
        """The seen tasks' own adapters less ``g`` of their descriptions with these parts; computed once."""
        if mask not in self._own:
            estimates = self.predict(self.kernel.masked_embeddings(mask), self.seen_shifts(mask))
            self._own[mask] = self.adapters - estimates
        return self._own[mask]

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the mean."""
        return {
            "kernel": self.kernel.config,
            "simple": self.simple.config,
            "members": [{"basis": member.basis, "fold": member.fold} for member in self.members],
            "estimators": encode(self.blend.names),
            "weights": encode(self.blend.weights),
            "fold_weights": [encode(blend.weights) for blend in self.fold_blends],
            "anchor": self.anchor,
            **({} if self.delivered_fold is None else {"delivered_fold": self.delivered_fold}),
            **({} if self.centering is None else {"centering": self.centering.config}),
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The regression's tensors, ``network-N.…`` of every network, held-out estimates and the alignment's."""
        networks = {
            f"network-{number}.{name}": value
            for number, member in enumerate(self.members)
            for name, value in member.network.state_dict().items()
        }
        centering = {} if self.centering is None else self.centering.tensors
        own = {"start": self.simple.start, "held_out": self.held_out, "fold": self.fold}
        return {**self.kernel.tensors, **networks, **centering, **own}

    @classmethod
    def from_state(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        sizes: tuple[int, ...],
        *,
        codec: Codec,
        backbone: Backbone,
    ) -> ConditionalMean:
        """Restored from :attr:`config` and :attr:`tensors`, with the codec and the backbone that it was fitted with.

        ``sizes`` are the columns of each part of the embeddings (``FusionEncoder.sizes``).
        """
        members = []
        for number, entry in enumerate(config["members"]):
            prefix = f"network-{number}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            members.append(EnsembleMember(DescriptionNetwork.restore(state), entry["basis"], entry["fold"]))
        kernel = KernelMean.from_state(config["kernel"], tensors, sizes)
        entry = config.get("centering")
        names = tuple(config["estimators"])
        return cls(
            kernel=kernel,
            simple=SimpleEstimators.from_state(
                config["simple"], sizes, tensors["start"], seen=kernel.seen, targets=kernel.targets
            ),
            members=tuple(members),
            blend=Blend(names, tuple(config["weights"])),
            fold_blends=tuple(Blend(names, tuple(weights)) for weights in config["fold_weights"]),
            held_out=tensors["held_out"],
            fold=tensors["fold"],
            anchor=config["anchor"],
            centering=None if entry is None else _alignment(entry).from_state(entry, tensors, codec, backbone),
            delivered_fold=config.get("delivered_fold"),
        )
