"""Kinds of problem that every seam is tested with: a small model, tasks on a line, and the chain from both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import toys
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.objective import Classification, NextToken, Regression
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.training_set import TrainingSet

SCHEMA = MetadataSchema((MetadataField("x", "number"),))
POINTS = tuple(np.linspace(-1, 1, 10))
FINETUNE = FinetuneConfig(steps=40, batch=8, learning_rate=0.03, warmup=3, checkpoints=2, interval=2, optimizer="adam")
SIZES = (("train", 24), ("validation", 8), ("test", 24))


@dataclass(frozen=True)
class Problem:
    """A backbone, and the examples of the task at a point."""

    backbone: Callable[[], Backbone]
    examples: Callable[[float, np.random.Generator, int], Dataset]

    def task(self, x: float) -> PlainTask:
        name = f"task-{1000 * x + 1000:.0f}"
        splits = {part: self.examples(x, numpy_generator(0, name, part), count) for part, count in SIZES}
        return PlainTask(name, splits, Description(metadata={"x": float(x)}))  # type: ignore[arg-type]

    def suite(self, points: tuple[float, ...]) -> PlainSuite:
        seen, unseen = [self.task(x) for x in points], [self.task(x) for x in (-0.55, 0.05, 0.65)]
        return PlainSuite("plain", seen, unseen, metadata_schema=SCHEMA)


def images(x: float, rng: np.random.Generator, count: int) -> Dataset:
    """Bright or dark; where one ends is the task's."""
    values = rng.integers(0, 256, count)
    pixels = np.broadcast_to(values[:, None, None, None], (count, 8, 8, 3)).astype(np.uint8)
    return Dataset(pixels, (values > 128 + 90 * x).astype(np.int64))


def vectors(x: float, rng: np.random.Generator, count: int) -> Dataset:
    """A rotation by the task's angle."""
    inputs = rng.normal(size=(count, 2))
    rotation = np.array([[np.cos(x), -np.sin(x)], [np.sin(x), np.cos(x)]])
    return Dataset(inputs, inputs @ rotation.T)


def texts(x: float, rng: np.random.Generator, count: int) -> Dataset:
    """Sentences of words of two kinds; how many of one kind make the class is the task's."""
    many = rng.integers(0, 9, count)
    ids = np.where(np.arange(8)[None] < many[:, None], 5, 7)
    mask = np.ones_like(ids)
    mask[:, 6:] = rng.integers(0, 2, (count, 1))
    return Dataset({"input_ids": ids, "attention_mask": mask}, [("few", "many")[int(n > 4 + 2 * x)] for n in many])


def sequences(x: float, rng: np.random.Generator, count: int) -> Dataset:
    """Numbers that go up by the task's step."""
    start, step = rng.integers(0, 12, (count, 1)), 1 + round(2 * x + 2)
    ids = (start + step * np.arange(7)[None]) % 12
    return Dataset({"input_ids": ids, "attention_mask": np.ones_like(ids)}, ids)


def regression() -> Backbone:
    module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    return Backbone.of(module, name="net", lora=LoraSpec(2, 2.0, ("2",), ("4",)), objective=Regression(2, "m"))


def distilbert() -> Backbone:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    sizes = {"vocab_size": 12, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 8}
    labels = {"id2label": {0: "few", 1: "many"}, "label2id": {"few": 0, "many": 1}}
    module = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**sizes, **labels))
    saved = ["pre_classifier", "classifier"]
    return Backbone.from_pretrained(
        module, lora=peft.LoraConfig(r=2, target_modules=r".*layer\.1\..*q_lin", modules_to_save=saved)
    )


def gpt2() -> Backbone:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    sizes = {"vocab_size": 12, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 8}
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens))
    return Backbone.from_pretrained(module, lora=peft.LoraConfig(r=2, target_modules=r".*h\.1\..*(c_attn|c_fc)"))


def pictures() -> Backbone:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    lora = LoraSpec(2, 2.0, ("2",), ("5",))
    return Backbone.wrap(module, name="pictures", classes=("dark", "bright"), image_size=8, lora=lora)


PROBLEMS = {
    "image classification": Problem(pictures, images),
    "vector regression": Problem(regression, vectors),
    "text classification": Problem(distilbert, texts),
    "language model": Problem(gpt2, sequences),
}
KINDS = {
    "image classification": Classification,
    "vector regression": Regression,
    "text classification": Classification,
    "language model": NextToken,
}


def config() -> GeneratorConfig:
    """Every stage, each as short as it gets."""
    found = toys.posterior_config()
    tiny = DiffusionConfig(size="tiny", steps=4, batch=8)
    task_loss = replace(found.task_loss, steps=20, folds=2, directions=3, evaluation_images=8)
    posterior = replace(found.posterior, diffusion=tiny, scales=(1.0,), tasks=10, images=8, folds=2)
    return replace(
        found, parts=("metadata",), centering=False, diffusion=tiny, task_loss=task_loss, posterior=posterior
    )


@dataclass(frozen=True)
class Chain:
    """Everything that is made once for a problem."""

    suite: PlainSuite
    training_set: TrainingSet
    generator: Generator
    folder: Path


def chain_of(name: str, folder: Path, points: tuple[float, ...] = POINTS) -> Chain:
    problem = PROBLEMS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = problem.backbone()
    assert isinstance(backbone.objective, KINDS[name])
    suite = problem.suite(points)
    features = FeatureCache(backbone, suite.tasks("seen"), 8)
    zoo = build_zoo(
        folder / "zoo",
        backbone,
        suite.tasks("seen"),
        suite.fingerprint,
        config=FINETUNE,
        per_shard=20,
        features=features,
    )
    training_set = TrainingSet.of(suite, backbone, zoo, features)
    return Chain(suite, training_set, fit_generator(training_set, config()).generator, folder)
