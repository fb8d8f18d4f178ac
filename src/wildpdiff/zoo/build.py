"""Building a zoo: plan, fine-tune group by group, resume after any interruption, add tasks."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from wildpdiff.artifact import read_safetensors, safetensors_bytes
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.prefix import Prefix
from wildpdiff.disk import (
    UNFINISHED,
    disk_errors,
    file_hash,
    json_bytes,
    own_entries,
    remove_leftovers,
    write_file,
)
from wildpdiff.engine import Engine, ProcessEngine
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.task import Task, title_of
from wildpdiff.zoo.features import FeatureCache, TaskFeatures, data_hash, task_features
from wildpdiff.zoo.finetune import FinetuneRun, finetune
from wildpdiff.zoo.recipe import ChosenRecipe, RecipeSearch, drawn_tasks, finetune_config, search_work
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import INDEX, INITIAL, PLAN, Zoo, ZooPlan, shard_hashes, whole_shard, write_index, write_shard

DEFAULT = FinetuneConfig()
"""Centre of a recipe's search, kept where it is as good as any."""


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the plan file's lock, so that two processes never build one zoo; the system frees it at any death."""
    with disk_errors(folder), open(folder / PLAN, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"Another process is building the zoo in {folder}. Wait for it, or stop it.") from None
        yield


def _start(folder: Path, plan: ZooPlan, data_of: Callable[[str], tuple[str, str]], rebuild: bool) -> ZooPlan:
    """Write the plan, or check that the zoo in the folder follows the same one or one that it extends.

    ``data_of`` a task's name are its title and the hash of its data.

    Returns:
        The plan to follow.
    """
    path, content = folder / PLAN, json_bytes(plan.to_json())
    if not path.is_file():
        _refuse_foreign(folder)
        write_file(path, content)
        return plan
    altered = path.read_bytes() != content
    if altered and {built_by for built_by, _ in _origins(folder, plan)} == {plan.fingerprint}:
        with _exclusive(folder):
            write_file(path, content)
    found = ZooPlan.read(folder)
    if found.fingerprint == plan.fingerprint:
        return plan
    if _shards(folder) and not rebuild:
        plan = _grown(folder, found, plan, data_of)
        if plan != found:
            with _exclusive(folder):
                write_file(path, json_bytes(plan.to_json()))
        return plan
    with _exclusive(folder):  # nothing was built by the other plan, for example since the tasks were refused
        (folder / INITIAL).unlink(missing_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder / "shards", ignore_errors=True)
        write_file(path, content)
    return plan


def _grown(folder: Path, found: ZooPlan, plan: ZooPlan, data_of: Callable[[str], tuple[str, str]]) -> ZooPlan:
    """The plan of the zoo in a folder with those tasks of another plan that it does not have.

    Raises:
        ArtifactError: the plans differ in something else, or a task that the zoo has is gone or has other data.
    """
    advice = "Choose another folder, or give --rebuild (rebuild=True) to fine-tune all tasks anew in this one."
    left, right = replace(found, earlier=()).to_json(), plan.to_json()
    more = set(found.tasks) <= set(plan.tasks)
    changed = [key for key in right if left.get(key) != right[key] and not (more and key in ("suite", "tasks"))]
    if changed:
        raise ArtifactError(f"{folder} holds a zoo of another plan (different: {', '.join(changed)}). {advice}")
    for number, names in enumerate(found.shards if found.suite != plan.suite else ()):
        hashes = shard_hashes(folder, number)
        kept = {} if hashes is None else hashes.get("data", dict.fromkeys(names))
        for name in kept:
            title, data = data_of(name)
            if kept[name] != data:
                known = (
                    "has other examples or labels than those" if kept[name] else "may have other examples than those"
                )
                raise ArtifactError(f"Task {title!r} {known} that it was fine-tuned on in {folder}. {advice}")
    plans = {entry.fingerprint for entry in found.history}
    if any(built_by not in plans for built_by, _ in _origins(folder, found)):
        raise ArtifactError(f"{folder / PLAN} is not the plan that the shards beside it were built by. {advice}")
    new = [name for name in plan.tasks if name not in found.tasks]
    return found.extended(new, plan.suite) if new or found.suite != plan.suite else found


def _shards(folder: Path) -> bool:
    """Whether a folder has any shard of a zoo."""
    return any((folder / "shards").glob("*.safetensors"))


def _origins(folder: Path, plan: ZooPlan) -> set[tuple[str, str]]:
    """The hashes of plan and initialisation that the shards' rows hold, also of shards that the plan does not have."""
    count = max(len(plan.shards), len(list((folder / "shards").glob("*.parquet"))))
    rows = [shard_hashes(folder, number) for number in range(count)]
    return {(hashes["plan"], hashes["initial"]) for hashes in rows if hashes is not None}


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
        folder: of the zoo; only finished candidates of the search are written, for a call that resumes.
        backbone: the frozen model.
        tasks: the seen tasks, whichever tasks the zoo is of.
        suite_fingerprint: of the tasks' data.
        seed, per_shard, features: as for :func:`build_zoo`.
        progress: called with (optimiser steps × tasks done, at most).

    Raises:
        ArtifactError: the folder holds something else, or a zoo whose recipe was given.
        DataError: no tasks, or one that cannot be trained on.
        TrainingError: fine-tuning diverges however it is done.
    """
    folder = Path(folder)
    if (folder / PLAN).is_file():
        found, built = ZooPlan.read(folder), _shards(folder)
        same = (found.adapter, found.suite, found.seed) == (backbone.adapter_config, suite_fingerprint, seed)
        if found.recipe is not None and (built or same):  # :func:`build_zoo` refuses a zoo of another plan
            return ChosenRecipe.from_json(found.finetune, found.recipe, folder / PLAN)
        if built:
            raise ArtifactError(f"{folder} holds a zoo of a given recipe. Give the same one, or another folder.")
    else:
        _refuse_foreign(folder)
    by_name = {task.name: task for task in tasks}
    known = features or (lambda name: task_features(backbone, by_name[name]))
    drawn = [known(name) for name in drawn_tasks(by_name)]
    total = search_work(DEFAULT, len(drawn))
    initial = backbone.initial_adapter(sub_seed(seed, "initial")).tensors
    tick = None if progress is None else lambda done: progress(min(done, total), total)
    memory = folder / UNFINISHED / "recipe.json"
    return RecipeSearch(backbone, drawn, initial, seed, per_shard, memory, tick).choose(DEFAULT)


def _write_initial(folder: Path, plan: ZooPlan, backbone: Backbone) -> None:
    """Write the shared initialisation, unless it is the one that the shards started from."""
    path = folder / INITIAL
    built_by = {entry.fingerprint for entry in plan.history}
    if not path.is_file() or not {(entry, file_hash(path)) for entry in built_by} & _origins(folder, plan):
        initial = backbone.initial_adapter(sub_seed(plan.seed, "initial"))
        write_file(path, safetensors_bytes(initial.tensors))


def build_zoo(
    folder: Path | str,
    backbone: Backbone,
    tasks: Sequence[Task],
    suite_fingerprint: str,
    *,
    config: FinetuneConfig | ChosenRecipe | None = None,
    seed: int = 0,
    per_shard: int = 20,
    features: Callable[[str], TaskFeatures] | None = None,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] | None = None,
    rebuild: bool = False,
) -> Zoo:
    """Fine-tune every task and keep its checkpoints. Killed at any moment and called again, it resumes.

    A shard appears on disk whole or not at all, and depends on nothing but the plan, so that an interrupted build
    ends with the same bytes as an undisturbed one (on machines of one kind), whatever engine runs it. A zoo that has
    some of the tasks already grows by the others; its shards are not touched.

    Args:
        folder: of the zoo; an unfinished zoo of the same plan in it is finished, one of fewer tasks extended.
        backbone: the frozen model.
        tasks: the tasks to fine-tune, in order.
        suite_fingerprint: of the tasks' data.
        config: fine-tuning and checkpoints, given or chosen. Left out they are chosen on some of the tasks
            (:func:`zoo_recipe`); for unseen tasks choose them on the seen ones.
        seed: decides initialisation and order of images.
        per_shard: tasks fine-tuned together and stored together.
        features: of a task by its name, where the caller keeps them for later stages.
        engine: runs the shards; by default in as many processes as torch may use threads.
        progress: called with (optimiser steps × tasks done, in all).
        rebuild: replace a zoo of another plan, or of other data, instead of refusing.

    Raises:
        ArtifactError: the folder holds something else, or a zoo of a task whose data has changed; another process
            builds there, or the disk is full.
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
    plan = _start(folder, plan, lambda name: (title_of(by_name[name]), data_hash(backbone, by_name[name])), rebuild)
    with _exclusive(folder):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # the search of the recipe, which the plan holds now
        remove_leftovers(folder)
        remove_leftovers(folder / "shards")
        _write_initial(folder, plan, backbone)
        _fill(folder, plan, backbone, known, engine=engine or ProcessEngine(), progress=progress)
        write_index(folder, len(plan.shards))
    return Zoo.open(folder)


def recipe_of(plan: ZooPlan) -> FinetuneConfig | ChosenRecipe:
    """The fine-tuning of a zoo's tasks, to fine-tune others in the same way; raises :class:`ArtifactError`."""
    if plan.recipe is not None:
        return ChosenRecipe.from_json(plan.finetune, plan.recipe, PLAN)
    return finetune_config(plan.finetune, PLAN)


def _fill(
    folder: Path,
    plan: ZooPlan,
    backbone: Backbone,
    known: Callable[[str], TaskFeatures],
    *,
    engine: Engine,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fine-tune the tasks of all missing shards and write them."""
    cache = known if isinstance(known, FeatureCache) else None
    missing = [number for number in range(len(plan.shards)) if not whole_shard(folder, number)]
    total, there = plan.finetune["steps"] * len(plan.tasks), len(plan.shards) - len(missing)
    job = ShardJob(plan, backbone, known, read_safetensors(folder / INITIAL), cache is not None)

    def advance(share: float) -> None:
        if progress is not None:
            progress(round(total * (there + share * len(missing)) / len(plan.shards)), total)

    for number, (run, features, prefixes) in zip(missing, engine.map(job, missing, advance), strict=True):
        write_shard(folder, number, run, plan.seed)
        if cache is not None:
            cache.keep(features, prefixes)


@dataclass(frozen=True)
class ShardJob:
    """Fine-tuning of one shard, by its number: a value that any worker can run.

    Attributes:
        features: labelled images of a task behind the stem, by its name.
        initial: the shared initialisation.
        keep: whether the tasks' features are a part of the result, with the backbone's prefixes, for later stages.
    """

    plan: ZooPlan
    backbone: Backbone
    features: Callable[[str], TaskFeatures]
    initial: Mapping[str, Tensor]
    keep: bool = False

    def __call__(
        self, number: int, tick: Callable[[float], None]
    ) -> tuple[FinetuneRun, list[TaskFeatures], dict[Hashable, Prefix]]:
        """The checkpoints of one shard."""
        features = [self.features(name) for name in self.plan.shards[number]]
        config, seed = finetune_config(self.plan.finetune, PLAN), sub_seed(self.plan.seed, "finetune")
        run = finetune(
            self.backbone,
            features,
            self.initial,
            config=config,
            seed=seed,
            progress=lambda step, steps: tick(step / steps),
        )
        return (run, features, self.backbone.prefixes) if self.keep else (run, [], {})
