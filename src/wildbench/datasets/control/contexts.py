"""Tasks of control: a task is a context, an example a state with the action of the controller of that context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wildbench.datasets.control.system import Actions, Context, Floats, System, repeated, returns
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataValue
from wildpdiff.tasks.task import SplitName

OBSERVATIONS, TRANSITIONS = "observations", "transitions"
"""Names of the inputs: what a policy reads, and, in descriptions of a hidden context, what an action changes."""
DEMONSTRATED = {"train": 24, "validation": 8, "test": 8}
"""Episodes of the controller that each part's states are drawn from."""
DISTURBED = (0.0, 0.1, 0.3, 0.6)
"""Shares of random actions in these episodes, so that states off its path are labelled too (Laskey et al. 2017)."""
SPARE = 1.5
"""Contexts drawn for each that is needed; those that are hard to control are left out."""
BEYOND = (0.12, 0.6)
"""Distance of two fields of an outside context from the range, in its widths; or they are 0.4 to 0.8 of its low end."""
FAR = (1.25, 2.0)
"""Distance of one field of a far context above its range: farther than trust has evidence for."""
GROUPS = {"outside": "outside the range", "far": "far outside"}
"""Groups of unseen contexts that are held out whole."""
PAINTS = ("red", "green", "blue", "grey")


@dataclass(frozen=True)
class ControlConfig:
    """Size of the suite.

    Attributes:
        seed: of contexts and states.
        pretraining, seen, unseen: contexts inside the range.
        outside, far: unseen contexts with two numbers outside the range, and with one far above it.
        train, validation, test: most states of each part.
        episodes: that a policy is scored on.
        hidden: the description lacks the hidden fields, and has unlabelled transitions under random actions instead.
        distractors: the description also has a number and a category that change nothing.
        transitions: in a description.
    """

    seed: int = 0
    pretraining: int = 30
    seen: int = 60
    unseen: int = 16
    outside: int = 16
    far: int = 12
    train: int = 800
    validation: int = 200
    test: int = 300
    episodes: int = 16
    hidden: bool = False
    distractors: bool = False
    transitions: int = 128


@dataclass(frozen=True)
class Contexts:
    """Contexts with their controllers, and the returns that policies are compared with.

    Attributes:
        values: of each field, one a context.
        gains: parameters of the controllers.
        starts: states ``[c, e, s]`` in which the scored episodes begin.
        random, controlled: mean returns of a random policy and of the controller, on these episodes.
    """

    values: Context
    gains: Floats
    starts: Floats
    random: Floats
    controlled: Floats

    def some(self, rows: npt.NDArray[np.int64]) -> Contexts:
        """Some of the contexts."""
        values = {name: column[rows] for name, column in self.values.items()}
        return Contexts(values, self.gains[rows], self.starts[rows], self.random[rows], self.controlled[rows])


@dataclass(frozen=True)
class ControlSuite:
    """A suite of contexts, with all that scores a policy.

    Attributes:
        contexts: those of the tasks, in the order of ``row``.
        row: of each task by name.
        groups: of the unseen tasks outside the range by name.
    """

    system: System
    suite: PlainSuite
    contexts: Contexts
    row: dict[str, int] = field(repr=False)
    groups: dict[str, str]


def control_suite(system: System, config: ControlConfig = ControlConfig()) -> ControlSuite:
    """The suite of a system.

    Contexts in which the controller gains less than half of its median gain over random actions are not drawn: nothing
    could be learned from it there.

    Raises:
        DataError: too few contexts are left.
    """
    counts = {
        "inside": config.pretraining + config.seen + config.unseen,
        **{one: getattr(config, one) for one in GROUPS},
    }
    drawn = {group: _drawn(system, config, group, count) for group, count in counts.items() if count}
    contexts = _joined(list(drawn.values()))
    parts = [part for group, own in drawn.items() for part in _demonstrations(system, own, config, group)]
    groups = ("pretraining", "seen", "unseen", *GROUPS)
    sizes = [getattr(config, group) for group in groups]
    names = [f"{group}-{number:03d}" for group, size in zip(groups, sizes, strict=True) for number in range(size)]
    tasks = [PlainTask(name, parts[row], _description(system, contexts, row, config)) for row, name in enumerate(names)]
    cuts = np.cumsum(sizes).tolist()
    suite = PlainSuite(f"control-{system.name}", tasks[cuts[0] : cuts[1]], tasks[cuts[1] :], tasks[: cuts[0]])
    held_out = {name: GROUPS[name.split("-")[0]] for name in names if name.split("-")[0] in GROUPS}
    return ControlSuite(system, suite, contexts, {name: row for row, name in enumerate(names)}, held_out)


def _drawn(system: System, config: ControlConfig, group: str, count: int) -> Contexts:
    draws = numpy_generator(config.seed, "control", system.name, group)
    most = int(np.ceil(SPARE * count)) + 4
    low = np.array([entry.low for entry in system.fields])
    width = np.array([entry.high for entry in system.fields]) - low
    table = low + width * draws.uniform(0, 1, (most, len(low)))
    for row in table if group in GROUPS else ():
        for column in draws.choice(len(low), 1 if group == "far" else min(2, len(low)), replace=False):
            above = low[column] + width[column] * (1 + draws.uniform(*(FAR if group == "far" else BEYOND)))
            below = low[column] * (1 - draws.uniform(0.2, 0.6))
            row[column] = above if group == "far" or draws.random() < 0.5 else below
    values = {entry.name: table[:, column] for column, entry in enumerate(system.fields)}
    gains = system.gains(values)
    starts = system.start(draws, most * config.episodes)
    rows, each = repeated(values, len(starts)), np.repeat(gains, config.episodes, axis=0)
    controlled = returns(system, starts, rows, lambda states: system.law(states, rows, each))
    random = returns(system, starts, rows, lambda states: draws.integers(0, system.actions, len(states)))
    controlled, random = (values.reshape(most, -1).mean(1) for values in (controlled, random))
    gain = controlled - random
    able = np.flatnonzero(gain >= 0.5 * max(float(np.median(gain)), 1e-9))[:count]
    if len(able) < count:
        raise DataError(f"Only {len(able)} of {most} contexts {group} the range can be controlled; {count} are needed.")
    return Contexts(values, gains, starts.reshape(most, config.episodes, -1), random, controlled).some(able)


def _joined(parts: Sequence[Contexts]) -> Contexts:
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    names = ("gains", "starts", "random", "controlled")
    return Contexts(values, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _demonstrations(
    system: System, contexts: Contexts, config: ControlConfig, group: str
) -> list[dict[SplitName, Dataset]]:
    """States of episodes with disturbed actions, and the controller's actions there, for each context."""
    count = len(contexts.gains)
    found: list[dict[SplitName, Dataset]] = [{} for _ in range(count)]
    most: dict[SplitName, int] = {"train": config.train, "validation": config.validation, "test": config.test}
    for split, wanted in most.items():
        draws = numpy_generator(config.seed, "control", system.name, group, split)
        episodes = DEMONSTRATED[split]
        states, actions, running = _episodes(system, contexts, episodes, draws)
        for number in range(count):
            own = slice(number * episodes, (number + 1) * episodes)
            rows = np.argwhere(running[:, own])
            rows = rows[draws.permutation(len(rows))[:wanted]]
            chosen = states[:, own][rows[:, 0], rows[:, 1]]
            observed = system.observe(chosen).astype(np.float32)
            found[number][split] = Dataset({OBSERVATIONS: observed}, actions[:, own][rows[:, 0], rows[:, 1]])
    return found


def _episodes(
    system: System, contexts: Contexts, episodes: int, draws: np.random.Generator
) -> tuple[Floats, Actions, npt.NDArray[np.bool_]]:
    """States ``[t, n, s]``, the controller's actions there, and whether the episode was running."""
    states = system.start(draws, len(contexts.gains) * episodes)
    rows, gains = repeated(contexts.values, len(states)), np.repeat(contexts.gains, episodes, axis=0)
    share = np.resize(DISTURBED, episodes)
    disturbed = np.tile(share, len(contexts.gains))
    running = np.ones(len(states), bool)
    found = []
    for _ in range(system.steps):
        actions = system.law(states, rows, gains)
        found.append((states, actions, running))
        random = draws.integers(0, system.actions, len(states))
        taken = np.where(draws.random(len(states)) < disturbed, random, actions)
        states, _, ended = system.advance(states, taken, rows)
        running = running & ~ended
    seen, labels, alive = zip(*found, strict=True)
    return np.stack(seen), np.stack(labels), np.stack(alive)


def _description(system: System, contexts: Contexts, row: int, config: ControlConfig) -> Description:
    draws = numpy_generator(config.seed, "control", system.name, "description", row)
    about: dict[str, MetadataValue] = {
        entry.name: round(float(contexts.values[entry.name][row]), 4)
        for entry in system.fields
        if not (config.hidden and entry.hidden)
    }
    if config.distractors:
        about |= {"serial_number": round(float(draws.uniform(0, 100)), 1), "paint": str(draws.choice(PAINTS))}
    examples = _transitions(system, contexts, row, config, draws=draws) if config.hidden else None
    return Description(metadata=about, examples=examples)


def _transitions(
    system: System, contexts: Contexts, row: int, config: ControlConfig, *, draws: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """Observations, and their change with one random action: alone, times the action, and times each observation."""
    states = system.start(draws, config.transitions)
    own = repeated({name: values[row : row + 1] for name, values in contexts.values.items()}, len(states))
    for _ in range(int(draws.integers(5, 15))):
        states, _, _ = system.advance(states, draws.integers(0, system.actions, len(states)), own)
    actions = draws.integers(0, system.actions, len(states))
    after, _, _ = system.advance(states, actions, own)
    scale = np.array(system.scale)
    before = system.observe(states) / scale
    change = system.observe(after) / scale - before
    pushed = (actions - (system.actions - 1) / 2) / system.actions
    about = np.concatenate([np.ones((len(states), 1)), pushed[:, None], before], 1)
    products = (change[:, :, None] * about[:, None]).reshape(len(states), -1)
    return {OBSERVATIONS: system.observe(states).astype(np.float32), TRANSITIONS: products.astype(np.float32)}
