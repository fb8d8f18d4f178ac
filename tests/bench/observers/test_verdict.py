"""Planted generators in a world of linear classifiers, with every measure taken the slow, readable way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy import ndarray
from scipy.optimize import nnls

from refusals import refused
from wildbench.observers.verdict import verdict
from wildbench.sections import Memorisation, NoveltyPoint
from wildpdiff.errors import DataError

SIZE = 60
FACTORS = 4
RUNS = 14
CHECKPOINTS = 4
UNSEEN = 12
IMAGES = 120


@dataclass(frozen=True)
class World:
    """Tasks are linear classifiers that depend smoothly on a description; runs are the true one and some noise."""

    checkpoints: ndarray
    owners: ndarray
    images: ndarray
    truths: dict[tuple[str, int], ndarray]
    described: dict[tuple[str, int], ndarray]
    smooth: ndarray
    middle: ndarray


@cache
def world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    smooth, middle = rng.normal(size=(FACTORS, SIZE)), 0.3 * rng.normal(size=SIZE)
    truths, described, runs = {}, {}, []
    for split, count in (("seen", RUNS), ("unseen", UNSEEN)):
        for number in range(count):
            factors = rng.normal(size=FACTORS)
            described[split, number] = factors
            truths[split, number] = middle + factors @ smooth
    for number in range(RUNS):
        final = truths["seen", number] + 0.4 * rng.normal(size=SIZE)
        runs += [final + 0.01 * rng.normal(size=SIZE) for _ in range(CHECKPOINTS)]
    owners = np.repeat(np.arange(RUNS), CHECKPOINTS)
    return World(np.array(runs), owners, rng.normal(size=(IMAGES, SIZE)), truths, described, smooth, middle)


Planted = Callable[[World, tuple[str, int], np.random.Generator], ndarray]


def wrong(here: World, weights: ndarray, task: tuple[str, int]) -> ndarray:
    return (here.images @ weights > 0) != (here.images @ here.truths[task] > 0)


def overlap(first: ndarray, second: ndarray) -> float:
    either = (first | second).sum()
    return float((first & second).sum() / either) if either else 1.0


def nearest_average(point: ndarray, runs: ndarray) -> float:
    """Weights from 0 by non-negative least squares; a heavy row makes them add up to 1."""
    heavy = 1e4
    rows = np.vstack([runs.T, np.full((1, len(runs)), heavy)])
    weights, _ = nnls(rows, np.append(point, heavy))
    return float(np.linalg.norm(point - weights @ runs))


def measured(seed: int, planted: Planted, splits: Sequence[str] = ("seen", "unseen")) -> Memorisation:
    whole = measured_everywhere(seed, planted)
    return replace(whole, points=tuple(point for point in whole.points if point.split in splits))


@cache
def stored_errors(seed: int, task: tuple[str, int]) -> list[ndarray]:
    return [wrong(world(seed), weights, task) for weights in world(seed).checkpoints]


@cache
def measured_everywhere(seed: int, planted: Planted) -> Memorisation:
    here, rng = world(seed), np.random.default_rng(seed + 1000)
    runs = np.array([here.checkpoints[here.owners == run].mean(0) for run in range(RUNS)])
    centre = here.checkpoints.mean(0)
    basis = np.linalg.svd(runs - centre, full_matrices=False)[2][: RUNS - 1]
    last = here.checkpoints[CHECKPOINTS - 1 :: CHECKPOINTS]
    others = [np.delete(np.arange(len(here.owners)), np.flatnonzero(here.owners == run)) for run in range(RUNS)]
    own = np.array([np.linalg.norm(here.checkpoints[others[r]] - last[r], axis=1).min() for r in range(RUNS)])
    unit = own.mean()
    overlaps = [
        max(
            overlap(wrong(here, last[r], ("seen", r)), wrong(here, last[o], ("seen", r))) for o in range(RUNS) if o != r
        )
        for r in range(RUNS)
    ]
    points = []
    for task in here.truths:
        stored = stored_errors(seed, task)
        for sample in range(2):
            for source in ("generated", "nearest task"):
                weights = (planted if source == "generated" else retrieve)(here, task, rng)
                distances = np.linalg.norm(here.checkpoints - weights, axis=1)
                errors, centred = wrong(here, weights, task), weights - centre
                points.append(
                    NoveltyPoint(
                        *(task[0], source, "own", None, f"{task[0]}-{task[1]}", sample),
                        accuracy=float(1 - errors.mean()),
                        distance=float(distances.min() / unit),
                        overlap=max(overlap(errors, entry) for entry in stored),
                        nearest_own=task == ("seen", int(here.owners[distances.argmin()])),
                        nearest_accuracy=float(1 - stored[distances.argmin()].mean()),
                        mean_accuracy=float(1 - wrong(here, centre, task).mean()),
                        mean_distance=float(np.linalg.norm(centred) / unit),
                        average_distance=nearest_average(weights, runs) / unit,
                        span_distance=float(np.linalg.norm(centred - centred @ basis.T @ basis) / unit),
                        finetuned_distance=None,
                    )
                )
    inside = np.mean([np.var(here.checkpoints[here.owners == run], axis=0, ddof=1).sum() for run in range(RUNS)])
    return Memorisation(
        unit=float(unit),
        checkpoint_distance=tuple((own / unit).tolist()),
        checkpoint_overlap=tuple(overlaps),
        checkpoint_mean_distance=tuple((np.linalg.norm(last - centre, axis=1) / unit).tolist()),
        within_run=float(np.sqrt(2 * inside) / unit),
        directions=RUNS - 1,
        parameters=SIZE,
        points=tuple(points),
    )


def nearest_run(here: World, task: tuple[str, int], count: int = 1) -> ndarray:
    factors = np.array([here.described["seen", run] for run in range(RUNS)])
    away = np.linalg.norm(factors - here.described[task], axis=1)
    if task[0] == "seen":
        away[task[1]] = np.inf if count == 1 else 0
    return np.argsort(away)[:count]


def retrieve(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints[here.owners == nearest_run(here, task)[0]].mean(0)


def copy_at_random(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints[rng.integers(len(here.checkpoints))]


def copy_of_the_nearest(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints[rng.choice(np.flatnonzero(here.owners == nearest_run(here, task)[0]))]


def copy_with_a_trace(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return copy_of_the_nearest(here, task, rng) + 0.005 * rng.normal(size=SIZE)


def soup(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints.mean(0)


def noisy_soup(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints.mean(0) + 0.1 * rng.normal(size=SIZE)


def average_of_16(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints[rng.integers(len(here.checkpoints), size=16)].mean(0)


def average_of_two(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    first, second = rng.choice(RUNS, 2, replace=False)
    return (here.checkpoints[first * CHECKPOINTS] + here.checkpoints[second * CHECKPOINTS]) / 2


def average_of_neighbours(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return np.mean([here.checkpoints[here.owners == run].mean(0) for run in nearest_run(here, task, 3)], axis=0)


def noise(scale: float, base: Planted) -> Planted:
    return lambda here, task, rng: base(here, task, rng) + scale * rng.normal(size=SIZE)


def gaussian(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.checkpoints.mean(0) + here.checkpoints.std(0) * rng.normal(size=SIZE)


def new(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
    return here.middle + here.described[task] @ here.smooth + 0.1 * rng.normal(size=SIZE)


KINDS = {
    "copies": [copy_at_random, copy_of_the_nearest, copy_with_a_trace],
    "averages": [soup, noisy_soup, average_of_16, average_of_two, average_of_neighbours],
    "adds noise": [
        noise(0.2, copy_at_random),
        noise(0.2, copy_of_the_nearest),
        noise(1.0, copy_of_the_nearest),
        noise(3.0, copy_of_the_nearest),
        gaussian,
    ],
    "generalises": [new],
}
CASES = [(kind, planted) for kind, several in KINDS.items() for planted in several]


@pytest.mark.parametrize("splits", [("seen", "unseen"), ("unseen",)], ids=["both", "unseen"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "planted"), CASES)
def test_a_planted_generator_is_recognised(kind: str, planted: Planted, seed: int, splits: tuple[str, ...]) -> None:
    found = verdict(measured(seed, planted, splits))
    assert found.kind == kind, found.sentence
    assert found.sentence.startswith(f"On {UNSEEN} unseen tasks, ")
    assert ("; on 14 seen tasks " in found.sentence) is ("seen" in splits)


@pytest.mark.parametrize(("kind", "planted"), [("copies", copy_at_random), ("averages", average_of_16)])
def test_on_seen_tasks_alone_it_says_that_only_unseen_ones_tell(kind: str, planted: Planted) -> None:
    found = verdict(measured(0, planted, ("seen",)))
    assert found.kind == kind
    assert found.sentence.startswith("On 14 seen tasks, ")
    assert "only unseen ones can show" in found.sentence


def test_being_near_the_own_run_is_expected_on_seen_tasks() -> None:
    def recall(here: World, task: tuple[str, int], rng: np.random.Generator) -> ndarray:
        return new(here, task, rng) if task[0] == "unseen" else here.checkpoints[task[1] * CHECKPOINTS]

    found = verdict(measured(0, recall))
    assert found.kind == "generalises", found.sentence
    assert (
        "they are copies, 0.00 from the nearest one, 100 % of them nearest to the task's own run, as expected"
        in found.sentence
    )


def test_new_but_no_better_stays_open() -> None:
    base = measured(0, new)
    level = replace(
        base,
        points=tuple(
            replace(point, accuracy=point.nearest_accuracy) if point.source == "generated" else point
            for point in base.points
        ),
        # without a reference for how errors change, and with directions that tell nothing, there is no mark of noise
        checkpoint_distance=(),
        checkpoint_overlap=(),
        parameters=RUNS,
    )
    found = verdict(level)
    assert found.kind == "undecided", found.sentence
    assert "exactly as well as the nearest checkpoint" in found.sentence


def test_one_task_decides_no_accuracy() -> None:
    base = measured(0, new)
    kept = [point for point in base.points if point.task == "unseen-0"]
    single = replace(base, points=tuple(replace(point, distance=1.0, overlap=0.2) for point in kept))
    found = verdict(single)
    assert found.kind == "undecided", found.sentence
    assert "1 unseen task" in found.sentence


def test_on_the_tasks_that_trained_it_nothing_generalises() -> None:
    recalled = measured(0, new, ("seen",))
    better = replace(
        recalled,
        points=tuple(
            replace(point, accuracy=0.9, nearest_accuracy=0.7 + 0.01 * number % 0.1, mean_accuracy=0.6)
            if point.source == "generated"
            else replace(point, accuracy=0.5)
            for number, point in enumerate(recalled.points)
        ),
    )
    assert verdict(better).kind == "undecided"
    unseen = replace(better, points=tuple(replace(point, split="unseen") for point in better.points))
    assert verdict(unseen).kind == "generalises"


@pytest.mark.parametrize(("kind", "planted"), [("generalises", new), ("copies", copy_at_random), ("averages", soup)])
def test_runs_that_spread_wide_hide_nothing(kind: str, planted: Planted) -> None:
    wide = replace(measured(0, planted), within_run=1.5)
    if kind == "averages":  # further from every checkpoint than CLOSE, so that it is no copy
        wide = replace(wide, points=tuple(replace(point, distance=max(point.distance, 0.5)) for point in wide.points))
    assert verdict(wide).kind == kind


def test_it_must_beat_retrieval_by_description_too() -> None:
    base = measured(0, new)
    retrieved = replace(
        base,
        points=tuple(
            replace(point, accuracy=1.0) if point.source == "nearest task" else point for point in base.points
        ),
    )
    found = verdict(retrieved)
    assert found.kind == "undecided", found.sentence
    assert "worse than the nearest task's adapter" in found.sentence


def test_held_out_tasks_count_as_unseen() -> None:
    base = measured(0, copy_at_random)
    held = replace(base, points=tuple(replace(point, split="held-out woodland") for point in base.points))
    found = verdict(held)
    assert found.kind == "copies"
    assert found.sentence.startswith("On 26 unseen tasks, ")


def test_the_numbers_are_in_the_sentence() -> None:
    memorisation = measured(1, noise(1.0, copy_of_the_nearest))
    found = verdict(memorisation)
    mine = [p for p in memorisation.points if p.split == "unseen" and p.source == "generated"]
    assert f"lie {np.mean([p.distance for p in mine]):.2f} from the nearest one" in found.sentence
    assert f"{100 * np.mean([p.nearest_accuracy - p.accuracy for p in mine]):.1f} points worse" in found.sentence


def test_a_source_without_points_is_refused() -> None:
    with refused(DataError, "'other'", "own"):
        verdict(measured(0, soup), source="other")


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, wildbench.observers.verdict; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
