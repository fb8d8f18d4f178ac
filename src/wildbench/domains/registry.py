"""Domains by name; each module is imported when its domain is asked for."""

from __future__ import annotations

from importlib import import_module

from wildbench.domains.domain import Domain
from wildpdiff.errors import DataError

MODULES: dict[str, str] = {"clinc150": "clinc150", "sib200": "sib200"}
"""Module in ``wildbench.domains`` with the ``DOMAIN`` of this name."""


def find_domain(name: str) -> Domain:
    """A domain by its name; raises :class:`DataError` where there is none."""
    if name not in MODULES:
        raise DataError(f"There is no domain {name!r}; there are {', '.join(MODULES)}.")
    found: Domain = import_module(f"wildbench.domains.{MODULES[name]}").DOMAIN
    return found
