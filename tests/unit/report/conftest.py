"""Synthetic results of any shape, built from the accuracy each source should have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wildpdiff.evaluate.results import (
    AutoencoderInfo,
    BackboneInfo,
    Ceiling,
    GeneratorInfo,
    Provenance,
    ResultRow,
    Results,
    Stage,
    SuiteInfo,
)
from wildpdiff.evaluate.summary import summarise

GAINS = {
    ("pretrained", "none"): 0.0,
    ("mean adapter", "none"): -0.05,
    ("nearest task", "own"): 0.2,
    ("kernel ridge regression", "own"): 0.75,
    ("EM prior correction", "own"): 0.3,
    ("generated", "own"): 0.95,
    ("generated", "shuffled"): -1.1,
    ("fine-tuned", "none"): 1.0,
}
"""Share of fine-tuning's gain that each source recovers on average."""

BuildResults = Callable[..., Results]


def build(
    *,
    splits: dict[str, int] | None = None,
    gains: dict[tuple[str, str], float] | None = None,
    seeds: int = 3,
    samples: int = 4,
    task_name: str = "location-{split}-{number:02d}",
    noise: float = 0.012,
) -> Results:
    random = np.random.default_rng(7)
    rows = []
    for split, tasks in (splits or {"seen": 8, "unseen": 15}).items():
        for number in range(tasks):
            base, headroom = random.uniform(0.55, 0.82), random.uniform(0.0, 0.13)
            for (source, condition), gain in (GAINS | (gains or {})).items():
                own = random.normal(0, noise) if source not in ("pretrained", "fine-tuned") else 0.0
                stochastic = source == "generated"
                for seed in range(seeds if stochastic else 1):
                    for sample in range(samples if stochastic else 1):
                        jitter = random.normal(0, 0.008) if stochastic else 0.0
                        accuracy = float(np.clip(base + gain * headroom + own + jitter, 0, 1))
                        name = task_name.format(split=split, number=number)
                        generator_seed = seed if stochastic else None
                        rows.append(
                            ResultRow("savanna", split, source, condition, generator_seed, sample, name, accuracy, 400)
                        )
    seconds = {"generated": 0.0042, "kernel ridge regression": 0.0007, "fine-tuned": 14.2, "nearest task": 0.0002}
    return Results(
        provenance=Provenance(
            "0.1.0", "wildpdiff run --size tiny", 0, "2 CPU cores", "3.11.2", "2.5", "2025-06-01T10:00:00"
        ),
        suite=SuiteInfo("savanna", 10, "ab" * 32, 8, 15, {"images": 400, "night": True}),
        backbone=BackboneInfo("savanna-cnn", "cd" * 32, 123_456, 2_586),
        generator=GeneratorInfo(("ef" * 32, "01" * 32, "23" * 32), {"size": "tiny", "steps": 2000}, 3000),
        autoencoder=AutoencoderInfo("vae", 64, {"seen": Ceiling(0.766, 0.771)}),
        rows=tuple(rows),
        summary=tuple(summarise(rows, seconds)),
        stages=(
            Stage("zoo", 184.3),
            Stage("autoencoder", 41.0),
            Stage("diffusion", 73.4),
            Stage("evaluate", 12.2),
        ),
        notes=("Every number is the mean of all samples.",),
    )


@pytest.fixture(scope="session")
def build_results() -> BuildResults:
    return build


@pytest.fixture(scope="session")
def results() -> Results:
    return build()
