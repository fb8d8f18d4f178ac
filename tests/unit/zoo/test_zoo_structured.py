import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import toys
from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.cli import zoo as zoo_verb
from wildpdiff.codec.layout import Layout
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.finetune import FinetuneRun, finetune
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.structured import StructuredConfig, finetune_structured, project_rows

CONFIG = FinetuneConfig(steps=12, batch=8, learning_rate=0.02, warmup=2, checkpoints=3, interval=2)
TASKS = toys.ToySuite().tasks("seen")


@pytest.fixture(scope="module")
def tasks(toy_backbone: Backbone) -> list[TaskFeatures]:
    return [task_features(toy_backbone, task, CONFIG.batch) for task in TASKS]


@pytest.fixture(scope="module")
def initial(toy_backbone: Backbone) -> dict[str, torch.Tensor]:
    return toys.random_tensors(toy_backbone, 0, scale=0.3)


def varied(run: FinetuneRun, checkpoint: int) -> torch.Tensor:
    last = {name: value[:, checkpoint] for name, value in run.tensors.items()}
    vectors = Layout.of({name: value[0] for name, value in last.items()}).flatten_many(last)
    return vectors - vectors.mean(0)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("directions", [1, 3, 6, 20])
def test_projection_is_the_truncated_singular_value_decomposition(shape: tuple[int, int], directions: int) -> None:
    matrix = torch.randn(shape, generator=torch_generator(0, "matrix"))
    u, singular, vh = torch.linalg.svd(matrix, full_matrices=False)
    expected = (u[:, :directions] * singular[:directions]) @ vh[:directions]
    torch.testing.assert_close(project_rows(matrix, directions), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam"}, {"train_factor_a": True, "shrinkage": 0.7}])
def test_with_as_many_directions_as_tasks_it_is_independent_fine_tuning(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: dict[str, torch.Tensor], changes: dict
) -> None:
    config = replace(CONFIG, **changes)
    alone = finetune(toy_backbone, tasks, initial, config, seed=1)
    together = finetune_structured(toy_backbone, tasks, initial, config, StructuredConfig(4), seed=1)
    assert (alone.names, alone.steps) == (together.names, together.steps)
    for name, value in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], value, atol=2e-4, rtol=0)
    torch.testing.assert_close(together.train_loss, alone.train_loss, atol=1e-4, rtol=0)
    torch.testing.assert_close(together.validation_accuracy, alone.validation_accuracy)


def test_every_checkpoint_lies_in_few_directions_around_the_mean_and_learns(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: dict[str, torch.Tensor]
) -> None:
    before = {name: value.clone() for name, value in initial.items()}
    config = replace(CONFIG, steps=80, learning_rate=0.05, optimizer="adam", checkpoints=3, interval=30)
    run = finetune_structured(toy_backbone, tasks, initial, config, StructuredConfig(2), seed=1)
    for checkpoint in range(3):
        singular = torch.linalg.svdvals(varied(run, checkpoint))
        assert float(singular[1]) > 1e-3
        assert float(singular[2]) < 1e-4 * float(singular[0])
    assert float(run.train_loss[:, -1].mean()) < 0.8 * float(run.train_loss[:, 0].mean())
    assert all(torch.equal(before[name], value) for name, value in initial.items())
    for name, value in run.tensors.items():
        assert value.shape == (5, 3, *initial[name].shape)
        if ".lora_A." in name:
            assert torch.equal(value, initial[name].expand_as(value))


def test_decay_draws_tasks_together_and_leaves_what_they_share(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: dict[str, torch.Tensor]
) -> None:
    def run(decay: float) -> FinetuneRun:
        structured = StructuredConfig(3, decay)
        return finetune_structured(toy_backbone, tasks, initial, CONFIG, structured, seed=1)

    free, held = run(0.0), run(30.0)
    assert float(varied(held, -1).norm()) < 0.7 * float(varied(free, -1).norm())
    name = next(name for name in initial if ".lora_B." in name)
    assert float((held.tensors[name][:, -1].mean(0) - initial[name]).norm()) > 1e-3


def test_what_cannot_be_trained_is_refused(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: dict[str, torch.Tensor]
) -> None:
    for bad in ({"directions": 0}, {"directions": 2, "decay": -1.0}):
        with pytest.raises(TrainingError, match="at least one direction"):
            StructuredConfig(**bad)
    with pytest.raises(DataError, match="there are none"):
        finetune_structured(toy_backbone, [], initial, CONFIG, StructuredConfig(2), seed=1)
    wild = replace(CONFIG, learning_rate=1e30)
    with pytest.raises(TrainingError, match="is not finite at step"):
        finetune_structured(toy_backbone, tasks, initial, wild, StructuredConfig(2), seed=1)


# On disk --------------------------------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make(folder: Path, backbone: Backbone, **changes: object) -> Zoo:
    settings: dict = {"structured": StructuredConfig(2), "per_shard": 2, **changes}
    return build_zoo(folder, backbone, TASKS, "toy", CONFIG, **settings)


def test_a_structured_zoo_is_a_zoo_of_another_plan(tmp_path: Path, toy_backbone: Backbone) -> None:
    done: list[tuple[int, int]] = []
    zoo = make(tmp_path / "z", toy_backbone, progress=lambda *state: done.append(state))
    assert done[-1] == (CONFIG.steps * len(TASKS),) * 2
    assert zoo.plan.joint
    assert zoo.plan.finetune["structured"] == {"directions": 2, "decay": 0.0}
    adapters = list(zoo.task_adapters().values())
    assert all(isinstance(adapter, Adapter) for adapter in adapters)
    layout = Layout.of(adapters[0].tensors)
    vectors = torch.stack([layout.flatten(adapter.tensors) for adapter in adapters])
    assert float(torch.linalg.svdvals(vectors - vectors.mean(0))[2]) < 1e-4
    assert zoo.last(1).plan.joint
    independent = build_zoo(tmp_path / "i", toy_backbone, TASKS, "toy", CONFIG, per_shard=2)
    assert not independent.plan.joint
    assert independent.plan.fingerprint != zoo.plan.fingerprint
    for other in (None, StructuredConfig(3), StructuredConfig(2, 0.1)):
        with pytest.raises(ArtifactError, match=r"another plan \(different: finetune"):
            make(tmp_path / "z", toy_backbone, structured=other)


def test_how_tasks_are_stored_does_not_change_them(tmp_path: Path, toy_backbone: Backbone) -> None:
    one, two = (make(tmp_path / str(size), toy_backbone, per_shard=size) for size in (2, 5))
    rows = range(len(one))
    assert all(torch.equal(value, two.tensors(rows)[name]) for name, value in one.tensors(rows).items())
    assert one.column("validation_accuracy") == two.column("validation_accuracy")


def test_interrupted_while_it_is_stored_it_ends_with_the_same_bytes(
    tmp_path: Path, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "undisturbed", toy_backbone)
    real, written = os.fsync, []

    def fsync(handle: int) -> None:
        written.append(handle)
        if len(written) == 6:  # plan, initial, the two files of the first shard, the rows of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ArtifactError):
            make(tmp_path / "z", toy_backbone)
    with pytest.raises(ArtifactError, match="is unfinished"):
        Zoo.open(tmp_path / "z")
    make(tmp_path / "z", toy_backbone)
    assert tree(tmp_path / "z") == tree(tmp_path / "undisturbed")


def test_the_command_asks_for_a_basis(tmp_path: Path) -> None:
    small = ["seen=3", "train=32", "validation=4"]
    words = ["build", "--out", str(tmp_path / "z"), *(word for entry in small for word in ("-o", entry)), "--json"]
    words += ["--steps", "2", "--checkpoints", "1", "--structured", "1", "--threads", "1"]
    done = CliRunner().invoke(zoo_verb.app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tasks"] == 3
    assert Zoo.open(tmp_path / "z").plan.finetune["structured"]["directions"] == 1
