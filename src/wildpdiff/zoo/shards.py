"""The files of a zoo: sharded safetensors with their rows and hashes, the joined index, the shared initialisation."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wildpdiff.artifact import safetensors_bytes
from wildpdiff.disk import content_hash, disk_errors, file_hash, read_json, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.zoo.finetune import FinetuneRun
from wildpdiff.zoo.hashes import hashes_of, read_hashed, with_hashes
from wildpdiff.zoo.plan import PLAN, ZooPlan

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


def shard_path(folder: Path, number: int, suffix: str = "safetensors") -> Path:
    """Where a shard lies."""
    return folder / "shards" / f"shard-{number:05d}.{suffix}"


def _parquet_bytes(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def write_shard(folder: Path, number: int, run: FinetuneRun, seed: int) -> None:
    """Write the checkpoints of one group of tasks: first its index rows, then the tensors, which mark it as done.

    The rows hold the hash of the tensors, and of the plan and the initialisation that lie in the folder.
    """
    tasks, checkpoints = len(run.names), len(run.steps)
    rows: dict[str, list[Any]] = {
        "row": [0] * (tasks * checkpoints),
        "shard": [number] * (tasks * checkpoints),
        "row_in_shard": list(range(tasks * checkpoints)),
        "task": [name for name in run.names for _ in run.steps],
        "step": [step for _ in run.names for step in run.steps],
        "seed": [seed] * (tasks * checkpoints),
        "train_loss": run.train_loss.flatten().tolist(),
        "validation_accuracy": run.validation_accuracy.flatten().tolist(),
    }
    write_rows(folder, number, rows, {name: value.flatten(0, 1) for name, value in run.tensors.items()})


def write_rows(folder: Path, number: int, rows: Mapping[str, Sequence[Any]], tensors: Mapping[str, Tensor]) -> None:
    """Write a shard's index rows, then its tensors, stacked in the order of the rows; unknown values are None."""
    data = safetensors_bytes(tensors)
    hashes = {**_shared_hashes(folder), "number": number, "tensors": content_hash(data)}
    table = with_hashes(pa.table(dict(rows), schema=COLUMNS), hashes)
    rows_path = shard_path(folder, number, "parquet")
    write_file(rows_path, _parquet_bytes(table))
    try:
        write_file(shard_path(folder, number), data)
    except ArtifactError:  # rows without their tensors would be half a shard
        rows_path.unlink(missing_ok=True)
        raise


def _shared_hashes(folder: Path) -> dict[str, Any]:
    """What all shards of a zoo have in common: its plan and its initialisation."""
    plan = ZooPlan.from_json(read_json(folder / PLAN, finite=True), folder / PLAN)
    return {"plan": plan.fingerprint, "initial": file_hash(folder / INITIAL)}


def _joined_index(folder: Path, shards: int) -> pa.Table:
    """The shards' rows as one index, with the hashes of all shards."""
    tables = [read_hashed(shard_path(folder, number, "parquet")) for number in range(shards)]
    table = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    table = table.set_column(0, "row", pa.array(range(len(table)), pa.int64()))
    shared = _shared_hashes(folder)
    return with_hashes(table, {**shared, "shards": [(hashes_of(part) or {}).get("tensors") for part in tables]})


def write_index(folder: Path, shards: int) -> None:
    """Join the shards' rows to one index."""
    write_file(folder / INDEX, _parquet_bytes(_joined_index(folder, shards)))


def shard_hashes(folder: Path, number: int) -> dict[str, Any] | None:
    """The hashes in the rows of a shard; None where they are missing, broken, or of an earlier version."""
    try:
        return hashes_of(read_hashed(shard_path(folder, number, "parquet")))
    except ArtifactError:
        return None


def whole_shard(folder: Path, number: int) -> bool:
    """Whether a shard is there as it was written, so that a build that goes on need not make it again."""
    path, hashes = shard_path(folder, number), shard_hashes(folder, number)
    if hashes is None or not path.is_file():
        return False
    return hashes == {**_shared_hashes(folder), "number": number, "tensors": file_hash(path)}


def whole_index(folder: Path, shards: int) -> bool:
    """Whether the index is there and is that of the shards."""
    try:
        return bool(read_hashed(folder / INDEX).equals(_joined_index(folder, shards), check_metadata=True))
    except ArtifactError:
        return False


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
    """Some rows of a shard, by memory map: only the pages that are asked for are read."""
    try:
        with disk_errors(path), _opened(path) as handle:
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


def check_belonging(folder: Path, plan: ZooPlan, index: pa.Table) -> None:
    """Refuse a finished zoo whose files are not those that were built together."""
    advice = "Run the `wildpdiff zoo build` that made the zoo again: it makes what is broken anew."
    if index.schema.names != COLUMNS.names or not len(index):
        raise ArtifactError(f"{folder / INDEX} is no index of a zoo. {advice}")
    names = list(dict.fromkeys(index.column("task").to_pylist()))
    if names != list(plan.tasks) or set(index.column("seed").to_pylist()) - {None} not in ({plan.seed}, set()):
        raise ArtifactError(
            f"{folder / PLAN} and {INDEX} beside it do not belong together: their tasks or seeds differ. One of them "
            f"was altered or copied from elsewhere. {advice}"
        )
    hashes = hashes_of(index)
    if hashes is None:
        return
    if hashes.get("plan") != plan.fingerprint:
        raise ArtifactError(
            f"{folder / PLAN} is altered: the zoo was built by another plan, its hash differs. Copy the zoo again, or "
            "build it anew."
        )
    files = [folder / INITIAL, *(shard_path(folder, number) for number in range(len(plan.shards)))]
    stated = [hashes.get("initial"), *(hashes.get("shards") or ())]
    if len(stated) != len(files):
        raise ArtifactError(f"{folder / INDEX} names {len(stated) - 1} shards of {len(plan.shards)}. {advice}")
    for path, wanted in zip(files, stated, strict=True):
        if not path.is_file() or file_hash(path) != wanted:
            read_rows(path, [])  # says where it is missing or truncated
            raise ArtifactError(f"{path} is altered: its hash differs from the one in {INDEX}. {advice}")
