"""What the tests of all verbs share: a tiny world, and what a command line left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wildbench.datasets.savanna.world import CLASSES
from wildbench.presets import POSTERIOR
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import save_backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.records import encode

IMAGE_SIZE = 24
SUITE = [
    word
    for pair in ("seen=12", "unseen=3", "train=40", "validation=10", "test=20", "backgrounds=4")
    for word in ("-o", pair)
]
"""The options of the suite that ``demo --size tiny`` runs on."""


@dataclass(frozen=True)
class World:
    """What a tiny demo leaves: its folder, and the backbone, which is untrained."""

    backbone: Path
    run: Path

    @property
    def generator(self) -> Path:
        return self.run / "generator-0"

    @property
    def adapter(self) -> Path:
        return self.run / "adapters" / "unseen-000"

    @property
    def images(self) -> Path:
        return self.run / "images" / "unseen-000"

    @property
    def zoo(self) -> Path:
        return self.run / "zoo"


class Calibrated:
    """Stands for a model of trust, which the few tasks of the tiny world cannot make."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "of").write_text(self.fingerprint)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


def tiny_backbone(folder: Path, name: str = "savanna-cnn", seed: int = 0) -> Path:
    """An untrained backbone for images of 24 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SavannaCNN(len(CLASSES))
    backbone = Backbone.wrap(module, name=name, classes=CLASSES, image_size=IMAGE_SIZE, lora=SAVANNA_LORA)
    save_backbone(backbone, folder)
    return folder


def quick_settings(path: Path, **further: Any) -> Path:
    """A file of settings for ``fit --config`` with a posterior of a few steps."""
    path.write_text(json.dumps({"posterior": encode(POSTERIOR), **further}))
    return path


def refused_run(outcome: Outcome, *values: object) -> None:
    """Status 2, one sentence that names these values, no traceback and no result."""
    assert outcome.status == 2, outcome.err
    sentence = outcome.err.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    missing = [value for value in values if str(value) not in sentence]
    assert not missing, sentence
