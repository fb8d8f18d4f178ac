"""All verbs run in one tiny world; see ``tests/conftest.py``."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _machine_settings(machine_settings: None) -> None:
    """Of every test here."""
