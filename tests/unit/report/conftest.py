"""Synthetic results of any shape, built from the accuracy each source should have."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wildbench.sections import (
    ConditionDistance,
    LatentMap,
    LatentPoint,
    Memorisation,
    NoveltyPoint,
    ParameterSpread,
    Picture,
)
from wildbench.study_sections import (
    Interpolation,
    InterpolationPair,
    InterpolationPath,
    PaperRow,
    PublishedRow,
    Scaling,
    ScalingCell,
)
from wildpdiff.evaluate.results import (
    AutoencoderInfo,
    BackboneInfo,
    Calibration,
    CalibrationBin,
    Ceiling,
    GeneratorInfo,
    Provenance,
    ResultRow,
    Results,
    SourceFamily,
    SourceInfo,
    Stage,
    SuiteInfo,
    TrustPoint,
    TrustSection,
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

MANY: dict[str, tuple[SourceFamily, str, float]] = {
    "mean adapter": ("no description", "none", 0.1),
    "multi-task adapter": ("no description", "none", 0.22),
    "unconditional p-diff": ("no description", "none", 0.05),
    "nearest task": ("description", "own", -0.2),
    "top-K merge": ("description", "own", 0.45),
    "kernel ridge regression": ("description", "own", 0.75),
    "additive kernel regression": ("description", "own", 0.86),
    "linear ridge regression": ("description", "own", 0.55),
    "prior from the description": ("description", "own", 0.3),
    "multi-task adapter with description": ("description", "own", 0.4),
    "hypernetwork, reconstruction": ("description", "own", 0.62),
    "hypernetwork, task loss": ("description", "own", 0.9),
    "prior by EM on unlabelled images": ("unlabelled images", "own", 0.35),
    "fine-tuned, 5 labels a class": ("labels", "own", 0.5),
    "fine-tuned, 20 labels a class": ("labels", "own", 0.92),
    "CMA-ES in the latent space, 5 labels a class": ("labels", "own", 0.7),
    "CMA-ES on raw LoRA, 5 labels a class": ("labels", "own", 0.15),
    "checkpoint + noise .06": ("checkpoints", "none", -0.7),
    "checkpoint + noise .12": ("checkpoints", "none", -1.9),
    "checkpoint + relative noise .05": ("checkpoints", "none", -0.55),
    "checkpoint + relative noise .15": ("checkpoints", "none", -0.6),
    "average of 16 checkpoints": ("checkpoints", "none", 0.08),
    "Gaussian per coordinate": ("checkpoints", "none", -0.3),
}
"""Every source of a whole evaluation: family, condition, share of the gain on tasks that nobody saw."""

BuildResults = Callable[..., Results]


def build(
    *,
    splits: dict[str, int] | None = None,
    gains: dict[tuple[str, str], float] | None = None,
    base_gains: dict[tuple[str, str], float] = GAINS,
    seeds: int = 3,
    samples: int = 4,
    task_name: str = "location-{split}-{number:02d}",
    noise: float = 0.012,
    sources: tuple[SourceInfo, ...] = (),
) -> Results:
    random = np.random.default_rng(7)
    rows = []
    for split, tasks in (splits or {"seen": 8, "unseen": 15}).items():
        for number in range(tasks):
            base, headroom = random.uniform(0.55, 0.82), random.uniform(0.0, 0.13)
            for (source, condition), gain in (base_gains | (gains or {})).items():
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
    training = {info.name: info.training_seconds for info in sources if info.training_seconds is not None}
    return Results(
        provenance=Provenance(
            "0.1.0", "wildpdiff run --size tiny", 0, "2 CPU cores", "3.11.2", "2.5", "2025-06-01T10:00:00"
        ),
        suite=SuiteInfo("savanna", 10, "ab" * 32, 8, 15, {"images": 400, "night": True}),
        backbone=BackboneInfo("savanna-cnn", "cd" * 32, 123_456, 2_586),
        generator=GeneratorInfo(("ef" * 32, "01" * 32, "23" * 32), {"size": "tiny", "steps": 2000}, 3000),
        autoencoder=AutoencoderInfo("vae", 64, {"seen": Ceiling(0.766, 0.771)}),
        rows=tuple(rows),
        summary=tuple(summarise(rows, seconds, training)),
        stages=(
            Stage("zoo", 184.3),
            Stage("autoencoder", 41.0),
            Stage("diffusion", 73.4),
            Stage("evaluate", 12.2),
        ),
        notes=("Every number is the mean of all samples.",),
        sources=sources,
    )


def build_whole(gains: dict[tuple[str, str], float] | None = None) -> Results:
    """Every source and every section, of a realistic size."""
    infos = [SourceInfo("pretrained", "reference", None, "the backbone alone")]
    infos += [
        SourceInfo(name, family, 31.5 if "network" in name or "multi" in name else None, "a baseline")
        for name, (family, _, _) in MANY.items()
    ]
    infos += [
        SourceInfo("generated", "description", 48.0, "this package"),
        SourceInfo("fine-tuned", "reference", None, "all labels of the task"),
    ]
    many = {(name, condition): gain for name, (_, condition, gain) in MANY.items()}
    table = (
        {("pretrained", "none"): 0.0}
        | many
        | {("generated", "own"): 0.87, ("generated", "shuffled"): -0.3, ("generated", "random"): -0.2}
        | {("fine-tuned", "own"): 1.0}
    )
    few = {"pretrained", "mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression"}
    few |= {"generated", "fine-tuned"}
    random = np.random.default_rng(3)
    results = build(
        splits={"seen": 20, "unseen": 30},
        base_gains=table,
        gains=gains,
        samples=2,
        sources=tuple(infos),
        task_name="{split}-{number:03d}",
    )
    groups = build(
        splits={"held-out habitat": 24, "held-out region": 20},
        base_gains={key: 0.8 * gain for key, gain in table.items() if key[0] in few and key[1] != "random"}
        | {("fine-tuned", "own"): 1.0},
        samples=2,
        sources=tuple(infos),
        task_name="seen-{number:03d}",
    )
    rows = (*results.rows, *groups.rows)
    seconds = dict.fromkeys(MANY, 0.003) | {"generated": 0.0042, "fine-tuned": 14.2}
    training = {info.name: info.training_seconds for info in infos if info.training_seconds is not None}
    results = replace(results, rows=rows, summary=tuple(summarise(rows, seconds, training)))
    spread, memorisation = _spread(), _memorisation(results, random)
    distances = tuple(
        ConditionDistance(split, task, float(random.gamma(4, 0.11)))
        for split, task in dict.fromkeys((row.split, row.task) for row in rows)
    )
    calibration, latent_map = _calibration(random), _latent_map(results, random)
    pictures = _pictures(results, random)
    return replace(
        results,
        calibration=calibration,
        sections={
            "spread": spread,
            "memorisation": memorisation,
            "distances": distances,
            "latent_map": latent_map,
            "pictures": pictures,
            "interpolation": build_interpolation(36),
            "scaling": build_scaling({5: -0.9, 10: -0.2, 20: 0.25, 40: 0.55, 80: 0.72, 160: 0.85}),
            "paper": _paper(),
        },
        trust=build_trust(),
    )


WORLDS = {"both": 1.0, "metadata only": 0.7, "backgrounds only": 0.6, "uninformative": -0.4, "camera model": 0.3}
"""Worlds by what generated adapters are worth in them."""


def build_trust(
    worlds: dict[str, float] = WORLDS, *, tasks: int = 30, seen: int = 12, generators: int = 1
) -> TrustSection:
    """Trust that ranks well, with intervals that hold about 90 %, and ``seen`` tasks of the first variant."""
    random = np.random.default_rng(13)
    points = []
    for index, (world, worth) in enumerate(worlds.items()):
        splits = [("unseen", tasks), *([("seen", seen)] if index == 0 and seen else [])]
        for split, number in ((split, number) for split, amount in splits for number in range(amount)):
            for generator in range(generators):
                expected = float(9 * worth * random.gamma(2, 0.5) + random.normal(0, 1.5))
                size = 1.5 + 0.35 * abs(expected)
                trust = float(np.clip(1 / (1 + np.exp(-1.6 * expected / size)), 0.005, 0.995))
                least = 0.7 if index < 3 else 0.83
                gain = float(expected + random.normal(0, size))
                points.append(TrustPoint(world, split, f"{split}-{number:03d}", "examples", trust, expected,
                                         expected - 1.7 * size, expected + 1.6 * size, gain, least, trust >= least,
                                         generator))  # fmt: skip
    return TrustSection(tuple(points))


def _spread() -> tuple[ParameterSpread, ...]:
    return (
        ParameterSpread("seen", "generated", 0.081, 0.043, 0.0031, 0.0042),
        ParameterSpread("unseen", "generated", 0.092, 0.061, 0.0044, 0.0063),
        ParameterSpread("unseen", "unconditional p-diff", 0.51, None, 0.012, None),
    )


def _memorisation(results: Results, random: np.random.Generator) -> Memorisation:
    reach = {"checkpoint + noise .12": 6.2, "checkpoint + noise .06": 3.1, "nearest task": 0.02, "pretrained": 1.4}
    points = []
    for row in results.rows:
        if row.split not in ("seen", "unseen"):
            continue
        distance = reach.get(row.source, 0.4 + 0.9 * (sum(map(ord, row.source)) % 17) / 17) * random.uniform(0.8, 1.2)
        overlap = float(np.clip(random.normal(0.55, 0.06), 0, 1))
        points.append(
            NoveltyPoint(
                row.split, row.source, row.condition, row.generator_seed, row.task, row.sample, row.accuracy,
                distance, overlap, row.split == "seen", row.accuracy - 0.05, 0.7, 1.1, 0.5, 0.3, 0.4,
            )
        )  # fmt: skip
    distances = tuple(float(value) for value in random.normal(1, 0.1, 20))
    return Memorisation(1.31, distances, tuple(0.6 * value for value in distances), distances, 0.12, 239, 3953,
                        tuple(points))  # fmt: skip


def _calibration(random: np.random.Generator) -> tuple[Calibration, ...]:
    entries = []
    for source, condition, bias in (("pretrained", "none", 0.12), ("generated", "own", 0.03), ("fine-tuned", "own", 0)):
        bins = []
        for index in range(4, 15):
            confidence = (index + 0.5) / 15
            accuracy = float(np.clip(confidence - bias + random.normal(0, 0.015), 0, 1))
            bins.append(CalibrationBin(int(20 + 8 * index**2), confidence, accuracy))
        entries.append(Calibration("unseen", source, condition, tuple(bins), max(bias, 0.011), 0.9 - 3 * (0.12 - bias)))
    return tuple(entries)


def _latent_map(results: Results, random: np.random.Generator) -> LatentMap:
    points = []
    for split, task in dict.fromkeys((row.split, row.task) for row in results.rows if "held" not in row.split):
        x, y = random.normal(0, (3.0, 1.8))
        points.append(LatentPoint(split, "fine-tuned", task, float(x), float(y)))
        near = random.normal(0, 0.5, 2)
        points.append(LatentPoint(split, "generated", task, float(x + near[0]), float(y + near[1])))
    return LatentMap((0.31, 0.14), tuple(points))


def _pictures(results: Results, random: np.random.Generator) -> tuple[Picture, ...]:
    pictures = []
    for number, task in enumerate(list(dict.fromkeys(row.task for row in results.rows if row.split == "unseen"))[:4]):
        for index in range(4):
            pixels = random.integers(60, 200, (48, 48, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            text = base64.b64encode(stream.getvalue()).decode()
            role = "best" if number < 2 else "worst"
            classes = ("zebra", "empty", "zebra") if index else ("gazelle", "gazelle", "wildebeest")
            pictures.append(Picture("unseen", task, role, *classes, text))
    return tuple(pictures)


def build_interpolation(amount: int, *, predicts: bool = True) -> Interpolation:
    """Pairs whose midpoint keeps as much as they are alike, plus noise; alignment follows it where it predicts."""
    random = np.random.default_rng(11)
    pairs, paths = [], []
    places = (0.0, 0.25, 0.5, 0.75, 1.0)
    for number in range(amount):
        likeness = 1 - number / (amount - 1)
        group = ("high", "middle", "low")[min(2, 3 * number // amount)]
        kept = -0.8 + 1.8 * likeness
        names = (f"seen-{2 * number:03d}", f"seen-{2 * number + 1:03d}")
        before, top = (float(random.uniform(0.6, 0.75)), 0.7), (0.9, 0.88)
        alignment = {
            "principal_angles": float((likeness if predicts else 0.5) + random.normal(0, 0.1)),
            "mode_connectivity": float(0.6 * likeness + random.normal(0, 0.35)),
        }
        pairs.append(InterpolationPair(*names, group, 1.6 - 1.4 * likeness, alignment, before, top))
        for way, worth in (("conditions", 0.1), ("latents", 0.0), ("adapters", -0.1)):
            lines = []
            for task in (0, 1):
                shares = [
                    1 - (1 - kept - worth) * (4 * index * (1 - index)) * 0.5 - (index if task == 0 else 1 - index) * 0.5
                    for index in places
                ]
                headroom = top[task] - before[task]
                lines.append(tuple(float(before[task] + share * headroom) for share in shares))
            paths.append(InterpolationPath(*names, way, places, lines[0], lines[1]))  # type: ignore[arg-type]
    words = {
        "principal_angles": "the mean cosine of the angles between the subspaces of two runs' checkpoints",
        "mode_connectivity": "minus the loss barrier on the straight line between the adapters",
    }
    return Interpolation(words, tuple(pairs), tuple(paths))


def build_scaling(gains: dict[int, float], *, seeds: int = 3, rivals: bool = True) -> Scaling:
    """Cells of the generator (and kernel ridge regression) whose mean gain is as given."""
    random = np.random.default_rng(5)
    unseen = tuple(f"unseen-{number:03d}" for number in range(20))
    pretrained = random.uniform(0.6, 0.8, len(unseen))
    finetuned = pretrained + random.uniform(0.02, 0.2, len(unseen))
    cells = []
    for tasks, gain in gains.items():
        for diversity, worth in (("wide", 1.0), ("narrow", 0.7)):
            for checkpoints in (13, 1):
                for seed in range(seeds):
                    for source in ("generated", "kernel ridge regression")[: 2 if rivals else 1]:
                        share = gain * worth - (0.1 if source != "generated" else 0) - (0.06 if checkpoints == 1 else 0)
                        own = pretrained + share * (finetuned - pretrained) + random.normal(0, 0.008, len(unseen))
                        accuracy = tuple(float(value) for value in own.clip(0, 1))
                        cells.append(ScalingCell(tasks, diversity, checkpoints, seed, source, accuracy, 0.2 * tasks))  # type: ignore[arg-type]
    references = [tuple(float(value) for value in column) for column in (pretrained, finetuned)]
    return Scaling(unseen, references[0], references[1], tuple(cells))


def _paper() -> tuple[PaperRow, ...]:
    common: dict[str, Any] = {
        "tasks": 8,
        "samples": 4,
        "seeds": 3,
        "finetuned_interval": (0.89, 0.94),
        "generated_interval": (0.88, 0.935),
        "gap_interval": (-0.012, 0.004),
        "over_samples": 0.004,
        "over_seeds": 0.006,
        "parameters_over_samples": 0.09,
        "parameters_over_seeds": 0.05,
    }
    rows = []
    given = ((1, 0.9229, 0.938), (10, 0.9268, 0.9366), (100, 0.9419, 0.938))
    for method in ("paper", "wildpdiff"):
        published = PublishedRow(0.814, 0.942, 0.938, "one location, R10")
        rows.append(PaperRow("RQ1", "one seen task", method, pretrained=0.8, finetuned=0.92, generated=0.917,
                             published=published, **common))  # type: ignore[arg-type]  # fmt: skip
    for interval, finetuned, generated in given:
        published = PublishedRow(None, finetuned, generated, "")
        rows.append(PaperRow("RQ1, ablation", f"saving interval {interval}", "paper", pretrained=0.8, finetuned=0.92,
                             generated=0.915, published=published, **common))  # fmt: skip
    words = PublishedRow(None, None, None, "no better than pretrained: the condition falls out of distribution")
    for method, reached in (("paper", 0.79), ("wildpdiff", 0.9)):
        rows.append(PaperRow("RQ3", "unseen tasks", method, pretrained=0.8, finetuned=0.92, generated=reached,
                             published=words, **common))  # type: ignore[arg-type]  # fmt: skip
    return tuple(rows)


@pytest.fixture(scope="session")
def build_results() -> BuildResults:
    return build


@pytest.fixture(scope="session")
def results() -> Results:
    return build()


@pytest.fixture(scope="session")
def whole_results() -> Results:
    return build_whole()


@pytest.fixture(scope="session")
def scaling_of() -> Callable[..., Scaling]:
    return build_scaling


@pytest.fixture(scope="session")
def trust_of() -> Callable[..., TrustSection]:
    return build_trust


@pytest.fixture(scope="session")
def interpolation_of() -> Callable[..., Interpolation]:
    return build_interpolation
