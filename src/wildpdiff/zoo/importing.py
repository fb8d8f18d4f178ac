"""A zoo of adapters that were made elsewhere: PEFT folders in one common layout, and descriptions of their tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.canonical import aligned, alignment_reference, common_spec, factor_pairs, in_common
from wildpdiff.adapters.spec import PEFT_PREFIX, AdapterSpec
from wildpdiff.artifact import safetensors_bytes, tensors_hash
from wildpdiff.disk import content_hash, disk_errors, json_bytes, own_entries, read_json, write_file, write_folder
from wildpdiff.errors import ArtifactError, DataError, DescriptionError
from wildpdiff.tables.delimited import MISSING, read_delimited
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.tasks.metadata_columns import metadata_column
from wildpdiff.zoo.store import INITIAL, PLAN, Zoo, ZooPlan, write_index, write_rows

DESCRIPTIONS = "descriptions.json"
CARD = "README.md"
CARD_FIELDS = {
    *("base_model", "library_name", "license", "language", "pipeline_tag", "model_name", "thumbnail", "inference"),
    *("license_name", "license_link", "base_model_relation", "new_version", "task"),
}
"""Fields of a model card's front matter that describe the model and not the task."""
LONGEST_TEXT = 2000
"""Characters of a model card's text that are read."""
LARGEST_UPDATE = 1e12
"""Norm of an update that no model survives."""
FOR_REFERENCE = 128
"""Most adapters that the reference of the alignment is made from."""


@dataclass(frozen=True)
class TaskDescriptions:
    """Descriptions of tasks by name, with the schema of their metadata.

    Attributes:
        remarks: on cells that were read in another way or left out.
    """

    schema: MetadataSchema
    by_task: Mapping[str, Description]
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_csv(cls, path: Path | str) -> TaskDescriptions:
        """Read a table with the column ``task``, an optional column ``text``, and columns of metadata.

        Separators, encodings and numbers are read as those of tables of cameras.

        Raises:
            DataError: it is no table, has no column ``task``, or a task without a name or with two rows.
        """
        table = read_delimited(Path(path))
        own = {name.lower(): name for name in reversed(table.header)}
        column, words = own.get("task"), own.get("text", "")
        if column is None or not table.rows:
            raise DataError(f"{path} has no rows with a column 'task'. Give one row an adapter: task, then metadata.")
        rows: dict[str, dict[str, Any]] = {}
        for line, cells in table.rows:
            row = dict(zip(table.header, cells, strict=True))
            name = normalize("NFC", row.pop(column))
            if not name:
                raise DataError(f"{path}, line {line} has no task.")
            if name in rows:
                raise DataError(f"{path}, line {line} is a second row of task {name!r}. Give one row an adapter.")
            rows[name] = row
        texts = {name: row.pop(words, "") for name, row in rows.items()}
        texts = {name: "" if text.lower() in MISSING else text for name, text in texts.items()}
        return cls._of(rows, texts, table.remarks)

    @classmethod
    def from_cards(cls, folders: Sequence[Path]) -> TaskDescriptions:
        """Read the model cards of adapters: metadata from the front matter, text from the rest.

        Raises:
            DescriptionError: an adapter has no card, or one that describes nothing.
        """
        named = _named(folders)
        read = {name: _card(folder / CARD) for name, folder in named}
        return cls._of({name: row for name, (row, _) in read.items()}, {name: text for name, (_, text) in read.items()})

    @classmethod
    def _of(
        cls, rows: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str | None], remarks: Sequence[str] = ()
    ) -> TaskDescriptions:
        """Descriptions of texts and numbers as they were written, by task and column."""
        fields, known = [], {name: dict[str, Any]() for name in rows}
        noted = list(remarks)
        for column in dict.fromkeys(column for row in rows.values() for column in row):
            cells = {name: str(row[column]) for name, row in rows.items() if column in row}
            read = metadata_column(column, cells)
            noted += read.remarks
            if read.field is not None:
                fields.append(read.field)
                for name, value in read.values.items():
                    known[name][column] = value
        empty = next((name for name in rows if not known[name] and not texts[name]), None)
        if empty is not None:
            raise DescriptionError(
                f"Task {empty!r} has neither metadata nor text. Describe it. {' '.join(noted)}".rstrip()
            )
        described = {
            name: Description(metadata=own or None, text=texts[name] or None, task_id=name)
            for name, own in known.items()
        }
        return cls(MetadataSchema(tuple(fields)), described, tuple(noted))

    def only(self, names: Collection[str]) -> TaskDescriptions:
        """The descriptions of some tasks; what a column holds is decided by these alone."""
        own = {name: self.by_task[name] for name in names}
        rows = {name: entry.metadata or {} for name, entry in own.items()}
        return self._of(rows, {name: entry.text for name, entry in own.items()}, self.remarks)

    @classmethod
    def of_zoo(cls, zoo: Zoo) -> TaskDescriptions:
        """The descriptions that an imported zoo was written with.

        Raises:
            ArtifactError: the file is missing or altered.
        """
        path = zoo.folder / DESCRIPTIONS
        data = read_json(path, finite=True)
        if not isinstance(data, dict) or content_hash(json_bytes(data)) != zoo.plan.finetune.get("descriptions"):
            raise ArtifactError(f"{path} is altered: its hash differs from that in {PLAN}. Import again.")
        tasks = {
            name: Description(metadata=entry["metadata"], text=entry["text"], task_id=name)
            for name, entry in data["tasks"].items()
        }
        return cls(MetadataSchema.from_json(data["schema"]), tasks)


def import_adapters(
    folders: Sequence[Path],
    descriptions: TaskDescriptions,
    out: Path | str,
    *,
    rank: int | None = None,
    per_shard: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> Zoo:
    """Write a zoo of PEFT folders, one a task, in one common layout.

    Args:
        folders: of the adapters; the name of each, or of the folder that it is in, is that of its task.
        descriptions: of all tasks.
        out: folder of the zoo, new or empty.
        rank: of the common layout; the largest of the adapters by default. A smaller one loses energy, see
            ``adapters`` in ``descriptions.json``.
        per_shard: adapters a file.
        progress: called with (adapters written, in all).

    Raises:
        ArtifactError: an adapter cannot be read or changes nothing, or the folder holds something else.
        AdapterMismatchError: an adapter is not supported, or does not fit the others.
        DescriptionError: an adapter has no description.
        DataError: fewer than two adapters, or two of one name.
    """
    out = Path(out)
    by_task = _by_task(folders, descriptions)
    descriptions = descriptions.only(by_task)
    if out.is_dir() and own_entries(out):
        raise ArtifactError(f"{out} is not empty. Choose another folder.")
    specs = _checked_specs(by_task)
    common = common_spec({str(by_task[name]): spec for name, spec in specs.items()}, rank)
    reports: dict[str, dict[str, Any]] = {}

    def converted(name: str) -> dict[str, Tensor]:
        adapter = Adapter.load(by_task[name])
        found = in_common(specs[name], adapter.tensors, common)
        reports[name] = {
            "rank": max((entry.rank for entry in specs[name].modules.values()), default=0),
            "modules": len(specs[name].modules),
            "lost_energy": round(found.lost, 6),
            "sha256": tensors_hash(adapter.tensors),
        }
        return found.tensors

    names = list(by_task)
    chosen = set(names[:: -(-len(names) // FOR_REFERENCE)])
    # All are converted twice, so that no more than one shard is in memory with those of the reference.
    kept = []
    for name in names:
        tensors = converted(name)
        if name in chosen:
            kept.append(tensors)
    reference = alignment_reference(_stacked(kept))
    parts = [names[i : i + per_shard] for i in range(0, len(names), per_shard)]
    content = {
        "schema": descriptions.schema.to_json(),
        "tasks": {name: _plain(descriptions.by_task[name]) for name in names},
        "adapters": reports,
    }
    finetune = {"origin": "imported", "checkpoints": 1, "descriptions": content_hash(json_bytes(content))}
    plan = ZooPlan(AdapterConfig.of(common), "imported", tuple(names), per_shard, finetune, 0)

    def fill(folder: Path) -> None:
        zeros = {name: torch.zeros(shape) for name, shape in common.shapes.items()}
        write_file(folder / PLAN, json_bytes(plan.to_json()))
        write_file(folder / DESCRIPTIONS, json_bytes(content))
        write_file(folder / INITIAL, safetensors_bytes(zeros))
        for number, part in enumerate(parts):
            tensors = aligned(_stacked([converted(name) for name in part]), reference, leading=1)
            unknown = dict.fromkeys(("step", "seed", "train_loss", "validation_accuracy"), [None] * len(part))
            own = {"row": [0] * len(part), "shard": [number] * len(part), "row_in_shard": list(range(len(part)))}
            write_rows(folder, number, {**own, "task": part, **unknown}, tensors=tensors)
            if progress is not None:
                progress(sum(map(len, parts[: number + 1])), len(names))
        write_index(folder, len(parts))

    write_folder(out, fill)  # whole or not at all, so that a call that was killed can be made again
    return Zoo.open(out)


def _named(folders: Sequence[Path], known: Collection[str] = ()) -> list[tuple[str, Path]]:
    """Folders with the names of their tasks.

    Those are the folders' own, or those above: where these alone are known, or where several folders have one name, as
    ``checkpoint-500`` has.
    """
    names = [normalize("NFC", folder.absolute().name) for folder in folders]  # file systems write accents differently
    above = [normalize("NFC", folder.absolute().parent.name) for folder in folders]
    return [
        (outer if (own not in known and outer in known) or (not known and names.count(own) > 1) else own, folder)
        for own, outer, folder in zip(names, above, folders, strict=True)
    ]


def _by_task(folders: Sequence[Path], descriptions: TaskDescriptions) -> dict[str, Path]:
    """Folders by the names of their tasks, in order; raises as :func:`import_adapters`."""
    by_task: dict[str, Path] = {}
    for name, folder in _named(sorted(folders, key=lambda folder: folder.name), descriptions.by_task):
        if name in by_task:
            raise DataError(f"Two adapters are named {name!r}: {by_task[name]} and {folder}. Leave one out, or rename.")
        by_task[name] = folder
    if len(by_task) < 2:
        raise DataError(f"Adapters given: {len(by_task)}. Give two or more.")
    missing = [name for name in by_task if name not in descriptions.by_task]
    if missing:
        raise DescriptionError(
            f"The adapter in {by_task[missing[0]]} has no description of task {missing[0]!r}; adapters "
            f"without one: {len(missing)}. Describe them, or leave them out."
        )
    return by_task


def _checked_specs(by_task: Mapping[str, Path]) -> dict[str, AdapterSpec]:
    """Specs of adapters that are whole, without weights of the base model that all have; raises as ``import_adapters``.

    PEFT writes these next to factors of embeddings.
    """
    specs: dict[str, AdapterSpec] = {}
    base: dict[str, set[str]] = {}
    for name, folder in by_task.items():
        adapter = _checked(folder)
        specs[name] = adapter.spec
        for own in specs[name].saved:
            if own.endswith(".base_layer.weight"):
                base.setdefault(own, set()).add(tensors_hash({own: adapter.tensors[f"{PEFT_PREFIX}{own}"]}))
    same = {own for own, hashes in base.items() if len(hashes) == 1}
    return {
        name: replace(spec, saved={own: shape for own, shape in spec.saved.items() if own not in same})
        for name, spec in specs.items()
    }


def _checked(folder: Path) -> Adapter:
    """An adapter that is whole; raises as :func:`import_adapters`."""
    adapter = Adapter.load(folder)
    try:
        adapter.check_finite()
    except ArtifactError as error:
        raise ArtifactError(f"{folder}: {error}") from None
    spec, tensors = adapter.spec, adapter.tensors
    scaling = max((abs(entry.scaling) for entry in spec.modules.values()), default=0.0)
    for name_a, name_b in factor_pairs(tensors):
        size = scaling * float(tensors[name_a].double().norm() * tensors[name_b].double().norm())
        if size > LARGEST_UPDATE:
            raise ArtifactError(
                f"The adapter in {folder} has updates of size {size:.1g}: it has diverged. Leave it out."
            )
    if not any(tensors[b].any() and tensors[a].any() for a, b in factor_pairs(tensors)):
        raise ArtifactError(f"The adapter in {folder} changes nothing: its low-rank updates are zero. Leave it out.")
    return adapter


def import_report(zoo: Zoo) -> dict[str, dict[str, Any]]:
    """Rank, modules, lost share of energy and hash of every imported adapter, by task."""
    return dict(read_json(zoo.folder / DESCRIPTIONS)["adapters"])


def _stacked(adapters: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([entry[name].float() for entry in adapters]) for name in adapters[0]}


def _plain(description: Description) -> dict[str, Any]:
    metadata = None if description.metadata is None else dict(description.metadata)
    return {"metadata": metadata, "text": description.text}


def _card(path: Path) -> tuple[dict[str, Any], str]:
    """Scalars of a model card's front matter, and its prose without headings, code and templates' empty answers."""
    import yaml

    if not path.is_file():
        raise DescriptionError(f"{path.parent} has no model card {CARD}. Add one, or give a CSV table.")
    with disk_errors(path):
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n(.*)", text, re.DOTALL)
    front, body = (match[1], match[2]) if match else ("", text)
    try:
        fields = yaml.safe_load(front) or {}
    except yaml.YAMLError as error:
        raise DescriptionError(f"The front matter of {path} is no YAML ({error}). Correct it.") from None
    if not isinstance(fields, dict):
        raise DescriptionError(f"The front matter of {path} is no mapping. Correct it.")
    metadata = {
        str(key): value
        for key, value in fields.items()
        if key not in CARD_FIELDS and isinstance(value, int | float | str) and not isinstance(value, bool)
    }
    body = re.sub(r"<!--.*?-->|```.*?```", "", body, flags=re.DOTALL)
    lines = [line.strip() for line in body.splitlines()]
    prose = " ".join(line for line in lines if line and line[0] not in "#|" and "[More Information Needed]" not in line)
    return metadata, prose[:LONGEST_TEXT].strip()
