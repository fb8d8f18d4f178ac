"""Plain JSON to frozen dataclasses and back: the annotations are the schema, and every refusal names the key."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from wildpdiff.errors import ArtifactError, SchemaVersionError

_LARGEST = int(sys.float_info.max)
_LARGEST_COUNT = 2**63 - 1
_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    dict: "an object",
    tuple: "a list",
}


def truth(text: str) -> bool:
    """``true`` or ``false`` in any case, as typed; raises ``ValueError`` on another text."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def encode(value: Any) -> Any:
    """Dataclasses, tuples and dictionaries as the plain values that JSON gives back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if isinstance(value, dict):
        return {key: encode(entry) for key, entry in value.items()}
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """Check a JSON value against a type and build it.

    Args:
        kind: a dataclass, ``str``, ``bool``, ``int``, ``float``, ``Any``, ``X | None``, ``Literal``, ``tuple[X, ...]``,
            ``tuple[X, Y]``, ``dict[str, X]`` or ``Mapping[str, X]``.
        value: the parsed JSON.
        where: file and key, for messages.

    Raises:
        ArtifactError: the value is not of that type; the message names file, key and what was found.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin in (Union, UnionType):
        if value is None:
            return None
        (inner,) = (entry for entry in get_args(kind) if entry is not NoneType)
        return decode(inner, value, where)
    if origin is Literal:
        if value not in get_args(kind):
            raise _refusal(value, "one of " + ", ".join(get_args(kind)), where)
        return value
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _refusal(value, _NAMES[dict], where)
        return {key: decode(get_args(kind)[1], entry, f"{where}.{key}") for key, entry in value.items()}
    return _decode_scalar(kind, value, where)


def check_version(found: Any, newest: int, where: object) -> int:
    """A schema version from 1; that of a newer package is refused with :class:`SchemaVersionError`."""
    version: int = decode(int, found, f"{where}: schema_version")
    if version < 1:
        raise _refusal(found, "a version from 1", f"{where}: schema_version")
    if version > newest:
        raise SchemaVersionError(f"{where} has version {found}; this package reads up to {newest}. Update wildpdiff.")
    return version


def _decode_scalar(kind: type, value: Any, where: str) -> Any:
    # A bool is an int to Python and a different thing to JSON.
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return float(value)
    if kind is not float and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        if isinstance(value, int) and abs(value) > _LARGEST_COUNT:
            raise _refusal(value, f"a whole number of at most {_LARGEST_COUNT}", where)
        return value
    raise _refusal(value, _NAMES[kind], where)


def _decode_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _refusal(value, _NAMES[tuple], where)
    if kinds[-1] is Ellipsis:
        return tuple(decode(kinds[0], entry, f"{where}[{number}]") for number, entry in enumerate(value))
    if len(value) != len(kinds):
        raise _refusal(value, f"a list of {len(kinds)}", where)
    pairs = zip(kinds, value, strict=True)
    return tuple(decode(kind, entry, f"{where}[{number}]") for number, (kind, entry) in enumerate(pairs))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _refusal(value, _NAMES[dict], where)
    hints = _hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for name in names:
        if name not in value:
            raise ArtifactError(f"{where}: the key {name!r} is missing. Copy the file again, or make it anew.")
    for name in value:
        if name not in names:
            raise ArtifactError(f"{where}: the key {name!r} is unknown; known are {', '.join(names)}. Remove it.")
    # The first level is "file: key", deeper ones "file: key.key".
    separator = "." if ": " in where else ": "
    return kind(**{name: decode(hints[name], value[name], f"{where}{separator}{name}") for name in names})


def _refusal(value: Any, needed: str, where: str) -> ArtifactError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return ArtifactError(f"{where} is {shown}; {needed} is needed. Correct it, or make the file anew.")
