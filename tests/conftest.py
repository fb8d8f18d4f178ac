"""Shapes and types of every public function are checked while the tests run."""

from __future__ import annotations

import os

import pytest
from jaxtyping import install_import_hook

# Installed before the package is imported anywhere, and never uninstalled: late imports must be checked too.
install_import_hook("wildpdiff", "beartype.beartype")

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """Tests compare bytes; the number of threads decides the order of sums."""
    import torch

    torch.set_num_threads(min(2, os.cpu_count() or 1))
