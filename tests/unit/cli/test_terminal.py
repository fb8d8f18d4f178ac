"""The time left of a stage, and how it is shown where there is no terminal."""

from __future__ import annotations

import pytest

from wildpdiff.cli.terminal import Stages, TimeLeft, _lines, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def estimates(speeds: list[float], total: int, before: int = 0) -> list[float | None]:
    """The time left after every second in which so much was done."""
    clock, done = Clock(), float(before)
    left = TimeLeft(clock)
    found = [left(before, total)]
    for speed in speeds:
        clock.now += 1
        done += speed
        found.append(left(int(done), total))
    return found


def test_the_time_left_is_that_of_a_steady_rate() -> None:
    assert estimates([2.0] * 20, 100)[-1] == pytest.approx(60 / 2)


@pytest.mark.parametrize(("early", "late"), [(4.0, 1.0), (1.0, 4.0)])
def test_it_follows_the_cost_of_what_runs_now(early: float, late: float) -> None:
    """Tasks of a second kind, or a machine that others use now: the mean rate since the start would be far off."""
    speeds = [early] * 300 + [late] * 300
    total = round(300 * (early + late) + 200 * late)
    of_mean = 200 * late / (300 * (early + late) / 600)
    found = estimates(speeds, total)[-1]
    assert found is not None
    assert abs(found - 200) < abs(of_mean - 200) / 2


def test_a_leap_ahead_is_no_new_rate() -> None:
    found = estimates([1.0] * 60 + [60.0], 240)[-1]
    assert found is not None
    assert 40 < found < 120, "at the latest rate it would be two seconds"


def test_what_an_earlier_call_left_does_not_count_as_speed() -> None:
    assert estimates([0.0] + [1.0] * 20, 100, before=40)[-1] == pytest.approx(40 * 21 / 20, rel=0.02)


def test_there_is_no_estimate_before_it_means_something() -> None:
    assert set(estimates([0.0] * 60, 10, before=3)) == {None}, "nothing moved"
    assert set(estimates([0.0] * 30 + [1.0, 1.0], 10)) == {None}, "two tasks"
    assert estimates([0.0] * 30 + [1.0] * 3, 10)[-1] is not None
    assert set(estimates([10.0] * 4, 100)) == {None}, "the first seconds"
    slow = estimates([1.0] * 21, 1000)
    assert (slow[19], slow[20]) == (None, pytest.approx(980))


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
