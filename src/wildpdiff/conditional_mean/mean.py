"""The conditional mean that a generator samples around: a regression, the networks on top of it, and the seen tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.centering import Centering
from wildpdiff.conditional_mean.correction import Correction, Member
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork
from wildpdiff.tasks.description import Description

__all__ = ["ConditionalMean"]


@dataclass(frozen=True, eq=False)
class ConditionalMean:
    """Fused embeddings of descriptions to normalised adapter vectors.

    ``m(c) = g(c) + Σ_j p_j(c) (a_j - g(c_j))`` with ``g`` the mean of networks trained with the task loss, some of them
    on top of the kernel regression, and weights ``p_j`` that are 1 at a seen task's own description and 0 away from all
    of them, where ``a_j`` is that task's adapter. So unseen tasks get ``g``, and seen ones their own. Without networks
    ``g`` is the regression. Where a description has images, ``g`` is centred on them
    (:mod:`wildpdiff.conditional_mean.centering`).

    Attributes:
        kernel: the regression, which holds the seen tasks' embeddings and adapters.
        members: the networks; none where nothing was trained with the task loss.
        held_out: for each seen task ``g`` as if that task were unseen, "t d".
        fold: for each seen task the fold that it is in; -1 where no network was trained without it.
        centering: on the images of a place; None where there are none to read.
    """

    kernel: KernelMean
    members: tuple[Member, ...]
    held_out: Float[Tensor, "t d"]
    fold: Int[Tensor, " t"]
    centering: Centering | None = None
    _own: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, kernel: KernelMean, correction: Correction, centering: Centering | None = None) -> ConditionalMean:
        """A regression with what was trained on top of it, centred."""
        held_out = correction.held_out
        if centering is not None:
            held_out = centering(held_out, centering.seen)
        return cls(kernel, correction.members, held_out, correction.fold, centering)

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
        """How many folds of the seen tasks there are networks without."""
        return 1 + max((member.fold for member in self.members), default=-1)

    def without(self, fold: int) -> ConditionalMean:
        """The mean without one fold of the seen tasks: the networks without it, on the regression of the rest.

        Exact but for what is chosen or fitted on all tasks together: the codec, the encoder of descriptions, the terms
        of the regression, mean and strength of the centering. The fold's own images also said when the training of
        these networks was to stop, and on the other tasks they stand on a regression that has the fold in it.
        """
        rows = self.fold == fold
        kernel = self.kernel.without(rows)
        members = tuple(member for member in self.members if member.fold == fold)
        centering = None if self.centering is None else self.centering.without(rows)
        return ConditionalMean(kernel, members, self.held_out[~rows], torch.full((len(kernel.seen),), -1), centering)

    def shifts(self, descriptions: Sequence[Description]) -> Float[Tensor, "n f"] | None:
        """What :meth:`smooth` centres on beside the embeddings of these descriptions; None without a centering."""
        return None if self.centering is None else self.centering.reader.of(descriptions)

    def seen_shifts(self, code: int | None = None) -> Float[Tensor, "t f"] | None:
        """The same of the seen tasks, of descriptions cut to the parts of a code; of whole ones by default."""
        if self.centering is None:
            return None
        told = self.kernel.seen if code is None else self.kernel.with_parts(code)
        flags = told[:, told.shape[1] - len(self.kernel.parts) + self.kernel.parts.index(self.centering.reader.part)]
        return self.centering.seen * flags[:, None]

    def smooth(
        self, embeddings: Float[Tensor, "n e"], shifts: Float[Tensor, "n f"] | None = None
    ) -> Float[Tensor, "n d"]:
        """``g``: what an unseen task gets, also at the seen ones; without shifts nothing is centred."""
        return self.each(embeddings, shifts).mean(0)

    def each(
        self, embeddings: Float[Tensor, "n e"], shifts: Float[Tensor, "n f"] | None = None
    ) -> Float[Tensor, "m n d"]:
        """``g`` with each network by itself; how they differ tells how sure the mean is of a description."""
        regressed = self.kernel.smooth(embeddings)
        said = [member.normalized(embeddings, regressed) for member in self.members] or [regressed]
        if self.centering is not None and shifts is not None:
            said = [self.centering(entry, shifts) for entry in said]
        return torch.stack(said)

    def __call__(
        self, embeddings: Float[Tensor, "n e"], shifts: Float[Tensor, "n f"] | None = None
    ) -> Float[Tensor, "n d"]:
        """The mean; parts whose presence flag is 0 are not read."""
        result = self.smooth(embeddings, shifts)
        codes = self.kernel.code(embeddings)
        for code in sorted(set(codes.tolist())):
            rows = codes == code
            pull = self.kernel.pull(embeddings[rows])
            if pull.any():
                result[rows] += pull @ self._missing(code)
        return result

    def table(self) -> Float[Tensor, "s t d"]:
        """The mean of every seen task for every subset of its parts, numbered as :meth:`KernelMean.code` does."""
        codes = range(2 ** len(self.kernel.parts))
        return torch.stack([self(self.kernel.with_parts(code), self.seen_shifts(code)) for code in codes])

    def _missing(self, code: int) -> Tensor:
        """The seen tasks' own adapters less ``g`` of their descriptions with these parts; computed once."""
        if code not in self._own:
            self._own[code] = self.adapters - self.smooth(self.kernel.with_parts(code), self.seen_shifts(code))
        return self._own[code]

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the mean."""
        members = [{"basis": member.basis, "fold": member.fold} for member in self.members]
        told = {"kernel": self.kernel.config, "members": members}
        return told if self.centering is None else {**told, "centering": self.centering.config}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The regression's tensors, ``network-N.…`` of every network, and what was held out and centred on."""
        networks = {
            f"network-{number}.{name}": value
            for number, member in enumerate(self.members)
            for name, value in member.network.state_dict().items()
        }
        centering = {} if self.centering is None else self.centering.tensors
        return {**self.kernel.tensors, **networks, **centering, "held_out": self.held_out, "fold": self.fold}

    @classmethod
    def from_state(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        sizes: tuple[int, ...],
        codec: Codec,
        backbone: Backbone,
    ) -> ConditionalMean:
        """Restore from :attr:`config` and :attr:`tensors`, with what it was fitted with.

        Args:
            config: its configuration.
            tensors: its tensors.
            sizes: columns of each part of the embeddings (``FusionEncoder.sizes``).
            codec: of its adapters.
            backbone: of its centering.
        """
        members = []
        for number, told in enumerate(config["members"]):
            prefix = f"network-{number}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            members.append(Member(DescriptionNetwork.restore(state), told["basis"], told["fold"]))
        kernel = KernelMean.from_state(config["kernel"], tensors, sizes)
        told = config.get("centering")
        centering = None if told is None else Centering.from_state(told, tensors, codec, backbone)
        return cls(kernel, tuple(members), tensors["held_out"], tensors["fold"], centering)
