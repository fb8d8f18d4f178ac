"""``wildpdiff zoo build`` on a folder of ``transformers``, then fit and generate on the backbone that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from refusals import refused
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.collate import ImageCollate
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.cli.main import app
from wildpdiff.errors import DataError
from wildpdiff.prediction import predict
from wildpdiff.tasks.image_files import read_images
from wildpdiff.tasks.objective import Regression

transformers = pytest.importorskip("transformers")
ATTENTION = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A model with other classes than the photographs of three tasks."""
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**ATTENTION, image_size=16, patch_size=4))
    model.save_pretrained(tmp_path / "vit")
    processor = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"height": 16, "width": 16}}'
    (tmp_path / "vit" / "preprocessor_config.json").write_text(processor)
    draws = np.random.default_rng(0)
    for task in ("a", "b", "c"):
        for kind in ("dark", "light", "striped"):
            folder = tmp_path / "photographs" / task / kind
            folder.mkdir(parents=True)
            for number in range(16):
                Image.fromarray(draws.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path


def test_the_model_s_own_folder_serves_an_adapter(world: Path) -> None:
    model = transformers.ViTForImageClassification.from_pretrained(world / "vit")
    model.config.id2label = {0: "dark", 1: "light"}
    model.config.label2id = {"dark": 0, "light": 1}
    model.save_pretrained(world / "vit")
    backbone = Backbone.from_pretrained(world / "vit", lora={"target_modules": ["q_proj"], "r": 2})
    backbone.initial_adapter(0).save(world / "adapter")
    images, given = world / "photographs" / "a" / "dark" / "0.png", ("--backbone", world / "vit")
    rows = json.loads(run("predict", world / "adapter", images, *given, "--top", 2, "--json"))
    batch = backbone.stem(read_images([images], 16))
    expected = backbone.predict(batch).softmax(1)[0].sort(descending=True).values
    assert [row["probability"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)


def test_outputs_that_are_no_classes_do_not_classify(world: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1))
    lora = LoraSpec(1, 1.0, ("1",))
    backbone = Backbone.of(module, name="r", lora=lora, objective=Regression(1), collate=ImageCollate("input", 16))
    with refused(DataError, "'r'", "classes"):
        predict(backbone.initial_adapter(0), backbone, [world / "photographs" / "a" / "dark" / "0.png"])


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_s_folder_becomes_a_zoo_a_generator_and_an_adapter(world: Path) -> None:
    (world / "lora.json").write_text('{"target_modules": ["q_proj"], "r": 4, "lora_alpha": 6}')
    suite = ("--suite", world / "photographs", "-o", "minimum=1", "-o", "unseen=1", "--threads", 1, "--json")
    steps = ("--steps", 3, "--checkpoints", 1, "--interval", 1, "--batch", 2)
    lora = ("--backbone", world / "vit", "--lora", world / "lora.json", "--rank", 2)
    built = json.loads(run("zoo", "build", *lora, *suite, *steps, "--out", world / "zoo"))
    assert built["tasks"] == 2
    kept = load_backbone(world / "zoo-backbone")
    assert (kept.classes, kept.image_size, kept.lora.rank) == (("dark", "light", "striped"), 16, 2)
    assert {name.rpartition(".")[2] for name in kept.lora.target_modules} == {"q_proj"}
    assert kept.lora.modules_to_save == ("classifier",)
    assert (kept.lora.rank, kept.lora.alpha) == (2, 6.0), "the file's alpha, the option's rank"
    words = ["zoo", "build", *lora[:-1], 3, *suite, *steps, "--out", world / "zoo"]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code != 0
    assert load_backbone(world / "zoo-backbone").lora.rank == 2, "of the zoo that is there"
    assert (
        built["fingerprint"]
        == json.loads(
            run("zoo", "build", "--backbone", world / "zoo-backbone", *suite, *steps, "--out", world / "again")
        )["fingerprint"]
    )
