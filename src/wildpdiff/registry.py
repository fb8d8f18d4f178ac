"""Extensions by other installed packages, found by their entry points.

A package adds a method to the comparison, a section to results.json, an observer or a command by an entry point of the
group ``wildpdiff.methods``, ``wildpdiff.sections``, ``wildpdiff.observers`` or ``wildpdiff.commands``; the reader of
its runs' folders for ``wildpdiff evaluate --run`` by one of ``wildpdiff.runs``; a suite that needs no files by one of
``wildpdiff.suites``; the constructor of stored backbones of a class of modules by one of ``wildpdiff.architectures``.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, Literal

from wildpdiff.errors import WildpdiffError

Group = Literal["methods", "sections", "observers", "commands", "runs", "suites", "architectures"]


def package_version() -> str:
    """Version of this package; empty where it is run without being installed."""
    try:
        return version("wildpdiff")
    except PackageNotFoundError:
        return ""


@cache
def registered(group: Group) -> dict[str, Any]:
    """The objects of a group by the name of their entry point, in the order of names.

    Raises:
        WildpdiffError: an installed package names something that cannot be imported.
    """
    found: dict[str, Any] = {}
    for entry in sorted(set(entry_points(group=f"wildpdiff.{group}")), key=lambda entry: entry.name):
        try:
            found[entry.name] = entry.load()
        except (ImportError, AttributeError) as error:
            raise WildpdiffError(
                f"An installed package adds {entry.value!r} to wildpdiff's {group}, and it cannot be imported "
                f"({error}). Install that package again, or remove it."
            ) from error
    return found
