"""Noise schedules of variance-preserving diffusion and the algebra between its predictions.

Letters: ``z_t = alpha(t) z_0 + sigma(t) epsilon`` with ``alpha² + sigma² = 1``; ``alpha² = alphas_cumprod`` (ᾱ).
Time runs from 0 (nearly clean) to ``T - 1`` (nearly noise); the time -1 is the clean latent itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.errors import TrainingError

ScheduleKind = Literal["linear", "cosine"]
Prediction = Literal["epsilon", "sample", "velocity"]
Spacing = Literal["trailing", "log_snr"]

CLEAN = -1.0
"""The time of the clean latent: alpha 1, sigma 0."""


@dataclass(frozen=True)
class Schedule:
    """Noise level of each time, and the target of the denoiser.

    Attributes:
        kind: ``linear`` (β from 1e-4 to 0.02; Ho et al. 2020) or ``cosine`` (Nichol & Dhariwal 2021, equation 17).
        prediction: target of the denoiser: ``epsilon`` (Ho et al. 2020), ``sample`` (the clean z_0) or
            ``velocity`` (alpha epsilon - sigma z_0; Salimans & Ho 2022).
        train_steps: number T of discrete times.
        spacing: times visited by the samplers: ``trailing`` (evenly from T - 1 down; Lin et al. 2024) or ``log_snr``
            (evenly in log-SNR; Lu et al. 2022).
        alphas_cumprod: ᾱ at the times 0 … T - 1, float64, "T".
    """

    kind: ScheduleKind = "cosine"
    prediction: Prediction = "velocity"
    train_steps: int = 1000
    spacing: Spacing = "trailing"
    alphas_cumprod: Float[Tensor, " T"] = field(init=False, repr=False, compare=False)
    _log_snr: Float[Tensor, " T"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.train_steps < 2:
            raise TrainingError(f"A schedule of {self.train_steps} times cannot be sampled; give at least 2.")
        betas = _linear_betas(self.train_steps) if self.kind == "linear" else _cosine_betas(self.train_steps)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        object.__setattr__(self, "alphas_cumprod", alphas_cumprod)
        object.__setattr__(self, "_log_snr", torch.log(alphas_cumprod) - torch.log1p(-alphas_cumprod))

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor."""
        return {
            "kind": self.kind,
            "prediction": self.prediction,
            "train_steps": self.train_steps,
            "spacing": self.spacing,
        }

    def log_snr(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """log(alpha²/sigma²) in float64, linear between the discrete times; infinite at the clean time -1.

        Strictly falling on [0, T - 1], which ``time_of_log_snr`` inverts.
        """
        t, known = t.double(), self._log_snr.to(t.device)
        low = t.floor().clamp(0, self.train_steps - 2).long()
        value = torch.lerp(known[low], known[low + 1], (t - low).clamp(0.0, 1.0))
        return torch.where(t < 0, torch.full_like(value, math.inf), value)

    def time_of_log_snr(self, log_snr: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The time at which the log-SNR has this value, float64; values outside the schedule give its ends."""
        rising = -self._log_snr
        x = (-log_snr.double()).clamp(rising[0], rising[-1])
        high = torch.searchsorted(rising, x.contiguous()).clamp(1, self.train_steps - 1)
        low = high - 1
        return low + (x - rising[low]) / (rising[high] - rising[low])

    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Factor of the clean latent in ``z_t``, float64."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Factor of the noise in ``z_t``, float64."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def q_sample(
        self, z_0: Float[Tensor, "n d"], t: Float[Tensor, " n"], epsilon: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """A draw of the forward process: ``alpha z_0 + sigma epsilon`` (Ho et al. 2020, equation 4)."""
        alpha, sigma = self._factors(t, z_0)
        return alpha * z_0 + sigma * epsilon

    def target(
        self, z_0: Float[Tensor, "n d"], t: Float[Tensor, " n"], epsilon: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """The denoiser's target for ``q_sample(z_0, t, epsilon)``."""
        if self.prediction == "sample":
            return z_0
        if self.prediction == "epsilon":
            return epsilon
        alpha, sigma = self._factors(t, z_0)
        return alpha * epsilon - sigma * z_0

    def sample_of(
        self, prediction: Float[Tensor, "n d"], z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """The clean latent z_0 of a prediction."""
        if self.prediction == "sample":
            return prediction
        alpha, sigma = self._factors(t, z_t)
        if self.prediction == "velocity":
            return alpha * z_t - sigma * prediction
        return (z_t - sigma * prediction) / alpha

    def epsilon_of(
        self, prediction: Float[Tensor, "n d"], z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """The noise epsilon of a prediction."""
        if self.prediction == "epsilon":
            return prediction
        alpha, sigma = self._factors(t, z_t)
        if self.prediction == "velocity":
            return sigma * z_t + alpha * prediction
        return (z_t - alpha * prediction) / sigma

    def times(self, steps: int) -> Float[Tensor, " steps_and_clean"]:
        """The falling times that a sampler visits, ``steps`` of them and the clean time -1 last, float64.

        Raises:
            TrainingError: fewer than 1 step, or more steps than the schedule has times.
        """
        if not 1 <= steps <= self.train_steps:
            raise TrainingError(f"A sampler of {steps} steps is impossible; give 1 to {self.train_steps}.")
        ends = float(self._log_snr[-1]), float(self._log_snr[0])
        if self.spacing == "log_snr":
            times = self.time_of_log_snr(torch.linspace(*ends, steps, dtype=torch.float64))
        else:
            position = torch.arange(steps, dtype=torch.float64)
            times = torch.round(self.train_steps - position * (self.train_steps / steps)) - 1.0
        return torch.cat([times, times.new_full((1,), CLEAN)])

    def _factors(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma as columns in the type and on the device of ``like``."""
        log_snr = self.log_snr(t)[:, None]
        return torch.sigmoid(log_snr).sqrt().to(like), torch.sigmoid(-log_snr).sqrt().to(like)


def _linear_betas(steps: int) -> Tensor:
    """Ho et al. 2020, section 4; the ends are scaled so that the total noise does not depend on T."""
    scale = 1000.0 / steps
    return torch.linspace(scale * 1e-4, min(scale * 0.02, 0.999), steps, dtype=torch.float64)


def _cosine_betas(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021, equation 17: ᾱ = cos²((t/T + s)/(1 + s) · π/2), s = 0.008, β at most 0.999."""
    edges = torch.arange(steps + 1, dtype=torch.float64) / steps
    alphas_cumprod = torch.cos((edges + 0.008) / 1.008 * math.pi / 2).square()
    return (1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp_max(0.999)
