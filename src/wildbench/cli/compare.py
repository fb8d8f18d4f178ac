"""``wildpdiff compare``: the paired difference of any two sources of a results.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.options import JsonOption
from wildpdiff.cli.terminal import print_json, show
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.evaluate.results import SummaryRow
    from wildpdiff.report.findings import SplitFindings


def compare(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results.json.")],
    a: Annotated[str, typer.Argument(metavar="A", help="Name of a source in the table, or the start of it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another source.")],
    split: Annotated[
        str | None,
        typer.Option("--split", help="seen, unseen or held-out NAME; default: unseen where there is one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two sources of a results.json.

    Task by task: the mean difference A − B with its 95 % interval, wins, losses and ties.
    """
    from wildpdiff.evaluate.results import read_results
    from wildpdiff.report import findings as found
    from wildpdiff.report.wording import count, interval_text, percentage, signed_points

    parts = found.main_first(found.findings(read_results(results)))
    part = _part(parts, split, str(results))
    first, second = _line(part, a), _line(part, b)
    if first is second:
        raise DataError(f"Both names mean {first.label!r}. Give two sources.")
    columns = part.columns([first, second])
    difference = found.compare(part, first, second)
    if difference is None or columns is None:
        raise DataError(f"{first.label!r} and {second.label!r} share no {part.split} task. Evaluate both on the same.")
    means = [float(row.mean()) for row in columns.accuracy]
    if as_json:
        print_json(
            {
                "suite": part.suite,
                "split": part.split,
                "a": first.label,
                "b": second.label,
                "accuracy_a": means[0],
                "accuracy_b": means[1],
                "difference": difference.value,
                "interval": difference.interval,
                "decided": difference.decided,
                "tasks": difference.tasks,
                "wins": difference.wins,
                "losses": difference.losses,
                "ties": difference.ties,
            }
        )
        return
    verdict = "The interval leaves zero out." if difference.decided else "These tasks do not decide which is better."
    show(
        f"{count(difference.tasks, f'{part.split} task')}: {first.label} {percentage(means[0])}, {second.label} "
        f"{percentage(means[1])}.\nDifference {signed_points(difference.value)} points"
        f"{interval_text(difference.interval) or ' (no interval)'}; {first.label} is better on {difference.wins}, "
        f"worse on {difference.losses}, equal on {difference.ties}. {verdict}"
    )


def _part(parts: list[SplitFindings], split: str | None, where: str) -> SplitFindings:
    """The split of this name, or the main one."""
    if not parts:
        raise DataError(f"{where} holds no row, so there is nothing to compare. Evaluate first.")
    chosen = next((part for part in parts if split in (None, part.split)), None)
    if chosen is None:
        raise DataError(f"{where} has no split {split!r}; it has {', '.join(part.split for part in parts)}.")
    return chosen


def _line(part: SplitFindings, name: str) -> SummaryRow:
    """The line with this label, or the only one whose label starts with it."""
    wanted = name.strip().lower()
    exact = [row for row in part.summary if row.label.lower() == wanted]
    found = exact or [row for row in part.summary if wanted and row.label.lower().startswith(wanted)]
    labels = ", ".join(row.label for row in (found or part.summary))
    if not found:
        raise DataError(f"There is no source {name!r} on the {part.split} tasks; there are: {labels}.")
    if len(found) > 1:
        raise DataError(f"{name!r} is the start of several sources: {labels}. Write more of the name.")
    return found[0]
