"""Zoos that grow, and generators that are trained further on them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.training import folds
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.growth import UNLIKE, UpdatedGenerator, residuals, settings_of, update_generator
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import ExampleRows, FeatureCache, data_hash, task_features
from wildpdiff.zoo.store import KEY, EarlierPlan, Zoo, ZooPlan, shard_path
from wildpdiff.zoo.training_set import TrainingSet

LEVELS = tuple(60.0 + 7 * (number * 7 % 20) for number in range(20))
"""So that those that are added lie between the others."""
EARLIER = 15
FINETUNE = replace(toys.FINETUNE, steps=12, checkpoints=2)
FEW = toys.ToySuite(seen=LEVELS[:EARLIER], fingerprint="toy of 15")
MANY = toys.ToySuite(seen=LEVELS, fingerprint="toy of 20")


@dataclass(frozen=True)
class Relabelled(toys.ToyTask):
    """A task of which one label was corrected."""

    def data(self, split: SplitName) -> LabelledImages:
        plain = super().data(split)
        labels = plain.labels.copy()
        labels[0] = (labels[0] + 1) % 3 if split == "validation" else labels[0]
        return LabelledImages(plain.images, labels)


def config() -> GeneratorConfig:
    """Of a generator that is quick to fit."""
    plain = toys.posterior_config()
    search = replace(plain.posterior.search, steps=2)
    posterior = replace(plain.posterior, tasks=10, scales=(0.5,), samples=2, images=8, folds=2, search=search)
    return replace(plain, posterior=posterior, diffusion=replace(plain.diffusion, steps=3))


def build(folder: Path, backbone: Backbone, suite: toys.ToySuite, **changes: object) -> Zoo:
    settings: dict = {"config": FINETUNE, "per_shard": 10, **changes}
    return build_zoo(folder, backbone, settings.pop("tasks", suite.tasks("seen")), suite.fingerprint, **settings)


def training_set(zoo: Zoo, backbone: Backbone, suite: toys.ToySuite) -> TrainingSet:
    return TrainingSet.of(suite, backbone, zoo, FeatureCache(backbone, suite.tasks("seen"), 8))


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@dataclass(frozen=True)
class Grown:
    """A zoo before and after five tasks were added, its generator and the update; not to be written to."""

    few: Zoo
    zoo: Zoo
    before: dict[str, tuple[bytes, int]]
    generator: Generator
    updated: UpdatedGenerator


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Grown:
    folder = tmp_path_factory.mktemp("grown") / "zoo"
    few = build(folder, toy_backbone, FEW)
    before = files_of(folder)
    generator = fit_generator(training_set(few, toy_backbone, FEW), config(), seed=3).generator
    zoo = build(folder, toy_backbone, MANY)
    return Grown(few, zoo, before, generator, generator.update(training_set(zoo, toy_backbone, MANY)))


@pytest.fixture
def copy(grown: Grown, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown.zoo.folder, tmp_path / "zoo"))


# Zoos --------------------------------------------------------------------------------------------------------------


def test_no_file_of_an_earlier_shard_is_touched(grown: Grown) -> None:
    after = files_of(grown.zoo.folder)
    for name, content in grown.before.items():
        assert name in ("plan.json", "index.parquet") or after[name] == content, name
    assert sorted(set(after) - set(grown.before)) == [
        "shards/shard-00002.parquet",
        "shards/shard-00002.safetensors",
    ]


def test_a_grown_zoo_has_the_adapters_of_both_plans(grown: Grown, toy_backbone: Backbone, tmp_path: Path) -> None:
    assert grown.zoo.tasks == tuple(task.name for task in MANY.tasks("seen"))
    assert grown.zoo.plan.earlier == (EarlierPlan(EARLIER, "toy of 15"),)
    assert [len(names) for names in grown.zoo.plan.shards] == [10, 5, 5]
    assert [plan.fingerprint for plan in grown.zoo.plan.history] == [
        grown.few.plan.fingerprint,
        grown.zoo.plan.fingerprint,
    ]
    assert ZooPlan.read(grown.zoo.folder) == grown.zoo.plan
    fresh = build(tmp_path / "fresh", toy_backbone, MANY).task_adapters()
    for name, adapter in grown.zoo.task_adapters().items():
        assert adapter.distance(fresh[name]) < 1e-4, name
    again = files_of(grown.zoo.folder)
    assert build(grown.zoo.folder, toy_backbone, MANY).plan == grown.zoo.plan
    assert files_of(grown.zoo.folder) == again


def test_tasks_may_come_in_any_order_and_grow_again(copy: Path, toy_backbone: Backbone) -> None:
    more = (toys.ToyTask("a-first", 99.0), *reversed(MANY.tasks("seen")))
    zoo = build(copy, toy_backbone, MANY, tasks=more)
    assert zoo.tasks == (*(task.name for task in MANY.tasks("seen")), "a-first")
    assert [entry.tasks for entry in zoo.plan.earlier] == [EARLIER, 20]
    assert Zoo.open(copy).only(["a-first", "seen-3"]).plan.shards == (("seen-3", "a-first"),)


def test_a_killed_growth_is_unfinished_and_resumes(
    grown: Grown, copy: Path, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = {name: data for name, (data, _) in files_of(copy).items()}
    shutil.rmtree(copy)
    build(copy, toy_backbone, FEW)
    real, written = os.fsync, iter(range(9))

    def fsync(handle: int) -> None:
        if next(written) == 2:  # after the plan and the rows of the new shard
            raise KeyboardInterrupt
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            build(copy, toy_backbone, MANY)
    with refused(ArtifactError, copy, "wildpdiff zoo build"):
        Zoo.open(copy)
    build(copy, toy_backbone, MANY)
    assert {name: data for name, (data, _) in files_of(copy).items()} == calm


def changed_tasks() -> tuple[toys.ToyTask, ...]:
    tasks = list(MANY.tasks("seen"))
    tasks[4] = Relabelled(tasks[4].name, tasks[4].level)
    return tuple(tasks)


def test_a_changed_task_is_named_and_rebuilt_on_demand(copy: Path, toy_backbone: Backbone) -> None:
    before, changed = files_of(copy), toys.ToySuite(seen=LEVELS, fingerprint="corrected")
    with refused(ArtifactError, "'seen-4'", "--rebuild", copy):
        build(copy, toy_backbone, changed, tasks=changed_tasks())
    assert files_of(copy) == before
    zoo = build(copy, toy_backbone, changed, tasks=changed_tasks(), rebuild=True)
    assert zoo.plan.earlier == ()
    assert [len(names) for names in zoo.plan.shards] == [10, 10]


def test_a_task_that_is_gone_and_other_settings_are_refused(copy: Path, toy_backbone: Backbone) -> None:
    before = files_of(copy)
    with refused(ArtifactError, "tasks", "suite", "--rebuild"):
        build(copy, toy_backbone, FEW)
    for changes, key in (({"seed": 1}, "seed"), ({"per_shard": 4}, "per_shard")):
        with refused(ArtifactError, key, "--rebuild"):
            build(copy, toy_backbone, MANY, **changes)
    assert files_of(copy) == before


def test_a_zoo_without_hashes_of_its_data_grows_in_its_own_suite_alone(tmp_path: Path, toy_backbone: Backbone) -> None:
    import pyarrow.parquet as parquet

    tasks = FEW.tasks("seen")
    zoo = build(tmp_path, toy_backbone, FEW, tasks=tasks[:5])
    path = shard_path(tmp_path, 0, "parquet")
    table = parquet.read_table(path)
    hashes = json.loads(table.schema.metadata[KEY])
    assert hashes.pop("data") == {task.name: data_hash(toy_backbone, task) for task in tasks[:5]}
    parquet.write_table(table.replace_schema_metadata({KEY: json.dumps(hashes)}), path)
    with refused(ArtifactError, "'seen-0'", "--rebuild"):
        build(tmp_path, toy_backbone, MANY)
    grown = build(tmp_path, toy_backbone, FEW, tasks=tasks[:7])
    assert grown.plan.history[0].fingerprint == zoo.plan.fingerprint
    assert grown.tasks == tuple(task.name for task in tasks[:7])


@pytest.mark.parametrize("earlier", [[{"tasks": 14, "suite": "toy of 15"}], [{"tasks": 15, "suite": "another"}]])
def test_a_history_that_is_not_that_of_the_shards_builds_nothing(
    copy: Path, earlier: object, toy_backbone: Backbone
) -> None:
    path = copy / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "earlier": earlier}))
    before = files_of(copy)
    with refused(ArtifactError, path):
        build(copy, toy_backbone, MANY)
    assert files_of(copy) == before


@pytest.mark.parametrize("earlier", [[{"tasks": 0, "suite": "s"}], [{"tasks": 30, "suite": "s"}], [{"tasks": 3}], 7])
def test_a_plan_with_a_wrong_history_is_refused(copy: Path, earlier: object) -> None:
    path = copy / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "earlier": earlier}))
    with refused(ArtifactError, path):
        Zoo.open(copy)


# Generators --------------------------------------------------------------------------------------------------------


def test_an_update_keeps_encoder_codec_and_folds(grown: Grown) -> None:
    old, new = grown.generator, grown.updated.generator
    assert new.codec is old.codec
    assert new.conditions is old.conditions
    assert old.mean is not None
    assert new.mean is not None
    assert torch.equal(new.mean.fold[:EARLIER], old.mean.fold)
    own = folds(grown.zoo.tasks, 3, 3, "conditional mean")
    assert torch.equal(new.mean.fold[EARLIER:], own[EARLIER:])
    assert torch.equal(new.mean.seen[:EARLIER], old.mean.seen)
    assert [(member.basis, member.fold) for member in new.mean.members] == [
        (member.basis, member.fold) for member in old.mean.members
    ]
    assert new.cross_validation is not None
    assert new.cross_validation.tasks == len(LEVELS)


def test_networks_resume_from_their_weights(grown: Grown) -> None:
    """Six updates move them less than from where a fresh network starts to where it was trained to."""
    old, new = grown.generator.mean, grown.updated.generator.mean
    assert old is not None
    assert new is not None
    moved = [
        (a.network.linear.weight - b.network.linear.weight).norm()
        for a, b in zip(old.members, new.members, strict=True)
    ]
    lengths = [member.network.linear.weight.norm() for member in old.members]
    assert any(float(value) > 0 for value in moved)
    assert all(float(a) < 0.5 * float(b) for a, b in zip(moved, lengths, strict=True) if b > 0)
    assert all(not parameter.requires_grad for member in new.members for parameter in member.network.parameters())


def test_an_updated_generator_says_what_it_was_trained_on(grown: Grown, tmp_path: Path) -> None:
    updated = grown.updated
    assert updated.added == tuple(f"seen-{number}" for number in range(EARLIER, 20))
    training = updated.generator.training
    assert (training["zoo"], training["tasks"], training["seed"]) == (grown.zoo.plan.fingerprint, 20, 3)
    assert training["updates"] == [{"generator": grown.generator.fingerprint, "tasks": EARLIER}]
    assert settings_of(updated.generator) == config()
    assert updated.generator.posterior is not None
    assert f"{EARLIER} tasks" in updated.generator.posterior.reason
    read = Generator.from_pretrained(updated.generator.save_pretrained(tmp_path / "g"), grown.generator.backbone)
    assert read.fingerprint == updated.generator.fingerprint != grown.generator.fingerprint


def test_a_second_update_goes_on_from_the_first(grown: Grown, copy: Path, toy_backbone: Backbone) -> None:
    suite = toys.ToySuite(seen=(*LEVELS, 99.0, 111.0), fingerprint="toy of 22")
    zoo = build(copy, toy_backbone, suite)
    third = grown.updated.generator.update(training_set(zoo, toy_backbone, suite))
    assert third.added == ("seen-20", "seen-21")
    assert [entry["tasks"] for entry in third.generator.training["updates"]] == [EARLIER, 20]
    assert third.generator.posterior is not None
    assert third.generator.posterior.reason.count(" Measured on") == 1


def test_an_update_is_the_same_twice_and_from_stored_networks(
    grown: Grown, toy_backbone: Backbone, tmp_path: Path
) -> None:
    seen = training_set(grown.zoo, toy_backbone, MANY)
    for _ in range(2):
        again = update_generator(grown.generator, seen, store=tmp_path)
        assert again.generator.fingerprint == grown.updated.generator.fingerprint
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == 6
    fit_generator(seen, config(), seed=3, store=tmp_path)
    assert len({path.name for path in tmp_path.iterdir()} - kept) == 6, "a fit takes none of an update's networks"


def test_unlike_zoos_and_kinds_are_refused(grown: Grown, toy_backbone: Backbone, tmp_path: Path) -> None:
    seen = training_set(grown.zoo, toy_backbone, MANY)
    with refused(ArtifactError, grown.zoo.folder, grown.zoo.plan.fingerprint[:12]):
        grown.updated.generator.update(seen)  # nothing was added since
    other = build(tmp_path, toy_backbone, MANY)
    with refused(ArtifactError, tmp_path, grown.few.plan.fingerprint[:12]):
        grown.generator.update(training_set(other, toy_backbone, MANY))
    with refused(TrainingError, "labelled examples"):
        grown.generator.update(replace(seen, features=None))
    with refused(TrainingError, "latents"):
        replace(grown.generator, mean=None).update(seen)
    imported = replace(grown.zoo.plan, finetune={**grown.zoo.plan.finetune, "origin": "imported"})
    with refused(TrainingError, "imported"):
        grown.generator.update(replace(seen, zoo=replace(grown.zoo, plan=imported)))


# Residuals ---------------------------------------------------------------------------------------------------------


def directions(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_residuals_are_distances_from_spans() -> None:
    first, later = directions(6, 20), directions(4, 20, seed=1)
    found, usual = residuals(torch.cat([first, later]), 6)

    def outside(row: torch.Tensor, span: torch.Tensor) -> float:
        fitted = span.T @ torch.linalg.lstsq(span.T, row[:, None]).solution
        return float((row - fitted[:, 0]).square().sum() / row.square().sum())

    assert found == pytest.approx(np.mean([outside(row, first) for row in later]), abs=1e-4)
    others = [outside(first[row], first[torch.arange(6) != row]) for row in range(6)]
    assert usual == pytest.approx(np.mean(others), abs=1e-4)


def test_a_refit_is_recommended_for_tasks_of_another_kind(grown: Grown) -> None:
    assert grown.updated.refit == ""
    far = replace(grown.updated, residual=1.01 * UNLIKE * grown.updated.usual)
    assert "refit" in far.refit
    assert replace(far, residual=1e-5, usual=1e-7).refit == ""
    unknown = replace(grown.updated, unknown=("The habitat 'cave' is new.",))
    assert "cave" in unknown.refit


def test_images_of_earlier_tasks_are_no_evaluation_images_of_added_ones(toy_backbone: Backbone) -> None:
    """Networks without the fold of an added task have learned from the earlier tasks' validation images."""
    first, second = (task_features(toy_backbone, toys.ToyTask(name, 90.0)) for name in ("one", "two"))
    both = replace(
        second,
        validation=first.validation,
        keys=(*second.keys[:48], *first.keys[48:]),
    )

    def shared(rows: ExampleRows) -> list[int]:
        return [int(row) for row in rows.leak_free if row >= 48]

    assert shared(ExampleRows.of([first, both])[1]) == list(range(48, 60))
    added = ExampleRows.of([first, both], earlier=(1,))
    assert shared(added[1]) == []
    assert shared(added[0]) == list(range(48, 60))
    assert len(added[1].leak_free) == 48
