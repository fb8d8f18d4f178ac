"""Joins the tables of several domains to one in a Markdown file: one row a domain and group of unseen tasks.

    python benchmarks/domains_table.py docs/results.md runs/domains/clinc150 runs/domains/mitbih
    python benchmarks/domains_table.py docs/results.md "missouri, whole frames=runs/missouri-whole"

Each folder is that of a run of ``wildbench domain``; NAME=FOLDER gives it another name in the table, which stands
between the lines ``<!-- domains:begin -->`` and ``<!-- domains:end -->``. Runs that are named "NAME, seed N" get rows
of their means before it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from results_table import fill

from wildbench.domains.domain import EVOLUTION
from wildbench.domains.table import SEEN, UNSEEN, WITH_TRUST, Cell, DomainTable, read_table
from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError, WildpdiffError

BLOCK = "domains"
METHODS: Mapping[str, str] = {
    "pretrained": "pretrained",
    "mean": "mean adapter",
    "nearest": "nearest task",
    "kernel ridge": "kernel ridge regression",
    "additive kernel": "additive kernel regression",
    "zero-shot": "zero-shot similarity",
    "generated": "generated",
    "with trust": WITH_TRUST,
    "shuffled": "generated, shuffled descriptions",
    "multi-task, described": "multi-task adapter with description",
    "hypernetwork": "hypernetwork, task loss",
    "evolution strategies": EVOLUTION,
    "column-wise merge": "column-wise merge",
    "fine-tuned": "fine-tuned",
}
"""Heads of the columns with the names of methods in the tables of domains."""

SIMPLE = ("pretrained", "mean", "nearest", "kernel ridge", "additive kernel", "zero-shot")
"""Columns of simple methods without labels."""

KINDS = {"domain ": "held-out domain", "script ": "held-out scripts"}
"""Groups that have another name with each seed, by their beginning."""

LEAST_GAIN = 0.01
"""Of fine-tuning, below which a share of it means nothing: a point of an accuracy."""

LABELLED = ("evolution strategies", "fine-tuned")
"""Columns of methods that use labels of the task."""

INTERVALS = ("generated", "with trust")
MISSING = "–"
NOTE = (
    "Means over tasks, in brackets 95 % bootstrap intervals over tasks; ↑: more is better, ↓: less is better. In bold "
    "the best of the methods without labels of the task; evolution strategies use five labels a class, fine-tuned all "
    "of them. *Zero-shot* is the similarity of utterance and words; *shuffled*, a control: the generator with another "
    "task's description. *Mean trust*: predicted probability of a gain. *Kept back*: tasks for which trust keeps the "
    "pretrained model; *harmed*: tasks that lose more than a point against it, without and with trust; both in % of "
    "tasks."
)


def domains_markdown(tables: Mapping[str, DomainTable]) -> str:
    """One table of all domains, by their names in it, and how each was run."""
    head = ["domain", "group", "tasks", "metric", *METHODS, "mean trust", "kept back, %", "harmed without, with, %"]
    lines = [head, ["---", "---", "---:", "---", *["---:"] * (len(METHODS) + 3)]]
    for name, table in tables.items():
        unseen = sorted((group for group in table.groups if group != SEEN), key=lambda group: group != UNSEEN)
        lines += [[name, *_row(table, group)] for group in unseen]
    made = [
        f"`{table.command}`: seed {table.seed}, {table.generators} generator{'' if table.generators == 1 else 's'}."
        for table in tables.values()
    ]
    shown = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([shown, NOTE, " ".join(dict.fromkeys(made))])


def means_markdown(tables: Mapping[str, DomainTable]) -> str:
    """Means over seeds of what is named "NAME, seed N", weighted by tasks; nothing where no name has several."""
    found: dict[tuple[str, str], list[tuple[DomainTable, str]]] = {}
    for name, table in tables.items():
        plain = re.sub(r", seed \d+$", "", name)
        for group in table.groups:
            if group != SEEN:
                kind = next((words for start, words in KINDS.items() if group.startswith(start)), group)
                found.setdefault((plain, kind), []).append((table, group))
    head = ["domain", "group", "seeds", "tasks", "pretrained", "best simple", "generated", "by seed", "fine-tuned",
            "recovered gain"]  # fmt: skip
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for (name, kind), parts in found.items():
        seeds = {table.seed for table, _ in parts}
        if len(seeds) > 1:
            lines.append([name, kind, str(len(seeds)), *_means(parts)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def _means(parts: Sequence[tuple[DomainTable, str]]) -> list[str]:
    metric, tasks = parts[0][0].metric, [table.groups[group] for table, group in parts]

    def mean(method: str) -> float | None:
        cells = [{row.method: row.cells.get(group) for row in table.rows}.get(method) for table, group in parts]
        known = [cell.score.value for cell in cells if cell is not None]
        weighted = sum(value * count for value, count in zip(known, tasks, strict=False)) / sum(tasks)
        return weighted if len(known) == len(parts) else None

    def shown(value: float | None) -> str:
        return MISSING if value is None else f"{metric.scale * value:.{1 if metric.scale == 100 else 3}f}"

    simple = {head: value for head in SIMPLE if (value := mean(METHODS[head])) is not None}
    best = max(simple, key=lambda head: metric.sign * simple[head])
    pretrained, generated, finetuned = (mean(METHODS[head]) for head in ("pretrained", "generated", "fine-tuned"))
    gain = MISSING
    if pretrained is not None and generated is not None and finetuned is not None:
        most = finetuned - pretrained
        gain = f"{(generated - pretrained) / most:.2f}" if metric.sign * most > LEAST_GAIN else MISSING
    by_seed = [shown(table.cell("generated", group).score.value) for table, group in parts]
    values = [shown(pretrained), f"{shown(simple[best])} {best}", shown(generated), ", ".join(by_seed)]
    return [str(sum(tasks)), *values, shown(finetuned), gain]


def _row(table: DomainTable, group: str) -> list[str]:
    """A group of unseen tasks of one domain, without the domain's name."""
    metric = table.metric
    by_method = {row.method: row.cells.get(group) for row in table.rows}
    cells = {head: by_method.get(method) for head, method in METHODS.items()}
    texts = {head: _text(table, cell, head in INTERVALS) for head, cell in cells.items()}
    free = {head: cell.score.value for head, cell in cells.items() if cell is not None and head not in LABELLED}
    best = max((metric.sign * value for value in free.values()), default=None)
    for head, value in free.items():
        if metric.sign * value == best:
            number, *rest = texts[head].split(" ", 1)
            texts[head] = " ".join([f"**{number}**", *rest])
    trust = table.trust.get(group)
    mean = kept = harmed = MISSING
    if trust is not None:
        mean = f"{trust.trust.value:.2f}"
        kept = f"{100 * (1 - trust.used_share.value):.0f}"
        harmed = f"{100 * trust.harmed_without.value:.0f}, {100 * trust.harmed_with.value:.0f}"
    heading = f"{metric.heading} {'↑' if metric.higher_is_better else '↓'}"
    return [group, str(table.groups[group]), heading, *texts.values(), mean, kept, harmed]


def _text(table: DomainTable, cell: Cell | None, with_interval: bool) -> str:
    if cell is None:
        return MISSING
    scale, digits = table.metric.scale, 1 if table.metric.scale == 100 else 3
    interval = cell.score.interval if with_interval else None
    ends = "" if interval is None else f" [{', '.join(f'{scale * end:.{digits}f}' for end in interval)}]"
    return f"{scale * cell.score.value:.{digits}f}{ends}"


def named_tables(arguments: Sequence[str]) -> dict[str, DomainTable]:
    """Tables of runs, each FOLDER or NAME=FOLDER, by name; raises :class:`ArtifactError` where one cannot be read."""
    found: dict[str, DomainTable] = {}
    for argument in arguments:
        name, given, folder = argument.rpartition("=") if not Path(argument).is_dir() else ("", "", argument)
        path = Path(folder) / "domain.json"
        if not path.is_file():
            raise ArtifactError(f"There is no {path}. Give the folder of a finished run of `wildbench domain`.")
        table = read_table(path)
        name = name.strip() if given else table.domain
        if name in found:
            raise ArtifactError(f"There are two tables {name!r}. Give one of them as NAME=FOLDER.")
        found[name] = table
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, help="Markdown file with the block")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run, or NAME=FOLDER")
    parser.add_argument("--block", default=BLOCK, help=f"name of the block (default: {BLOCK})")
    options = parser.parse_args(arguments)
    try:
        tables = named_tables(options.folders)
        content = "\n\n".join(part for part in (means_markdown(tables), domains_markdown(tables)) if part)
        text = options.document.read_text(encoding="utf-8")
        write_file(options.document, fill(text, options.block, content, str(options.document)).encode())
    except (WildpdiffError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
