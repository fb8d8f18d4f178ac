"""What is kept half-way, and what predicts it, on planted pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wildbench.interpolation.interpolation_summary import SIMILARITY, kept_curve, midpoint_kept, ways_of
from wildbench.study_sections import Interpolation, InterpolationPair, InterpolationPath

POSITIONS = (0.0, 0.5, 1.0)


def pair(number: int, middle: tuple[float, float], **other: Any) -> tuple[InterpolationPair, InterpolationPath]:
    """Two tasks from .6 to .8 and from .7 to .8; accuracies half-way as given, those of the ends the fine-tuned."""
    values: dict[str, Any] = {
        "group": "high",
        "condition_distance": 1.0,
        "alignment": {"angles": float(number)},
        "pretrained": (0.6, 0.7),
        "finetuned": (0.8, 0.8),
        **other,
    }
    names = (f"a{number}", f"b{number}")
    first, second = (0.8, middle[0], 0.6), (0.7, middle[1], 0.8)
    return InterpolationPair(*names, **values), InterpolationPath(*names, "latents", POSITIONS, first, second)


def section(*entries: tuple[InterpolationPair, InterpolationPath]) -> Interpolation:
    pairs, paths = zip(*entries, strict=True)
    return Interpolation({"angles": "in words"}, pairs, paths)


def test_the_midpoint_pools_both_tasks_and_tells_the_lower() -> None:
    found = midpoint_kept(section(pair(0, (0.8, 0.72))), "latents")
    (kept,) = found.pairs
    # Gains .2 and .02 of .2 and .1.
    assert kept.pooled == pytest.approx(0.22 / 0.3)
    assert kept.lower == pytest.approx(0.2)
    assert found.correlations["angles"] is None


def test_a_pair_without_a_gain_is_left_out_and_counted() -> None:
    flat = pair(1, (0.6, 0.7), finetuned=(0.6, 0.7))
    half = pair(2, (0.7, 0.7), finetuned=(0.8, 0.7))
    found = midpoint_kept(section(flat, half), "latents")
    assert found.skipped == 1
    (kept,) = found.pairs
    assert kept.lower == pytest.approx(0.5), "a task without a gain of its own has no share"


def test_alignment_that_orders_the_pairs_is_found_and_noise_is_not() -> None:
    entries = []
    order = np.random.default_rng(0).permutation(30)
    for number in range(30):
        share = number / 30
        alignment = {"angles": float(np.exp(share)), "noise": float(order[number])}
        entries.append(
            pair(number, (0.6 + 0.2 * share, 0.7 + 0.1 * share), alignment=alignment, condition_distance=float(-share))
        )
    pairs, paths = zip(*entries, strict=True)
    found = midpoint_kept(Interpolation({"angles": "", "noise": ""}, pairs, paths), "latents")
    values = {name: value.value for name, value in found.correlations.items() if value is not None}
    assert values["angles"] == pytest.approx(1)
    assert values[SIMILARITY] == pytest.approx(1)
    assert abs(values["noise"]) < 0.5
    assert found.correlations_lower["angles"] is not None


def test_a_missing_alignment_number_is_left_out() -> None:
    entries = [pair(number, (0.6 + 0.01 * number, 0.75)) for number in range(8)]
    entries.append(pair(9, (0.9, 0.9), alignment={}))
    found = midpoint_kept(section(*entries), "latents")
    correlation = found.correlations["angles"]
    assert correlation is not None
    assert correlation.count == 8


def test_a_curve_starts_at_the_task_itself_for_both_tasks() -> None:
    curve = kept_curve(section(pair(0, (0.7, 0.75)), pair(1, (0.7, 0.75))), "latents", "high")
    assert curve is not None
    assert curve.positions == POSITIONS
    assert [gain.value for gain in curve.gains] == pytest.approx([1.0, 0.5, 0.0])


def test_what_was_not_measured_is_nothing() -> None:
    found = section(pair(0, (0.7, 0.75)))
    assert ways_of(found) == ("latents",)
    assert kept_curve(found, "latents", "low") is None
    assert midpoint_kept(found, "adapters").pairs == ()
