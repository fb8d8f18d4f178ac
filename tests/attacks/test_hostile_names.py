"""Names of files, tasks and classes that would command a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import pytest
from tiny_world import SUITE, Run, World

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.cli.terminal import print_json, remark, show
from wildpdiff.disk import visible

TITLE = "\x1b]0;x\x07"
COMMANDS = ["\x1b[2J", TITLE, "\x9b31m", "a\rb", "a\bb", "\x7f", "\u202egpj.exe", "\u2066x", "\x00"]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", "＝1"]


def raw(text: str) -> bool:
    """Whether a terminal would take something of it for a command."""
    return any((ord(letter) < 32 and letter not in "\n\t") or 0x7F <= ord(letter) < 0xA0 for letter in text)


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_is_shown_commands_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("name", name)
    table.add_row(name, Text(name))
    show(name)
    show(table)
    remark(name)
    print_json({name: name})
    shown = capsys.readouterr()
    assert not raw(shown.out + shown.err)
    for letter in "\u202e\u2066":
        assert letter not in shown.out + shown.err
    assert visible("größer, 47°06′, 雪, tab\tand\nline") == "größer, 47°06′, 雪, tab\tand\nline"


@pytest.fixture
def hostile(world: World, tmp_path: Path) -> Path:
    """The world's backbone with other class names: its weights, and so its adapters, stay."""
    found = load_backbone(world.backbone)
    classes = (TITLE, *FORMULAS, *found.classes[1 + len(FORMULAS) :])
    named = Backbone.wrap(found.module, name=found.name, classes=classes, image_size=found.image_size, lora=found.lora)
    save_backbone(named, tmp_path / "hostile")
    return tmp_path / "hostile"


def test_predictions_are_safe_in_terminals_and_spreadsheets(
    world: World, run: Run, tmp_path: Path, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wildpdiff.adapters.adapter import Adapter

    loaded = Adapter.load(world.adapter)
    classes = load_backbone(hostile).classes
    adapter = dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, classes=classes))
    adapter.save(tmp_path / "adapter")
    picture = sorted(world.images.iterdir())[0]
    names = [
        "=cmd|' C calc'!A0.jpg",
        "+1.jpg",
        "-2.jpg",
        "@x.jpg",
        f"{TITLE}.jpg",
        "plain, and more.jpg",
        "a\r=cmd|x.jpg",
    ]
    for name in names:
        shutil.copy(picture, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    words = ["predict", "adapter", "--backbone", hostile, "--top", str(len(classes)), "--out"]
    assert run(*words, "out.csv", "--", *names).status == 0
    rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_bytes().decode(), newline="")))[1:]
    assert {Path(row[0]) for row in rows} == {Path(name) for name in names}
    assert {row[1].removeprefix("'") for row in rows} == set(classes)
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝")) for cell in row), row
        assert Path(row[0]).is_file()
    shown = run(*words[:-1], "--", *names)
    assert shown.status == 0
    assert not raw(shown.out + shown.err)
    outcome = run(*words[:-1], "--json", "--", *names)
    assert not raw(outcome.out)
    assert {entry["class"] for entry in outcome.json} == set(classes)
    assert {entry["file"] for entry in outcome.json} == set(names)


def test_inspect_and_refusals_show_no_raw_names(world: World, run: Run, tmp_path: Path, hostile: Path) -> None:
    shown = [
        run("inspect", hostile),
        run("inspect", tmp_path / TITLE),
        run("predict", world.adapter, tmp_path / f"{TITLE}.jpg", "--backbone", world.backbone),
        run("predict", world.adapter, world.images, "--backbone", hostile),
        run("suite", "show", "savanna", *SUITE, "--task", TITLE),
        run("generate", world.generator, "--metadata", f"{TITLE}=1", "--out", tmp_path / "out"),
        run("fit", TITLE),
    ]
    for outcome in shown:
        assert not raw(outcome.out + outcome.err)
    assert "\\x1b" in shown[0].out


def test_the_tasks_of_a_table_are_shown_safely(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    lines = ["path,label,task,split"]
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / f"{number}.png")
        split = ("train", "train", "validation", "test")[number // 2]
        lines.append(f"{number}.png,{('a', TITLE)[number % 2]},{TITLE}north,{split}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    for words in ([], ["--task", "nowhere"]):
        outcome = run("suite", "show", tmp_path / "table.csv", "-o", "minimum=1", *words)
        assert not raw(outcome.out + outcome.err)
