"""The Makefile: a half-made environment is made anew, results are nobody's tools, torch has a CPU build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project as far as the Makefile looks at it, with results and an environment that does not run."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "runs/demo/results.json", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_half_made_environment_is_made_anew_or_the_python_named(folder: Path) -> None:
    refused = make(folder, ".venv/.runtime", "PIP=true", "PYTHON=/no/python")
    assert refused.returncode != 0
    assert "/no/python" in refused.stdout
    address = "https://cpu.example"
    made = make(folder, ".venv/.runtime", "PIP=echo PIP", f"PYTHON={sys.executable}", f"TORCH_INDEX={address}")
    assert made.returncode == 0, made.stderr
    assert [f"--index-url {address}" in line for line in made.stdout.splitlines() if line.startswith("PIP")] == [
        True,
        False,
    ]
    subprocess.run([folder / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)
    again = make(folder, "-W", "pyproject.toml", ".venv/.runtime", "PIP=echo PIP", "PYTHON=/no/python")
    assert again.returncode == 0, again.stdout
    assert "--index-url" not in again.stdout


def test_cleaning_keeps_results(folder: Path) -> None:
    assert make(folder, "clean").returncode == 0
    assert not (folder / ".venv").exists()
    assert (folder / "runs" / "demo" / "results.json").is_file()
