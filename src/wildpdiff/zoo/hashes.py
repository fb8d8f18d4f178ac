"""Hashes of a zoo's files, kept in the metadata of its parquet files: which files are whole and belong together.

A shard's rows name the plan, the shared initialisation, the shard's number and the SHA-256 of its tensors; the index
names those of all shards. Both hold the hash of their own rows. Zoos of versions before these hashes have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from wildpdiff.disk import content_hash, disk_errors, json_bytes
from wildpdiff.errors import ArtifactError

KEY = b"wildpdiff"


def _rows_hash(table: pa.Table) -> str:
    return content_hash(repr(table.to_pydict()).encode())


def with_hashes(table: pa.Table, hashes: Mapping[str, Any]) -> pa.Table:
    """The same rows with hashes in their metadata, that of the rows themselves among them."""
    return table.replace_schema_metadata({KEY: json_bytes({**hashes, "rows": _rows_hash(table)})})


def hashes_of(table: pa.Table) -> dict[str, Any] | None:
    """The hashes that came with the rows; None where there are none, as in zoos of earlier versions."""
    metadata = table.schema.metadata or {}
    if KEY not in metadata:
        return None
    hashes = json.loads(metadata[KEY])
    return {key: value for key, value in hashes.items() if key != "rows"}


def read_hashed(path: Path) -> pa.Table:
    """Read a parquet file and check its rows.

    Raises:
        ArtifactError: missing, truncated, or its rows are not those that were written.
    """
    try:
        with disk_errors(path):
            data = path.read_bytes()  # arrow opens no path whose bytes are not UTF-8
        table = parquet.read_table(pa.BufferReader(data))
        metadata = table.schema.metadata or {}
        stated = json.loads(metadata[KEY]) if KEY in metadata else {"rows": None}
        altered = KEY in metadata and stated["rows"] != _rows_hash(table)
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is not a whole parquet file ({error}). Run the `wildpdiff zoo build` that made the zoo again: "
            "it makes this file anew."
        ) from error
    if altered:
        raise ArtifactError(
            f"{path} is altered: the hash of its rows differs. Run the `wildpdiff zoo build` that made the zoo again: "
            "it makes this file anew."
        )
    return table
