"""Synthetic heart beats in the files of the domain: normal, early and wide ones, with a gain of each patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wildbench.datasets.heartbeats import BEATS, PATIENTS, SAMPLES

LEARNED = (101, 106, 108, 109, 112, 114, 201)
UNSEEN = (100, 103, 202)
COUNT = 150


def write_beats(folder: Path, patients: Sequence[int] = (*LEARNED, *UNSEEN, 217), count: int = COUNT) -> Path:
    """Both files; the table lacks the age of one patient, the first and last interval of a record are missing."""
    draws = np.random.default_rng(0)
    labels = np.concatenate([draws.choice(5, count, p=[0.6, 0.15, 0.15, 0.08, 0.02]) for _ in patients])
    owners = np.repeat(np.array(patients, np.int16), count)
    time = np.arange(SAMPLES)
    width = np.where(labels == 2, 9.0, np.where(labels == 3, 5.0, 2.0))[:, None]
    gain = 1 + 0.2 * np.sin(owners.astype(float))[:, None]
    beats = 1000 * gain * np.where(labels == 2, -1, 1)[:, None] * np.exp(-((time - 36) ** 2) / (2 * width**2))
    before = np.where(labels == 1, 0.5, 0.8) + 0.02 * draws.normal(size=len(labels))
    after = np.roll(before, -1)
    before[::count], after[count - 1 :: count] = np.nan, np.nan
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / BEATS,
        beats=(beats + draws.normal(0, 20, beats.shape)).astype(np.int16),
        labels=labels.astype(np.uint8),
        patients=owners,
        pre_rr=before.astype(np.float32),
        post_rr=after.astype(np.float32),
    )
    rows = [
        f'{one},{-1 if one == 103 else 30 + one % 50},{"FM"[one % 2]},MLII,"Digoxin, Lasix"' for one in patients[:4]
    ]
    rows += [f"{one},50,M,MLII,None" for one in patients[4:]]
    (folder / PATIENTS).write_text("\n".join(["patient,age,sex,lead,drugs", *rows]) + "\n", encoding="utf-8-sig")
    return folder
