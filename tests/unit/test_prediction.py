"""Which files `predict` looks at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.prediction import find_images


def photographs(folder: Path, *names: str) -> list[Path]:
    found = [folder / name for name in names]
    for file in found:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return found


def test_links_are_followed_once_and_what_is_hidden_is_not_meant(tmp_path: Path) -> None:
    card, shelf = tmp_path / "card", tmp_path / "shelf"
    first = photographs(card, "b.jpg", "a/c.PNG", "notes.txt")[:2]
    photographs(card, "._b.jpg", ".trash/d.jpg")
    second = photographs(shelf, "e.jpg")
    (card / "more").symlink_to(shelf)
    (shelf / "back").symlink_to(card)
    found = find_images([card])
    assert found == sorted(found)
    assert [file.resolve() for file in found] == [first[1], first[0], second[0]]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(tmp_path, "a.jpg", "locked/b.jpg")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with refused(DataError, "locked"):
        find_images([tmp_path])
