"""Kill -9 a fit while its networks are trained, start again: the generator has the bytes of an undisturbed fit."""

from __future__ import annotations

import random
from pathlib import Path

from test_zoo_resume import files_of, kill_when
from tiny_world import Run, World, quick_settings

SUITE = [word for pair in ("seen=12", "train=24", "validation=8", "test=4", "backgrounds=3") for word in ("-o", pair)]
ZOO = ("--steps", "8", "--checkpoints", "3", "--batch", "16")
FIT = ("--parts", "metadata", "--steps", "20", "--task-steps", "40", "--threads", "1")


def test_killed_fits_end_with_the_bytes_of_an_undisturbed_one(world: World, run: Run, tmp_path: Path) -> None:
    zoo, common = tmp_path / "zoo", [*SUITE, "--backbone", str(world.backbone)]
    assert run("zoo", "build", *common, *ZOO, "--out", zoo).status == 0
    settings = str(quick_settings(tmp_path / "settings.json"))
    fit = ["fit", "--zoo", str(zoo), *common, *FIT, "--config", settings, "--out"]
    # Of one name: the manifest names the backbone that is saved beside the generator.
    calm, killed = tmp_path / "calm" / "generator", tmp_path / "killed" / "generator"
    assert run(*fit, calm).status == 0
    assert sorted(path.name for path in calm.parent.iterdir()) == ["generator", "generator-backbone"]

    store = killed.with_name(".generator.unfinished")

    def finished() -> int:
        return len(list(store.glob("*.safetensors"))) if store.is_dir() else 0

    chance = random.Random(0)
    running = [kill_when([*fit, str(killed)], lambda n=n: finished() >= n, 0.02 * chance.random()) for n in (1, 3)]
    assert all(running)
    assert finished() >= 3
    assert not killed.exists(), "what is half done is no generator"
    kept = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}

    other = run(*fit, tmp_path / "other", "--seed", "1")
    assert other.status == 0
    assert finished() == len(kept), "another fit's networks are left alone"

    last = run(*fit, killed)
    assert last.status == 0, last.err
    assert "resuming" in last.err
    assert files_of(killed) == files_of(calm)
    assert not store.exists()
