from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from tiny_world import Run, World

from wildpdiff.adapters.adapter import Adapter


def test_demo_leaves_adapters_results_and_a_report(world: World) -> None:
    names = sorted(folder.name for folder in (world.run / "adapters").iterdir())
    assert names == ["unseen-000", "unseen-001", "unseen-002"]
    assert Adapter.load(world.adapter).provenance["source"] == "generated"
    assert len(list(world.images.glob("*.jpg"))) == 6
    assert json.loads((world.run / "results.json").read_bytes())["kind"]
    assert (world.run / "report.html").read_text().startswith("<!")


def test_run_again_prints_the_same_table_and_a_command_that_works(world: World, run: Run) -> None:
    results = world.run / "results.json"
    before = results.read_bytes(), (world.zoo / "index.parquet").stat().st_mtime_ns
    command = ("demo", "--size", "tiny", "--backbone", world.backbone, "--out", world.run)
    again = run(*command)
    assert again.status == 0
    assert (results.read_bytes(), (world.zoo / "index.parquet").stat().st_mtime_ns) == before
    assert "Kernel ridge regression" in again.out
    assert str(world.run / "report.html") in again.out
    suggested = next(line for line in again.out.splitlines() if line.startswith("Try next: "))
    words = shlex.split(suggested.removeprefix("Try next: "))
    predicted = run(*words[1:])
    assert predicted.status == 0
    assert len(predicted.out.splitlines()) == 1 + 6


def test_a_folder_of_another_run_is_left_alone(world: World, run: Run) -> None:
    refused = run("demo", "--size", "tiny", "--seed", "1", "--backbone", world.backbone, "--out", world.run)
    assert refused.status == 2
    assert "another seed" in refused.err


def test_adapters_that_were_exchanged_are_made_again(world: World, run: Run, tmp_path: Path) -> None:
    again = shutil.copytree(world.run, tmp_path / "run")
    first, second = (again / "adapters" / name for name in ("unseen-000", "unseen-001"))
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    (again / "adapters" / "unseen-002" / "README.md").unlink()
    (again / "stages.json").unlink()
    command = ("demo", "--size", "tiny", "--backbone", world.backbone, "--out", again)
    assert run(*command).status == 0
    for name in ("unseen-000", "unseen-001", "unseen-002"):
        made, wanted = again / "adapters" / name, world.run / "adapters" / name
        assert {path.name: path.read_bytes() for path in made.iterdir()} == {
            path.name: path.read_bytes() for path in wanted.iterdir()
        }
