"""``generate`` as users run it: a process of its own, the same bytes every time, nothing loaded that it can spare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_world import SUITE, World

HEAVY = ("peft", "transformers", "diffusers", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas")
SCRIPT = f"""
import sys
from wildpdiff.cli.main import main
status = main(sys.argv[1:])
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""


def generate(world: World, out: Path) -> subprocess.CompletedProcess[str]:
    task = ["--suite", "savanna", *SUITE, "--task", "unseen-002", "-n", "2", "--seed", "7", "--json"]
    command = [sys.executable, "-c", SCRIPT, "generate", str(world.generator), "--out", str(out), *task]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_two_processes_write_the_same_bytes_and_load_nothing_heavy(world: World, tmp_path: Path) -> None:
    first, second = (generate(world, tmp_path / name) for name in ("first", "second"))
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert json.loads(first.stdout)["adapters"] == [str(tmp_path / "first" / name) for name in ("000", "001")]
    assert first.stderr.splitlines()[-1] == second.stderr.splitlines()[-1] == "[]"
