"""Classes of texts by an adapter, or by an adapter for each task of a table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildpdiff.cli import options
from wildpdiff.cli.delivery import Deliveries, backbone_of, delivered
from wildpdiff.cli.terminal import Stages, print_json, remark, show
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.prediction import Delivered
    from wildpdiff.tasks.task import ClassSuite

COLUMNS = ("text", "class", "probability", "task", "model", "trust")


@dataclass(frozen=True)
class TextOutput:
    """Where the classes of texts go.

    Attributes:
        out: a CSV file; None is stdout.
        top: classes a text, the most probable first.
        as_json: whether they go to stdout as JSON too.
    """

    out: Path | None
    top: int
    as_json: bool

    def write(self, rows: Sequence[Mapping[str, Any]], done: str) -> None:
        """Write the rows, or print them where there is no file."""
        from wildpdiff.camera_traps.writers.csv_files import line, plain
        from wildpdiff.disk import visible, write_file

        lines = [line(*COLUMNS)]
        for row in rows:
            trust = "" if row["trust"] is None else f"{row['trust']:.4f}"
            words = (plain(row["text"]), plain(row["class"]), f"{row['probability']:.6f}", plain(row["task"]))
            lines.append(line(*words, row["model"], trust))
        if self.out is not None:
            write_file(self.out, "".join(lines).encode("utf-8", "surrogatepass"))
            remark(f"{len(rows)} predictions in {self.out}{done}.")
        if self.as_json:
            print_json([dict(row) for row in rows])
        elif self.out is None:
            sys.stdout.write(visible("".join(lines)))


def are_texts(paths: Iterable[Path], columns: Mapping[str, str] | None) -> bool:
    """Whether files to be classified are of texts: ``.txt``, or tables with a column of texts and none of pictures."""
    from wildpdiff.texts import LINES, is_text_table

    return any(path.suffix.lower() in LINES or is_text_table(path, columns) for path in paths)


def predict_texts(
    folder: Path, backbone: str | None, files: Sequence[Path], columns: Mapping[str, str] | None, output: TextOutput
) -> None:
    """Classify the texts of files by one adapter."""
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.texts import read_texts

    texts = read_texts(files, columns)
    adapter = Adapter.load(folder)
    model, task = backbone_of(adapter, backbone), str(adapter.provenance.get("task") or "")
    output.write(_rows(model, delivered(adapter), texts, task, top=output.top), "")


def predict_tasks(deliveries: Deliveries, suite: ClassSuite, names: Sequence[str] | None, output: TextOutput) -> None:
    """Classify all texts of a table, each task's by its own adapter."""
    from wildpdiff.report.terminal import plain_table
    from wildpdiff.tasks.task import SPLITS
    from wildpdiff.texts import TextSuite

    assert isinstance(suite, TextSuite)
    named: Any = suite.all_tasks if not names else [options.find_task(suite, name) for name in names]
    chosen = list({task.name: task for task in named}.values())
    rows: list[dict[str, Any]] = []
    table = plain_table(f"{len(chosen)} tasks", "task", "texts", "model", "trust", "most frequent classes")
    with Stages() as stages:
        tick = stages(f"classify the texts of {len(chosen)} tasks")
        for number, task in enumerate(chosen, 1):
            given = deliveries.deliver(task)
            texts = list(
                dict.fromkeys([text for split in SPLITS for text in task.data(split).inputs] + task.unlabelled)
            )
            found = _rows(deliveries.generator.backbone, given, texts, task.title, top=output.top)
            rows += found
            most = Counter(row["class"] for row in found[:: output.top]).most_common(3)
            trust = "–" if given.trust is None else f"{given.trust:.2f}"
            words = ", ".join(f"{name} {count}" for name, count in most)
            table.add_row(task.title, str(len(texts)), given.source, trust, words)
            tick(number, len(chosen))
    output.write(rows, f" of {len(chosen)} tasks")
    if output.out is not None and not output.as_json:
        show(table)


def _rows(backbone: Backbone, given: Delivered, texts: Sequence[str], task: str, *, top: int) -> list[dict[str, Any]]:
    from wildpdiff.prediction import text_probabilities

    if not texts:
        return []
    if not 1 <= top <= len(backbone.classes):
        known = len(backbone.classes)
        raise DataError(f"The {top} most probable classes are not among {known}. Give 1 to that many.")
    (values,) = text_probabilities([given.adapter], backbone, texts)
    return [
        {
            "text": text,
            "class": backbone.classes[index],
            "probability": float(own[index]),
            "task": task,
            "model": given.source,
            "trust": given.trust,
        }
        for text, own in zip(texts, values, strict=True)
        for index in (-own).argsort(kind="stable")[:top]
    ]
