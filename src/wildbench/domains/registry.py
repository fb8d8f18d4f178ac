"""Domains by name; each module is imported when its domain is looked up."""

from __future__ import annotations

from importlib import import_module

from wildbench.domains.domain import Domain
from wildpdiff.errors import DataError

MODULES: dict[str, str] = {
    "clinc150": "clinc150",
    "iwildcam": "iwildcam",
    "missouri": "missouri",
    "mitbih": "mitbih",
    "sib200": "sib200",
    "sib200-tokens": "sib200_tokens",
    **dict.fromkeys(
        (f"control-{system}{variant}"
         for system in ("cartpole", "pendulum", "acrobot") for variant in ("", "-hidden", "-distractors")),
        "control",
    ),
    **dict.fromkeys(("scanners", "handwriting", "pacs"), "pictures"),
}  # fmt: skip
"""Module in ``wildbench.domains`` with the domain of this name: its ``DOMAIN``, or one of its ``DOMAINS``."""


def find_domain(name: str) -> Domain:
    """A domain by its name; raises :class:`DataError` where there is none."""
    if name not in MODULES:
        raise DataError(f"There is no domain {name!r}; there are {', '.join(MODULES)}.")
    module = import_module(f"wildbench.domains.{MODULES[name]}")
    found: Domain = module.DOMAIN if hasattr(module, "DOMAIN") else module.DOMAINS[name]
    return found
