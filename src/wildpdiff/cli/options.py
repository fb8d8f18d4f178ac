"""Options that several verbs share, and how a suite's own options are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.tasks.task import Suite, Task

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON; stdout then holds nothing else.")]


def _seed(value: int) -> int:
    """Refused here and not by a range, whose bounds every help page would spell out."""
    if not 0 <= value < 2**63:
        raise typer.BadParameter("give a whole number from 0 to 2⁶³ − 1")
    return value


SeedOption = Annotated[int, typer.Option("--seed", callback=_seed, help="Decides everything random.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder that is written.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU cores to use; by default OMP_NUM_THREADS, or all.")
]
SuiteOption = Annotated[
    str, typer.Option("--suite", help="savanna, a CSV table (path,label,task,…), or a folder TASK/CLASS/IMAGE.")
]
BackboneOption = Annotated[str, typer.Option("--backbone", help="A bundled name, or the folder of a backbone.")]
SuiteSettings = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option of the suite; may be given several times."),
]

TABLE_SIZE = 96
"""Pixels a side of a table's images where no backbone decides it."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _unseen(text: str) -> int | float | tuple[str, ...]:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return _names(text)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_TABLE_KINDS: Mapping[str, Callable[[str], Any]] = {
    "seed": int,
    "image_size": int,
    "minimum": int,
    "root": str,
    "classes": _names,
    "ignore": _names,
    "unseen": _unseen,
    "keep": _truth,
}
"""The arguments of ``TableSuite.from_csv`` as they are typed."""


def suite_settings(suite: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """The ``KEY=VALUE`` texts of a suite as values of the right kinds; raises :class:`DataError`."""
    from wildpdiff.tasks.registry import parse_options, suite_providers

    texts: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise DataError(f"Option {pair!r} has no value; write it as KEY=VALUE.")
        texts[name.strip()] = value.strip()
    provider = suite_providers().get(suite)
    kinds = _TABLE_KINDS if provider is None else provider.options
    # Sorted as JSON will have them, so that a report drawn again from results.json is the same to the byte.
    return dict(sorted(parse_options(texts, kinds).items()))


def open_suite(suite: str, pairs: Sequence[str] | None, backbone: Backbone | None = None, seed: int = 0) -> Suite:
    """A suite with its options, fitted to a backbone's image size and classes where one is given.

    Raises:
        DataError: no such suite or option, or labels and classes that the backbone does not know.
    """
    from wildpdiff.tasks.registry import load_suite, suite_providers

    settings = suite_settings(suite, pairs)
    known: dict[str, Any] = {"seed": seed}
    if backbone is not None:
        known |= {"image_size": backbone.image_size, "classes": backbone.classes}
    elif suite not in suite_providers():
        known["image_size"] = TABLE_SIZE
    return load_suite(suite, **{**known, **settings})


def find_task(suite: Suite, name: str) -> Task:
    """The task of this name in any group; raises :class:`DataError` where there is none."""
    from wildpdiff.tasks.task import GROUPS

    names = []
    for group in GROUPS:
        for task in suite.tasks(group):
            if task.name == name:
                return task
            names.append(task.name)
    some = ", ".join(names[:3]) + (f", … {names[-1]}" if len(names) > 3 else "")
    raise DataError(f"The suite {suite.name} has no task {name!r}; its {len(names)} tasks are {some}.")
