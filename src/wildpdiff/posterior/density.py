"""Distributions of codes given a description: those of seen tasks, a normal one, or a latent diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.diffusion.denoiser import DenoiserNetwork
from wildpdiff.diffusion.fit import DiffusionConfig, fit_diffusion
from wildpdiff.diffusion.networks import restore_denoiser
from wildpdiff.diffusion.samplers import dpm_solver_2m, standard_noise
from wildpdiff.diffusion.schedule import Schedule

DensityName = Literal["seen codes", "normal", "diffusion"]
DENSITIES: tuple[DensityName, ...] = ("seen codes", "normal", "diffusion")
"""The simplest first; ``seen codes`` is the code of a seen task, those of like descriptions more often."""

STEPS = 20
NEIGHBOURHOOD = 0.5
"""Length scale of likeness, in units of the root mean square distance between seen embeddings."""


@dataclass(frozen=True, eq=False)
class CodeDensity:
    """A distribution of codes given an embedding.

    Attributes:
        name: one of :data:`DENSITIES`.
        denoiser: of the diffusion; None for the others.
    """

    name: DensityName
    embeddings: Float[Tensor, "t e"]
    codes: Float[Tensor, "t k"]
    denoiser: DenoiserNetwork | None = None
    schedule: Schedule | None = None

    def sample(self, embeddings: Float[Tensor, "n e"], generator: torch.Generator) -> Float[Tensor, "n k"]:
        """One code for each embedding; row i depends on the generator and row i alone."""
        count, size = len(embeddings), self.codes.shape[1]
        if self.name == "seen codes":
            squared = torch.cdist(embeddings, self.embeddings).square()
            unit = torch.cdist(self.embeddings, self.embeddings).square().sum() / max(
                1, len(self.codes) * (len(self.codes) - 1)
            )
            likeness = torch.softmax(-squared / (2 * NEIGHBOURHOOD**2 * unit.clamp_min(1e-12)), 1)
            shares = torch.rand(count, generator=generator)
            rows = (likeness.cumsum(1) < shares[:, None]).sum(1).clamp_max(len(self.codes) - 1)
            return self.codes[rows]
        noise = standard_noise(generator, count, size)
        center, scale = self.codes.mean(0), _scale(self.codes)
        if self.denoiser is None or self.schedule is None:
            return center + scale * noise
        with torch.inference_mode():
            found = dpm_solver_2m(self.denoiser, self.schedule, noise, embeddings, steps=STEPS, generator=generator)
            return center + scale * found.clone()

    def only(self, rows: Bool[Tensor, " t"]) -> CodeDensity:
        """The same with the codes of some of the seen tasks."""
        return replace(self, embeddings=self.embeddings[rows], codes=self.codes[rows])

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the density."""
        if self.denoiser is None or self.schedule is None:
            return {"name": self.name}
        return {"name": self.name, "denoiser": self.denoiser.config, "schedule": self.schedule.config}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Codes and embeddings of the seen tasks, and the diffusion's weights."""
        weights = {} if self.denoiser is None else self.denoiser.state_dict()
        own = {f"denoiser.{name}": value for name, value in weights.items()}
        return {"embeddings": self.embeddings, "codes": self.codes, **own}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CodeDensity:
        """Restored from :attr:`config` and :attr:`tensors`."""
        if "denoiser" not in config:
            return cls(config["name"], tensors["embeddings"], tensors["codes"])
        prefix = "denoiser."
        state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        denoiser = restore_denoiser(config["denoiser"], state).requires_grad_(False)
        schedule = Schedule(**config["schedule"])
        return cls(config["name"], tensors["embeddings"], tensors["codes"], denoiser, schedule)


def fit_density(
    name: DensityName,
    embeddings: Float[Tensor, "t e"],
    codes: Float[Tensor, "t k"],
    *,
    sampler: ConditionSampler,
    config: DiffusionConfig,
    seed: int,
) -> CodeDensity:
    """Distribution of the codes of seen tasks; ``sampler``, ``config`` and ``seed`` are of the diffusion.

    Raises:
        TrainingError: the diffusion diverged.
    """
    if name != "diffusion":
        return CodeDensity(name, embeddings, codes)
    standardised = (codes - codes.mean(0)) / _scale(codes)
    fitted = fit_diffusion(standardised, sampler, config, seed=seed)
    return CodeDensity(name, embeddings, codes, fitted.model.requires_grad_(False), fitted.schedule)


def _scale(codes: Float[Tensor, "t k"]) -> Float[Tensor, " k"]:
    return codes.std(0, correction=0).clamp_min(1e-6)
