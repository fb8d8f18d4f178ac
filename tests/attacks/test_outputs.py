"""Places that cannot take a result, or not by a rename: known before any work, or written as they are."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_world import SUITE, Run, World, refused_run

from refusals import refused
from wildpdiff import disk, fit
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.disk import UNFINISHED, write_file, write_folder
from wildpdiff.errors import ArtifactError
from wildpdiff.generator import Generator
from wildpdiff.zoo.store import Zoo

Words = list[str | Path]
ODD = os.fsdecode(b"caf\xe9")
"""A name that is no text, as an old archive leaves it."""


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a verb begins to compute or to read anything large."""

    def begun(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("wildpdiff.artifact.read_safetensors", begun)
    monkeypatch.setattr("wildpdiff.camera_traps.registry.load_suite", begun)
    monkeypatch.setattr("wildpdiff.backbones.registry.load_backbone", begun)
    monkeypatch.setattr("wildpdiff.adapters.adapter.Adapter.load", begun)


def writing_verbs(world: World, out: Path) -> dict[str, Words]:
    own: Words = ["--backbone", world.backbone, "--out", out]
    generate: Words = ["generate", world.generator, "--metadata", "elevation=1", *own]
    return {
        "demo": ["demo", "--size", "tiny", *own],
        "zoo": ["zoo", "build", *SUITE, *own],
        "fit": ["fit", "--zoo", world.zoo, *SUITE, *own],
        "generate": generate,
        "generate several": [*generate, "-n", "3"],
        "refine": ["refine", world.adapter, "--images", world.images, *own],
        "evaluate": ["evaluate", "--run", world.run, "--out", out],
        "report": ["report", world.run / "results.json", "--out", out],
        "pretrain": ["backbone", "pretrain", "--out", out],
        "export": ["suite", "export", "savanna", "--out", out],
        "paper": ["reproduce", "paper", "--size", "tiny", *own],
        "unseen": ["reproduce", "unseen", "--size", "tiny", *own],
        "scaling": ["reproduce", "scaling", *own],
        "groups": ["reproduce", "groups", "habitat", "--run", world.run, "--out", out],
        "pdiff": [
            "evaluate",
            "--run",
            world.run,
            "--out",
            world.run.parent / "never",
            "--method-setting",
            f"pdiff={out}",
        ],
    }


VERBS = list(writing_verbs(World(Path(), Path()), Path()))


def a_file(folder: Path) -> Path:
    (folder / "out").write_text("mine")
    return folder / "out"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "deep" / "er"


def a_lost_link(folder: Path) -> Path:
    (folder / "out").symlink_to(folder / "gone" / "for" / "ever")
    return folder / "out"


def a_link_to_itself(folder: Path) -> Path:
    (folder / "out").symlink_to(folder / "out")
    return folder / "out"


def too_long(folder: Path) -> Path:
    return folder / ("o" * 300)


TARGETS = [a_file, below_a_file, a_lost_link, a_link_to_itself, too_long]


@pytest.mark.parametrize("verb", VERBS)
def test_what_cannot_be_written_is_refused_before_any_work(
    world: World, run: Run, tmp_path: Path, verb: str, no_work: None
) -> None:
    for number, target in enumerate(TARGETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        out = target(folder)
        before = sorted(folder.rglob("*"))
        refused_run(run(*writing_verbs(world, out)[verb]), "out" if target is not too_long else "o" * 99)
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_place_is_refused_before_any_work(
    world: World, run: Run, tmp_path: Path, verb: str, no_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere: the system's refusal is planted."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    real = os.mkdir

    def mkdir(path: Any, *rest: Any, **more: Any) -> None:
        if folder in Path(os.fsdecode(path)).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    refused_run(run(*writing_verbs(world, folder / "out")[verb]), "read-only")


def test_files_that_cannot_be_written_are_refused_before_any_work(
    world: World, run: Run, tmp_path: Path, no_work: None
) -> None:
    predict: Words = ["predict", world.adapter, world.images, "--backbone", world.backbone, "--out"]
    show: Words = ["suite", "show", "savanna", "--image"]
    for number, (words, target) in enumerate((words, target) for words in (predict, show) for target in TARGETS[1:]):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused_run(run(*words, target(folder)))
    refused_run(run(*predict, tmp_path), "is a folder")
    refused_run(run(*show, tmp_path), "is a folder")


@pytest.mark.parametrize("verb", ["generate", "evaluate", "fit", "zoo"])
def test_a_name_that_is_no_text_works(world: World, run: Run, tmp_path: Path, verb: str) -> None:
    words = writing_verbs(world, tmp_path / ODD)[verb]
    extra = ["--steps", "5", "--task-steps", "0", "--no-trust"] if verb == "fit" else []
    if verb == "evaluate":
        extra = ["--samples", "1", "--seen-tasks", "1"]
    if verb == "zoo":
        extra = ["--steps", "4", "--checkpoints", "1", "--batch", "8"]
    outcome = run(*words, *extra)
    assert outcome.status == 0, outcome.err
    assert any((tmp_path / ODD).iterdir())
    if verb == "zoo":
        assert run("inspect", tmp_path / ODD).status == 0
        assert len(Zoo.open(tmp_path / ODD).task_adapters()) == 12
    if verb == "evaluate":
        assert run("compare", tmp_path / ODD / "results.json", "generated", "fine-tuned").status == 0


def test_the_working_folder_takes_an_adapter_and_takes_it_again(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words: Words = ["generate", world.generator, "--metadata", "elevation=1", "--backbone", world.backbone]
    for seed in ("0", "1"):
        outcome = run(*words, "--out", ".", "--seed", seed)
        assert outcome.status == 0, outcome.err
        assert Adapter.load(tmp_path).provenance["seed"] == int(seed)
    assert len(list(tmp_path.iterdir())) == 4
    assert Path.cwd() == tmp_path


def test_the_working_folder_takes_a_generator_with_its_backbone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = Generator.from_pretrained(world.generator)
    for _ in range(2):
        found.save_pretrained(".")
        assert [entry.name for entry in tmp_path.iterdir()] == ["work"]
        assert Generator.from_pretrained(".").fingerprint == found.fingerprint
        assert Generator.from_pretrained(tmp_path / "work").backbone.backbone_hash == found.backbone.backbone_hash


def test_the_working_folder_takes_a_fit(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    settings: Words = ["--steps", "2", "--task-steps", "2", "--no-trust"]
    outcome = run("fit", "--zoo", world.zoo, "--backbone", world.backbone, *SUITE, "--out", ".", *settings)
    assert outcome.status == 0, outcome.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]
    assert not (tmp_path / "work" / UNFINISHED).exists()
    assert Generator.from_pretrained(tmp_path / "work").mean is not None


def test_a_stopped_fit_on_a_mount_goes_on_inside_of_it(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder above a mounted one is often read-only."""
    (tmp_path / "volume").mkdir()
    monkeypatch.chdir(tmp_path / "volume")
    kept: list[str] = []

    def stop(*_: object, **__: object) -> None:
        kept.extend(path.name for path in (tmp_path / "volume" / UNFINISHED).iterdir())
        raise KeyboardInterrupt

    words: Words = ["fit", "--zoo", world.zoo, "--backbone", world.backbone, *SUITE, "--out", tmp_path / "volume"]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit_posterior", stop)
        assert run(*words, "--steps", "2", "--task-steps", "2", "--no-trust").status == 130
    assert kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["volume"]
    again = run(*words, "--steps", "2", "--task-steps", "2", "--no-trust")
    assert again.status == 0, again.err
    assert "resuming with those that fit" in again.err
    assert not (tmp_path / "volume" / UNFINISHED).exists()


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EACCES])
def test_a_folder_that_cannot_be_renamed_is_written_as_it_is(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    out = tmp_path / "volume"
    out.mkdir()
    real = Path.rename

    def rename(self: Path, target: Any) -> Any:
        if self == out:
            raise OSError(code, os.strerror(code))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    backbone = load_backbone(world.backbone)
    inode = out.stat().st_ino
    for _ in range(2):
        save_backbone(backbone, out)
        assert out.stat().st_ino == inode
        assert load_backbone(out).backbone_hash == backbone.backbone_hash
        assert [entry.name for entry in tmp_path.iterdir()] == ["volume"]
    loaded = Adapter.load(world.adapter)
    write_folder(out, lambda folder: [loaded.save(folder / f"{number:03d}") for number in range(2)] and None)
    assert sorted(entry.name for entry in out.iterdir()) == ["000", "001"]
    assert Adapter.load(out / "001").distance(loaded) == 0


def test_a_mount_point_is_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    out = tmp_path / "volume"
    (out / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    loaded = Adapter.load(world.adapter)
    loaded.save(out)
    assert Adapter.load(out).distance(loaded) == 0
    assert (out / "lost+found").is_dir()
    found = Generator.from_pretrained(world.generator)
    found.save_pretrained(out)
    assert Generator.from_pretrained(out).fingerprint == found.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["volume"]
    assert not (out / "provenance.json").exists()


def test_a_half_moved_folder_is_refused_and_may_be_written_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "volume"
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    one, other = (Adapter.load(world.run / "adapters" / f"unseen-00{number}") for number in range(2))
    one.save(out)
    real = os.replace
    moved: list[Any] = []

    def replace(source: Any, target: Any) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            other.save(out)
    with refused(ArtifactError, "altered"):
        Adapter.load(out)
    from wildpdiff.cli.folders import check_output_adapters

    check_output_adapters(out, 1)
    other.save(out)
    assert Adapter.load(out).distance(other) == 0


def test_a_file_that_is_a_mount_of_its_own_is_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def replace(self: Path, target: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", replace)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def can_mount() -> bool:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


MOUNTED = """
set -e
mount -t tmpfs none "$1/volume"
"$2" -m wildpdiff generate "$3" --metadata elevation=1 --backbone "$4" --out "$1/volume"
"$2" -m wildpdiff generate "$3" --metadata elevation=1 --backbone "$4" --out "$1/volume" --seed 1
ls -A "$1/volume"
mount -o remount,ro "$1/volume"
! "$2" -m wildpdiff generate "$3" --metadata elevation=1 --backbone "$4" --out "$1/volume"
! "$2" -m wildpdiff evaluate --run "$5" --out "$1/volume/results"
"""


@pytest.mark.skipif(not can_mount(), reason="this process may not mount")
def test_a_real_mount(world: World, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    words = [tmp_path, sys.executable, world.generator, world.backbone, world.run]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", MOUNTED, "sh", *map(str, words)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-4:] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "provenance.json",
    ]
    assert done.stderr.count("read-only") == 2
    assert "Traceback" not in done.stderr
