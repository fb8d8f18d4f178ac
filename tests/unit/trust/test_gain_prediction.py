import json
from dataclasses import replace

import numpy as np

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.records import decode, encode
from wildpdiff.trust.gain import GainPredictor, HeldOutGain, fit_gain_predictor, held_out_predictions, safe_threshold


def rows(count: int, seed: int, slope: float = 0.05) -> list[HeldOutGain]:
    """Gains that rise with ``signal``, whose errors grow with ``size``; ``noise`` is unrelated."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        evidence = {"signal": float(rng.normal()), "size": float(rng.uniform(0, 1)), "noise": float(rng.normal())}
        error = (0.01 + 0.05 * evidence["size"]) * rng.normal()
        gain = 0.02 + slope * evidence["signal"] + float(error)
        found.append(HeldOutGain(f"t{index}", f"f{index % 4}", index % 4 == 3, False, evidence, gain, 100))
    return found


FITTED = fit_gain_predictor(rows(240, 0), ("size",))
FRESH = rows(400, 1)


def test_intervals_cover_fresh_tasks_as_often_as_stated() -> None:
    covered = [FITTED.predict(row.evidence).low <= row.gain <= FITTED.predict(row.evidence).high for row in FRESH]
    assert 0.85 <= np.mean(covered) <= 0.95


def test_intervals_are_wider_where_errors_are_larger() -> None:
    widths = [
        FITTED.predict({"signal": 0.0, "size": size, "noise": 0.0}).high
        - FITTED.predict({"signal": 0.0, "size": size, "noise": 0.0}).low
        for size in (0.0, 1.0)
    ]
    assert widths[1] > 2 * widths[0]


def test_probabilities_are_calibrated_and_tell_winners_from_losers() -> None:
    trust = np.array([FITTED.predict(row.evidence).probability for row in FRESH])
    won = np.array([row.gain > 0 for row in FRESH])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        inside = (trust >= low) & (trust < high)
        assert abs(won[inside].mean() - trust[inside].mean()) < 0.12
    assert trust[won].mean() > trust[~won].mean() + 0.3


def test_unrelated_evidence_leaves_trust_near_the_share_that_won() -> None:
    silent = fit_gain_predictor(rows(240, 2, slope=0.0), ("size",))
    trust = [silent.predict(row.evidence).probability for row in rows(100, 3, slope=0.0)]
    assert np.std(trust) < 0.15


def test_predictions_for_a_fold_use_none_of_its_tasks() -> None:
    given = rows(80, 4)
    changed = [
        row if row.fold != "f1" else HeldOutGain(row.task, row.fold, False, False, row.evidence, -0.9, 100)
        for row in given
    ]
    before, after = held_out_predictions(given, ("size",)), held_out_predictions(changed, ("size",))
    inside = [index for index, row in enumerate(given) if row.fold == "f1"]
    assert [before[index] for index in inside] == [after[index] for index in inside]
    outside = [index for index, row in enumerate(given) if row.fold == "f0"]
    assert [before[index] for index in outside] != [after[index] for index in outside]


def test_a_task_in_two_folds_is_left_out_with_either_of_them() -> None:
    once = rows(80, 4)
    given = [*once, *(HeldOutGain(row.task, "group", True, False, row.evidence, row.gain, 100) for row in once[:12])]
    shared = {row.task for row in once[:12] if row.fold == "f1"}
    assert shared
    changed = [
        row if row.task not in shared else HeldOutGain(row.task, row.fold, row.extrapolation, False, row.evidence, -0.9,
                                                       100)
        for row in given
    ]  # fmt: skip
    before, after = held_out_predictions(given, ("size",)), held_out_predictions(changed, ("size",))
    for index, row in enumerate(given):
        if row.fold in ("f1", "group"):
            assert before[index] == after[index], "its tasks are in both folds, so their gains teach neither"
    assert any(one != other for one, other in zip(before, after, strict=True))


def test_it_is_restored_as_it_was() -> None:
    again = decode(GainPredictor, json.loads(json.dumps(encode(FITTED))), "predictor")
    assert again.predict(FRESH[0].evidence) == FITTED.predict(FRESH[0].evidence)


def test_too_few_tasks_and_missing_evidence_are_refused() -> None:
    with refused(DataError, 5, 12):
        fit_gain_predictor(rows(5, 0))
    with refused(DataError, "size"):
        FITTED.predict({"signal": 0.0, "noise": 0.0})


def test_the_threshold_keeps_the_share_of_harmed_tasks_below_the_risk() -> None:
    rng = np.random.default_rng(5)
    trust = rng.uniform(0, 1, 500)
    harmed = rng.uniform(0, 1, 500) < 0.5 * (1 - trust)
    tasks = [str(index) for index in range(500)]
    threshold = safe_threshold(trust, harmed.astype(float), tasks, 0.05)
    assert (harmed & (trust >= threshold)).mean() <= 0.05
    assert (harmed & (trust >= threshold - 0.05)).mean() > 0.04
    assert safe_threshold(trust, np.zeros(500), tasks, 0.05) == 0.0


def test_rows_of_one_task_are_one_observation() -> None:
    trust, harmed = np.full(400, 0.9), np.zeros(400)
    assert safe_threshold(trust, harmed, ["a", "b"] * 200, 0.05) == 1.0
    assert safe_threshold(trust, harmed, [str(index) for index in range(400)], 0.05) == 0.0


def test_half_a_harm_counts_half() -> None:
    trust, tasks = np.full(100, 0.9), [str(index) for index in range(100)]
    assert safe_threshold(trust, np.full(100, 0.03), tasks, 0.05) == 0.0
    assert safe_threshold(trust, np.full(100, 0.06), tasks, 0.05) > 0.9


def test_the_chance_of_few_images_is_no_doubt_about_the_adapter() -> None:
    """The same errors, once all of chance of the images and once all true: the former leave more trust in a gain."""
    rng = np.random.default_rng(2)
    noisy = [
        HeldOutGain(str(index), f"fold {index % 3}", False, False, {"signal": rng.normal()}, rng.normal(0.03, 0.05), 40,
                    0.05**2)
        for index in range(90)
    ]  # fmt: skip
    known = [replace(row, noise=0.0) for row in noisy]
    first, second = (fit_gain_predictor(own).predict({"signal": 0.0}) for own in (noisy, known))
    assert (first.gain, first.low, first.high) == (second.gain, second.low, second.high), "the interval is of measures"
    assert first.probability > second.probability + 0.1
    assert first.spread < 0.5 * second.spread
