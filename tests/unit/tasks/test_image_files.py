"""Reading of many pictures: order, faults, threads, and the cache."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.tasks import decoding, image_files, picture_cache
from wildpdiff.tasks.framing import View, check_framing
from wildpdiff.tasks.image_files import read_views
from wildpdiff.tasks.picture_cache import PictureCache

SIZE = 8
COUNT = 12


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    """Pictures of different pixels."""
    noise = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{number}.png" for number in range(COUNT)]
    for path in paths:
        Image.fromarray(noise.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return [View(path, (0.2, 0.3, 0.4, 0.3)) for path in paths]


@pytest.fixture
def decoded_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded, one after the other."""
    found: list[Path] = []
    plain = decoding.decode

    def decode(view: View, image_size: int, framing: str) -> np.ndarray:
        found.append(view.path)
        return plain(view, image_size, framing)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "decode", decode)
    return found


def files_of(cache: PictureCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


@pytest.mark.parametrize("with_cache", [False, True])
@pytest.mark.parametrize("in_memory", [0, 1000, 1 << 30])
def test_faults_are_named_by_their_number_and_left_out(
    tmp_path: Path, views: list[View], monkeypatch: pytest.MonkeyPatch, with_cache: bool, in_memory: int
) -> None:
    monkeypatch.setattr(image_files, "IN_MEMORY", in_memory)
    monkeypatch.setattr(image_files, "IN_MEMORY_OF_CACHE", in_memory)
    whole = read_views(views, SIZE, "box")
    views[3].path.write_bytes(b"no picture")
    views[7].path.unlink()
    cache = PictureCache(tmp_path / "cache") if with_cache else None
    for _ in range(2):
        faults: dict[int, DataError] = {}
        ticks: list[tuple[int, int]] = []
        found = read_views(
            views,
            SIZE,
            "box",
            cache=cache,
            skipped=faults.__setitem__,
            progress=lambda done, total, ticks=ticks: ticks.append((done, total)),  # type: ignore[misc]
        )
        assert sorted(faults) == [3, 7]
        assert all(str(views[number].path) in str(fault) for number, fault in faults.items())
        assert (found == np.delete(whole, [3, 7], 0)).all()
        assert ticks[-1] == (COUNT, COUNT)
        found[:] = 0  # the result is the caller's
    with refused(DataError, views[3].path):
        read_views(views, SIZE, "box", cache=cache)
    nothing = read_views([views[3]], SIZE, cache=cache, skipped=faults.__setitem__)
    assert nothing.shape == (0, SIZE, SIZE, 3)


def test_threads_change_nothing(views: list[View], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 5)
    views[4].path.write_bytes(b"no picture")
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        faults: dict[int, DataError] = {}
        found.append((read_views(views, SIZE, "whole", skipped=faults.__setitem__), list(faults)))
    assert (found[0][0] == found[1][0]).all()
    assert found[0][1] == found[1][1] == [4]


def test_a_picture_is_decoded_once(tmp_path: Path, views: list[View], decoded_paths: list[Path]) -> None:
    plain = read_views(views, SIZE, "box")
    for _ in range(2):
        decoded_paths.clear()
        cache = PictureCache(tmp_path / "cache")
        assert (read_views(views[:8], SIZE, "box", cache=cache) == plain[:8]).all()
    assert decoded_paths == []
    backwards = read_views(views[::-1], SIZE, "box", cache=cache)
    assert (backwards == plain[::-1]).all()
    assert decoded_paths == [view.path for view in views[:7:-1]]


def changed_size(views: list[View]) -> tuple[list[View], int, str]:
    return views, SIZE + 1, "box"


def changed_framing(views: list[View]) -> tuple[list[View], int, str]:
    return views, SIZE, "square"


def changed_box(views: list[View]) -> tuple[list[View], int, str]:
    return [View(view.path, (0.0, 0.0, 0.2, 0.2)) for view in views], SIZE, "box"


def changed_pixels(views: list[View]) -> tuple[list[View], int, str]:
    for view in views:
        before = view.path.stat()
        data = bytearray(view.path.read_bytes())
        Image.fromarray(255 - np.asarray(Image.open(view.path))).save(view.path)
        view.path.write_bytes(view.path.read_bytes()[: len(data)].ljust(len(data), b"\0"))
        os.utime(view.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as unpacking an archive does
        assert view.path.stat().st_size == before.st_size
    return views, SIZE, "box"


@pytest.mark.parametrize("change", [changed_size, changed_framing, changed_box, changed_pixels])
def test_another_picture_part_or_size_is_decoded_anew(
    tmp_path: Path,
    views: list[View],
    decoded_paths: list[Path],
    change: Callable[[list[View]], tuple[list[View], int, str]],
) -> None:
    cache = PictureCache(tmp_path / "cache")
    read_views(views, SIZE, "box", cache=cache)
    other = change(views)
    decoded_paths.clear()
    found = read_views(other[0], other[1], other[2], cache=cache)  # type: ignore[arg-type]
    assert len(decoded_paths) == COUNT
    assert (found == read_views(other[0], other[1], other[2])).all()  # type: ignore[arg-type]


def flipped(data: bytes) -> bytes:
    return data[:-50] + bytes([data[-50] ^ 0x40]) + data[-49:]


def other_key(data: bytes) -> bytes:
    place = data.index(b'[\\"') + 3
    return data[:place] + b"!" + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        other_key,
        lambda data: data[:-1],
        lambda data: data[:4],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b'"U8"', b'"U9"').replace(b'"shape":[12', b'"shape":[11'),
    ],
)
def test_damage_to_the_cache_is_noticed_and_mended(
    tmp_path: Path, views: list[View], damage: Callable[[bytes], bytes], decoded_paths: list[Path]
) -> None:
    plain = read_views(views, SIZE, "box")
    first = PictureCache(tmp_path / "cache")
    read_views(views, SIZE, "box", cache=first)
    (file,) = files_of(first)
    file.write_bytes(damage(file.read_bytes()))
    for cache in (PictureCache(tmp_path / "cache"), first):
        assert (read_views(views, SIZE, "box", cache=cache) == plain).all()
    assert (read_views(views[::2], SIZE, "box", cache=PictureCache(tmp_path / "cache")) == plain[::2]).all()
    decoded_paths.clear()
    read_views(views, SIZE, "box", cache=PictureCache(tmp_path / "cache"))
    assert decoded_paths == []


def test_the_files_used_the_longest_ago_go_first(tmp_path: Path, views: list[View], decoded_paths: list[Path]) -> None:
    one = PictureCache(tmp_path / "one")
    read_views(views[:4], SIZE, cache=one)
    size = files_of(one)[0].stat().st_size
    cache = PictureCache(tmp_path / "cache", 2 * size + size // 2)
    parts = [views[:4], views[4:8], views[8:]]
    for age, part in enumerate(parts[:2]):
        read_views(part, SIZE, cache=cache)
        for file in files_of(cache):
            os.utime(file, (age, age))
    read_views(parts[0], SIZE, cache=cache)  # used again
    read_views(parts[2], SIZE, cache=cache)
    assert len(files_of(cache)) == 2
    assert sum(file.stat().st_size for file in files_of(cache)) <= cache.limit_bytes
    decoded_paths.clear()
    read_views(parts[0], SIZE, cache=PictureCache(cache.folder))
    read_views(parts[2], SIZE, cache=PictureCache(cache.folder))
    assert decoded_paths == []
    read_views(parts[1], SIZE, cache=PictureCache(cache.folder))
    assert decoded_paths == [view.path for view in parts[1]]


def test_what_another_process_keeps_and_removes_is_seen(
    tmp_path: Path, views: list[View], decoded_paths: list[Path]
) -> None:
    mine, other = PictureCache(tmp_path / "cache"), PictureCache(tmp_path / "cache")
    read_views(views[:2], SIZE, cache=mine)
    plain = read_views(views, SIZE, cache=other)
    decoded_paths.clear()
    mapped = read_views(views, SIZE, cache=mine)
    assert (mapped == plain).all()
    assert decoded_paths == []
    for file in files_of(other):
        file.unlink()
    assert (mapped == plain).all()  # maps outlive their file
    assert (read_views(views[1:3], SIZE, cache=mine) == plain[1:3]).all()


def in_turn(folder: Path, limit: int, views: list[View], seed: int) -> None:
    plain, order = read_views(views, SIZE), np.random.default_rng(seed)
    for _ in range(25):
        chosen = order.permutation(COUNT)[: order.integers(1, COUNT)]
        cache = PictureCache(folder, limit)
        assert (read_views([views[number] for number in chosen], SIZE, cache=cache) == plain[chosen]).all()


def test_processes_may_share_a_cache_that_is_always_full(tmp_path: Path, views: list[View]) -> None:
    fork = multiprocessing.get_context("fork")
    limit = 3 * COUNT * SIZE * SIZE * 3
    processes = [fork.Process(target=in_turn, args=(tmp_path / "cache", limit, views, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) <= 2 * limit


def test_many_shards_give_one_result(tmp_path: Path, views: list[View], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache, "SHARD_BYTES", 5 * SIZE * SIZE * 3)
    plain = read_views(views, SIZE)
    for _ in range(2):
        cache = PictureCache(tmp_path / "cache")
        assert (read_views(views, SIZE, cache=cache) == plain).all()
        assert len(files_of(cache)) == 3


def test_what_was_decoded_before_a_fault_is_kept(tmp_path: Path, views: list[View], decoded_paths: list[Path]) -> None:
    views[9].path.write_bytes(b"no picture")
    cache = PictureCache(tmp_path / "cache")
    with refused(DataError, views[9].path):
        read_views(views, SIZE, cache=cache)
    decoded_paths.clear()
    read_views(views[:9], SIZE, cache=cache)
    assert decoded_paths == []


@pytest.mark.parametrize("kind", ["file", "limit", "read-only"])
def test_without_a_place_to_keep_pictures_they_are_read_all_the_same(
    tmp_path: Path, views: list[View], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, limit = tmp_path / "cache", 1 << 30
    if kind == "file":
        folder.write_bytes(b"")
    elif kind == "limit":
        limit = 10
    else:

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(picture_cache, "write_file", full)
    cache = PictureCache(folder, limit)
    for _ in range(2):
        assert (read_views(views, SIZE, cache=cache) == read_views(views, SIZE)).all()
    assert not folder.is_dir() or files_of(cache) == []


@pytest.mark.parametrize(
    ("values", "folder"),
    [
        ({"WILDPDIFF_CACHE": "off"}, None),
        ({"WILDPDIFF_CACHE": " Off "}, None),
        ({"WILDPDIFF_CACHE": ""}, None),
        ({"WILDPDIFF_CACHE": "0"}, None),
        ({"WILDPDIFF_CACHE": "/somewhere"}, "/somewhere/pictures"),
        ({"WILDPDIFF_CACHE": "~/a"}, "/home/b/a/pictures"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/wildpdiff/pictures"),
        ({"XDG_CACHE_HOME": "relative"}, None),
        ({"XDG_CACHE_HOME": ""}, "/home/b/.cache/wildpdiff/pictures"),
        ({}, "/home/b/.cache/wildpdiff/pictures"),
    ],
)
def test_the_users_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], folder: str | None
) -> None:
    for name in ("WILDPDIFF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/b")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    cache = PictureCache.of_user()
    assert (None if cache is None else str(cache.folder)) == folder


def test_sizes_and_framings_that_are_none_are_refused(views: list[View]) -> None:
    with refused(DataError, 0):
        read_views(views, 0)
    with refused(DataError, "round", "whole"):
        check_framing("round")
