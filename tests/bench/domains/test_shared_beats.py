"""The published split on a local copy of the MIT-BIH beats; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wildbench.datasets.heartbeats import BEATS, DS1, DS2, PATIENTS, HeartbeatsConfig, heartbeats

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.mark.skipif(
    not all((DATA / name).is_file() for name in (BEATS, PATIENTS)), reason="no local copy of the MIT-BIH beats"
)
@pytest.mark.parametrize("seed", range(3))
def test_all_patients_of_both_sets_are_tasks(seed: int) -> None:
    suite = heartbeats(DATA, HeartbeatsConfig(seed))
    names = {group: {int(task.name.removeprefix("patient-")) for task in suite.tasks(group)}  # type: ignore[arg-type]
             for group in ("pretraining", "seen", "unseen")}  # fmt: skip
    assert names["pretraining"] | names["seen"] == set(DS1)
    assert names["unseen"] == set(DS2)
    pooled = np.concatenate([task.data("train").targets for task in suite.pretraining])
    assert (np.bincount(pooled, minlength=4) >= 20).all()
    share = [len(task.data("test")) / len(task.data("validation")) for task in suite.unseen]
    assert min(share) > 5  # 22.5 minutes against at most 200 beats
