"""Batches: named tensors whose first axis numbers the examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildpdiff.errors import DataError

Batch = Mapping[str, Tensor]
"""Named tensors ``[n, …]`` with one common first axis."""


def batch_size(batch: Batch) -> int:
    """The number of examples.

    Raises:
        DataError: there is no tensor, or the tensors have different numbers of rows.
    """
    sizes = {name: value.shape[0] if value.ndim else None for name, value in batch.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise DataError(f"A batch needs tensors of one common first axis; found {sizes or 'no tensor'}.")
    return next(size for size in sizes.values() if size is not None)


def count(examples: Any) -> int:
    """The number of examples: of a sequence, an array, or named arrays."""
    return len(next(iter(examples.values()), ())) if isinstance(examples, Mapping) else len(examples)


def part(examples: Any, rows: slice) -> Any:
    """Consecutive examples of a sequence, an array, or named arrays."""
    if isinstance(examples, Mapping):
        return {name: values[rows] for name, values in examples.items()}
    return examples[rows]


def chosen(examples: Any, rows: Sequence[int]) -> Any:
    """Examples of a sequence, an array, or named arrays by their indices."""
    if isinstance(examples, Mapping):
        return {name: chosen(values, rows) for name, values in examples.items()}
    return examples[list(rows)] if isinstance(examples, np.ndarray | Tensor) else [examples[row] for row in rows]


def joined(first: Any, second: Any) -> Any:
    """Examples of one kind after others: sequences, arrays, or named arrays."""
    if isinstance(first, Mapping):
        return {name: joined(values, second[name]) for name, values in first.items()}
    if isinstance(first, np.ndarray | Tensor):
        return np.concatenate([np.asarray(first), np.asarray(second)])
    return [*first, *second]


def example_keys(examples: Any) -> tuple[bytes, ...]:
    """One key an example, equal for equal examples; none of None."""
    if examples is None:
        return ()
    rows = ({name: values[row] for name, values in examples.items()} if isinstance(examples, Mapping) else examples[row]
            for row in range(count(examples)))  # fmt: skip
    return tuple(hashlib.blake2b(_bytes(row), digest_size=16).digest() for row in rows)


def _bytes(example: Any) -> bytes:
    if isinstance(example, Mapping):
        return b"".join(name.encode() + b"\0" + _bytes(value) for name, value in sorted(example.items()))
    if isinstance(example, str):
        return example.encode(errors="surrogatepass")
    try:
        values = np.asarray(example)
    except ValueError as error:
        raise DataError(f"An example is no tensor of one shape ({error}). Pad it.") from None
    if values.dtype.hasobject:  # of which the bytes are addresses
        raise DataError(f"An example or target is {example!r}. Give text, numbers, or arrays of them.")
    return values.tobytes()


def examples_hash(examples: Any) -> str:
    """SHA-256 of examples; of an array, that of its values."""
    plain = isinstance(examples, np.ndarray) and not examples.dtype.hasobject
    return hashlib.sha256(examples.tobytes() if plain else b"".join(example_keys(examples))).hexdigest()


def take(batch: Batch, rows: Tensor | slice) -> dict[str, Tensor]:
    """Some examples of a batch, by row index or slice."""
    return {name: value[rows] for name, value in batch.items()}


def concatenate(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Batches one after the other.

    Raises:
        DataError: there is none, or they differ in their names or in the shape of an example.
    """
    if not batches:
        raise DataError("There is no batch to concatenate. Give at least one example.")
    first = batches[0]
    for other in batches[1:]:
        found = {name: tuple(value.shape[1:]) for name, value in other.items()}
        wanted = {name: tuple(value.shape[1:]) for name, value in first.items()}
        if found != wanted:
            raise DataError(f"Batches differ in names or shapes: {found} after {wanted}. Pad examples to one shape.")
    return {name: torch.cat([batch[name] for batch in batches]) for name in first}


def merge(batch: Batch) -> dict[str, Tensor]:
    """Batches stacked as by :func:`stack`, on one axis of all examples."""
    return {name: value.flatten(0, 1) for name, value in batch.items()}


def stack(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Batches of equal shapes on a new first axis, one a task."""
    return {name: torch.stack([batch[name] for batch in batches]) for name in batches[0]}
