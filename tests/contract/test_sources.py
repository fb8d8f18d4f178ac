"""One table that every source of adapters passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from problems import PROBLEMS
from refusals import refused
from toys import FixedTask
from wildbench.methods.best_of import BestOfSource
from wildbench.methods.centred import CentredPretrainedSource
from wildbench.methods.checkpoints import CheckpointAverageSource, CheckpointNoiseSource, GaussianSource
from wildbench.methods.column_merge import ColumnMergeConfig, ColumnMergeSource
from wildbench.methods.evolution import EvolutionConfig, EvolutionSource, Space, latent_space, raw_space
from wildbench.methods.feature_prompt import FeaturePromptConfig, FeaturePromptSource
from wildbench.methods.few_labels import FewLabelsSource
from wildbench.methods.hypernetwork import HypernetworkConfig, HypernetworkSource
from wildbench.methods.linear_ridge import LinearRidgeSource
from wildbench.methods.merge import TopKMergeSource
from wildbench.methods.multitask import MultiTaskConfig, MultiTaskSource
from wildbench.methods.pdiff import UnconditionalPDiffSource
from wildbench.methods.pdiff_networks import PDiffConfig
from wildbench.methods.prior_correction import PredictedPriorSource, UnlabelledPriorSource
from wildbench.methods.refined import RefinedSource
from wildbench.methods.registry import OF_CLASSES
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.baselines.constant import FinetunedSource, MeanSource, PretrainedSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource, NearestTaskSource
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.training import NetworkTraining
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.disk import json_bytes
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.rng import numpy_generator, torch_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig

SCHEMA = MetadataSchema((MetadataField("x", "number"),))
TASKS = 6
UPDATES = NetworkTraining(steps=6, tasks=4, warmup=2, evaluate_every=3)
MULTITASK = MultiTaskConfig(UPDATES, evaluation_images=8)
HYPERNETWORK = HypernetworkConfig(UPDATES, directions=3, hidden=8, images=8, evaluation_images=8)
COLUMN_MERGE = ColumnMergeConfig(UPDATES, bank=4, hidden=8, images=8, held_out_images=8)
FEATURE_PROMPT = FeaturePromptConfig(UPDATES, hidden=8, images=8, held_out_images=8)
FINETUNE = FinetuneConfig(steps=12, batch=8, warmup=2, checkpoints=4, interval=2)
PDIFF = PDiffConfig(latent_size=8, channels=(4, 8, 4), autoencoder_steps=2, denoiser_steps=2, batch=6, times=4, pool=32)


class ToyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8 * 8 * 3, 5)
        self.classifier = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.classifier(self.body(inputs.flatten(1)).relu())
        return hidden


class Toy:
    """A tiny backbone, six seen tasks with descriptions, one random adapter of each, and a real little zoo of them."""

    def __init__(self, folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ToyNetwork()
        lora = LoraSpec(2, 2.0, ("body",), ("classifier",))
        self.backbone = Backbone.wrap(network, name="toy", classes=("a", "b"), image_size=8, lora=lora)
        self.descriptions = [self.describe(index) for index in range(TASKS)]
        self.adapters = [self.random_adapter(index) for index in range(TASKS)]
        self.encoder: FusionEncoder = fit_fusion(self.descriptions, SCHEMA, self.backbone.image_features, components=3)
        self.material = self.fine_tune(folder)

    def describe(self, index: int) -> Description:
        rng = numpy_generator(0, "images", index)
        images = rng.integers(20 * index, 20 * index + 80, (4, 8, 8, 3)).astype(np.uint8)
        examples = self.task(index).images[:6]
        return Description(metadata={"x": float(index)}, backgrounds=images, examples=examples, task_id=f"t{index}")

    def task(self, index: int) -> FixedTask:
        """Grey pictures of which the bright ones are of class 1, and more of them the higher the task's number."""
        rng = numpy_generator(0, "labelled images", index)
        labels = np.arange(24) % TASKS < min(index + 1, TASKS - 1)
        grey = 20 * index + 70 * labels[:, None, None, None] + rng.integers(0, 60, (24, 8, 8, 3))
        return FixedTask(f"t{index}", grey.astype(np.uint8), labels.astype(np.int64))

    def fine_tune(self, folder: Path) -> SeenTasks:
        """What trained baselines get: the tasks named above, fine-tuned for a few steps."""
        tasks = [self.task(index) for index in range(TASKS)]
        data = FeatureCache(self.backbone, tasks, FINETUNE.batch)
        zoo = build_zoo(folder, self.backbone, tasks, "contract", config=FINETUNE, features=data)
        return SeenTasks(self.backbone, zoo, self.descriptions, self.encoder, {}, data, seed=0)

    def random_adapter(self, seed: int) -> Adapter:
        generator = torch_generator(seed, "adapter")
        shapes = self.backbone.shapes
        tensors = {name: torch.randn(shapes[name], generator=generator) for name in sorted(shapes)}
        return Adapter(tensors, self.backbone.adapter_config)


def evolution(toy: Toy, where: Space) -> EvolutionSource:
    """A short search in the principal components of the seen adapters, or in their own values."""
    seen = SeenAdapters.of(toy.material.adapters)
    codec = Codec.fit(seen.layout, seen.vectors)
    autoencoder = PCAAutoencoder.fit(codec.encode(seen.vectors), latent_size=3)
    latent, raw = latent_space(codec, autoencoder, seen), raw_space(toy.material.zoo.initial, seen)
    config = EvolutionConfig(generations=2, population=4)
    return EvolutionSource(
        latent if where == "latent" else raw, toy.material.data, toy.backbone, labels_per_class=5, config=config
    )


def refined(toy: Toy) -> RefinedSource:
    """The mean adapter, refined for a few steps within the spread of the seen ones."""
    seen = SeenAdapters.of(toy.material.adapters)
    prior = RefinementPrior.of_errors(seen.layout, seen.vectors - seen.vectors.mean(0), "spread of the seen tasks")
    config = RefineConfig(posterior=MapConfig(steps=3, batch=8), folds=2)
    points = Starts(toy.backbone, prior, (), fewest_directions=1)
    return RefinedSource(MeanSource(toy.material.adapters), points, toy.material.data, 5, config=config)


def best_of(toy: Toy, by_labels: bool) -> BestOfSource:
    """The best of checkpoints with noise."""
    noisy = CheckpointNoiseSource(toy.material.zoo, 0.15, relative=True)
    return BestOfSource(noisy, toy.backbone, toy.material.data, by_labels=by_labels)


Make = Callable[[Toy], Source]
READS_NOTHING: dict[str, Make] = {
    "pretrained": lambda toy: PretrainedSource(toy.random_adapter(99)),
    "mean adapter": lambda toy: MeanSource(toy.adapters),
    "checkpoint + noise .06": lambda toy: CheckpointNoiseSource(toy.material.zoo, 0.06, relative=False),
    "checkpoint + relative noise .15": lambda toy: CheckpointNoiseSource(toy.material.zoo, 0.15, relative=True),
    "average of 16 checkpoints": lambda toy: CheckpointAverageSource(toy.material.zoo),
    "multi-task adapter": lambda toy: MultiTaskSource(toy.material, False, MULTITASK),
    "Gaussian per coordinate": lambda toy: GaussianSource(toy.material.zoo),
    "unconditional p-diff": lambda toy: UnconditionalPDiffSource.fit(toy.material.zoo, PDIFF),
}
READS_DESCRIPTION: dict[str, Make] = {
    "nearest task": lambda toy: NearestTaskSource(toy.encoder, toy.descriptions, toy.adapters),
    "additive kernel regression": lambda toy: AdditiveKernelSource(toy.encoder, toy.descriptions, toy.adapters),
    "kernel ridge regression": lambda toy: KernelRegressionSource(toy.encoder, toy.descriptions, toy.adapters),
    "top-K merge": lambda toy: TopKMergeSource(toy.encoder, toy.descriptions, toy.adapters),
    "linear ridge regression": lambda toy: LinearRidgeSource(toy.encoder, toy.descriptions, toy.adapters),
    "multi-task adapter with description": lambda toy: MultiTaskSource(toy.material, True, MULTITASK),
    "hypernetwork, reconstruction": lambda toy: HypernetworkSource(toy.material, "reconstruction", HYPERNETWORK),
    "hypernetwork, task loss": lambda toy: HypernetworkSource(toy.material, "task", HYPERNETWORK),
    "column-wise merge": lambda toy: ColumnMergeSource(toy.material, COLUMN_MERGE),
    "feature prompt": lambda toy: FeaturePromptSource(toy.material, FEATURE_PROMPT),
    "pretrained, centred": lambda toy: CentredPretrainedSource(toy.material),
    "prior from the description": lambda toy: PredictedPriorSource(toy.material),
}
READS_NAME: dict[str, Make] = {
    "fine-tuned": lambda toy: FinetunedSource({f"t{index}": toy.adapters[index] for index in range(TASKS)}),
    "fine-tuned, 5 labels a class": lambda toy: FewLabelsSource(
        toy.material.data, toy.backbone, toy.material.zoo.initial, labels_per_class=5, config=FINETUNE
    ),
    "CMA-ES in the latent space, 5 labels a class": lambda toy: evolution(toy, "latent"),
    "mean adapter, refined on 5 labels a class": refined,
    "CMA-ES on raw LoRA, 5 labels a class": lambda toy: evolution(toy, "raw"),
    "best of 8 by 5 labels": lambda toy: best_of(toy, True),
    "best of 8 by unlabelled images": lambda toy: best_of(toy, False),
}
READS_EXAMPLES: dict[str, Make] = {
    "prior by EM on unlabelled images": lambda toy: UnlabelledPriorSource(toy.material),
}
ALL = READS_NOTHING | READS_DESCRIPTION | READS_NAME | READS_EXAMPLES


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("contract") / "zoo")


def stored(adapters: list[Adapter]) -> list[bytes]:
    return [safetensors_bytes(adapter.tensors) + json_bytes(dict(adapter.provenance)) for adapter in adapters]


@pytest.mark.parametrize("name", ALL)
def test_the_adapters_fit_the_backbone(toy: Toy, name: str) -> None:
    source = ALL[name](toy)
    assert isinstance(source, Source)
    assert source.name == name
    for adapter in source.sample(toy.descriptions[2], 2, seed=0):
        toy.backbone.check(adapter)
        adapter.check_finite()
        assert {value.dtype for value in adapter.tensors.values()} == {torch.float32}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [1, 3])
def test_as_many_as_requested_and_alike_unless_stochastic(toy: Toy, name: str, n: int) -> None:
    source = ALL[name](toy)
    adapters = source.sample(toy.descriptions[2], n, seed=0)
    assert len(adapters) == n
    assert (len({safetensors_bytes(adapter.tensors) for adapter in adapters}) == n) is (source.stochastic or n == 1)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_bytes(toy: Toy, name: str) -> None:
    first = ALL[name](toy).sample(toy.descriptions[2], 2, seed=7)
    second = ALL[name](toy).sample(toy.descriptions[2], 2, seed=7)
    assert stored(first) == stored(second)


@pytest.mark.parametrize("name", ALL)
def test_another_seed_gives_another_sample_where_stochastic(toy: Toy, name: str) -> None:
    source = ALL[name](toy)
    first, second = (source.sample(toy.descriptions[2], 1, seed=seed)[0].tensors for seed in (7, 8))
    assert (safetensors_bytes(first) != safetensors_bytes(second)) is source.stochastic


@pytest.mark.parametrize("name", ALL)
def test_provenance_names_source_seed_and_task(toy: Toy, name: str) -> None:
    for adapter in ALL[name](toy).sample(toy.descriptions[2], 2, seed=7):
        expected: dict[str, Any] = {"source": name, "seed": 7, "task": "t2"}
        assert dict(adapter.provenance).items() >= expected.items()


@pytest.mark.parametrize("name", ALL)
def test_changing_a_sample_leaves_the_source_as_it_was(toy: Toy, name: str) -> None:
    source = ALL[name](toy)
    before = stored(source.sample(toy.descriptions[2], 1, seed=0))
    for value in source.sample(toy.descriptions[2], 1, seed=0)[0].tensors.values():
        value.zero_()
    assert stored(source.sample(toy.descriptions[2], 1, seed=0)) == before


@pytest.mark.parametrize("name", READS_DESCRIPTION | READS_NAME | READS_EXAMPLES)
def test_an_empty_description_is_refused(toy: Toy, name: str) -> None:
    with refused(DescriptionError):
        ALL[name](toy).sample(Description(), 1, seed=0)


@pytest.mark.parametrize("name", READS_NOTHING)
def test_an_empty_description_is_enough_where_none_is_read(toy: Toy, name: str) -> None:
    assert ALL[name](toy).sample(Description(), 1, seed=0)[0].provenance["task"] is None


class OtherToy(Toy):
    """The same with the tasks of another kind of problem, described by a number and a name."""

    def __init__(self, problem: str, folder: Path) -> None:
        self.problem = PROBLEMS[problem]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = self.problem.backbone()
        self.descriptions = [replace(self.task(row).description, task_id=f"t{row}") for row in range(TASKS)]
        self.adapters = [self.random_adapter(index) for index in range(TASKS)]
        self.encoder = fit_fusion(self.descriptions, SCHEMA, self.backbone.image_features)
        self.material = self.fine_tune(folder)

    def task(self, index: int) -> Any:
        return replace(self.problem.task(index / TASKS), name=f"t{index}")


@pytest.fixture(scope="module", params=["vector regression", "text classification"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OtherToy:
    return OtherToy(request.param, tmp_path_factory.mktemp("contract") / "zoo")


@pytest.mark.parametrize("name", ALL)
def test_any_kind_of_problem_gets_adapters_or_a_refusal_that_names_the_reason(other: OtherToy, name: str) -> None:
    source = ALL[name]
    if not other.backbone.classes and name in (*OF_CLASSES, "best of 8 by unlabelled images"):
        with refused(DataError, "classes"):
            source(other).sample(other.descriptions[2], 1, seed=7)
        return
    if name in READS_EXAMPLES:
        with refused(DescriptionError, "examples"):
            source(other).sample(other.descriptions[2], 1, seed=7)
        return
    found = [source(other).sample(other.descriptions[2], 2, seed=7) for _ in range(2)]
    assert stored(found[0]) == stored(found[1])
    for adapter in found[0]:
        other.backbone.check(adapter)
        adapter.check_finite()
        assert adapter.provenance["task"] == "t2"


@pytest.mark.parametrize("name", READS_DESCRIPTION)
@pytest.mark.parametrize("part", ["metadata", "backgrounds"])
def test_a_missing_part_is_no_obstacle(toy: Toy, name: str, part: str) -> None:
    description = Description(**{part: getattr(toy.descriptions[2], part)})
    toy.backbone.check(ALL[name](toy).sample(description, 1, seed=0)[0])
