"""The zoo on disk: its plan, sharded safetensors with index rows in parquet, the joined index, the shared start.

Hashes in the parquet files' metadata prove that files are whole and belong together: those of a shard hold the hashes
of the plan, of the shared initialisation, of the shard's tensors and of its tasks' data, those of the index the hashes
of all shards, both the hash of their own rows. Zoos of earlier versions have none. A zoo grows by further shards: each
keeps the hash of the plan that it was built by, which the plan of the grown zoo extends.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import SCHEMA_VERSION, read_safetensors, safetensors_bytes
from wildpdiff.disk import content_hash, disk_errors, file_hash, json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.records import check_version, decode, encode
from wildpdiff.zoo.finetune import FinetuneRun

PLAN = "plan.json"
INDEX = "index.parquet"
INITIAL = "initial.safetensors"
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
KEY = b"wildpdiff"
"""Of the hashes in a parquet file's metadata."""

ADVICE = "Run the `wildpdiff zoo build` that made the zoo again: it makes what is broken anew."


@dataclass(frozen=True)
class EarlierPlan:
    """A plan that a later one extends.

    Attributes:
        tasks: number of its tasks, the first ones of the later plan.
        suite: fingerprint of the suite, which changes when tasks are added to it.
    """

    tasks: int
    suite: str


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
        earlier: the plans that this one extends, the oldest first.
    """

    adapter: AdapterConfig
    suite: str
    tasks: tuple[str, ...]
    per_shard: int
    finetune: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any] | None = None
    earlier: tuple[EarlierPlan, ...] = ()

    @property
    def shards(self) -> tuple[tuple[str, ...], ...]:
        """The tasks of each shard; no shard has tasks of two plans."""
        ends = [*(entry.tasks for entry in self.earlier), len(self.tasks)]
        return tuple(
            self.tasks[start : min(start + self.per_shard, end)]
            for first, end in pairwise([0, *ends])
            for start in range(first, end, self.per_shard)
        )

    @property
    def history(self) -> tuple[ZooPlan, ...]:
        """The plans that this one extends, the oldest first, and itself."""
        earlier = (
            replace(self, tasks=self.tasks[: entry.tasks], suite=entry.suite, earlier=self.earlier[:number])
            for number, entry in enumerate(self.earlier)
        )
        return (*earlier, self)

    def of_shard(self, number: int) -> ZooPlan:
        """The plan that a shard is built by: the oldest that has it."""
        return next(plan for plan in self.history if number < len(plan.shards))

    def extended(self, tasks: Sequence[str], suite: str) -> ZooPlan:
        """The plan of the same zoo with further tasks."""
        earlier = (*self.earlier, EarlierPlan(len(self.tasks), self.suite))
        return replace(self, tasks=(*self.tasks, *tasks), suite=suite, earlier=earlier)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        values = {"schema_version": SCHEMA_VERSION, "kind": "zoo", **encode(self), "adapter": self.adapter.to_json()}
        return {key: value for key, value in values.items() if key not in ("recipe", "earlier") or value}

    @classmethod
    def read(cls, folder: Path) -> ZooPlan:
        """The plan of the zoo in a folder.

        Raises:
            ArtifactError: missing, damaged, or of something else.
            SchemaVersionError: written by a newer version of the package.
        """
        path = folder / PLAN
        data = read_json(path, finite=True)
        if not isinstance(data, dict) or data.get("kind") != "zoo":
            raise ArtifactError(f"{path} is not the plan of a zoo. Check the path.")
        check_version(data.get("schema_version"), SCHEMA_VERSION, path)
        values, kinds = {"recipe": None, "earlier": [], **data}, get_type_hints(cls)
        adapter = AdapterConfig.from_json(data.get("adapter"), path)
        rest = {key: decode(kinds[key], values.get(key), f"{path}: {key}") for key in kinds if key != "adapter"}
        plan = cls(adapter=adapter, **rest)
        sizes = [*(entry.tasks for entry in plan.earlier), len(plan.tasks)]
        if min(plan.per_shard, sizes[0]) < 1 or plan.seed < 0 or sizes != sorted(sizes):
            raise ArtifactError(f"{path} is not a whole plan of a zoo: a number is out of range. Build it again.")
        if "structured" in plan.finetune:
            raise ArtifactError(
                f"{path}: the tasks were fine-tuned in one shared basis, which this version does not have. Build the "
                "zoo again without --structured."
            )
        return plan

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan."""
        return content_hash(json_bytes(self.to_json()))


# Tables with hashes ------------------------------------------------------------------------------------------------


def _rows_hash(table: pa.Table) -> str:
    return content_hash(repr(table.to_pydict()).encode())


def _hashes(table: pa.Table) -> dict[str, Any] | None:
    """The hashes in a table's metadata; None where there are none, as in zoos of earlier versions."""
    metadata = table.schema.metadata or {}
    return json.loads(metadata[KEY]) if KEY in metadata else None


def _table_bytes(table: pa.Table, hashes: Mapping[str, Any]) -> bytes:
    """A parquet file of a table, with hashes, and that of its rows, in the metadata."""
    stream = io.BytesIO()
    parquet.write_table(_with_hashes(table, hashes), stream, compression="zstd")
    return stream.getvalue()


def _with_hashes(table: pa.Table, hashes: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({KEY: json_bytes({**hashes, "rows": _rows_hash(table)})})


def _read_table(path: Path) -> pa.Table:
    """A parquet file, its rows checked; raises :class:`ArtifactError` where it is missing, truncated or altered."""
    try:
        with disk_errors(path):
            data = path.read_bytes()  # arrow opens no path whose bytes are not UTF-8
        table = parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)  # threads abort a process that ends
        hashes = _hashes(table)
        altered = hashes is not None and hashes["rows"] != _rows_hash(table)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a whole parquet file ({error}). {ADVICE}") from error
    if altered:
        raise ArtifactError(f"{path} is altered: the hash of its rows differs. {ADVICE}")
    return table


# Shards and index --------------------------------------------------------------------------------------------------


def shard_path(folder: Path, number: int, suffix: str = "safetensors") -> Path:
    """The file of a shard's tensors, or with the suffix ``parquet`` of its index rows."""
    return folder / "shards" / f"shard-{number:05d}.{suffix}"


def write_shard(folder: Path, number: int, run: FinetuneRun, seed: int) -> None:
    """Write the checkpoints of one group of tasks: first its index rows, then the tensors, which mark it as done."""
    tasks, checkpoints = len(run.names), len(run.steps)
    rows: dict[str, list[Any]] = {
        "row": [0] * (tasks * checkpoints),
        "shard": [number] * (tasks * checkpoints),
        "row_in_shard": list(range(tasks * checkpoints)),
        "task": [name for name in run.names for _ in run.steps],
        "step": [step for _ in run.names for step in run.steps],
        "seed": [seed] * (tasks * checkpoints),
        "train_loss": run.train_loss.flatten().tolist(),
        "validation_accuracy": run.validation_score.flatten().tolist(),
    }
    write_rows(
        folder,
        number,
        rows,
        tensors={name: value.flatten(0, 1) for name, value in run.tensors.items()},
        data_hashes=run.data,
    )


def write_rows(
    folder: Path,
    number: int,
    rows: Mapping[str, Sequence[Any]],
    *,
    tensors: Mapping[str, Tensor],
    data_hashes: Mapping[str, str] | None = None,
) -> None:
    """Write a shard's index rows, then its tensors, stacked in the order of the rows; unknown values are None.

    ``data_hashes`` are those of the tasks' data, by task.
    """
    data = safetensors_bytes(tensors)
    hashes = {**_shared_hashes(folder, number), "number": number, "tensors": content_hash(data)}
    if data_hashes:
        hashes["data"] = dict(data_hashes)
    rows_path = shard_path(folder, number, "parquet")
    write_file(rows_path, _table_bytes(pa.table(dict(rows), schema=COLUMNS), hashes))
    try:
        write_file(shard_path(folder, number), data)
    except ArtifactError:  # rows without their tensors would be half a shard
        rows_path.unlink(missing_ok=True)
        raise


def _shared_hashes(folder: Path, number: int | None = None) -> dict[str, Any]:
    """Hashes of the plan, or of the one that a shard is built by, and of the shared initialisation."""
    plan = ZooPlan.read(folder)
    plan = plan if number is None else plan.of_shard(number)
    return {"plan": plan.fingerprint, "initial": file_hash(folder / INITIAL)}


def shard_hashes(folder: Path, number: int) -> dict[str, Any] | None:
    """The hashes in a shard's index rows; None where the rows are missing, damaged, or of an earlier version."""
    try:
        return _hashes(_read_table(shard_path(folder, number, "parquet")))
    except ArtifactError:
        return None


def whole_shard(folder: Path, number: int) -> bool:
    """Whether a shard is as it was written, so that a build that resumes need not make it again."""
    path, hashes = shard_path(folder, number), shard_hashes(folder, number)
    if hashes is None or not path.is_file():
        return False
    wanted = {**_shared_hashes(folder, number), "number": number, "tensors": file_hash(path)}
    return wanted == {key: value for key, value in hashes.items() if key not in ("rows", "data")}


def write_index(folder: Path, shards: int) -> None:
    """Join the shards' rows to one index, unless it is there and theirs."""
    tables = [_read_table(shard_path(folder, number, "parquet")) for number in range(shards)]
    table = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    table = table.set_column(0, "row", pa.array(range(len(table)), pa.int64()))
    hashes = {**_shared_hashes(folder), "shards": [(_hashes(part) or {}).get("tensors") for part in tables]}
    try:
        whole = _read_table(folder / INDEX).equals(_with_hashes(table, hashes), check_metadata=True)
    except ArtifactError:
        whole = False
    if not whole:
        write_file(folder / INDEX, _table_bytes(table, hashes))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file as a memory map; safetensors opens no path whose bytes are not UTF-8, and is given a link."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "shard.safetensors"
            link.symlink_to(path.absolute())
            with safe_open(link, framework="pt") as handle:
                yield handle
        return
    with safe_open(path, framework="pt") as handle:
        yield handle


def read_rows(path: Path, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a shard, by memory map: no other pages are read."""
    try:
        with disk_errors(path), _opened(path) as handle:
            if not rows:
                return {}
            low, high = min(rows), max(rows) + 1
            picks = torch.tensor([row - low for row in rows])
            return {name: handle.get_slice(name)[low:high][picks] for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArtifactError(f"{path} is not a whole safetensors file ({error}). {ADVICE}") from error


def _check_consistency(folder: Path, plan: ZooPlan, index: pa.Table) -> None:
    """Refuse a finished zoo whose files are not those that were built together."""
    if index.schema.names != COLUMNS.names or not len(index):
        raise ArtifactError(f"{folder / INDEX} is no index of a zoo. {ADVICE}")
    hashes = _hashes(index)
    if hashes is not None and hashes.get("plan") in {earlier.fingerprint for earlier in plan.history[:-1]}:
        raise ArtifactError(f"Tasks are being added to the zoo in {folder}. Run `wildpdiff zoo build` again.")
    names = list(dict.fromkeys(index.column("task").to_pylist()))
    if names != list(plan.tasks) or set(index.column("seed").to_pylist()) - {None} not in ({plan.seed}, set()):
        raise ArtifactError(
            f"{folder / PLAN} and {INDEX} beside it do not belong together: their tasks or seeds differ. One of them "
            f"was altered or copied from elsewhere. {ADVICE}"
        )
    if hashes is None:
        return
    if hashes.get("plan") != plan.fingerprint:
        raise ArtifactError(f"{folder / PLAN} is altered: the zoo was built by another plan. Copy the zoo again.")
    files = [folder / INITIAL, *(shard_path(folder, number) for number in range(len(plan.shards)))]
    stated = [hashes.get("initial"), *(hashes.get("shards") or ())]
    if len(stated) != len(files):
        raise ArtifactError(f"{folder / INDEX} names {len(stated) - 1} shards of {len(plan.shards)}. {ADVICE}")
    for path, wanted in zip(files, stated, strict=True):
        if not path.is_file() or file_hash(path) != wanted:
            read_rows(path, [])  # refuses it where it is missing or truncated
            raise ArtifactError(f"{path} is altered: its hash differs from the one in {INDEX}. {ADVICE}")


@dataclass(frozen=True)
class Zoo:
    """A finished zoo, read from disk.

    Attributes:
        folder: on disk.
        plan: everything that decided its bytes.
        index: one row a checkpoint, see :data:`COLUMNS`.
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
        plan = ZooPlan.read(folder)
        if not (folder / INDEX).is_file():
            raise ArtifactError(f"The zoo in {folder} is unfinished. Run `wildpdiff zoo build` again to finish it.")
        index = _read_table(folder / INDEX)
        _check_consistency(folder, plan, index)
        return cls(folder, plan, index)

    @property
    def hashed(self) -> bool:
        """Whether its files were checked by their hashes; zoos of earlier versions have none."""
        return _hashes(self.index) is not None

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
        return Adapter(read_safetensors(self.folder / INITIAL), self.plan.adapter, {"source": "pretrained"})

    def column(self, name: str) -> list[Any]:
        """One column of the index."""
        return list(self.index.column(name).to_pylist())

    def tensors(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Adapter tensors of some rows of the index, stacked on a leading axis in the order of ``rows``."""
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
        return Zoo(self.folder, replace(self.plan, tasks=kept, earlier=()), index)

    def with_first(self, tasks: Sequence[str]) -> Zoo:
        """The same zoo with some of its tasks before the others. Nothing is copied."""
        order = (*self.only(tasks).tasks, *(name for name in self.tasks if name not in set(tasks)))
        rows = self._rows_by_task()
        index = self.index.take([row for name in order for row in rows[name]])
        return Zoo(self.folder, replace(self.plan, tasks=order, earlier=()), index)

    def without(self, tasks: Sequence[str]) -> Zoo:
        """The zoo of all other tasks, to hold these out; raises :class:`ArtifactError` where none is left."""
        held = set(tasks)
        return self.only([name for name in self.tasks if name not in held])

    def last(self, checkpoints: int) -> Zoo:
        """The same zoo reduced to the last checkpoints of each run, as if no more had been kept. Nothing is copied.

        Raises:
            ArtifactError: fewer than one, or more than there are.
        """
        kept = int(self.plan.finetune["checkpoints"])
        if not 1 <= checkpoints <= kept:
            raise ArtifactError(
                f"{checkpoints} checkpoints a task are wanted; the zoo in {self.folder} has {kept}. Give 1 to {kept}, "
                "or build a zoo with more."
            )
        finetune = {**self.plan.finetune, "checkpoints": checkpoints}
        names = self.column("task")
        rows = [row for row, name in enumerate(names) if names[row + checkpoints : row + checkpoints + 1] != [name]]
        return Zoo(self.folder, replace(self.plan, finetune=finetune), self.index.take(rows))

    def rows_of(self, task: str) -> list[int]:
        """The rows of one task, in order of steps."""
        return self._rows_by_task()[task]

    def task_adapters(self) -> dict[str, Adapter]:
        """Each task's fine-tuned adapter: the mean of all kept checkpoints of its run, a point less noisy than any of
        them. Generator, baselines, trust and reference all mean this one."""
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
