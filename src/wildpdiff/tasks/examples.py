"""Examples as a user has them, arrays, lists of texts or named arrays: their number, parts and hashes; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wildpdiff.errors import DataError


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
    return examples[list(rows)] if hasattr(examples, "shape") else [examples[row] for row in rows]


def joined(first: Any, second: Any) -> Any:
    """Examples of one kind after others: sequences, arrays, or named arrays."""
    if isinstance(first, Mapping):
        return {name: joined(values, second[name]) for name, values in first.items()}
    if hasattr(first, "shape"):
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
    """SHA-256 of examples, in hexadecimal; equal for equal examples."""
    whole = examples.tobytes() if isinstance(examples, np.ndarray) else b"".join(example_keys(examples))
    return hashlib.sha256(whole).hexdigest()
