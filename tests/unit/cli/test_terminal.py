"""The time left of a stage, and how it is shown where there is no terminal."""

from __future__ import annotations

import pytest

from wildpdiff.cli.terminal import Stages, TimeLeft, _lines, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_that_of_the_mean_rate() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left(0, 100) is None
    clock.now += 10
    assert left(20, 100) == pytest.approx(40.0)
    clock.now += 10
    assert left(60, 100) == pytest.approx(20 * 40 / 60), "a leap ahead counts, half of it would not"


def test_what_an_earlier_call_left_does_not_count_as_speed() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left(40, 100)
    clock.now += 0.5
    assert left(80, 100) is None
    clock.now += 10
    assert left(85, 100) == pytest.approx(30.0)


def test_there_is_no_estimate_before_anything_moves() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left(3, 10)
    clock.now += 60
    assert left(3, 10) is None


def test_the_slow_first_steps_of_a_stage_give_no_estimate() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    left(0, 1000)
    clock.now += 10
    assert left(19, 1000) is None
    clock.now += 1
    assert left(20, 1000) == pytest.approx(980 * 11 / 20)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "5 s"), (38.0, "40 s"), (58.0, "1 min"), (170.0, "3 min"), (7800.0, "2 h 10 min")]
)
def test_durations_are_round(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_in_a_pipe_there_is_a_line_at_the_start_and_later_ones_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        stages("fit")(1, 2)
    assert capsys.readouterr().err == "fit …\n"
    clock = Clock()
    tick = _lines("fit", TimeLeft(clock), clock)
    for _ in range(101):
        tick(round(clock.now - 100), 200)
        clock.now += 1
    assert capsys.readouterr().err.splitlines() == [
        "fit: 5 %, about 3 min left",
        "fit: 20 %, about 3 min left",
        "fit: 35 %, about 2 min left",
        "fit: 50 %, about 2 min left",
    ]
