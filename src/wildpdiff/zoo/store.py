"""The zoo on disk: sharded safetensors, a parquet index, read by memory map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import read_safetensors
from wildpdiff.disk import read_json
from wildpdiff.errors import ArtifactError
from wildpdiff.zoo.hashes import hashes_of, read_hashed
from wildpdiff.zoo.plan import PLAN, ZooPlan
from wildpdiff.zoo.shards import (
    INDEX,
    INITIAL,
    check_belonging,
    read_rows,
    shard_path,
)


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
        """Open a zoo and check every file of it once.

        Raises:
            ArtifactError: missing, unfinished, truncated or altered (a hash differs), or files of several zoos.
            SchemaVersionError: written by a newer version of the package.
        """
        folder = Path(folder)
        if not (folder / PLAN).is_file():
            raise ArtifactError(f"{folder} holds no zoo: {PLAN} is missing. Build one with `wildpdiff zoo build`.")
        plan = ZooPlan.from_json(read_json(folder / PLAN, finite=True), folder / PLAN)
        if not (folder / INDEX).is_file():
            raise ArtifactError(f"The zoo in {folder} is unfinished. Run `wildpdiff zoo build` again to go on.")
        index = read_hashed(folder / INDEX)
        check_belonging(folder, plan, index)
        return cls(folder, plan, index)

    @property
    def hashed(self) -> bool:
        """Whether its files were checked by their hashes; zoos of earlier versions have none."""
        return hashes_of(self.index) is not None

    @property
    def imported(self) -> bool:
        """Whether its adapters were made elsewhere (:mod:`wildpdiff.zoo.importing`)."""
        return bool(self.plan.finetune.get("origin") == "imported")

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
        """The same zoo reduced to some of its tasks, for example to hold others out. Nothing is copied."""
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
            ArtifactError: no task is left.
        """
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
