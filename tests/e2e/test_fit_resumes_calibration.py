"""``wildpdiff fit`` that is stopped before its trust is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_world import SUITE, Calibrated, Run, World

from wildpdiff.errors import TrainingError
from wildpdiff.trust import generated

FIT = ("--parts", "metadata", "--steps", "10", "--task-steps", "0")


def test_a_stopped_fit_resumes_with_the_calibration(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[str] = []

    def calibrate(generator: Any, *_: Any, **__: Any) -> Calibrated:
        calibrated.append(generator.fingerprint)
        if len(calibrated) == 1:
            raise TrainingError("the machine was switched off")
        return Calibrated(generator.fingerprint)

    monkeypatch.setattr(generated, "FEWEST_TASKS", 12)
    monkeypatch.setattr(generated, "calibrate_generator", calibrate)
    out = tmp_path / "generator"
    words = ("fit", "--zoo", world.zoo, *SUITE, "--backbone", world.backbone, *FIT, "--out", out)

    stopped = run(*words)
    assert stopped.status != 0
    assert "switched off" in stopped.err
    kept = (out / "mean.safetensors").stat().st_mtime_ns

    again = run(*words, "--json")
    assert again.status == 0, again.err
    assert "resuming" in again.err
    assert (out / "mean.safetensors").stat().st_mtime_ns == kept, "nothing was fitted again"
    assert again.json["trust"] is True
    assert (out / "trust" / "of").read_text() == calibrated[0] == calibrated[1] == again.json["fingerprint"]

    other = run(*words, "--seed", "3", "--json")
    assert other.status == 0, other.err
    assert "resuming" not in other.err
    assert calibrated[2] == other.json["fingerprint"] != calibrated[0]
