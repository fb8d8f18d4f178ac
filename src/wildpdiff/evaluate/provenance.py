"""Provenance of numbers: command, seed, hardware, versions and time."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from wildpdiff.evaluate.results import Provenance


def hardware() -> str:
    """Architecture and number of cores of the machine, without its name."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, no GPU used"


def provenance(command: str, seed: int) -> Provenance:
    """Provenance of numbers that are made now by this command."""
    try:
        package = version("wildpdiff")
    except PackageNotFoundError:
        package = "not installed"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(package, command, seed, hardware(), platform.python_version(), str(torch.__version__), now)
