"""One table that every kind of problem passes: zoo, generator, evaluation, for any objective and model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.results import provenance
from wildpdiff.evaluate.score import mean_scores, test_set
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.refine.refining import refine
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.objective import Classification, NextToken, Regression
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.recipe import RecipeSearch
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


@pytest.fixture(scope="module", params=PROBLEMS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chain_of(request.param, tmp_path_factory.mktemp("chain"))


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


def better(chain: Chain, one: float, other: float) -> bool:
    return chain.generator.backbone.objective.metric.sign * (one - other) > 0


def test_fine_tuning_and_generated_adapters_are_better_than_the_pretrained_model(chain: Chain) -> None:
    backbone, zoo = chain.generator.backbone, chain.training_set.zoo
    adapters = zoo.task_adapters()
    both = [[zoo.initial, adapters[task.name]] for task in chain.suite.tasks("seen")]
    rows = [
        mean_scores(backbone, test_set(backbone, task), pair)
        for task, pair in zip(chain.suite.tasks("seen"), both, strict=True)
    ]
    assert better(chain, *np.mean(rows, 0)[::-1])
    rows = []
    for task in chain.suite.tasks("unseen"):
        (made,) = chain.generator.sample(task.description, n=1, seed=0)
        rows.append(mean_scores(backbone, test_set(backbone, task), [zoo.initial, made]))
    assert better(chain, *np.mean(rows, 0)[::-1])


def test_the_table_of_cross_validation_has_the_metric_s_unit_and_direction(chain: Chain) -> None:
    table, metric = chain.generator.cross_validation, chain.generator.backbone.objective.metric
    assert table is not None
    pretrained = table.row("pretrained")
    assert pretrained is not None
    lead = metric.sign * (table.delivered.accuracy - pretrained.accuracy)
    assert pretrained.lead == pytest.approx(lead, abs=1e-4)
    assert metric.contains(pretrained.accuracy / metric.scale)
    assert table.metric == metric
    assert metric.unit in table.verdict


def test_an_adapter_s_folder_gives_peft_s_outputs(chain: Chain) -> None:
    peft = pytest.importorskip("peft")
    backbone, task = chain.generator.backbone, chain.suite.tasks("unseen")[0]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    made.save(chain.folder / "adapter")
    batch = backbone.stem(task.data("test").inputs)
    ours = backbone.predict(batch, Adapter.load(chain.folder / "adapter").tensors)
    inputs = backbone.collate(task.data("test").inputs)
    plain = next(iter(inputs.values())) if not hasattr(backbone.module, "config") else None
    import copy

    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.module), str(chain.folder / "adapter")).eval()
    with torch.no_grad():
        theirs = model(plain) if plain is not None else model(**inputs).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, backbone.predict(batch), atol=1e-3)


def test_a_few_labels_refine_and_the_recipe_is_found(chain: Chain) -> None:
    backbone, task = chain.generator.backbone, chain.suite.tasks("unseen")[1]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    features = FeatureCache(backbone, [task])(task.name)
    refined = refine(
        backbone,
        made,
        features,
        RefineConfig(posterior=MapConfig(steps=8, batch=8), folds=2),
        points=Starts.of_generator(chain.generator),
    )
    before, after = (
        float(backbone.objective.loss(backbone.predict(features.train, entry.tensors), features.train).mean())
        for entry in (made, refined.adapter)
    )
    assert after < before
    tasks = [chain.training_set.features(name) for name in chain.training_set.tasks[:2]]  # type: ignore[misc]
    short = replace(FINETUNE, steps=4, checkpoints=1)
    found = RecipeSearch(backbone, tasks, chain.training_set.zoo.initial.tensors, 0).choose(short)
    assert len(found.trials) > len(tasks)


def test_an_evaluation_scores_every_method(chain: Chain) -> None:
    backbone, zoo, suite = chain.generator.backbone, chain.training_set.zoo, chain.suite
    features = chain.training_set.features
    assert isinstance(features, FeatureCache)
    reference = build_zoo(
        chain.folder / "reference", backbone, suite.tasks("unseen"), suite.fingerprint, config=FINETUNE, per_shard=3
    )
    comparison = Comparison(suite, backbone, zoo, reference, (chain.generator,), {}, features, seen_tasks=2)
    results = compare_sources(comparison, made=provenance("test", 0), samples=1)
    means = {
        name: np.mean([row.accuracy for row in results.rows if row.source == name and row.split == "unseen"])
        for name in ("pretrained", "fine-tuned")
    }
    assert better(chain, float(means["fine-tuned"]), float(means["pretrained"]))


@pytest.mark.parametrize("problem", ["image classification", "vector regression"])
def test_trust_is_calibrated_on_gains_of_any_metric(problem: str, tmp_path: Path) -> None:
    chain = chain_of(problem, tmp_path, tuple(np.linspace(-1, 1, 18)))
    calibration = CalibrationConfig(group_folds=1, samples=1)
    model = calibrate_generator(chain.generator, chain.training_set, config(), calibration=calibration)
    task = chain.suite.tasks("unseen")[0]
    (made,) = chain.generator.sample(task.description, n=1, seed=0)
    report = model.assess(made, task.description)
    assert report.basis == "description"
    assert 0 <= report.trust <= 1
    assert report.low <= report.gain <= report.high
    assert model.held_out["description"].tasks == 18
    assert ("examples" in model.held_out) == (problem == "image classification")
    model.save(chain.folder / "trust")
    again = TrustModel.load(chain.folder / "trust", chain.generator.backbone)
    assert again.assess(made, task.description) == report


def test_a_target_that_the_objective_does_not_know_is_refused() -> None:
    from wildpdiff.errors import DataError

    task = PROBLEMS["image classification"].task(0.0)
    strange = Dataset(task.data("train").inputs, np.full(24, 7))
    wrong = PlainTask(task.name, {**task.splits, "train": strange})
    with refused(DataError, task.name, 7, "bright"):
        FeatureCache(pictures(), [wrong])(task.name)
