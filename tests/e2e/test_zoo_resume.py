"""Kill -9 at any moment, start again: the zoo ends with the same bytes as one that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tiny_world import SUITE, Run, World

LIMIT = 120.0


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def start(words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "wildpdiff.cli.main", *words], env=environment, **silent)


def kill_when(words: list[str], ready: Callable[[], bool], delay: float) -> bool:
    """Kill a build some seconds after a moment; whether it was still running then."""
    process = start(words)
    deadline = time.monotonic() + LIMIT
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


def test_killed_builds_end_with_the_bytes_of_an_undisturbed_one(world: World, run: Run, tmp_path: Path) -> None:
    sizes = ["--steps", "24", "--checkpoints", "4", "--batch", "16", "--tasks-per-shard", "2", "--threads", "1"]
    build = ["zoo", "build", *SUITE, "--backbone", str(world.backbone), *sizes, "--out"]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert run(*build, calm).status == 0

    shards = killed / "shards"
    chance = random.Random(0)
    moments: list[Callable[[], bool]] = [
        (killed / "plan.json").is_file,
        (shards / "shard-00000.parquet").is_file,
        (shards / "shard-00001.safetensors").is_file,
    ]
    running = [kill_when([*build, str(killed)], ready, 0.05 * chance.random()) for ready in moments]
    assert running[0]
    assert any(running[1:])
    finished = run(*build, killed)
    assert finished.status == 0
    assert "resuming" in finished.err
    assert files_of(killed) == files_of(calm)
