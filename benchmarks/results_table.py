"""Rewrites the table of results in a Markdown file from a results.json, so that no number is ever typed by hand.

    python benchmarks/results_table.py runs/demo/results.json README.md
    python benchmarks/results_table.py runs/pacs/run/results.json docs/results.md --block pacs

The table stands between the lines ``<!-- results:begin -->`` and ``<!-- results:end -->``, or those of another block.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError, WildpdiffError
from wildpdiff.evaluate.results import Results, SummaryRow, read_results
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED
from wildpdiff.report.findings import SplitFindings, findings, grouped, main_first
from wildpdiff.report.sentences import ahead_sentence, headline
from wildpdiff.report.wording import percent, signed_points

BY_DEFINITION = {PRETRAINED: "0", FINETUNED: "100"}


def results_markdown(results: Results) -> str:
    """Every split side by side, sources in groups, then the result in words, what was run, on what and when."""
    parts = main_first(findings(results))
    suites = dict.fromkeys(part.suite for part in parts)
    texts = [_table([part for part in parts if part.suite == suite]) for suite in suites]
    for part in parts:
        texts.append(f"{headline(part)} {ahead_sentence(part) or ''}".strip().replace("\N{NO-BREAK SPACE}", " "))
    return "\n\n".join([*texts, *_ceiling(results), *results.notes, _made(results)])


def _table(parts: Sequence[SplitFindings]) -> str:
    """Unseen, seen, then held-out groups; in bold a source that is ahead of the generator on the first split."""
    ordered = sorted(parts, key=lambda part: part.split.startswith("held-out "))
    main = parts[0]
    cells: dict[tuple[str, str], SummaryRow] = {(part.split, row.label): row for part in parts for row in part.summary}
    head = ["source"]
    for part in ordered:
        head += [f"{part.split} ({len(part.tasks)} tasks): accuracy, %", "recovered gain, %"]
    table = [[*head, f"generated − source, points, {main.split}", "training, s", "seconds per adapter"]]
    table.append(["---"] + ["---:"] * (len(table[0]) - 1))
    groups = grouped(ordered)
    for title, sources in groups.items():
        if len(groups) > 2:
            table.append([f"*{title}*", *[""] * (len(table[0]) - 1)])
        for line in sources:
            found = [cells.get((part.split, line.label)) for part in ordered]
            values = [text for row in found for text in (_accuracy(row), _gain(row))]
            known = [row for row in found if row is not None]
            times = [
                _seconds([row.training_seconds for row in known]),
                _seconds([row.seconds_per_adapter for row in known]),
            ]
            table.append([line.label, *values, _lead(main, cells.get((main.split, line.label))), *times])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table)


def _lead(part: SplitFindings, row: SummaryRow | None) -> str:
    """Generated − source; in bold where the source is ahead."""
    difference = None if row is None else part.difference(row)
    if row is None or difference is None:
        return "–"
    ends = "" if difference.interval is None else f" [{', '.join(signed_points(end) for end in difference.interval)}]"
    text = f"{signed_points(difference.value)}{ends}"
    return f"**{text}**" if part.is_ahead(row) else text


def _seconds(known: Sequence[float | None]) -> str:
    """A time where there is one: fine-tuning counts its training, the pretrained model has none."""
    values = [value for value in known if value is not None]
    if not values:
        return "–"
    longest = max(values)
    return "< 0.001" if longest < 0.001 else f"{longest:.0f}" if longest >= 100 else f"{longest:.2g}"


def _accuracy(row: SummaryRow | None) -> str:
    return "–" if row is None else percent(row.accuracy) + _interval(row.accuracy_interval, 1)


def _gain(row: SummaryRow | None) -> str:
    if row is None:
        return "–"
    if row.recovered_gain is None:
        return BY_DEFINITION.get(row.source, "–")
    return percent(row.recovered_gain, 0) + _interval(row.recovered_gain_interval, 0)


def _interval(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f" [{percent(interval[0], digits)}, {percent(interval[1], digits)}]"


def _ceiling(results: Results) -> list[str]:
    coder = results.autoencoder
    if coder is None or not coder.ceiling:
        return []
    accuracies = ", ".join(
        f"{percent(value.accuracy)} on {split} tasks (untouched: {percent(value.finetuned)})"
        for split, value in sorted(coder.ceiling.items(), reverse=True)
    )
    return [
        f"Ceiling, fine-tuned adapters after the autoencoder ({coder.kind}, {coder.latent_size} numbers): {accuracies}."
    ]


def _made(results: Results) -> str:
    made = results.provenance
    samples = max((row.samples for row in results.summary), default=0)
    seeds = max((row.seeds for row in results.summary), default=0)
    seconds = sum(stage.seconds for stage in results.stages if stage.name not in ("evaluate", "report"))
    facts = [
        f"`{made.command}`",
        f"seed {made.seed}",
        f"{seeds} trained generator{'s' * (seeds != 1)}, {samples} sample{'s' * (samples != 1)} a task, all counted",
        f"{seconds:.0f} s up to the evaluation" if results.stages else "",
        made.hardware,
        f"torch {made.torch}",
        f"wildpdiff {made.package_version}",
        made.created[:10],
    ]
    made_by = "; ".join(fact for fact in facts if fact)
    return f"Made by {made_by}. In brackets: 95 % bootstrap intervals over tasks; highlighted: ahead of the generator."


def fill(text: str, block: str, content: str, where: str) -> str:
    """The text with another content between a block's two markers; raises ``ArtifactError`` unless both are there."""
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ArtifactError(f"{where} needs the lines {begin} and {end} once each, in this order. Add them.")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{content}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("document", type=Path, help="Markdown file with the block")
    parser.add_argument("--block", default="results", help="name of the block (default: results)")
    options = parser.parse_args(arguments)
    try:
        results = read_results(options.results)
        if not options.document.is_file():
            raise ArtifactError(f"{options.document} is no file. Give a Markdown file with the block {options.block}.")
        text = options.document.read_text(encoding="utf-8")
        filled = fill(text, options.block, results_markdown(results), str(options.document))
        write_file(options.document, filled.encode())
    except WildpdiffError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
