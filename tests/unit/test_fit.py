import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

import toys
from refusals import refused
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.errors import AdapterMismatchError, DescriptionError, TrainingError
from wildpdiff.fit import FittedGenerator, GeneratorConfig, fit_generator
from wildpdiff.records import encode
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

SUITE = toys.ToySuite()


def descriptions() -> Mapping[str, Description]:
    return {task.name: task.description for task in SUITE.tasks("seen")}


def training_set(zoo: Zoo, backbone: Backbone, features: FeatureCache | None = None) -> TrainingSet:
    return TrainingSet.of(SUITE, backbone, zoo, features)


def short(config: GeneratorConfig | None = None) -> GeneratorConfig:
    config = config or toys.generator_config()
    return replace(config, diffusion=replace(config.diffusion, steps=10))


def test_the_fit_learns_and_has_its_measurements(toy_latents_fit: FittedGenerator) -> None:
    losses = toy_latents_fit.losses
    assert len(losses) == 150
    assert float(losses[-20:].mean()) < 0.9 * float(losses[:20].mean())
    assert 0 <= toy_latents_fit.reconstruction_error < 0.5
    assert toy_latents_fit.seconds > 0


def test_training_is_recorded(toy_fit: FittedGenerator, toy_zoo: Zoo) -> None:
    training = json.loads(json.dumps(toy_fit.generator.training))
    assert training["zoo"] == toy_zoo.plan.fingerprint
    assert (training["seed"], training["tasks"]) == (0, 5)
    assert training["config"]["parts"] == ["metadata", "backgrounds"]
    assert training["config"]["diffusion"]["steps"] == 150


def test_the_same_seed_gives_the_same_generator_and_another_another(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    for config in (toys.latents_config(), toys.generator_config()):
        first, again, other = (
            fit_generator(training_set(toy_zoo, toy_backbone), short(config), seed=seed).generator for seed in (2, 2, 3)
        )
        description = SUITE.tasks("unseen")[0].description
        assert first.fingerprint == again.fingerprint != other.fingerprint
        one, two = (source.sample(description, 1, 0)[0] for source in (first, again))
        assert safetensors_bytes(one.tensors) == safetensors_bytes(two.tensors)


@pytest.mark.parametrize("kind", ["toy_fit", "toy_latents_fit"])
def test_the_condition_decides_what_is_generated(request: pytest.FixtureRequest, kind: str, toy_zoo: Zoo) -> None:
    """Mean samples of a seen task lie nearer to its own checkpoints than to those of the most distant task."""
    generator = request.getfixturevalue(kind).generator
    layout = generator.codec.layout
    centers = {task: layout.flatten(adapter.tensors) for task, adapter in toy_zoo.task_adapters().items()}
    right = 0
    for name, description in descriptions().items():
        samples = generator.sample(description, 4, seed=0)
        mean = torch.stack([layout.flatten(entry.tensors) for entry in samples]).mean(0)
        farthest = max(centers, key=lambda other: float((centers[other] - centers[name]).norm()))
        right += bool((mean - centers[name]).norm() < (mean - centers[farthest]).norm())
    assert right >= 4


def test_progress_reaches_the_end(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    steps = TaskLossConfig(steps=4, tasks=2, images=4, folds=2, hidden=4, directions=2, evaluate_every=2)
    latents = short(toys.latents_config())
    estimate = replace(short(), task_loss=steps)
    for config, features in ((latents, None), (estimate, FeatureCache(toy_backbone, SUITE.tasks("seen"), 8))):
        done: list[tuple[int, int]] = []
        fit_generator(
            training_set(toy_zoo, toy_backbone, features),
            config,
            progress=lambda *counts, done=done: done.append((counts[0], counts[1])),
        )
        assert done[-1][0] == done[-1][1] == {total for _, total in done}.pop()
        assert len({total for _, total in done}) == 1
        assert [step for step, _ in done] == sorted(step for step, _ in done)


def test_few_tasks_and_tasks_without_images_have_no_posterior(
    toy_fit: FittedGenerator, toy_posterior_fit: FittedGenerator, toy_zoo: Zoo, toy_backbone: Backbone
) -> None:
    assert toy_fit.generator.posterior is None, "no images"
    assert toy_fit.generator.cross_validation is None
    features = FeatureCache(toy_backbone, SUITE.tasks("seen"), 8)
    config = replace(short(), task_loss=TaskLossConfig(steps=0))
    few = fit_generator(training_set(toy_zoo, toy_backbone, features), config).generator
    assert few.posterior is None, "five tasks"
    assert few.cross_validation is not None
    assert toy_posterior_fit.generator.posterior is not None


def test_of_one_task_none_is_held_out_and_nothing_is_claimed(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    features = FeatureCache(toy_backbone, SUITE.tasks("seen"), 8)
    config = replace(short(), task_loss=TaskLossConfig(steps=0))
    alone = toy_zoo.only(toy_zoo.tasks[:1])
    generator = fit_generator(training_set(alone, toy_backbone, features), config).generator
    assert (generator.cross_validation, generator.posterior) == (None, None)
    (own,), (other,) = (generator.sample(descriptions()[name], 1, 0) for name in toy_zoo.tasks[:2])
    assert own.distance(other) == 0.0


def test_the_zoo_of_another_backbone_is_refused(toy_zoo: Zoo) -> None:
    with refused(AdapterMismatchError, toy_zoo.folder, "toy", toys.backbone(seed=1).backbone_hash[:12]):
        fit_generator(training_set(toy_zoo, toys.backbone(seed=1)), short())


def test_a_task_without_a_description_is_named(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    some = {name: entry for name, entry in descriptions().items() if name != "seen-3"}
    with refused(DescriptionError, "seen-3"):
        fit_generator(replace(training_set(toy_zoo, toy_backbone), descriptions=some), short())


def test_descriptions_without_the_parts_that_are_read_are_refused(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    texts = {name: Description(text="a river") for name in descriptions()}
    with refused(DescriptionError, "metadata", "backgrounds"):
        fit_generator(replace(training_set(toy_zoo, toy_backbone), descriptions=texts), short())


def test_the_configuration_is_plain_json() -> None:
    assert json.loads(json.dumps(encode(short()))) == encode(short())


@pytest.mark.parametrize("changes", [{"components": -3}, {"drop_part": 7.0}, {"drop_all": -0.1}])
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, float]) -> None:
    with refused(TrainingError, *(f"{value:g}" for value in changes.values())):
        GeneratorConfig(**changes)  # type: ignore[arg-type]
