"""Files that are damaged, exchanged or hostile, in the tiny world of all verbs; see ``tests/conftest.py``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _machine_settings(machine_settings: None) -> None:
    """Of every test here."""


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a file or folder that may be damaged."""

    def make(original: Path) -> Path:
        target = tmp_path / "copies" / original.name
        if original.is_dir():
            shutil.copytree(original, target)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(original, target)
        return target

    return make
