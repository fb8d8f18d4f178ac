"""The small network: its two halves are the whole, adapters reach it, and it is restored from its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from refusals import refused
from wildbench.backbones import SMALL_LORA, pretrain_small_cnn, retrain_neck
from wildbench.datasets.panel.suite import PanelTask
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.pretrain import PretrainConfig
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import LabelledImages

RNG = np.random.default_rng(0)
LABELS = np.arange(96) % 3
IMAGES = (RNG.integers(0, 60, (96, 32, 32, 3)) + 80 * LABELS[:, None, None, None]).astype(np.uint8)
TASK = PanelTask("shades", "pretraining", Description, lambda split: LabelledImages(IMAGES, LABELS))
PAIRS = PanelTask("pairs", "pretraining", Description, lambda split: LabelledImages(IMAGES, LABELS // 2))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return pretrain_small_cnn([TASK], ("dark", "grey", "bright"), 32, PretrainConfig(6, 16), neck=5).backbone


def right(backbone: Backbone, labels: np.ndarray) -> float:
    return float((backbone.predict(backbone.stem(IMAGES)).argmax(-1).numpy() == labels).mean())


def test_pretraining_learns_and_depends_on_its_seed_alone(backbone: Backbone) -> None:
    assert right(backbone, LABELS) > 0.9
    one, two, other = (
        pretrain_small_cnn([TASK], backbone.classes, 32, PretrainConfig(1, 16, seed=seed), neck=5).backbone
        for seed in (0, 0, 1)
    )
    assert one.backbone_hash == two.backbone_hash != other.backbone_hash
    with refused(DataError, "pretraining tasks"):
        pretrain_small_cnn([], backbone.classes, 32, PretrainConfig(1))


def test_the_maps_of_an_eighth_are_kept(backbone: Backbone) -> None:
    batch = backbone.stem(IMAGES[:5])
    kept = ("prefix:bn3", "prefix:blocks.0.depthwise")
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(kept, (5, 48, 4, 4))
    torch.testing.assert_close(backbone.predict(batch), backbone.module(backbone.collate(IMAGES[:5])["inputs"]))


def test_every_target_of_the_adapters_changes_the_logits(backbone: Backbone) -> None:
    features = backbone.stem(IMAGES[:4])
    initial = backbone.initial_adapter(0).tensors
    plain = backbone.predict(features)
    torch.testing.assert_close(backbone.predict(features, initial), plain)
    for module in SMALL_LORA.target_modules:
        name = next(name for name in initial if f"{module}.lora_B" in name)
        moved = {**initial, name: 0.3 * torch.randn(initial[name].shape, generator=torch.Generator().manual_seed(0))}
        assert (backbone.predict(features, moved) - plain).abs().max() > 1e-4, module


def test_it_is_restored_with_its_neck(backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(backbone, tmp_path / "backbone")
    restored = load_backbone(tmp_path / "backbone")
    assert restored.backbone_hash == backbone.backbone_hash
    assert restored.lora == backbone.lora
    assert restored.shapes == backbone.shapes


def test_a_new_neck_leaves_everything_before_it_as_it_was(backbone: Backbone) -> None:
    training = retrain_neck(backbone, [PAIRS], ("low", "high"), neck=3, epochs=40, name="pairs")
    made = training.backbone
    old, new = backbone.module.state_dict(), made.module.state_dict()
    kept = [name for name, value in new.items() if name in old and torch.equal(value, old[name])]
    changed = [name for name in new if name not in kept]
    assert all(name.startswith(("neck.", "norm.", "classifier.")) for name in changed), changed
    assert new["neck.weight"].shape == (3, 48)
    assert training.losses[-1] < 0.8 * training.losses[0]
