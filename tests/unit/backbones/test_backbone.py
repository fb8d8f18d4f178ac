import pickle

import numpy as np
import pytest
import torch
from torch import nn

import toys
from refusals import refused
from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.conditions.base import BlockFeaturiser
from wildpdiff.errors import AdapterMismatchError, DataError, TrainingError
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.tasks.objective import Classification, Objective, Regression


class Plain(nn.Module):
    """Adapters change its first module."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(toys.SIZE * toys.SIZE * 3, 4)
        self.classifier = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(inputs.flatten(1)).relu())


def plain() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = Plain()
    lora = LoraSpec(2, 2.0, ("body",), ("classifier",))
    return Backbone.wrap(module, name="plain", classes=toys.CLASSES, image_size=toys.SIZE, lora=lora)


@pytest.fixture(scope="module", params=["split", "plain"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return toys.backbone() if request.param == "split" else plain()


def test_wrapping_freezes_and_hashes_the_weights() -> None:
    backbone = toys.backbone()
    assert not backbone.module.training
    assert not any(value.requires_grad for value in backbone.module.parameters())
    assert backbone.backbone_hash == toys.backbone().backbone_hash != toys.backbone(seed=1).backbone_hash


def test_outputs_of_a_batch_are_the_forward(backbone: Backbone) -> None:
    images = toys.random_images(10)
    with torch.no_grad():
        whole = backbone.module(backbone.collate(images)["inputs"])
    assert torch.equal(backbone.predict(backbone.stem(images)), whole)


def test_what_no_adapter_changes_is_computed_once_where_there_is_any() -> None:
    images = toys.random_images(2)
    assert {name: value.shape for name, value in toys.backbone().stem(images).items()} == {toys.KEPT: (2, 4, 4, 4)}
    assert torch.equal(plain().stem(images)["inputs"], plain().collate(images)["inputs"])


def test_a_batch_serves_adapters_of_later_modules_alone() -> None:
    backbone = toys.backbone()
    batch = backbone.stem(toys.random_images(2))
    later = backbone.with_lora(LoraSpec(1, 1.0, ("body",)))
    assert torch.equal(later.predict(batch), backbone.predict(batch))
    earlier = backbone.with_lora(LoraSpec(1, 1.0, ("conv0",)))
    with refused(AdapterMismatchError, "relu0"):
        earlier.predict(batch, toys.random_tensors(earlier, 0))
    again = pickle.loads(pickle.dumps(backbone))
    assert torch.equal(again.predict(batch), backbone.predict(batch))


def test_any_module_and_objective_make_a_backbone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    backbone = Backbone.of(module, name="net", lora=LoraSpec(1, 1.0, ("2",)), objective=Regression(2))
    inputs = np.arange(12.0).reshape(4, 3)
    batch = backbone.batch(Dataset(inputs, np.ones((4, 2))))
    assert {name: value.dtype for name, value in batch.items()} == {"prefix:1": torch.float32, "targets": torch.float32}
    assert torch.equal(backbone.predict(batch), module(torch.tensor(inputs).float()))
    assert (backbone.classes, backbone.image_size, backbone.image_features.blocks) == ((), 0, {})


def test_features_in_batches_are_those_of_one_batch(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    images = toys.random_images(7)
    tensors = toys.random_tensors(backbone, 0)
    stem, logits = backbone.stem(images), backbone.predict(backbone.stem(images), tensors)
    monkeypatch.setattr("wildpdiff.backbones.backbone.BATCH", 3)
    for name, value in backbone.stem(images).items():
        assert torch.allclose(value, stem[name], atol=1e-6)
    assert torch.allclose(backbone.predict(stem, tensors), logits, atol=1e-6)


def test_many_adapters_at_once_are_one_after_another(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wildpdiff.backbones.backbone.BATCH", 4)
    features = backbone.stem(toys.random_images(9))
    each = [toys.random_tensors(backbone, seed) for seed in range(3)]
    stacked = {name: torch.stack([tensors[name] for tensors in each]) for name in each[0]}
    together = backbone.predict_many(features, stacked)
    assert together.shape == (3, 9, 3)
    assert torch.allclose(together, torch.stack([backbone.predict(features, entry) for entry in each]), atol=1e-5)


def test_running_adapters_leaves_the_frozen_model_as_it_was(backbone: Backbone) -> None:
    features = backbone.stem(toys.random_images(3))
    tensors = toys.random_tensors(backbone, 0)
    backbone.predict(features, tensors)
    backbone.predict_many(features, {name: value[None] for name, value in tensors.items()})
    assert tensors_hash(dict(backbone.module.state_dict())) == backbone.backbone_hash


def test_logits_are_differentiable_in_adapter_and_features(backbone: Backbone) -> None:
    tensors = {name: value.requires_grad_() for name, value in toys.random_tensors(backbone, 0).items()}
    ((name, features),) = backbone.stem(toys.random_images(4)).items()
    backbone.outputs({name: features.requires_grad_()}, tensors).square().sum().backward()
    assert features.grad is not None
    assert all(value.grad is not None and float(value.grad.abs().sum()) > 0 for value in tensors.values())
    assert all(value.grad is None for value in backbone.module.parameters())


def test_image_features_have_every_block_and_follow_their_image(backbone: Backbone) -> None:
    images = toys.random_images(6)
    features = backbone.image_features(images)
    # Light: 4 bands of 3; colour: 3 means, 3 deviations, grey or not; stem: 4 and 4; embedding: 5 or 4; classes: 3.
    assert features.shape == (6, 12 + 7 + 4 + 4 + 5 + 3 if backbone.name == "toy" else 12 + 7 + 4 + 3)
    assert torch.allclose(features[:, -3:].sum(1), torch.ones(6), atol=1e-6)
    blocks = backbone.image_features.blocks
    assert sum(blocks.values()) == features.shape[1]
    assert (blocks["light"], blocks["colour"], list(blocks)[-1]) == (12, 7, "class probabilities")
    assert backbone.image_features.factors == ("light", "class probabilities")
    assert isinstance(backbone.image_features, BlockFeaturiser)
    order = [3, 0, 5, 1, 4, 2]
    assert torch.allclose(backbone.image_features(images[order]), features[order], atol=1e-5)


def test_colour_features_are_means_and_deviations_in_unit_range() -> None:
    image = np.zeros((1, toys.SIZE, toys.SIZE, 3), dtype=np.uint8)
    image[..., 0] = 255
    image[:, : toys.SIZE // 2, :, 1] = 255
    colour = plain().image_features(image)[0, 12:19]
    assert colour[:3].tolist() == [1.0, 0.5, 0.0]
    assert colour[3:].tolist() == pytest.approx([0.0, 0.504, 0.0, 0.0], abs=1e-3)


def test_a_cast_is_a_shift_of_the_light_and_an_infrared_frame_knows_none() -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(40, 120, (5, toys.SIZE, toys.SIZE, 3)).astype(np.uint8)
    cast = (images * np.array([1.6, 1.0, 0.6])).astype(np.uint8)
    backbone = plain()
    shift = (backbone.image_features(cast) - backbone.image_features(images))[:, :12].unflatten(1, (3, 4))
    expected = torch.tensor([1.6, 1.0, 0.6]).log()[:, None].expand(3, 4)
    assert torch.allclose(shift.mean(0), expected, atol=0.06)
    grey = np.repeat(images[..., :1], 3, axis=3)
    mixed = backbone.image_features(np.concatenate([cast, grey[:2]]))
    assert torch.allclose(mixed[5:, :12], backbone.image_features(cast)[:, :12].mean(0).expand(2, -1), atol=1e-5)
    assert mixed[:, 18].tolist() == [0.0] * 5 + [1.0] * 2
    assert bool(backbone.image_features(grey)[:, :12].isnan().all())


def test_preprocessing_normalises_channels() -> None:
    backbone = Backbone.wrap(
        Plain(),
        name="plain",
        classes=toys.CLASSES,
        image_size=toys.SIZE,
        lora=LoraSpec(1, 1.0, ("body",)),
        mean=(0.0, 0.5, 1.0),
        std=(1.0, 0.5, 0.25),
    )
    values = backbone.collate(np.full((2, toys.SIZE, toys.SIZE, 3), 255, dtype=np.uint8))["inputs"]
    assert values.shape == (2, 3, toys.SIZE, toys.SIZE)
    assert values[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]


def test_preprocessing_leaves_the_images_as_they_were() -> None:
    images = toys.random_images(2)
    before = images.copy()
    toys.backbone().collate(images)
    assert (images == before).all()


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 8, 9, 3)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with refused(DataError, f"{shape[2]}×{shape[1]}", "8×8"):
        toys.backbone().collate(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 3, 8, 8), (1, 8, 8, 4)])
def test_images_of_another_layout_are_refused(shape: tuple[int, ...]) -> None:
    with refused(DataError, "uint8 [n, h, w, 3]"):
        toys.backbone().collate(np.zeros(shape, dtype=np.uint8))


def test_no_images_are_refused() -> None:
    with refused(DataError, "no examples"):
        toys.backbone().stem(toys.random_images(0))


def test_other_lora_places_give_other_shapes_and_unknown_ones_are_refused() -> None:
    backbone = toys.backbone()
    changed = backbone.with_lora(LoraSpec(1, 1.0, ("body",)))
    assert sorted(changed.shapes.values()) == [(1, 6), (5, 1)]
    assert changed.backbone_hash == backbone.backbone_hash
    with refused(TrainingError, "'tail'"):
        backbone.with_lora(LoraSpec(1, 1.0, ("tail",)))


def test_the_initial_adapter_is_the_pretrained_model_and_repeats() -> None:
    backbone = toys.backbone()
    first, again, other = (backbone.initial_adapter(seed) for seed in (0, 0, 1))
    backbone.check(first)
    assert first.distance(again) == 0.0 < first.distance(other)
    features = backbone.stem(toys.random_images(5))
    assert torch.equal(backbone.predict(features, first.tensors), backbone.predict(features))


@pytest.mark.parametrize(
    ("examples", "named"),
    [
        (np.zeros((2, 5)), "(2, 5)"),
        (np.ones((2, 3), np.int64), "int64"),
        ({"other": np.zeros((2, 3))}, "other"),
        ({"input": np.zeros((2, 3)), "mask": np.zeros((3, 3))}, "'mask': 3"),
        (torch.zeros(2, 2, requires_grad=True), "(2, 2)"),
    ],
)
def test_examples_that_the_model_does_not_take_are_refused(examples: object, named: str) -> None:
    module, lora = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), LoraSpec(1, 1.0, ("1",))
    backbone = Backbone.of(module, name="net", lora=lora, objective=Regression(2))
    with refused(DataError, named):
        backbone.stem(examples)
    with refused(DataError, "targets"):
        backbone.batch(Dataset(np.zeros((2, 3))))


@pytest.mark.parametrize("objective", [Classification(("a", "b", "c")), Regression(1)])
def test_a_model_of_another_number_of_outputs_than_its_objective_is_refused(objective: Objective) -> None:
    module, lora = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), LoraSpec(1, 1.0, ("1",))
    backbone = Backbone.of(module, name="net", lora=lora, objective=objective)
    with refused(TrainingError, "net", 2):
        backbone.batch(Dataset(np.zeros((2, 3)), [0, 0]))
