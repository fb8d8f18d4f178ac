from __future__ import annotations

import errno
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import wildpdiff
from refusals import refused
from wildbench.cli import report
from wildpdiff.cli import zoo
from wildpdiff.cli.folders import check_output_adapters, check_output_artifact, check_output_file
from wildpdiff.cli.main import app, main
from wildpdiff.cli.options import suite_settings
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.zoo.steps import FinetuneConfig

HELP = """
import contextlib, io, sys
import wildpdiff
from wildpdiff.cli.main import main
verbs = ["", "demo", "suite", "suite ls", "suite show", "suite export", "backbone", "backbone pretrain", "zoo",
         "zoo build", "zoo import", "fit", "generate", "refine", "trust", "predict", "evaluate", "inspect", "compare",
         "report"]
for verb in verbs:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert main([*verb.split(), "--help"]) == 0, verb
    assert "Usage: wildpdiff" in text.getvalue(), verb
heavy = ("torch", "numpy", "matplotlib", "pyarrow", "peft", "PIL", "sklearn", "jinja2")
print([name for name in heavy if name in sys.modules])
"""


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("width", [80, 100])
def test_help_screens_are_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line is longer than the terminal, no name of a command or sentence on it is cut."""
    monkeypatch.setenv("COLUMNS", str(width))

    def screens(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from screens(inner, (*words, name))

    found = list(screens(get_command(app), ()))
    assert {("suite", "check"), ("reproduce", "scaling")} <= {words for words, _ in found}
    for words, command in found:
        assert main([*words, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width, words
        assert not [line for line in lines[1:] if line.endswith("...")], words
        shown = " ".join(lines)
        assert all(option in shown for entry in command.params for option in entry.opts if option.startswith("-")), (
            words
        )


REPORT = """
import sys
from wildpdiff.cli.main import main
status = main(["report", sys.argv[1]])
print(status, [name for name in ("torch", "pyarrow", "peft", "sklearn", "scipy") if name in sys.modules])
"""


def test_report_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    command = [sys.executable, "-c", REPORT, str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []", done.stderr


@pytest.mark.parametrize("name", wildpdiff.__all__)
def test_public_names_exist_and_are_described(name: str) -> None:
    value = getattr(wildpdiff, name)
    assert inspect.getdoc(value)
    assert name in dir(wildpdiff)


def test_unknown_public_name_is_refused() -> None:
    with refused(AttributeError, "'Adaptor'"):
        _ = wildpdiff.Adaptor


def test_options_of_zoo_build_make_the_recipe_an_explicit_one() -> None:
    shown = inspect.signature(zoo.build).parameters
    options = [field.name for field in fields(FinetuneConfig) if field.name in shown]
    assert len(options) == 5
    assert {shown[name].default for name in (*options, "recipe")} == {None}
    assert zoo._given(None, {}) is None
    assert zoo._given("auto", {}) is None
    assert zoo._given("bundled", {}) == FinetuneConfig()
    assert zoo._given(None, {"steps": 40}) == zoo._given("bundled", {"steps": 40}) == FinetuneConfig(steps=40)
    with refused(DataError, "--recipe auto", "--learning-rate"):
        zoo._given("auto", {"learning_rate": 0.1})
    with refused(ArtifactError, "/nowhere"):
        zoo._given("/nowhere", {})


def test_options_of_a_suite_get_their_kinds() -> None:
    assert suite_settings("savanna", ["similarity=0.5", "seen=4"]) == {"seen": 4, "similarity": 0.5}
    table = suite_settings("table.csv", ["unseen=0.25", "classes=a, b", "keep=false", "ignore=time"])
    assert table == {"unseen": 0.25, "classes": ("a", "b"), "keep": False, "ignore": ("time",)}
    assert suite_settings("table.csv", ["unseen=north,south"]) == {"unseen": ("north", "south")}
    with refused(DataError, "'seen'", "KEY=VALUE"):
        suite_settings("savanna", ["seen"])
    with refused(DataError, "'keep'", "'perhaps'"):
        suite_settings("table.csv", ["keep=perhaps"])


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (ArtifactError("The file is odd.\nCopy it again."), 2, "Error: The file is odd. Copy it again."),
        (OSError(errno.ENOSPC, "No space left", "here"), 2, "Error: The disk is full while writing here"),
        (PermissionError(errno.EACCES, "Permission denied", "there"), 2, "Error: there: Permission denied."),
        (KeyboardInterrupt(), 130, "Stopped."),
        (ZeroDivisionError("by zero"), 1, "this is a bug of wildpdiff (ZeroDivisionError: by zero)"),
    ],
)
def test_errors_become_one_sentence_and_a_status(
    error: BaseException,
    status: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("WILDPDIFF_DEBUG", raising=False)
    monkeypatch.setattr(report, "print_json", failing(error))
    monkeypatch.setattr("wildpdiff.evaluate.results.read_results", failing(error))
    assert main(["report", "results.json"]) == status
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILDPDIFF_DEBUG", "1")
    monkeypatch.setattr("wildpdiff.evaluate.results.read_results", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["report", "results.json"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["demmo"], "No such command 'demmo'"),
        (["predict"], "Try `wildpdiff predict --help`"),
        (["zoo", "build"], "Try `wildpdiff zoo build --help`"),
        (["suite"], "Missing command"),
        (["demo", "--size", "huge"], "'huge' is not one of"),
        (["generate", "g", "--out", "o", "--seed", "x"], "--seed"),
    ],
)
def test_bad_usage_is_one_sentence(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_version_and_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out[:1].isdigit()
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    check_output_artifact(tmp_path / "new", "generator")
    check_output_artifact(tmp_path, "generator")
    (tmp_path / "manifest.json").write_text('{"kind": "zoo"}')
    with refused(ArtifactError, tmp_path, "generator"):
        check_output_artifact(tmp_path, "generator")
    with refused(ArtifactError, tmp_path, "adapter"):
        check_output_adapters(tmp_path, 1)
    (tmp_path / "manifest.json").write_text('{"kind": "generator"}')
    check_output_artifact(tmp_path, "generator")
    with refused(ArtifactError, tmp_path / "manifest.json", "--out"):
        check_output_adapters(tmp_path / "manifest.json", 1)


def test_what_lies_beside_an_older_result_is_not_lost(tmp_path: Path) -> None:
    generator, adapter = tmp_path / "generator", tmp_path / "set" / "sample-0"
    generator.mkdir()
    adapter.mkdir(parents=True)
    (generator / "manifest.json").write_text('{"kind": "generator", "files": {"mean.safetensors": {}}}')
    (generator / "mean.safetensors").touch()
    (generator / "trust").mkdir()
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors", "provenance.json"):
        (adapter / name).touch()
    check_output_artifact(generator, "generator")
    check_output_adapters(adapter, 1)
    check_output_adapters(adapter.parent, 3)
    (generator / "notes.txt").touch()
    (adapter / "thesis.txt").touch()
    with refused(ArtifactError, generator, "'notes.txt'"):
        check_output_artifact(generator, "generator")
    for folder, n in ((adapter, 1), (adapter.parent, 3)):
        with refused(ArtifactError, adapter, "'thesis.txt'"):
            check_output_adapters(folder, n)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for check in (
        lambda: check_output_adapters(tmp_path / "a" / "b", 1),
        lambda: check_output_artifact(tmp_path / "c", "zoo"),
    ):
        with refused(ArtifactError, tmp_path, "read-only"):
            check()


def test_a_file_that_is_read_is_not_written(tmp_path: Path) -> None:
    photograph = tmp_path / "a.jpg"
    photograph.touch()
    check_output_file(tmp_path / "species.csv", {photograph.resolve()})
    with refused(ArtifactError, "a.jpg", "--out"):
        check_output_file(tmp_path / ".." / tmp_path.name / "a.jpg", {photograph.resolve()})


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    from wildpdiff.disk import write_folder

    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    for content in (b"first", b"second"):
        write_folder(link, lambda folder, content=content: (folder / "x").write_bytes(content))  # type: ignore[misc]
        assert link.is_symlink()
        assert (target / "x").read_bytes() == content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "target"]


def test_a_device_is_written_to_and_stays_one(capfd: pytest.CaptureFixture[str]) -> None:
    from wildpdiff.disk import write_file

    if not Path(os.devnull).is_char_device():
        pytest.skip("this system has no character device for nothing")
    write_file(Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("rate", ["nan", "inf", "-1", "0"])
def test_a_learning_rate_that_is_none_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    status = main(["zoo", "build", "--learning-rate", rate, "--out", str(tmp_path / "zoo"), "-o", "seen=2"])
    assert status == 2
    assert "give a number above 0" in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()


def test_a_seed_that_no_generator_of_numbers_takes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "build", "--seed", "9" * 23, "--out", str(tmp_path / "zoo")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "zoo").exists()


def test_help_of_fit_names_the_defaults_of_the_configuration() -> None:
    from typing import get_type_hints

    from wildpdiff.cli.fit import fit
    from wildpdiff.fit import GeneratorConfig

    defaults = GeneratorConfig()
    wanted = {
        "parts": ",".join(defaults.parts),
        "steps": str(defaults.diffusion.steps),
        "task_steps": str(defaults.task_loss.steps),
    }
    hints = get_type_hints(fit, include_extras=True)
    assert all(f"default: {value}" in hints[name].__metadata__[0].help for name, value in wanted.items())
