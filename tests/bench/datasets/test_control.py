"""Systems of control: gymnasium's dynamics, controllers that control, and contexts as descriptions say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refusals import refused
from wildbench.datasets.control.acrobot import ACROBOT
from wildbench.datasets.control.cartpole import CARTPOLE
from wildbench.datasets.control.contexts import OBSERVATIONS, TRANSITIONS, ControlConfig, control_suite
from wildbench.datasets.control.pendulum import LEVELS, PENDULUM
from wildbench.datasets.control.system import System, repeated, returns
from wildpdiff.errors import DataError

SYSTEMS = (CARTPOLE, PENDULUM, ACROBOT)
SMALL = ControlConfig(
    pretraining=2, seen=4, unseen=2, outside=3, far=2, train=60, validation=20, test=30, episodes=3, transitions=20
)
ATTRIBUTES = {
    "length_1": "LINK_LENGTH_1",
    "mass_1": "LINK_MASS_1",
    "mass_2": "LINK_MASS_2",
    "center_1": "LINK_COM_POS_1",
    "center_2": "LINK_COM_POS_2",
}


def _environment(system: System, context: dict[str, float]) -> Any:
    """The environment of gymnasium with this context."""
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    made = gymnasium.make(system.environment).unwrapped
    made.reset(seed=0)
    for name, value in context.items():
        setattr(made, ATTRIBUTES.get(name, name), value)
    if system is CARTPOLE:
        made.total_mass = context["masscart"] + context["masspole"]
        made.polemass_length = context["masspole"] * context["length"]
    if system is ACROBOT:
        made.AVAIL_TORQUE = [-context["torque"], 0.0, context["torque"]]
    return made


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_step_is_that_of_gymnasium(system: System) -> None:
    draws = np.random.default_rng(0)
    context = {entry.name: float(draws.uniform(entry.low, entry.high)) for entry in system.fields}
    environment = _environment(system, context)
    states = system.start(draws, 5)
    rows = repeated(context, len(states))
    for _ in range(4):
        actions = draws.integers(0, system.actions, len(states))
        after, rewards, ended = system.advance(states, actions, rows)
        for row, action in enumerate(actions):
            environment.state = states[row].copy()
            environment.steps_beyond_terminated = None
            given = LEVELS[action : action + 1] * context["max_torque"] if system is PENDULUM else int(action)
            observed, reward, terminated, _, _ = environment.step(given)
            np.testing.assert_allclose(system.observe(after)[row], observed, rtol=1e-4, atol=1e-5)
            assert rewards[row] == pytest.approx(reward, abs=1e-9)
            assert ended[row] == terminated
        states = after


@pytest.mark.parametrize("system", [CARTPOLE, PENDULUM], ids=lambda system: system.name)
def test_the_controller_is_far_above_random_actions_and_above_that_of_another_context(system: System) -> None:
    draws = np.random.default_rng(1)
    contexts = {entry.name: draws.uniform(entry.low, entry.high, 24) for entry in system.fields}
    gains, starts = system.gains(contexts), system.start(draws, 24 * 6)
    rows, own = repeated(contexts, len(starts)), np.repeat(gains, 6, axis=0)
    turned = {name: np.roll(values, 6) for name, values in rows.items()}
    found = [
        returns(system, starts, rows, policy).mean()
        for policy in (
            lambda states: system.law(states, rows, own),
            lambda states: system.law(states, turned, np.roll(own, 6, axis=0)),
            lambda states: draws.integers(0, system.actions, len(states)),
        )
    ]
    assert found[0] > found[1] > found[2]
    assert found[0] - found[1] < 0.6 * (found[0] - found[2])


def test_an_episode_counts_until_it_ends() -> None:
    context = repeated({entry.name: entry.low for entry in CARTPOLE.fields}, 2)
    fallen = np.array([[0.0, 0.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
    short = replace(CARTPOLE, steps=3)
    assert returns(short, fallen, context, lambda states: np.array([0, 1])).tolist() == [1.0, 3.0]


def test_contexts_are_inside_and_outside_the_range_and_descriptions_tell_them() -> None:
    made = control_suite(PENDULUM, SMALL)
    assert [len(made.suite.tasks(group)) for group in ("pretraining", "seen", "unseen")] == [2, 4, 7]  # type: ignore[arg-type]
    assert list(made.groups) == [task.name for task in made.suite.unseen[2:]]
    assert list(made.groups.values()) == ["outside the range"] * 3 + ["far outside"] * 2
    for task in (*made.suite.seen, *made.suite.unseen):
        about = dict(task.description.metadata or {})
        inside = [entry.low <= float(about[entry.name]) <= entry.high for entry in PENDULUM.fields]
        assert all(inside) == (task.name not in made.groups)
        above = max((float(about[one.name]) - one.high) / (one.high - one.low) for one in PENDULUM.fields)
        assert (above >= 1.25) == (made.groups.get(task.name) == "far outside")
        assert task.description.examples is None
    row = made.row[made.suite.seen[1].name]
    about = dict(made.suite.seen[1].description.metadata or {})
    assert about == {name: pytest.approx(values[row], abs=1e-4) for name, values in made.contexts.values.items()}
    assert (made.contexts.controlled > made.contexts.random).all()
    data = made.suite.seen[1].data("train")
    assert data.inputs[OBSERVATIONS].shape == (60, 3)
    again = control_suite(PENDULUM, SMALL)
    assert again.suite.fingerprint == made.suite.fingerprint
    assert control_suite(PENDULUM, replace(SMALL, seed=1)).suite.fingerprint != made.suite.fingerprint


def test_labels_are_the_actions_of_the_contexts_own_controller() -> None:
    made = control_suite(CARTPOLE, SMALL)
    for task in made.suite.seen:
        row, data = made.row[task.name], task.data("test")
        states = data.inputs[OBSERVATIONS].astype(np.float64)  # of a cart and pole they are the states
        context = repeated({name: values[row] for name, values in made.contexts.values.items()}, len(states))
        gains = np.repeat(made.contexts.gains[row : row + 1], len(states), axis=0)
        assert (CARTPOLE.law(states, context, gains) == data.targets).mean() > 0.99
        assert 0.02 < np.mean(data.targets) < 0.98


def test_a_hidden_context_shows_in_transitions_and_a_distractor_changes_nothing_else() -> None:
    plain, hidden, distracted = (
        control_suite(PENDULUM, replace(SMALL, transitions=400, **change))
        for change in ({}, {"hidden": True}, {"distractors": True})
    )
    masses, pushed = [], []
    for one, other, third in zip(plain.suite.seen, hidden.suite.seen, distracted.suite.seen, strict=True):
        about = dict(one.description.metadata or {})
        assert set(about) - set(other.description.metadata or {}) == {"m", "l"}
        assert set(third.description.metadata or {}) - set(about) == {"serial_number", "paint"}
        np.testing.assert_array_equal(one.data("train").targets, third.data("train").targets)
        assert other.description.examples is not None
        # Changes times 1, the action and the observation.
        products = other.description.examples[TRANSITIONS].mean(0).reshape(3, 5)
        masses.append(float(about["max_torque"]) / (float(about["m"]) * float(about["l"]) ** 2))
        pushed.append(products[2, 1])
    assert np.corrcoef(masses, pushed)[0, 1] > 0.9


def test_contexts_that_nothing_controls_are_refused() -> None:
    idle = replace(PENDULUM, law=lambda states, context, gains: np.zeros(len(states), np.int64))
    with refused(DataError, "8"):
        control_suite(idle, SMALL)
