"""Extrapolation with trust: groups of like tasks held out one after the other, each kept on disk when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wildbench.observers.trust_assessment import FreshImages, assess_tasks, measured_gains, trust_point
from wildbench.pipeline import PipelineConfig
from wildbench.run_folder import RunFolder, Tick
from wildbench.studies.grid import StudyInputs
from wildbench.studies.groups import (
    HeldOutGroup,
    HeldOutGroups,
    TaskGroup,
    add_groups,
    choose_groups,
    hold_out_group,
    join_groups,
)
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Results, TrustPoint, TrustSection
from wildpdiff.generator import Generator
from wildpdiff.records import decode, encode
from wildpdiff.trust.generated import FEWEST_TASKS, calibrate_generator


@dataclass(frozen=True)
class GroupsStudy:
    """Selection of the groups that are held out.

    Attributes:
        kinds: categories of the metadata, or ``region``.
        most_tasks: of a group that are scored.
        generators: fitted without each group, with different seeds; None takes as many as the run has.
        most_groups: of each kind that are held out, the first in their order; None holds out each in turn.
    """

    kinds: tuple[str, ...]
    most_tasks: int = 12
    generators: int | None = None
    most_groups: int | None = None

    def __post_init__(self) -> None:
        for name in ("most_tasks", "generators", "most_groups"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"The study of held-out groups has {name} {value}; give at least 1.")

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**vars(self), "kinds": list(self.kinds)}


@dataclass(frozen=True)
class GroupResult:
    """Record of one held-out group: scores, costs, and the trust in its tasks."""

    found: HeldOutGroups
    trust: tuple[TrustPoint, ...]


def measure_groups(
    study: GroupsStudy,
    run: PipelineConfig,
    inputs: StudyInputs,
    *,
    folder: RunFolder,
    results: Results,
    variant: str,
) -> Results:
    """Add the rows of every held-out group to results. Groups that lie in the folder are not held out again.

    Args:
        study: which groups.
        run: of the variant that they are held out of.
        inputs: its suite, backbone, zoo, labelled images and generator.
        folder: of this study; each group is a stage and a file ``groups/KIND/VALUE.json``.
        results: that are added to; without rows of these splits.
        variant: name written into the points of trust.

    Raises:
        DataError: the suite cannot be grouped by a kind, or no group of it can be held out.
        TrainingError: a training diverged.
    """
    numbers = range(run.generator_seeds if study.generators is None else study.generators)
    seeds = [run.seed + 1000 * number for number in numbers]
    points: list[TrustPoint] = []
    for kind in study.kinds:
        chosen = choose_groups(inputs, kind)
        kept = []
        for group in chosen.groups[: study.most_groups]:
            path = folder.folder / "groups" / kind / f"{group.value}.json"
            if not path.is_file():
                measured = folder.timed(
                    f"hold out {kind} {group.value}",
                    lambda tick, kind=kind, group=group: _measured(  # type: ignore[misc]
                        study, run, inputs, kind, group=group, seeds=seeds, variant=variant, tick=tick
                    ),
                )
                write_file(path, json_bytes(encode(measured)))
            kept.append(_read(path))
        found = join_groups([entry.found for entry in kept], chosen.notes)
        results = add_groups(results, found, seed=run.seed)
        points += [point for entry in kept for point in entry.trust]
    if points:
        return replace(results, trust=TrustSection(tuple(points)))
    note = "Trust was not assessed: it is switched off, or too few seen tasks are left without a held-out group."
    return replace(results, notes=(*results.notes, note))


def _read(path: Path) -> GroupResult:
    kept: GroupResult = decode(GroupResult, read_json(path), str(path))
    return kept


def _measured(
    study: GroupsStudy,
    run: PipelineConfig,
    inputs: StudyInputs,
    kind: str,
    *,
    group: TaskGroup,
    seeds: Sequence[int],
    variant: str,
    tick: Tick,
) -> GroupResult:
    held_out = hold_out_group(
        inputs,
        kind,
        group,
        generator_seeds=seeds,
        most_tasks=study.most_tasks,
        samples=run.samples,
        seed=run.seed,
    )
    generators = [entry.source for entry in held_out.fitted.methods if isinstance(entry.source, Generator)]
    tick(1, 1 + len(generators))
    points: list[TrustPoint] = []
    for number, generator in enumerate(generators):
        if run.trust and generator.mean is not None and len(held_out.rest.tasks) >= FEWEST_TASKS:
            points += _assessed(run, inputs, held_out, kind, generator=generator, variant=variant)
        tick(2 + number, 1 + len(generators))
    return GroupResult(held_out.found, tuple(points))


def _assessed(
    run: PipelineConfig,
    inputs: StudyInputs,
    held_out: HeldOutGroup,
    kind: str,
    *,
    generator: Generator,
    variant: str,
) -> list[TrustPoint]:
    """Trust is calibrated on the tasks of the other groups alone."""
    split, seed = f"held-out {kind}", int(generator.training["seed"])
    training_set = inputs.training_set(held_out.rest)
    model = calibrate_generator(generator, training_set, inputs.generator, seed=seed)
    images = FreshImages.of(inputs.data(name) for name in training_set.tasks)
    reports = assess_tasks(
        model, generator, held_out.scored, split=split, samples=run.samples, seed=held_out.seed, images=images
    )
    gains = measured_gains(held_out.found.rows, split, seed)
    return [
        trust_point(report, task, gains, world=variant, split=split, generator=seed) for task, report in reports.items()
    ]
