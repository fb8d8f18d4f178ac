"""A domain of seconds: points in the plane, of which each task turns the boundary; told by the angle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wildbench.domains.domain import Domain, in_groups
from wildbench.presets import tiny_generator
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.pooled_scores import macro_f1
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.evaluate.results import SourceInfo
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.metric import Metric
from wildpdiff.tasks.objective import Classification
from wildpdiff.tasks.task import Task
from wildpdiff.zoo.steps import FinetuneConfig

SIZES = {"train": 40, "validation": 10, "test": 20}
FINETUNE = FinetuneConfig(steps=20, batch=8, learning_rate=0.1, warmup=2, checkpoints=2, interval=2, optimizer="adam")


def task(name: str, angle: float) -> PlainTask:
    draws = numpy_generator(0, "turned", name)
    points = {split: draws.normal(size=(size, 2)) for split, size in SIZES.items()}  # type: ignore[call-overload]
    axis = np.array([np.cos(angle), np.sin(angle)])
    splits = {split: Dataset(values, (values @ axis > 0).astype(np.int64)) for split, values in points.items()}
    return PlainTask(name, splits, Description(metadata={"angle": float(angle)}))


def suite() -> PlainSuite:
    seen = [task(f"seen-{i}", angle) for i, angle in enumerate(np.linspace(0, 1.5, 12))]
    unseen = [task(f"unseen-{i}", angle) for i, angle in enumerate((0.3, 0.9, 2.0))]
    return PlainSuite("turned", seen, unseen)


def backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    lora = LoraSpec(2, 2.0, ("2",), ("4",))
    return Backbone.of(module, name="turned", lora=lora, objective=Classification(("below", "above")))


@dataclass(frozen=True)
class Oracle:
    """Outputs of the true rule; its score is 1."""

    info: SourceInfo = field(default_factory=lambda: SourceInfo("true rule", "labels", None, "not to be had"))

    def outputs(self, task: Task) -> Tensor:
        return nn.functional.one_hot(torch.as_tensor(task.data("test").targets), 2).float()


@dataclass(frozen=True)
class Episodes:
    """Episodes whose score is 1 for the pretrained model and the norm of what moved for others, of at most 2."""

    initial: Adapter
    metric: Metric = field(default_factory=lambda: Metric("return", low=0.0))

    def __call__(self, task: str, adapters: Sequence[Adapter]) -> Tensor:
        moved = [
            sum(
                float((adapter.tensors[name] - value).norm())
                for name, value in self.initial.tensors.items()
                if "lora_A" not in name
            )
            for adapter in adapters
        ]
        return torch.tensor([[1.0 + min(value, 1.0), 1.0] for value in moved])


def opened(data: Path, folder: Path, seed: int, progress: Tick) -> OpenBenchmark:
    return OpenBenchmark(
        suite(), backbone(), FINETUNE, in_groups({"unseen-2": "far"}), predictors=lambda made: [Oracle()]
    )


GENERATOR = replace(tiny_generator(), parts=("metadata",), task_loss=TaskLossConfig(steps=4, tasks=4, images=8))
TINY = Domain("tiny", "Turned boundaries", (), opened, GENERATOR, (macro_f1(2),), samples=2, seen_tasks=2)
