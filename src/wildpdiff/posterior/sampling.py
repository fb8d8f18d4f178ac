"""Output of a generator, its estimate or samples, and the sampler of a diffusion over latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wildpdiff.diffusion.samplers import SAMPLERS
from wildpdiff.errors import DescriptionError


@dataclass(frozen=True)
class Sampling:
    """Output of a generator and sampler of a diffusion over latents.

    Attributes:
        draw: ``estimate`` gives the best estimate of a described task's adapter, ``posterior`` samples around it. A
            generator without a conditional mean has samples only.
        sampler: a name in :data:`wildpdiff.diffusion.samplers.SAMPLERS`.
        guidance: scale of classifier-free guidance; 1 is the conditional model unchanged.
        temperature: standard deviation of the start noise; below 1 samples gather around the mode.

    All but ``draw`` concern a diffusion over adapters' latents (the paper's method), not one over codes.
    """

    draw: Literal["estimate", "posterior"] = "estimate"
    sampler: str = "dpm_solver_2m"
    steps: int = 20
    guidance: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise DescriptionError(f"There is no sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}.")
        if self.draw not in ("estimate", "posterior"):
            raise DescriptionError(f"The draw {self.draw!r} is not known; choose estimate or posterior.")
        if self.steps < 1:
            raise DescriptionError(f"A sampler of {self.steps} steps was configured; give at least 1.")
