import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import toys
from refusals import refused
from wildpdiff.backbones import registry
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.collate import ImageCollate
from wildpdiff.backbones.registry import is_bundled, is_stored, load_backbone, save_backbone
from wildpdiff.backbones.savanna_cnn import SavannaCNN
from wildpdiff.cli.options import open_model
from wildpdiff.errors import ArtifactError


def savanna(name: str = "mine", seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SavannaCNN(3)
    lora = LoraSpec(2, 8.0, ("adapted.expand",), ("classifier",))
    return Backbone.wrap(module, name=name, classes=toys.CLASSES, image_size=24, lora=lora)


def test_saved_and_loaded_it_is_the_same_backbone(tmp_path: Path) -> None:
    backbone = savanna()
    save_backbone(backbone, tmp_path / "b")
    loaded = load_backbone(tmp_path / "b")
    for field in ("name", "classes", "collate", "lora", "backbone_hash"):
        assert getattr(loaded, field) == getattr(backbone, field), field
    inputs = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.module(inputs), backbone.module(inputs))
    assert not loaded.module.training


def test_a_name_is_bundled_only_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    ours, theirs = savanna("savanna-cnn", 0), savanna("savanna-cnn", 1)
    assert not is_bundled(ours)
    save_backbone(ours, tmp_path / "savanna-cnn")
    assert is_bundled(ours)
    assert not is_bundled(theirs)
    assert not is_bundled(savanna("mine", 0))
    assert load_backbone("savanna-cnn").backbone_hash == ours.backbone_hash


def test_a_module_of_ones_own_cannot_be_saved(tmp_path: Path) -> None:
    with refused(ArtifactError, "ToyNetwork", "SavannaCNN"):
        save_backbone(toys.backbone(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_unknown_name_is_refused() -> None:
    with refused(ArtifactError, "'lion-net'", "savanna-cnn"):
        load_backbone("lion-net")


def test_an_unknown_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ARCHITECTURES, "ToyNetwork", lambda artifact: toys.backbone())
    save_backbone(toys.backbone(), tmp_path / "b")
    assert json.loads((tmp_path / "b" / "manifest.json").read_bytes())["config"]["architecture"] == "ToyNetwork"
    monkeypatch.undo()
    with refused(ArtifactError, tmp_path / "b", "'ToyNetwork'"):
        load_backbone(tmp_path / "b")


CODE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 3))

def other():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(5 * 36, 3))
"""


def test_a_module_that_a_function_gives_is_stored_with_its_weights_and_no_stored_name_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code_of_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    suite: Any = SimpleNamespace(classes=toys.CLASSES, image_size=8)
    lora = {"r": 2, "target_modules": ["3"]}
    backbone = open_model("code_of_mine:build", lora, lambda: suite)  # of random weights
    assert backbone.collate == ImageCollate("input", 8)
    folder = tmp_path / "saved"
    save_backbone(backbone, folder)
    given = f"code_of_mine:build={folder}"
    assert is_stored(given)
    loaded = load_backbone(given)
    for field in ("name", "classes", "collate", "lora", "backbone_hash"):
        assert getattr(loaded, field) == getattr(backbone, field), field
    images, tensors = toys.random_images(3), toys.random_tensors(backbone, 0)
    assert torch.equal(loaded.predict(loaded.stem(images), tensors), backbone.predict(backbone.stem(images), tensors))
    with refused(ArtifactError, "code_of_mine:build", given):
        load_backbone(folder)
    with refused(ArtifactError, "code_of_mine:build", "code_of_mine:other"):
        load_backbone(f"code_of_mine:other={folder}")
    with refused(ArtifactError, "no_code:build"):
        load_backbone(f"no_code:build={folder}")
    (tmp_path / "code_of_mine.py").write_text(CODE.replace("4", "6"))
    importlib.reload(importlib.import_module("code_of_mine"))
    with refused(ArtifactError, folder, "code_of_mine:build"):
        load_backbone(given)
