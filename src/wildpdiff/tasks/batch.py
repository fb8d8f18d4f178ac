"""Batches: named tensors whose first axis numbers the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
