"""The conditional mean that a generator samples around: a regression, the networks on top of it, and the seen tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.conditional_mean.correction import Correction, Member
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork

__all__ = ["ConditionalMean"]


@dataclass(frozen=True, eq=False)
class ConditionalMean:
    """Fused embeddings of descriptions to normalised adapter vectors.

    ``m(c) = g(c) + Σ_j p_j(c) (a_j - g(c_j))`` with ``g`` the mean of networks trained with the task loss, some of them
    on top of the kernel regression, and weights ``p_j`` that are 1 at a seen task's own description and 0 away from all
    of them, where ``a_j`` is that task's adapter. So unseen tasks get ``g``, and seen ones their own. Without networks
    ``g`` is the regression.

    Attributes:
        kernel: the regression, which holds the seen tasks' embeddings and adapters.
        members: the networks; none where nothing was trained with the task loss.
        held_out: for each seen task ``g`` as if that task were unseen, "t d".
        fold: for each seen task the fold that it is in; -1 where no network was trained without it.
    """

    kernel: KernelMean
    members: tuple[Member, ...]
    held_out: Float[Tensor, "t d"]
    fold: Int[Tensor, " t"]
    _own: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, kernel: KernelMean, correction: Correction) -> ConditionalMean:
        """A regression with what was trained on top of it."""
        return cls(kernel, correction.members, correction.held_out, correction.fold)

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

        Exact but for the choice of the regression's terms, which saw all tasks.
        """
        rows = self.fold == fold
        kernel = self.kernel.without(rows)
        members = tuple(member for member in self.members if member.fold == fold)
        return ConditionalMean(kernel, members, self.held_out[~rows], torch.full((len(kernel.seen),), -1))

    def smooth(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """``g``: what an unseen task gets, also at the seen ones."""
        return self.each(embeddings).mean(0)

    def each(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "m n d"]:
        """``g`` with each network by itself; how they differ tells how sure the mean is of a description."""
        regressed = self.kernel.smooth(embeddings)
        if not self.members:
            return regressed[None]
        return torch.stack([member.normalized(embeddings, regressed) for member in self.members])

    def __call__(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """The mean; parts whose presence flag is 0 are not read."""
        result = self.smooth(embeddings)
        codes = self.kernel.code(embeddings)
        for code in sorted(set(codes.tolist())):
            rows = codes == code
            pull = self.kernel.pull(embeddings[rows])
            if pull.any():
                result[rows] += pull @ self._missing(code)
        return result

    def table(self) -> Float[Tensor, "s t d"]:
        """The mean of every seen task for every subset of its parts, numbered as :meth:`KernelMean.code` does."""
        return torch.stack([self(self.kernel.with_parts(code)) for code in range(2 ** len(self.kernel.parts))])

    def _missing(self, code: int) -> Tensor:
        """The seen tasks' own adapters less ``g`` of their descriptions with these parts; computed once."""
        if code not in self._own:
            self._own[code] = self.adapters - self.smooth(self.kernel.with_parts(code))
        return self._own[code]

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the mean."""
        members = [{"basis": member.basis, "fold": member.fold} for member in self.members]
        return {"kernel": self.kernel.config, "members": members}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The regression's tensors, ``network-N.…`` of every network, and what was held out."""
        networks = {
            f"network-{number}.{name}": value
            for number, member in enumerate(self.members)
            for name, value in member.network.state_dict().items()
        }
        return {**self.kernel.tensors, **networks, "held_out": self.held_out, "fold": self.fold}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ConditionalMean:
        """Restore from :attr:`config` and :attr:`tensors`."""
        members = []
        for number, told in enumerate(config["members"]):
            prefix = f"network-{number}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            members.append(Member(DescriptionNetwork.restore(state), told["basis"], told["fold"]))
        kernel = KernelMean.from_state(config["kernel"], tensors)
        return cls(kernel, tuple(members), tensors["held_out"], tensors["fold"])
