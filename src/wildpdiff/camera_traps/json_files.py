"""JSON files of records: their beginning, to tell formats apart, and their checked content."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

from wildpdiff.errors import DataError

HEADS = (1 << 16, 1 << 24)
"""Bytes of a file's beginning that tell its format; the second where the first holds no list of records."""

_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"\s*(:?)|[{}\[\]]', re.DOTALL)
_DEEPEST = 3
"""Brackets around a key of a record: the file's, the list's and the record's."""


def json_keys(path: Path) -> dict[str, set[str]]:
    """The keys of an object in a file, each with the keys of its own records, as far as its beginning shows them.

    Empty where the file is no JSON object or cannot be read.
    """
    keys: dict[str, set[str]] = {}
    for size in HEADS:
        try:
            with open(path, "rb") as stream:
                head = stream.read(size)
        except (OSError, ValueError):
            return {}
        if head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] != b"{":
            return {}
        keys = _keys(head.decode(json.detect_encoding(head), errors="replace"))
        if any(keys.values()) or len(head) < size:
            break
    return keys


def _keys(text: str) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = {}
    depth, last = 0, ""
    for token in _TOKEN.finditer(text):
        bracket = token[0]
        if bracket in ("{", "["):
            depth += 1
        elif bracket in ("}", "]"):
            depth -= 1
        elif token[2] and depth == 1:
            last = token[1]
            keys[last] = set()
        elif token[2] and depth == _DEEPEST and last:
            keys[last].add(token[1])
    return keys


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object, of any Unicode encoding, with or without a byte-order mark.

    Raises:
        DataError: the file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data).replace("utf-8-sig", "utf-8")).removeprefix("\ufeff")
        del data
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); write it again as UTF-8, as JSON has to be."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from None
    collects = gc.isenabled()
    gc.disable()  # a million small objects, none of them garbage: half of the time would go into looking for it
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        cut = not text[error.pos :].strip() or error.msg.startswith("Unterminated string")
        fault = "ends too early" if cut else "is no JSON"
        remedy = "copy it anew, it is not complete" if cut else "correct it, or write it again"
        raise DataError(f"{path} {fault} (line {error.lineno}, column {error.colno}: {error.msg}); {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON that can be read ({error}); write it again.") from None
    finally:
        if collects:
            gc.enable()
    if not isinstance(document, dict):
        raise DataError(f"{path} holds {kind_of(document)} in the place of an object; it begins with {text[:1]!r}.")
    return document


def records(document: dict[str, Any], key: str, path: Path) -> list[Any]:
    """The list under a key; empty where it is missing or null.

    Raises:
        DataError: something else than a list is there.
    """
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{path}: {key!r} is {kind_of(value)}; a list of records is needed.")
    return value


def names(document: dict[str, Any], key: str, path: Path) -> dict[str, str]:
    """The names by identifier under a key, such as ``{"1": "animal"}``; empty where it is missing or null.

    Raises:
        DataError: something else than an object of texts is there.
    """
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{path}: {key!r} is {kind_of(value)}; an object of names by identifier is needed.")
    for identifier, name in value.items():
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: {key}[{identifier!r}] is {kind_of(name)}; a name is needed.")
    return {identifier.strip(): name.strip() for identifier, name in value.items()}


def kind_of(value: Any) -> str:
    """A JSON value's kind, for messages."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
