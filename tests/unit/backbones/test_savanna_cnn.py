import numpy as np
import pytest
import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SavannaCNN(4, width=24)
        # Statistics that training would have left; with the initial ones the normalisation does nothing.
        module(torch.randn(32, 3, 40, 40))
    return Backbone.wrap(module, name="small", classes=tuple("abcd"), image_size=40, lora=SAVANNA_LORA)


def test_the_pooled_map_is_kept_and_the_embedding_gives_the_logits(backbone: Backbone) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3)).astype(np.uint8)
    batch, module = backbone.stem(images), backbone.module
    assert {name: value.shape for name, value in batch.items()} == {"prefix:pool": (3, 24, 3, 3)}
    assert torch.equal(backbone.predict(batch), module(backbone.collate(images)["inputs"]))
    embedding = backbone.embedding(batch)
    assert embedding is not None
    assert torch.allclose(module.classifier(embedding), backbone.predict(batch))  # type: ignore[operator]


@pytest.mark.parametrize("size", [24, 40, 64])
def test_any_image_size_gives_logits(backbone: Backbone, size: int) -> None:
    with torch.no_grad():
        assert backbone.module(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_an_image_does_not_feel_its_batch(backbone: Backbone) -> None:
    inputs = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = torch.cat([backbone.module(inputs[i : i + 1]) for i in range(4)])
        assert torch.allclose(backbone.module(inputs), alone, atol=1e-5)


def test_a_spot_anywhere_reaches_every_logit(backbone: Backbone) -> None:
    inputs = torch.zeros(1, 3, 40, 40, requires_grad=True)
    backbone.module(inputs).sum().backward()
    assert inputs.grad is not None
    assert float((inputs.grad.abs().sum((0, 1)) > 0).float().mean()) > 0.9


def test_adapters_attach_behind_the_stem_only(backbone: Backbone) -> None:
    stem = {"conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "mixing"}
    assert not {name.split(".")[0] for name in (*SAVANNA_LORA.target_modules, *SAVANNA_LORA.modules_to_save)} & stem


def test_the_size_of_an_adapter_of_the_full_network() -> None:
    full = Backbone.wrap(
        SavannaCNN(17), name="full", classes=tuple("abcdefghijklmnopq"), image_size=40, lora=SAVANNA_LORA
    )
    factors = 4 * (96 + 192) + 4 * (192 + 96)
    assert toys.random_adapter(full, 0).size == factors + 96 * 17 + 17
