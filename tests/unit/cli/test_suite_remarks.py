"""Remarks on a table: in full where a verb is the first to learn from it, their number elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import toys
from remarked import remarked
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.cli import options
from wildpdiff.cli.main import app


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two cameras with spellings of a label, a column of each picture, a stranger, a picture gone."""
    rows = ["File,label,task,note"]
    for camera in ("A", "B b"):
        for number in range(24):
            path = tmp_path / f"{camera}-{number}.png"
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
            label = toys.CLASSES[number % 2] if number else toys.CLASSES[0].upper()
            rows.append(f"{path.name},{label},{camera},n{number}")
    rows += ["A-1.png,wolf,B b,n1", "gone.png,wolf,A,n9"]
    (tmp_path / "my table.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "my table.csv"


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_few_remarks_are_those_on_pictures_left_out_and_the_command_that_shows_the_others(
    table: Path, toy_backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, inputs = ["columns=path=File", "unseen=B b", "unreadable=0.5"], [str(table)]
    suite = options.open_suite(inputs, settings, toy_backbone, learning=False, remarks="all")
    everything = shown(capsys)
    assert len(everything) == len(getattr(suite, "remarks", ())) > 3
    options.open_suite(inputs, settings, toy_backbone, learning=False, remarks="none")
    assert shown(capsys) == []
    options.open_suite(inputs, settings, toy_backbone, learning=False)
    few = shown(capsys)
    assert len(few) == 3
    remarked(few, "gone.png")
    remarked(few, "wolf 1")
    assert set(few[:2]) <= set(everything)
    assert str(len(everything) - 2) in few[2]
    words = shlex.split(few[2][few[2].index("wildpdiff") :])
    assert words[:7] == ["wildpdiff", "suite", "check", str(table), "--columns", "path=File", "-o"]
    checked = CliRunner().invoke(app, [*words[1 : words.index("shows")], "--json"])
    assert checked.exit_code == 0
    for sentence in set(everything) - set(few):
        assert sentence in checked.stdout.replace("\\\\", "\\").replace('\\"', '"')


def test_a_table_without_remarks_has_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["path,label,task,sequence"]
    for number in range(24):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'fox' if number % 2 else 'hare'},{'AB'[number % 4 // 2]},{number}")
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    options.open_suite([str(tmp_path / "t.csv")], ["minimum=1"])
    assert shown(capsys) == []
