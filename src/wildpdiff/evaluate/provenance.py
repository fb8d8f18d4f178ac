"""Who made numbers, how, when and on what."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from wildpdiff.evaluate.results import Provenance


def hardware() -> str:
    """The machine in words, without its name: architecture and number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, no GPU used"


def provenance(command: str, seed: int) -> Provenance:
    """Who made the numbers, how and when."""
    try:
        package = version("wildpdiff")
    except PackageNotFoundError:
        package = "not installed"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(package, command, seed, hardware(), platform.python_version(), str(torch.__version__), now)
