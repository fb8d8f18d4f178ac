"""Examples of a description that are no images: arrays, named arrays and texts, read by the backbone's own features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toys
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import fit_generator
from wildpdiff.generator import Generator
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.batch import chosen, count, examples_hash, joined
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, description_provenance
from wildpdiff.tasks.objective import Classification
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.training_set import TrainingSet

FINETUNE = FinetuneConfig(steps=20, batch=8, learning_rate=0.1, warmup=2, checkpoints=2, interval=2, optimizer="adam")
LETTERS = "abcdefgh"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, values: Tensor, scale: Tensor | None = None) -> Tensor:
        scaled = values if scale is None else values * scale[:, None]
        result: Tensor = self.classifier(self.second(self.first(scaled).tanh()).tanh())
        return result


@dataclass(frozen=True)
class Letters:
    """Counts of the letters a to h."""

    def __call__(self, examples: Any) -> dict[str, Tensor]:
        return {"values": torch.tensor([[float(text.count(letter)) for letter in LETTERS] for text in examples])}


def arrays(values: np.ndarray) -> Any:
    return values.astype(np.float32)


def named(values: np.ndarray) -> Any:
    return {"values": values.astype(np.float32), "scale": np.ones(len(values), dtype=np.float32)}


def texts(values: np.ndarray) -> Any:
    return ["".join(letter * int(abs(2 * n)) for letter, n in zip(LETTERS, row, strict=True)) for row in values]


KINDS: dict[str, Callable[[np.ndarray], Any]] = {"arrays": arrays, "named arrays": named, "texts": texts}


def backbone(kind: str) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Net()
    collate = Letters() if kind == "texts" else None
    lora = LoraSpec(2, 2.0, ("second",), ("classifier",))
    return Backbone.of(module, name="net", lora=lora, objective=Classification(("few", "many")), collate=collate)


def task(kind: str, x: float) -> PlainTask:
    """Inputs around the task's own point; which of them are above it is the class."""

    def data(split: str, size: int) -> Dataset:
        values = numpy_generator(0, split, round(100 * x)).normal(size=(size, 8)) + x
        return Dataset(KINDS[kind](values), (values[:, 0] > x).astype(np.int64))

    splits = {"train": data("train", 24), "validation": data("validation", 8), "test": data("test", 8)}
    return PlainTask(f"task-{100 * x:.0f}", splits, Description(examples=data("unlabelled", 12).inputs))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_reads_them_and_is_restored(kind: str, tmp_path: Path) -> None:
    suite = PlainSuite("plain", [task(kind, x) for x in np.linspace(0.5, 3, 10)], [task(kind, 1.13)])
    model = backbone(kind)
    zoo = build_zoo(tmp_path / "zoo", model, suite.tasks("seen"), suite.fingerprint, config=FINETUNE, per_shard=5)
    config = replace(
        toys.posterior_config(), parts=("examples",), diffusion=DiffusionConfig(size="tiny", steps=4, batch=8)
    )
    training_set = TrainingSet.of(suite, model, zoo, FeatureCache(model, suite.tasks("seen")))
    generator = fit_generator(training_set, config).generator
    inputs = 9 if kind == "named arrays" else 8
    assert model.image_features.blocks == {"embedding": 8, "class probabilities": 2, "inputs": inputs}
    one, other = (suite.tasks("seen")[number].description for number in (0, 9))
    encoded = [generator.conditions.encode(description).values for description in (one, other)]
    assert not torch.allclose(*encoded)
    (made,) = generator.sample(suite.tasks("unseen")[0].description, 1, 0)
    generator.save_pretrained(tmp_path / "generator")
    again = Generator.from_pretrained(tmp_path / "generator", backbone(kind))
    (restored,) = again.sample(suite.tasks("unseen")[0].description, 1, 0)
    for name, value in made.tensors.items():
        torch.testing.assert_close(restored.tensors[name], value)
    assert made.provenance["description"]["examples"]["images"] == 12


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_counted_chosen_joined_and_hashed(kind: str) -> None:
    values = numpy_generator(0, "values").normal(size=(5, 8)) * 3
    some = KINDS[kind](values)
    assert count(chosen(some, [4, 0])) == 2
    assert examples_hash(chosen(some, range(5))) == examples_hash(some)
    assert examples_hash(chosen(some, [1, 0, 2, 3, 4])) != examples_hash(some)
    both = joined(chosen(some, [0, 1]), chosen(some, [2, 3, 4]))
    assert examples_hash(both) == examples_hash(some)
    assert description_provenance(Description(examples=some))["examples"]["sha256"] == examples_hash(some)
