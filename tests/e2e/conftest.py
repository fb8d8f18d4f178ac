"""One tiny world for all verbs, and a way to run them in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_world import Outcome, Run, World, tiny_backbone

from wildpdiff.cli.main import main


@pytest.fixture(autouse=True)
def _machine_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Verbs that train set threads and denormals for their process, which is here that of all tests."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WILDPDIFF_DEBUG", "1")  # an unexpected exception is a failure to look into
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def call(*words: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The demo of size tiny, run once."""
    folder = tmp_path_factory.mktemp("world")
    backbone = tiny_backbone(folder / "backbone")
    status = main(
        [
            "demo",
            "--size",
            "tiny",
            "--backbone",
            str(backbone),
            "--out",
            str(folder / "run"),
            "--threads",
            "1",
            "--json",
        ]
    )
    assert status == 0
    return World(backbone, folder / "run")
