"""The posterior: the distribution of a task's adapters given its description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.posterior.decoder import CodeNetwork, Decoder, ShiftDecoder
from wildpdiff.posterior.density import CodeDensity
from wildpdiff.posterior.score import PosteriorScore, PosteriorSummary
from wildpdiff.records import decode, encode


@dataclass(frozen=True, eq=False)
class Posterior:
    """A distribution of normalised adapters around an estimate, given a description.

    Attributes:
        estimate: score of the estimate alone, whose best of eight is itself.
        scores: of every posterior that was compared on held-out seen tasks, the chosen one first.
        reason: of the choice, in a sentence.
    """

    decoder: Decoder
    density: CodeDensity
    estimate: PosteriorScore
    scores: tuple[PosteriorScore, ...]
    reason: str

    def sample(
        self, embeddings: Float[Tensor, "n e"], estimates: Float[Tensor, "n d"], generator: torch.Generator
    ) -> Float[Tensor, "n d"]:
        """One normalised adapter for each embedding and the estimate that belongs to it."""
        codes = self.density.sample(embeddings, generator)
        with torch.no_grad():
            if isinstance(self.decoder, ShiftDecoder):
                return self.decoder(estimates, codes)
            return self.decoder(embeddings, codes)

    def of_tasks(self, embeddings: Float[Tensor, "t e"]) -> Posterior:
        """The posterior with the codes of the seen tasks with these embeddings alone, where any of them is coded.

        A diffusion and a decoder stay as they were trained.
        """
        # Exactly equal: torch.cdist of many rows is off by a thousandth even between a row and itself.
        own = (self.density.embeddings[:, None] == embeddings[None]).all(2).any(1)
        if not bool(own.any()):
            return self
        return replace(self, density=self.density.only(own))

    @property
    def summary(self) -> PosteriorSummary:
        """The scores of the estimate and of the chosen posterior, and the reason of the choice."""
        return PosteriorSummary(self.estimate, self.scores[0], self.reason)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the posterior."""
        decoder: dict[str, Any] = {"decoder": "network"}
        if isinstance(self.decoder, ShiftDecoder):
            decoder = {"decoder": "shift", "scale": self.decoder.scale}
        scores = {name: encode(getattr(self, name)) for name in ("estimate", "scores", "reason")}
        return {**decoder, "density": self.density.config, **scores}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the decoder and the density."""
        if isinstance(self.decoder, ShiftDecoder):
            own = {"directions": self.decoder.directions}
        else:
            own = dict(self.decoder.state_dict())
        decoder = {f"decoder.{name}": value for name, value in own.items()}
        return decoder | {f"density.{name}": value for name, value in self.density.tensors.items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Posterior:
        """Restored from :attr:`config` and :attr:`tensors`."""
        groups: dict[str, dict[str, Tensor]] = {"decoder": {}, "density": {}}
        for name, value in tensors.items():
            group, own = name.split(".", 1)
            groups[group][own] = value
        decoder: Decoder
        if config["decoder"] == "shift":
            decoder = ShiftDecoder(groups["decoder"]["directions"], config["scale"])
        else:
            decoder = CodeNetwork.restore(groups["decoder"])
        return cls(
            decoder,
            CodeDensity.from_state(config["density"], groups["density"]),
            decode(PosteriorScore, config["estimate"], "estimate"),
            decode(tuple[PosteriorScore, ...], config["scores"], "scores"),
            config["reason"],
        )
