"""The zoo on disk: sharded safetensors, a parquet index, read by memory map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wildpdiff.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import (
    SCHEMA_VERSION,
    content_hash,
    disk_errors,
    json_bytes,
    read_json,
    read_safetensors,
    safetensors_bytes,
    write_file,
)
from wildpdiff.errors import ArtifactError, SchemaVersionError
from wildpdiff.zoo.finetune import FinetuneRun

__all__ = ["Zoo", "ZooPlan", "read_rows", "shard_path", "whole_index", "whole_shard", "write_index", "write_shard"]

PLAN = "plan.json"
INDEX = "index.parquet"
INITIAL = "initial.safetensors"
STRUCTURED = "structured"
"""Key of the plan's fine-tuning under which a structured zoo has its basis."""
COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("shard", pa.int32()),
        ("row_in_shard", pa.int32()),
        ("task", pa.string()),
        ("step", pa.int32()),
        ("seed", pa.int64()),
        ("train_loss", pa.float32()),
        ("validation_accuracy", pa.float32()),
    ]
)


@dataclass(frozen=True)
class ZooPlan:
    """Everything that decides a zoo's bytes.

    Attributes:
        adapter: where the adapters attach; names the backbone and its weights.
        suite: fingerprint of the suite.
        tasks: task names in order.
        per_shard: tasks a shard (they are fine-tuned together).
        finetune: the fine-tuning's configuration as JSON values.
        seed: the zoo's seed.
        recipe: how ``finetune`` was chosen, see :meth:`wildpdiff.zoo.recipe.ChosenRecipe.to_json`; None where it was
            given.
    """

    adapter: AdapterConfig
    suite: str
    tasks: tuple[str, ...]
    per_shard: int
    finetune: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any] | None = None

    @property
    def joint(self) -> bool:
        """Whether the tasks were fine-tuned in one shared basis, so that none can be held out afterwards."""
        return STRUCTURED in self.finetune

    @property
    def shards(self) -> tuple[tuple[str, ...], ...]:
        """The tasks of each shard."""
        return tuple(self.tasks[i : i + self.per_shard] for i in range(0, len(self.tasks), self.per_shard))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "zoo",
            "adapter": self.adapter.to_json(),
            "suite": self.suite,
            "tasks": list(self.tasks),
            "per_shard": self.per_shard,
            "finetune": dict(self.finetune),
            "seed": self.seed,
            **({} if self.recipe is None else {"recipe": dict(self.recipe)}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> ZooPlan:
        """The inverse of :meth:`to_json`; ``path`` is named in errors."""
        if not isinstance(data, dict) or data.get("kind") != "zoo":
            raise ArtifactError(f"{path} is not the plan of a zoo. Check the path.")
        if data["schema_version"] > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{path} has schema version {data['schema_version']}; this package reads up to {SCHEMA_VERSION}. "
                "Update wildpdiff, or build the zoo again."
            )
        return cls(
            AdapterConfig.from_json(data["adapter"]),
            data["suite"],
            tuple(data["tasks"]),
            data["per_shard"],
            data["finetune"],
            data["seed"],
            data.get("recipe"),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan."""
        return content_hash(json_bytes(self.to_json()))


def shard_path(folder: Path, number: int, suffix: str = "safetensors") -> Path:
    """Where a shard lies."""
    return folder / "shards" / f"shard-{number:05d}.{suffix}"


def _parquet_bytes(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def write_shard(folder: Path, number: int, run: FinetuneRun, seed: int) -> None:
    """Write the checkpoints of one group of tasks: first its index rows, then the tensors, which mark it as done."""
    tasks, checkpoints = len(run.names), len(run.steps)
    rows = {
        "row": [0] * (tasks * checkpoints),
        "shard": [number] * (tasks * checkpoints),
        "row_in_shard": list(range(tasks * checkpoints)),
        "task": [name for name in run.names for _ in run.steps],
        "step": [step for _ in run.names for step in run.steps],
        "seed": [seed] * (tasks * checkpoints),
        "train_loss": run.train_loss.flatten().tolist(),
        "validation_accuracy": run.validation_accuracy.flatten().tolist(),
    }
    write_file(shard_path(folder, number, "parquet"), _parquet_bytes(pa.table(rows, schema=COLUMNS)))
    stacked = {name: value.flatten(0, 1) for name, value in run.tensors.items()}
    write_file(shard_path(folder, number), safetensors_bytes(stacked))


def write_index(folder: Path, shards: int) -> None:
    """Join the shards' rows to one index."""
    tables = []
    for number in range(shards):
        path = shard_path(folder, number, "parquet")
        with disk_errors(path):
            tables.append(parquet.read_table(path))
    table = pa.concat_tables(tables)
    table = table.set_column(0, "row", pa.array(range(len(table)), pa.int64()))
    write_file(folder / INDEX, _parquet_bytes(table))


def whole_shard(folder: Path, number: int) -> bool:
    """Whether a shard is there and complete, so that a build that goes on need not make it again."""
    path, rows = shard_path(folder, number), shard_path(folder, number, "parquet")
    if not path.is_file() or not rows.is_file():
        return False
    try:
        with disk_errors(path), safe_open(path, framework="pt"):  # compares the header's lengths with the file's
            parquet.read_metadata(rows)
    except (SafetensorError, pa.ArrowInvalid):
        return False
    return True


def whole_index(folder: Path) -> bool:
    """Whether the index is there and complete."""
    try:
        parquet.read_metadata(folder / INDEX)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


def read_rows(path: Path, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a shard, by memory map: only the pages that are asked for are read."""
    try:
        with disk_errors(path), safe_open(path, framework="pt") as handle:
            if not rows:
                return {}
            low, high = min(rows), max(rows) + 1
            picks = torch.tensor([row - low for row in rows])
            return {name: handle.get_slice(name)[low:high][picks] for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArtifactError(
            f"{path} is not a whole safetensors file ({error}). Run the `wildpdiff zoo build` that made the zoo again: "
            "it makes this shard anew."
        ) from error


@dataclass(frozen=True)
class Zoo:
    """A finished zoo, read from disk.

    Attributes:
        folder: where it lies.
        plan: what decided it.
        index: one row a checkpoint (see the columns of ``index.parquet``).
    """

    folder: Path
    plan: ZooPlan
    index: pa.Table

    @classmethod
    def open(cls, folder: Path | str) -> Zoo:
        """Open a zoo; raises :class:`ArtifactError` where it is missing or unfinished."""
        folder = Path(folder)
        if not (folder / PLAN).is_file():
            raise ArtifactError(f"{folder} holds no zoo: {PLAN} is missing. Build one with `wildpdiff zoo build`.")
        plan = ZooPlan.from_json(read_json(folder / PLAN), folder / PLAN)
        if not (folder / INDEX).is_file():
            raise ArtifactError(f"The zoo in {folder} is unfinished. Run `wildpdiff zoo build` again to go on.")
        try:
            index = parquet.read_table(folder / INDEX)
        except pa.ArrowInvalid as error:
            raise ArtifactError(
                f"{folder / INDEX} is not a whole parquet file ({error}). Run the `wildpdiff zoo build` that "
                "made the zoo again: it joins the index anew."
            ) from error
        return cls(folder, plan, index)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in order."""
        return self.plan.tasks

    @property
    def initial(self) -> Adapter:
        """The shared initialisation; equals the pretrained model in effect."""
        tensors = read_safetensors(self.folder / INITIAL)
        return Adapter(tensors, self.plan.adapter, {"source": "pretrained"})

    def column(self, name: str) -> list[Any]:
        """One column of the index."""
        return list(self.index.column(name).to_pylist())

    def tensors(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Adapter tensors of some rows of the index, stacked on a leading axis, in the order asked for."""
        shards, within = self.column("shard"), self.column("row_in_shard")
        by_shard: dict[int, list[int]] = {}
        for position, row in enumerate(rows):
            by_shard.setdefault(shards[row], []).append(position)
        result: dict[str, Tensor] = {}
        for shard, positions in by_shard.items():
            part = read_rows(shard_path(self.folder, shard), [within[rows[position]] for position in positions])
            for name, value in part.items():
                if name not in result:
                    result[name] = torch.empty(len(rows), *value.shape[1:])
                result[name][torch.tensor(positions)] = value
        return result

    def only(self, tasks: Sequence[str]) -> Zoo:
        """The same zoo reduced to some of its tasks, for example to hold others out. Nothing is copied.

        In a structured zoo (``plan.joint``) the others still had a part in the basis: it holds nobody out.
        """
        unknown = sorted(set(tasks) - set(self.tasks))
        if unknown or not tasks:
            raise ArtifactError(f"The zoo in {self.folder} has no task {unknown[0] if unknown else '(none named)'!r}.")
        keep = set(tasks)
        index = self.index.filter(pa.array([name in keep for name in self.column("task")]))
        kept = tuple(name for name in self.tasks if name in keep)
        return Zoo(self.folder, replace(self.plan, tasks=kept), index)

    def without(self, tasks: Sequence[str]) -> Zoo:
        """The zoo of all other tasks, to hold these out. Nothing is copied.

        Raises:
            ArtifactError: no task is left, or the zoo is a joint one, whose basis every task had a part in.
        """
        if self.plan.joint:
            raise ArtifactError(
                f"The tasks of the zoo in {self.folder} were fine-tuned in one shared basis, so none of them can be "
                "held out afterwards. Build a zoo without them, or an independent one."
            )
        held = set(tasks)
        return self.only([name for name in self.tasks if name not in held])

    def last(self, checkpoints: int) -> Zoo:
        """The same zoo reduced to the last checkpoints of each run, as if no more had been kept. Nothing is copied.

        Raises:
            ArtifactError: none are asked for, or more than there are.
        """
        kept = int(self.plan.finetune["checkpoints"])
        if not 1 <= checkpoints <= kept:
            raise ArtifactError(
                f"{checkpoints} checkpoints a task were asked for; the zoo in {self.folder} has {kept}. "
                f"Ask for 1 to {kept}, or build a zoo with more."
            )
        finetune = {**self.plan.finetune, "checkpoints": checkpoints}
        names = self.column("task")
        rows = [row for row, name in enumerate(names) if names[row + checkpoints : row + checkpoints + 1] != [name]]
        return Zoo(self.folder, replace(self.plan, finetune=finetune), self.index.take(rows))

    def rows_of(self, task: str) -> list[int]:
        """The rows of one task, in order of steps."""
        return [row for row, name in enumerate(self.column("task")) if name == task]

    def task_adapters(self) -> dict[str, Adapter]:
        """For each task its fine-tuned adapter: the mean of all kept checkpoints of its run, a point less noisy than
        any of them. Generator, baselines, trust and reference all mean this one."""
        result = {}
        for task, rows in self._rows_by_task().items():
            tensors = {name: value.mean(0) for name, value in self.tensors(rows).items()}
            provenance = {"source": "fine-tuned", "task": task, "seed": self.plan.seed, "zoo": self.plan.fingerprint}
            result[task] = Adapter(tensors, self.plan.adapter, provenance)
        return result

    def _rows_by_task(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {task: [] for task in self.tasks}
        for row, task in enumerate(self.column("task")):
            rows[task].append(row)
        return rows
