from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wildbench.cli import reproduce
from wildbench.studies.scaling import ScalingConfig, ScalingResult
from wildpdiff.errors import DataError

APP = typer.Typer()
APP.add_typer(reproduce.app, name="reproduce")


class Reached(Exception):
    """The work would begin here."""

    def __init__(self, config: ScalingConfig, out: Path) -> None:
        super().__init__()
        self.config = config
        self.out = out


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(config: ScalingConfig, out: Path, **rest: object) -> ScalingResult:
        raise Reached(config, out)

    monkeypatch.setattr("wildbench.studies.scaling.run_scaling", stop)


def run(*words: str) -> Exception | None:
    error = CliRunner().invoke(APP, ["reproduce", "scaling", "--threads", "1", *words]).exception
    assert error is None or isinstance(error, Exception)
    return error


def test_the_default_is_the_grid_of_the_documentation() -> None:
    reached = run()
    assert isinstance(reached, Reached)
    assert reached.config == ScalingConfig()
    assert reached.out == Path("runs/scaling")


def test_every_option_reaches_the_grid() -> None:
    words = (
        "--tasks 3,8 --checkpoints 2 --drawn-from wide --seeds 1 --samples 2 --seed 6 --out elsewhere -o seen=40 "
        "-o train=50"
    )
    reached = run(*words.split())
    assert isinstance(reached, Reached)
    assert reached.out == Path("elsewhere")
    expected = ScalingConfig(
        suite_options={"seen": 40, "train": 50},
        tasks=(3, 8),
        diversities=("wide",),
        checkpoints=(2,),
        seeds=1,
        samples=2,
        seed=6,
    )
    assert reached.config == expected


def test_a_suite_of_tables_gets_no_option_of_the_simulated_one() -> None:
    reached = run("--suite", "images.csv")
    assert isinstance(reached, Reached)
    assert dict(reached.config.suite_options) == {}


@pytest.mark.parametrize("text", ["5,x", "", "-5"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    error = run("--tasks", text)
    assert isinstance(error, DataError)
    assert "give whole numbers separated by commas" in str(error)


@pytest.mark.parametrize("text", ["broad", "", "wide,broad"])
def test_draws_from_nowhere_are_refused(text: str) -> None:
    error = run("--drawn-from", text)
    assert isinstance(error, DataError)
    assert "give wide, narrow, or both" in str(error)
