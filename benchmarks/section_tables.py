"""Writes the tables of a study (the paper's rows, interpolation, scaling, memorisation, trust) into a Markdown file.

    python benchmarks/section_tables.py runs/paper/results.json docs/results.md --section paper
    python benchmarks/section_tables.py runs/scaling/results.json docs/results.md --section scaling

As ``results_table.py`` does, between the lines ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results_table import fill

from wildbench.interpolation.interpolation_summary import GROUPS, kept_curve, midpoint_kept, ways_of
from wildbench.observers.verdict import verdict_sentence
from wildbench.report.scaling_summary import ScalingPoint, scaling_curves, scaling_sentences
from wildbench.report.trust import trust_table
from wildbench.sections import INTERPOLATION, MEMORISATION, PAPER, SCALING
from wildbench.study_sections import PublishedRow
from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError, WildpdiffError
from wildpdiff.evaluate.results import Results, read_results
from wildpdiff.evaluate.statistics import Gain
from wildpdiff.report.wording import percent, signed_points

SECTIONS = ("paper", "between", "scaling", "memorisation", "trust")


def section_markdown(results: Results, section: str) -> str:
    """The table of one section, with what was run."""
    made = results.provenance
    made_by = f"Made by `{made.command}`; seed {made.seed}; {made.hardware}; {made.created[:10]}."
    tables = {
        "paper": _paper,
        "between": _between,
        "scaling": _scaling,
        "memorisation": _memorisation,
        "trust": _trust,
    }
    return "\n\n".join([*tables[section](results), made_by])


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * 3 + ["---:"] * (len(head) - 3), *rest])


def _paper(results: Results) -> list[str]:
    rows = PAPER.of(results)
    if not rows:
        raise ArtifactError("These results have no rows of the paper. Run `wildpdiff reproduce paper`.")
    lines = [
        ["question", "setting", "method", "tasks", "pretrained", "fine-tuned", "generated", "gap, points",
         "± samples", "± seeds", "parameters: ± samples", "± seeds", "in the paper"]
    ]  # fmt: skip
    for row in rows:
        gap = signed_points(row.generated - row.finetuned)
        if row.gap_interval is not None:
            gap += f" [{', '.join(signed_points(end) for end in row.gap_interval)}]"
        numbers = (row.over_samples, row.over_seeds, row.parameters_over_samples, row.parameters_over_seeds)
        spread = ["–" if value is None else percent(value) for value in numbers]
        scores = [percent(value) for value in (row.pretrained, row.finetuned, row.generated)]
        about = [row.question, row.setting, row.method, str(row.tasks)]
        lines.append([*about, *scores, gap, *spread, _published(row.published)])
    words = (
        "Accuracies in %, means over tasks and all samples and seeds; ± is the standard deviation, of parameters as a "
        "share (%) of their distance to the pretrained adapter. *In the paper*: pretrained / fine-tuned / generated on "
        "Snapshot Serengeti, from secondary notes; other data, so only the pattern can be compared."
    )
    return [_markdown(lines), words]


def _published(row: PublishedRow | None) -> str:
    if row is None:
        return "–"
    numbers = [row.pretrained, row.finetuned, row.generated]
    known = [percent(value) for value in numbers if value is not None]
    return " / ".join(known) if len(known) == 3 else row.words


def _share(gain: Gain | ScalingPoint) -> str:
    value, interval = (gain.value, gain.interval) if isinstance(gain, Gain) else (gain.gain, gain.interval)
    if value is None:
        return "–"
    return percent(value, 0) + ("" if interval is None else f" [{', '.join(percent(end, 0) for end in interval)}]")


def _between(results: Results) -> list[str]:
    section = INTERPOLATION.of(results)
    if section is None:
        raise ArtifactError("These results have no interpolation. Run `wildpdiff reproduce paper`.")
    names = [*section.alignments]
    head = ["interpolated", "similarity", "pairs", "kept half-way, %", *(f"rank correlation: {name}" for name in names)]
    lines = [head]
    for way in ways_of(section):
        middle = midpoint_kept(section, way)
        for group in GROUPS:
            curve = kept_curve(section, way, group)
            if curve is None:
                continue
            pairs = sum(pair.group == group for pair in section.pairs)
            found = [middle.correlations.get(name) for name in names] if group == GROUPS[0] else [None] * len(names)
            ranks = ["" if entry is None else f"{entry.value:.2f}" for entry in found]
            lines.append([way, group, str(pairs), _share(curve.gains[len(curve.gains) // 2]), *ranks])
    words = [f"*{name}*: {text}." for name, text in section.alignments.items()]
    return [_markdown(lines), "Rank correlations are over the pairs of all groups. " + " ".join(words)]


def _scaling(results: Results) -> list[str]:
    section = SCALING.of(results)
    if section is None:
        raise ArtifactError("These results have no scaling. Run `wildpdiff reproduce scaling`.")
    curves = scaling_curves(section)
    sizes = sorted({point.tasks for curve in curves for point in curve.points})
    lines = [["source", "drawn from", "checkpoints", *(f"{size} tasks" for size in sizes)]]
    for curve in curves:
        by_size = {point.tasks: _share(point) for point in curve.points}
        lines.append(
            [curve.source, curve.diversity, str(curve.checkpoints), *(by_size.get(size, "–") for size in sizes)]
        )
    return [_markdown(lines), " ".join(scaling_sentences(section))]


def _memorisation(results: Results) -> list[str]:
    section, sentence = MEMORISATION.of(results), verdict_sentence(results)
    if section is None or sentence is None:
        raise ArtifactError("These results have no memorisation. Run `wildpdiff evaluate`.")
    splits = list(dict.fromkeys(point.split for point in section.points))
    lines = [["source", "tasks", "samples", "accuracy, %", "distance", "overlap of errors"]]
    for source in dict.fromkeys(point.source for point in section.points):
        for split in splits:
            points = [point for point in section.points if (point.source, point.split) == (source, split)]
            if points:
                means = [sum(getattr(point, name) for point in points) / len(points) for name in
                         ("accuracy", "distance", "overlap")]  # fmt: skip
                tasks = len({point.task for point in points})
                cells = [percent(means[0]), f"{means[1]:.3f}", f"{means[2]:.2f}"]
                lines.append([f"{source}, {split}", str(tasks), str(len(points)), *cells])
    return [_markdown(lines), sentence]


def _trust(results: Results) -> list[str]:
    if results.trust is None:
        raise ArtifactError("These results have no trust. Evaluate a generator that has a model of trust.")
    table = trust_table(results.trust)
    lines = [list(table.columns)]
    for row in table.rows:
        cells = (f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in row.cells)
        lines.append([f"{row.head}, {row.small}", *cells])
    return [_markdown(lines), table.note]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("document", type=Path, help="Markdown file with the block")
    parser.add_argument("--section", choices=SECTIONS, required=True)
    parser.add_argument("--block", help="name of the block (default: that of the section)")
    options = parser.parse_args(arguments)
    try:
        content = section_markdown(read_results(options.results), options.section)
        text = options.document.read_text(encoding="utf-8")
        filled = fill(text, options.block or options.section, content, str(options.document))
        write_file(options.document, filled.encode())
    except (WildpdiffError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
