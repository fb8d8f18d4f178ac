"""The posterior: adapters of a task as probable as its description leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.posterior.decoder import CodeNetwork, Decoder, ShiftDecoder
from wildpdiff.posterior.density import CodeDensity
from wildpdiff.posterior.score import PosteriorScore, PosteriorSummary


@dataclass(frozen=True, eq=False)
class Posterior:
    """A distribution of normalised adapters around an estimate, given a description.

    Attributes:
        decoder: codes to adapters.
        density: of the codes.
        estimate: score of the estimate alone, whose best of eight is itself.
        scores: of every posterior that was compared on held-out seen tasks, the chosen one first.
        reason: why this one was chosen, in a sentence.
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
                return self.decoder(embeddings, estimates, codes)
            return self.decoder(embeddings, codes)

    def of_tasks(self, embeddings: Float[Tensor, "t e"]) -> Posterior:
        """The posterior whose codes are those of the seen tasks with these embeddings, where any of them is coded.

        A diffusion and a decoder stay as they were trained.
        """
        # Exactly equal: torch.cdist of many rows is off by a thousandth even between a row and itself.
        own = (self.density.embeddings[:, None] == embeddings[None]).all(2).any(1)
        if not bool(own.any()):
            return self
        return replace(self, density=self.density.only(own))

    @property
    def summary(self) -> PosteriorSummary:
        """The scores of the estimate and of the chosen posterior, and why it was chosen."""
        return PosteriorSummary(self.estimate, self.scores[0], self.reason)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the posterior."""
        shift = isinstance(self.decoder, ShiftDecoder)
        return {
            "decoder": "shift" if shift else "network",
            **({"scale": self.decoder.scale} if isinstance(self.decoder, ShiftDecoder) else {}),
            "density": self.density.config,
            "estimate": asdict(self.estimate),
            "scores": [asdict(score) for score in self.scores],
            "reason": self.reason,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Of the decoder and the density."""
        if isinstance(self.decoder, ShiftDecoder):
            own = {"directions": self.decoder.directions}
        else:
            own = dict(self.decoder.state_dict())
        decoder = {f"decoder.{name}": value for name, value in own.items()}
        return decoder | {f"density.{name}": value for name, value in self.density.tensors.items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Posterior:
        """Restore from :attr:`config` and :attr:`tensors`."""
        state = {name.removeprefix("decoder."): value for name, value in tensors.items() if name[:8] == "decoder."}
        density = {name.removeprefix("density."): value for name, value in tensors.items() if name[:8] == "density."}
        decoder: Decoder
        if config["decoder"] == "shift":
            decoder = ShiftDecoder(state["directions"], config["scale"])
        else:
            decoder = CodeNetwork.restore(state)
        return cls(
            decoder,
            CodeDensity.from_state(config["density"], density),
            PosteriorScore(**config["estimate"]),
            tuple(PosteriorScore(**score) for score in config["scores"]),
            config["reason"],
        )
