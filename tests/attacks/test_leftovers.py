"""What a kill leaves behind blocks no later call and is removed by it; what a living process writes stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_world import SUITE, Run, World

from wildbench.run_folder import RunFolder
from wildpdiff.cli.folders import check_output_adapters, check_output_artifact, check_output_folder
from wildpdiff.disk import own_entries, remove_leftovers, write_file, write_folder

Copy = Callable[[Path], Path]
LIMIT = 60.0


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*") if path.suffix in (".partial", ".previous"))


def test_a_zoo_begins_after_a_kill_in_its_first_write(world: World, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    out.mkdir()
    (out / ".plan.json.a.partial").touch()
    (out / "shards").mkdir()
    (out / "shards" / ".shard-00000.parquet.b_9.partial").touch()
    (out / "shards").rename(tmp_path / "shards")
    sizes = ["--steps", "6", "--checkpoints", "2", "--batch", "8", "--out", out]
    assert run("zoo", "build", *SUITE, "--backbone", world.backbone, *sizes).status == 0
    (tmp_path / "shards" / ".shard-00000.parquet.b_9.partial").rename(out / "shards" / ".shard-00000.parquet.b.partial")
    assert run("zoo", "build", *SUITE, "--backbone", world.backbone, *sizes).status == 0
    assert leftovers(out) == []


def test_a_run_begins_after_a_kill_in_its_first_write(tmp_path: Path) -> None:
    for name in (".run.json.a.partial", ".stages.json.x1_y.partial"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).claim({"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / ".results.json.c.partial").touch()
    RunFolder(tmp_path).claim({"seed": 1})
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("n", [1, 3])
def test_adapters_are_written_beside_leftovers(world: World, run: Run, tmp_path: Path, n: int) -> None:
    out = tmp_path / "out"
    words = ["generate", world.generator, "--metadata", "elevation=1", "--backbone", world.backbone]
    words += ["--out", out, "-n", str(n)]
    for again in range(2):
        out.mkdir(exist_ok=True)
        for leftover in (tmp_path / ".out.k2.partial", tmp_path / ".out.k2.previous", out / ".001.q.partial"):
            leftover.mkdir()
            (leftover / "adapter_model.safetensors").write_bytes(b"half")
        (out / ".provenance.json.a.partial").touch()
        assert run(*words).status == 0, again
        assert leftovers(tmp_path) == []


def test_a_generator_is_fitted_beside_leftovers(world: World, copy: Copy) -> None:
    generator = copy(world.generator)
    (generator / ".manifest.json.a.partial").touch()
    (generator / ".trust.b.partial").mkdir()
    (generator / ".trust.b.partial" / "space.safetensors").touch()
    check_output_artifact(generator, "generator")
    assert leftovers(generator) == []
    for path in generator.iterdir():
        path.unlink()
    (generator / ".manifest.json.a.partial").touch()
    check_output_artifact(generator, "generator")
    check_output_adapters(generator, 2)
    check_output_folder(generator)
    assert list(generator.iterdir()) == []


def test_leftovers_of_others_are_not_touched(tmp_path: Path) -> None:
    for name in (".bashrc", ".config.json", "a.b.partial", ".x.partial", ".UPPER.A-B.partial"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    write_file(tmp_path / "result.json", b"{}")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "result.json"])
    (tmp_path / ".other.json.a.partial").touch()
    write_file(tmp_path / "result.json", b"{}")
    assert leftovers(tmp_path) == [".UPPER.A-B.partial", ".other.json.a.partial", ".x.partial"]


WRITER = """
import sys, time
from pathlib import Path
from wildpdiff.disk import write_folder

def fill(folder):
    (folder / "half").write_text("written by a living process")
    print("filling", flush=True)
    time.sleep(60)

write_folder(Path(sys.argv[1]), fill)
"""


def test_what_a_living_process_writes_stays_until_it_dies(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    write_folder(target, lambda folder: (folder / "old").write_text("old") and None)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"filling\n"
        (partial,) = tmp_path.glob(".adapter.*.partial")
        remove_leftovers(tmp_path)
        assert (partial / "half").is_file()
        assert [entry.name for entry in own_entries(tmp_path)] == ["adapter"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
    assert partial.exists()
    write_folder(target, lambda folder: (folder / "new").write_text("new") and None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]
    assert [entry.name for entry in target.iterdir()] == ["new"]


def test_a_folder_that_was_moved_aside_for_nothing_comes_back(tmp_path: Path) -> None:
    """A kill between the two renames leaves the old content under another name, and nothing under its own."""
    old = tmp_path / ".adapter.z9.previous"
    old.mkdir()
    (old / "provenance.json").write_text("{}")

    def fail(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "adapter", fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "provenance.json").is_file()
