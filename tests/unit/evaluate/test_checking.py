"""An adapter next to the pretrained model on labelled pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from wildpdiff.evaluate.checking import compare

CLASSES = ("a", "b", "c")
labels = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=2, max_size=40)


@given(labels)
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    truth, adapter, pretrained = np.array(rows).T
    found = compare(truth, (adapter, pretrained), range(len(rows)), CLASSES)
    for position, answers in enumerate((adapter, pretrained)):
        assert found.accuracy[position] == pytest.approx(accuracy_score(truth, answers))
        shown = np.unique(truth)
        assert found.macro_f1[position] == pytest.approx(f1_score(truth, answers, labels=shown, average="macro"))
    assert sum(row.pictures for row in found.classes) == len(rows)


def test_the_interval_is_over_bursts() -> None:
    truth = np.zeros(400, dtype=np.int64)
    adapter, pretrained = truth.copy(), truth.copy()
    adapter[:100], pretrained[300:] = 1, 1
    pretrained[200:300] = 1
    alone = compare(truth, (adapter, pretrained), range(400), CLASSES)
    bursts = compare(truth, (adapter, pretrained), [number // 100 for number in range(400)], CLASSES)
    assert alone.accuracy_lead.value == bursts.accuracy_lead.value == 0.25
    assert alone.better == "adapter"
    assert bursts.better == ""
    assert (alone.bursts, bursts.bursts, bursts.units) == (False, True, 4)
    assert "Few bursts" in bursts.verdict
    assert "Few" not in alone.verdict


def test_verdicts() -> None:
    truth = np.tile([0, 1], 50)
    right, wrong = truth, 1 - truth
    better = compare(truth, (right, wrong), range(100), CLASSES)
    assert (better.better, better.accuracy, better.macro_f1_lead.value) == ("adapter", (1.0, 0.0), 1.0)
    assert compare(truth, (wrong, right), range(100), CLASSES).better == "pretrained"
    same = compare(truth, (right, right), range(100), CLASSES)
    assert (same.better, same.accuracy_lead.interval) == ("", (0.0, 0.0))
    assert same.verdict.startswith("No difference")
    one = compare(truth, (right, wrong), ["burst"] * 100, CLASSES)
    assert one.accuracy_lead.interval is None
    assert one.to_json()["better"] == ""
    assert [row.name for row in better.classes] == ["a", "b"]
