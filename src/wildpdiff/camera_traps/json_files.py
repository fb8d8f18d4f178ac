"""JSON files of records: their beginning, to tell formats apart, and their checked content."""

from __future__ import annotations

import gc
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import MOST_BYTES

HEADS = (1 << 16, 1 << 24)
"""Bytes of a file's beginning that tell its format; the second where the first holds no list of records."""

_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile)
"""Errors of files and of archives: cut, encrypted, or packed in a way that Python does not know."""

_TOKEN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"\s*(:?)|[{}\[\]]', re.DOTALL)
_RECORD = ["{", "[", "{"]
"""Brackets around a key of a record: the file's, the list's and the record's."""


def json_keys(path: Path) -> dict[str, set[str]]:
    """The keys of a file's object, each with the keys of the records in its list, as far as the beginning shows them.

    Empty where the file is no JSON object or cannot be read.
    """
    keys: dict[str, set[str]] = {}
    for size in HEADS:
        try:
            with _content(path) as stream:
                head = stream.read(size)
        except _UNREADABLE:
            return {}
        if head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] != b"{":
            return {}
        keys = _keys(head.decode(json.detect_encoding(head), errors="replace"))
        if any(keys.values()) or len(head) < size:
            break
    return keys


@contextmanager
def _content(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file's bytes, unpacked where it is compressed by gzip or the only JSON file of a zip archive."""
    with open(path, "rb") as stream:
        beginning = stream.read(4)
        stream.seek(0)
        if beginning[:2] == b"\x1f\x8b":
            with gzip.open(stream) as unpacked:
                yield unpacked
        elif beginning == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as archive:
                members = [
                    name for name in archive.namelist() if name.lower().endswith(".json") and "__MACOSX" not in name
                ]
                if len(members) != 1:
                    raise OSError(f"an archive of {len(members)} JSON files, where one is needed")
                with archive.open(members[0]) as unpacked:
                    yield unpacked
        else:
            yield stream


def _keys(text: str) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = {}
    opened: list[str] = []
    last = ""
    for token in _TOKEN.finditer(text):
        bracket = token[0]
        if bracket in ("{", "["):
            opened.append(bracket)
        elif bracket in ("}", "]"):
            del opened[-1:]
        elif token[2] and len(opened) == 1:
            last = token[1]
            keys[last] = set()
        elif token[2] and last and opened == _RECORD:
            keys[last].add(token[1])
    return keys


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object, of any Unicode encoding, with or without a byte-order mark.

    Raises:
        DataError: the file cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        with _content(path) as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise DataError(f"{path} holds more than {MOST_BYTES >> 30} GiB; cut it into parts.")
        text = data.decode(json.detect_encoding(data).replace("utf-8-sig", "utf-8")).removeprefix("\ufeff")
        del data
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}), as JSON has to be; write it again.") from None
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); check it.") from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        cut = not text[error.pos :].strip() or error.msg.startswith("Unterminated string")
        fault = "ends too early" if cut else "is no JSON"
        remedy = "copy it anew, it is not complete" if cut else "correct it, or write it again"
        raise DataError(f"{path} {fault} (line {error.lineno}, column {error.colno}: {error.msg}); {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON that can be read ({error}); write it again.") from None
    if not isinstance(document, dict):
        raise DataError(f"{path} holds {kind_of(document)} in the place of an object; it begins with {text[:1]!r}.")
    return document


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Python does not look for garbage: among a million records that all stay, it would take a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


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
