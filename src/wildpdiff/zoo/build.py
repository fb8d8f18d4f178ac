"""Building a zoo: plan, fine-tune group by group, resume after any interruption."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wildpdiff.artifact import read_safetensors, safetensors_bytes
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.disk import (
    UNFINISHED,
    disk_errors,
    file_hash,
    json_bytes,
    own_entries,
    read_json,
    remove_leftovers,
    write_file,
)
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.parallel import in_parallel
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.task import Task
from wildpdiff.zoo.features import FeatureCache, TaskFeatures, task_features
from wildpdiff.zoo.finetune import FinetuneRun, finetune
from wildpdiff.zoo.plan import PLAN, ZooPlan
from wildpdiff.zoo.recipe import ChosenRecipe, choose_recipe, drawn_tasks, search_work
from wildpdiff.zoo.shards import INITIAL, shard_hashes, whole_index, whole_shard, write_index, write_shard
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

DEFAULT = FinetuneConfig()
"""What a recipe is searched around, and kept where it is as good as any."""


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the plan file's lock, so that two processes never build one zoo; the system frees it at any death."""
    with disk_errors(folder), open(folder / PLAN, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"Another process is building the zoo in {folder}. Wait for it, or stop it.") from None
        yield


def _start(folder: Path, plan: ZooPlan) -> None:
    """Write the plan, or check that the unfinished zoo in the folder follows the same one."""
    if (folder / PLAN).is_file():
        if _altered(folder, plan):
            with _exclusive(folder):
                write_file(folder / PLAN, json_bytes(plan.to_json()))
        found = ZooPlan.from_json(read_json(folder / PLAN, finite=True), folder / PLAN)
        if found.fingerprint != plan.fingerprint and not list((folder / "shards").glob("*.safetensors")):
            # Nothing was built after it, for example since the tasks were refused: a corrected call may take its place.
            with _exclusive(folder):
                (folder / INITIAL).unlink(missing_ok=True)
                write_file(folder / PLAN, json_bytes(plan.to_json()))
        elif found.fingerprint != plan.fingerprint:
            left, right = found.to_json(), plan.to_json()
            changed = ", ".join(key for key in right if left.get(key) != right[key])
            raise ArtifactError(
                f"{folder} holds a zoo of another plan (different: {changed}). Choose another folder, or remove it."
            )
        return
    _refuse_foreign(folder)
    write_file(folder / PLAN, json_bytes(plan.to_json()))


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and own_entries(folder):
        raise ArtifactError(f"{folder} is not empty and holds no zoo. Choose another folder.")


def zoo_recipe(
    folder: Path | str,
    backbone: Backbone,
    tasks: Sequence[Task],
    suite_fingerprint: str,
    *,
    seed: int = 0,
    per_shard: int = 20,
    features: Callable[[str], TaskFeatures] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ChosenRecipe:
    """The recipe of the zoo that is or will be in a folder: from its plan, or chosen now on some of the seen tasks.

    A choice depends on backbone, tasks, seed and the number of threads alone, so a call that was killed ends with the
    same one, and a zoo of unseen tasks gets that of the seen tasks.

    Args:
        folder: where the zoo goes; only what the search has finished is written, for a call that goes on.
        backbone: the frozen model.
        tasks: the seen tasks, whichever tasks the zoo is of.
        suite_fingerprint: what decides the tasks' data.
        seed, per_shard, features: as for :func:`build_zoo`.
        progress: called with (optimiser steps × tasks done, at most).

    Raises:
        ArtifactError: the folder holds something else, or a zoo whose recipe was given.
        DataError: no tasks, or one that cannot be trained on.
        TrainingError: fine-tuning diverges however it is done.
    """
    folder = Path(folder)
    if (folder / PLAN).is_file():
        found = ZooPlan.from_json(read_json(folder / PLAN), folder / PLAN)
        built = any((folder / "shards").glob("*.safetensors"))
        same = (found.adapter, found.suite, found.seed) == (backbone.adapter_config, suite_fingerprint, seed)
        if found.recipe is not None and (
            built or same
        ):  # of another zoo: what differs is named before anything is built
            return ChosenRecipe.from_json(found.finetune, found.recipe, folder / PLAN)
        if built:
            raise ArtifactError(
                f"{folder} holds a zoo whose recipe was given and not chosen. Give the same one, or another folder."
            )
    else:
        _refuse_foreign(folder)
    by_name = {task.name: task for task in tasks}
    known = features or (lambda name: task_features(backbone, by_name[name]))
    drawn = [known(name) for name in drawn_tasks(by_name)]
    total = search_work(DEFAULT, len(drawn))
    initial = backbone.initial_adapter(sub_seed(seed, "initial")).tensors
    tick = None if progress is None else lambda done: progress(min(done, total), total)
    memory = folder / UNFINISHED / "recipe.json"
    return choose_recipe(backbone, drawn, initial, DEFAULT, seed, together=per_shard, memory=memory, progress=tick)


def _altered(folder: Path, plan: ZooPlan) -> bool:
    """Whether the file of the plan is not the one that the shards, which are of this plan, were built by."""
    stated = [shard_hashes(folder, number) for number in range(len(plan.shards))]
    built = {hashes["plan"] for hashes in stated if hashes is not None}
    return built == {plan.fingerprint} and (folder / PLAN).read_bytes() != json_bytes(plan.to_json())


def _write_initial(folder: Path, plan: ZooPlan, backbone: Backbone) -> None:
    """Write the shared initialisation, unless it is the one that the shards started from."""
    stated = [shard_hashes(folder, number) for number in range(len(plan.shards))]
    built = {hashes["initial"] for hashes in stated if hashes is not None and hashes["plan"] == plan.fingerprint}
    if not (folder / INITIAL).is_file() or file_hash(folder / INITIAL) not in built:
        initial = backbone.initial_adapter(sub_seed(plan.seed, "initial"))
        write_file(folder / INITIAL, safetensors_bytes(initial.tensors))


def build_zoo(
    folder: Path | str,
    backbone: Backbone,
    tasks: Sequence[Task],
    suite_fingerprint: str,
    config: FinetuneConfig | ChosenRecipe | None = None,
    *,
    seed: int = 0,
    per_shard: int = 20,
    features: Callable[[str], TaskFeatures] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Zoo:
    """Fine-tune every task and keep its checkpoints. Killed at any moment and called again, it goes on.

    A shard appears on disk whole or not at all, and depends on nothing but the plan, so that an interrupted build
    ends with the same bytes as an undisturbed one (on the same machine). Shards are built in as many processes as torch
    may use threads.

    Args:
        folder: where the zoo goes; an unfinished zoo of the same plan in it is finished.
        backbone: the frozen model.
        tasks: the tasks to fine-tune, in order.
        suite_fingerprint: what decides the tasks' data.
        config: fine-tuning and checkpoints, given or chosen. Left out they are chosen on some of the tasks
            (:func:`zoo_recipe`); for unseen tasks choose them on the seen ones.
        seed: decides initialisation and order of images.
        per_shard: tasks fine-tuned together and stored together.
        features: gives a task's images behind the stem by its name, where the caller keeps them for later stages.
        progress: called with (optimiser steps × tasks done, in all).

    Raises:
        ArtifactError: the folder holds something else, another process builds there, or the disk is full.
        DataError: no tasks, two tasks of one name, or a task that cannot be trained on.
        TrainingError: the loss of a task is not finite.
    """
    folder = Path(folder)
    names = tuple(task.name for task in tasks)
    if not names or len(set(names)) != len(names):
        raise DataError(f"A zoo needs tasks of different names; found {len(names)} tasks, {len(set(names))} names.")
    by_name = {task.name: task for task in tasks}
    known = features or (lambda name: task_features(backbone, by_name[name]))
    if config is None:
        config = zoo_recipe(folder, backbone, tasks, suite_fingerprint, seed=seed, per_shard=per_shard, features=known)
    recipe = None
    if isinstance(config, ChosenRecipe):
        recipe, config = config.to_json(), config.config
    plan = ZooPlan(backbone.adapter_config, suite_fingerprint, names, per_shard, config.to_json(), seed, recipe)
    _start(folder, plan)
    with _exclusive(folder):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # the search of the recipe, which the plan holds now
        for place in (folder, folder / "shards"):
            remove_leftovers(place)
        _write_initial(folder, plan, backbone)
        remember = features.keep if isinstance(features, FeatureCache) else None
        _fill(folder, plan, backbone, known, config, progress, remember)
        if not whole_index(folder, len(plan.shards)):
            write_index(folder, len(plan.shards))
    return Zoo.open(folder)


def recipe_of(plan: ZooPlan) -> FinetuneConfig | ChosenRecipe:
    """How the tasks of a zoo were fine-tuned, to fine-tune others in the same way.

    Raises:
        ArtifactError: the plan's settings are damaged.
    """
    if plan.recipe is not None:
        return ChosenRecipe.from_json(plan.finetune, plan.recipe, PLAN)
    try:
        return FinetuneConfig(**{name: plan.finetune[name] for name in FinetuneConfig.__dataclass_fields__})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"The plan of the zoo has no {error} of its fine-tuning. Build the zoo again.") from error


def _fill(
    folder: Path,
    plan: ZooPlan,
    backbone: Backbone,
    known: Callable[[str], TaskFeatures],
    config: FinetuneConfig,
    progress: Callable[[int, int], None] | None,
    remember: Callable[[Sequence[TaskFeatures]], None] | None,
) -> None:
    missing = [number for number in range(len(plan.shards)) if not whole_shard(folder, number)]
    initial = read_safetensors(folder / INITIAL)
    total, there = config.steps * len(plan.tasks), len(plan.shards) - len(missing)

    def build(number: int, tick: Callable[[float], None]) -> tuple[FinetuneRun, list[TaskFeatures]]:
        features = [known(name) for name in plan.shards[number]]
        seed = sub_seed(plan.seed, "finetune")
        run = finetune(backbone, features, initial, config, seed, lambda step, steps: tick(step / steps))
        return run, features if remember is not None else []

    def advance(share: float) -> None:
        if progress is not None:
            progress(round(total * (there + share * len(missing)) / len(plan.shards)), total)

    for number, (run, features) in zip(missing, in_parallel(build, missing, advance), strict=True):
        write_shard(folder, number, run, plan.seed)
        if remember is not None:
            remember(features)
