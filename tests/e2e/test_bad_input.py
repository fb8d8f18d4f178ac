"""What users get wrong: status 2, one sentence, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_world import SUITE, Run, World, refused_run, tiny_backbone

from wildpdiff.adapters.adapter import Adapter

Words = list[str | Path]


def nothing_written(folder: Path) -> None:
    assert [path for path in folder.rglob("*") if "partial" in path.name] == []


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A CSV of three tasks with small pictures."""

    def write(
        labels: tuple[str, ...] = ("impala", "giraffe"), each: int = 16, columns: str = "path,label,task"
    ) -> Path:
        lines = [columns]
        for task in ("north", "south", "east"):
            for number in range(each):
                path = tmp_path / f"{task}-{number}.png"
                Image.new("RGB", (30, 24), (number, 2 * number, 90)).save(path)
                split = "validation" if number == 0 else "test" if number == 1 else "train"
                lines.append(f"{path.name},{labels[number % len(labels)]},{task},{split},{len(task)}")
        file = tmp_path / "table.csv"
        file.write_text("\n".join([f"{columns},split,elevation" if columns else "", *lines[1:]]) + "\n")
        return file

    return write


def zoo_of(world: World, table: Path, out: Path, *more: str) -> Words:
    sizes = ["--steps", "6", "--checkpoints", "2", "--batch", "8"]
    return ["zoo", "build", "--suite", table, "--backbone", world.backbone, "--out", out, *sizes, *more]


def test_table_without_a_column(world: World, run: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    refused_run(run(*zoo_of(world, table(columns="path,Art,task"), tmp_path / "zoo")), "label=")
    assert not (tmp_path / "zoo").exists()


def test_label_that_the_backbone_does_not_know(
    world: World, run: Run, tmp_path: Path, table: Callable[..., Path]
) -> None:
    refused_run(run(*zoo_of(world, table(("impala", "unicorn")), tmp_path / "zoo")), "'unicorn'")
    assert not (tmp_path / "zoo").exists()


def test_task_of_one_class(world: World, run: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    refused_run(run(*zoo_of(world, table(("impala",)), tmp_path / "zoo")), "one species", "east")


def test_task_smaller_than_a_batch(world: World, run: Run, tmp_path: Path, table: Callable[..., Path]) -> None:
    """No mistake: its images come in a batch several times."""
    command = zoo_of(world, table(), tmp_path / "zoo", "-o", "minimum=2", "--batch", "15")
    outcome = run(*command)
    assert outcome.status == 0, outcome.err
    assert "3 tasks" in outcome.out
    nothing_written(tmp_path)


def test_unreadable_and_missing_images_of_a_table(
    world: World, run: Run, tmp_path: Path, table: Callable[..., Path]
) -> None:
    file = table()
    (tmp_path / "south-5.png").write_bytes(b"no picture")
    refused_run(run(*zoo_of(world, file, tmp_path / "zoo", "-o", "unreadable=0.01")), "south-5.png", "unreadable=")
    nothing_written(tmp_path)
    left_out = run(*zoo_of(world, file, tmp_path / "zoo"))
    assert left_out.status == 0
    assert "south-5.png" in left_out.err
    (tmp_path / "south-5.png").unlink()
    (tmp_path / "east-3.png").unlink()
    refused_run(run(*zoo_of(world, file, tmp_path / "other")), "south-5.png", "east-3.png", "root=")


@pytest.mark.parametrize("content", [None, b"", b"no picture", "half"])
def test_predict_on_an_image_that_cannot_be_read(
    world: World, run: Run, tmp_path: Path, content: bytes | str | None
) -> None:
    good = sorted(world.images.iterdir())[0]
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(good.read_bytes()[:300] if isinstance(content, str) else content)
    out = tmp_path / "predictions.csv"
    predict: Words = ["predict", world.adapter, good, bad, "--backbone", world.backbone, "--out", out]
    refused_run(run(*predict), "bad.jpg")
    assert not out.exists()
    if content is not None:
        skipping = run(*predict, "--skip-unreadable")
        assert skipping.status == 0
        assert "Skipped: Image" in skipping.err
        assert len(out.read_text().splitlines()) == 2


def test_adapter_of_another_backbone(world: World, run: Run, tmp_path: Path) -> None:
    other = tiny_backbone(tmp_path / "other", name="other", seed=1)
    refused_run(run("predict", world.adapter, world.images, "--backbone", other), "'other'")
    odd = tmp_path / "odd"
    shutil.copytree(world.adapter, odd)
    provenance = json.loads((odd / "provenance.json").read_bytes())
    provenance["adapter"]["rank"] = 2
    (odd / "provenance.json").write_text(json.dumps(provenance))
    refused_run(run("predict", odd, world.images, "--backbone", world.backbone), "r 4", "PEFT would read another")
    peft = json.loads((odd / "adapter_config.json").read_bytes())
    (odd / "adapter_config.json").write_text(json.dumps({**peft, "r": 2}))
    refused_run(run("predict", odd, world.images, "--backbone", world.backbone), "altered")
    loaded = Adapter.load(world.adapter)
    replace(loaded, config=replace(loaded.config, rank=2)).save(odd)
    refused_run(run("predict", odd, world.images, "--backbone", world.backbone), "(4, 96)", "(2, 96)")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("adapters/unseen-000", "adapter_model.safetensors"),
        ("generator-0", "posterior.safetensors"),
        ("zoo", "shards/shard-00000.safetensors"),
    ],
)
def test_truncated_tensors(world: World, run: Run, tmp_path: Path, name: str, file: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world.run / name, broken)
    with open(broken / file, "r+b") as stream:
        stream.truncate(stream.seek(0, os.SEEK_END) // 2)
    out = tmp_path / "out"
    use: dict[str, Words] = {
        "adapters/unseen-000": ["predict", broken, world.images, "--backbone", world.backbone, "--out", out],
        "generator-0": ["generate", broken, "--metadata", "elevation=1", "--out", out, "--backbone", world.backbone],
        "zoo": ["fit", "--zoo", broken, *SUITE, "--backbone", world.backbone, "--steps", "5", "--out", out],
    }
    refused_run(run(*use[name]), file)
    refused_run(run("inspect", broken), file)
    assert not out.exists()


def test_generator_of_a_newer_version(world: World, run: Run, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(world.generator, newer)
    manifest = json.loads((newer / "manifest.json").read_bytes())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    refused_run(run("generate", newer, "--metadata", "elevation=1", "--out", tmp_path / "out"), "99", "Update")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "has nothing"),
        (["--metadata", "elevaton=1"], "'elevaton'"),
        (["--metadata", "habitat=desert"], "'desert'"),
        (["--metadata", "elevation"], "KEY=VALUE"),
        (["--metadata", "elevation=high"], "'high'"),
        (["--text", "a dry valley"], "text"),
        (["--backgrounds", "nowhere.jpg"], "nowhere.jpg"),
        (["--metadata", "elevation=1", "--metadata", "elevation=2"], "twice"),
        (["--metadata", "elevation=1", "-o", "seen=6"], "option of a suite"),
        (["--suite", "savanna"], "--task"),
        (["--suite", "savanna", "--task", "nowhere"], "'nowhere'"),
        (["--suite", "savanna", "-o", "seen=many", "--task", "unseen-000"], "whole number"),
        (["--suite", "savanna", "-o", "sen=6", "--task", "unseen-000"], "'sen'"),
        (["--description", "missing.json"], "missing.json"),
        (["-n", "0"], "-n"),
    ],
)
def test_descriptions_that_cannot_be_used(
    world: World, run: Run, tmp_path: Path, words: list[str], expected: str
) -> None:
    refused_run(run("generate", world.generator, *words, "--out", tmp_path / "out"), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"metdata": {}}', "'metdata'"),
        ('{"backgrounds": "a.jpg"}', "list"),
        ('{"backgrounds": [1]}', "backgrounds[0]"),
        ('{"backgrounds": []}', "nothing"),
        ('{"metadata": {"elevation": null}}', "None"),
        (f'{{"metadata": {{"elevation": {"9" * 401}}}}}', "401 digits"),
        (f'{{"metadata": {"[" * 100_000}{"]" * 100_000}}}', "JSON"),
    ],
)
def test_description_files_that_cannot_be_used(
    world: World, run: Run, tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "site.json"
    file.write_text(content)
    refused_run(run("generate", world.generator, "--description", file, "--out", tmp_path / "out"), expected)


def test_full_folders_of_others_are_not_replaced(world: World, run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    generate: Words = ["generate", world.generator, "--metadata", "elevation=1", "--out", tmp_path]
    refused_run(run(*generate), "not empty")
    refused_run(run(*generate, "-n", "2"), "not empty")
    refused_run(run("fit", "--zoo", world.zoo, "--out", tmp_path), "not empty")
    refused_run(run("backbone", "pretrain", "--out", tmp_path), "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_full_disk(world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    zoo: Words = ["zoo", "build", *SUITE, "--backbone", world.backbone, "--out", tmp_path / "zoo", "--steps", "6"]
    sizes = ["--checkpoints", "2", "--batch", "8"]
    generate: Words = ["generate", world.generator, "--metadata", "elevation=1", "--out", tmp_path / "adapter"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(Path, "write_bytes", full)
        refused_run(run(*zoo, *sizes), "disk is full")
        refused_run(run(*generate), "disk is full")
        refused_run(run(*generate, "-n", "2"), "disk is full")
    nothing_written(tmp_path)
    assert not (tmp_path / "adapter").exists()
    assert run(*generate).status == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_device(world: World, run: Run) -> None:
    predict: Words = ["predict", world.adapter, world.images, "--backbone", world.backbone]
    refused_run(run(*predict, "--out", "/dev/full"), "disk is full")
    refused_run(run("generate", world.generator, "--metadata", "elevation=1", "--out", "/dev/full"), "is a file")
    assert Path("/dev/full").is_char_device()


def test_diverging_trainings(world: World, run: Run, tmp_path: Path) -> None:
    common: Words = [*SUITE, "--backbone", world.backbone]
    sizes = ["--steps", "6", "--checkpoints", "2", "--batch", "8", "--learning-rate", "1e30"]
    refused_run(run("zoo", "build", *common, *sizes, "--out", tmp_path / "zoo"), "not finite", "learning rate")
    assert list((tmp_path / "zoo").glob("shards/*")) == []
    config = tmp_path / "config.json"
    config.write_text(
        '{"diffusion": {"learning_rate": 1e30, "warmup": 0, "steps": 40, "size": "tiny"}, "task_loss": {"steps": 0}}'
    )
    refused_run(
        run("fit", "--zoo", world.zoo, *common, "--config", config, "--out", tmp_path / "generator"), "diverged"
    )
    assert not (tmp_path / "generator").exists()
    config.write_text('{"diffusion": {"learning_rat": 1}}')
    refused_run(run("fit", "--zoo", world.zoo, *common, "--config", config, "--out", tmp_path / "g"), "learning_rat")
    refused_run(run("fit", "--zoo", world.zoo, *common, "--parts", "weather", "--out", tmp_path / "g"), "weather")


def test_zoo_of_other_data(world: World, run: Run, tmp_path: Path) -> None:
    other = ["-o", "seen=6", "--backbone", world.backbone]
    refused_run(run("fit", "--zoo", world.zoo, *other, "--out", tmp_path / "generator"), "fingerprint")


def test_results_that_are_none(world: World, run: Run, tmp_path: Path) -> None:
    refused_run(run("report", tmp_path / "results.json"), "does not exist")
    (tmp_path / "results.json").write_text("{}")
    refused_run(run("report", tmp_path / "results.json"), "results.json")
    refused_run(run("inspect", tmp_path / "nothing"), "does not exist")
    refused_run(run("inspect", tmp_path.parent), "no adapter")


def test_options_that_would_do_nothing(world: World, run: Run, tmp_path: Path) -> None:
    refine = ["refine", world.adapter, "--images", world.images, "--out", tmp_path / "out"]
    refused_run(run(*refine, "--strength", "3"), "--generator")
    refused_run(run(*refine, "--strength", "inf"), "--strength")
    verb = ["evaluate", "--run", world.run, "--zoo", world.run / "zoo", "--out", tmp_path / "out"]
    refused_run(run(*verb), "Leave out --zoo")
    assert list(tmp_path.iterdir()) == []


def test_a_sentence_never_is_a_whole_file(world: World, run: Run, tmp_path: Path) -> None:
    outcome = run("generate", world.generator, "--text", "x", "--metadata", "e" * 50_000, "--out", tmp_path / "out")
    refused_run(outcome, "--metadata", "KEY=VALUE")
    assert len(outcome.err) < 3000
