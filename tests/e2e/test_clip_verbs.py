"""A generator whose descriptions are read by CLIP, from fitting to evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_world import SUITE, Run, World, quick_settings

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of random weights."""
    folder = tmp_path_factory.mktemp("clip")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def test_it_is_fitted_generates_and_is_evaluated_with_clip_and_not_without(
    world: World, run: Run, clip: Path, tmp_path: Path
) -> None:
    suite = (*SUITE, "--backbone", world.backbone)
    out = tmp_path / "generator"
    settings = quick_settings(tmp_path / "config.json")
    small = ("--parts", "backgrounds", "--steps", "5", "--task-steps", "20", "--config", settings)
    fitted = run("fit", "--zoo", world.zoo, *suite, *small, "--clip", clip, "--out", out)
    assert fitted.status == 0, fitted.err

    generate = ("generate", out, "--suite", "savanna", *SUITE, "--task", "unseen-001", "--backbone", world.backbone)
    without = run(*generate, "--out", tmp_path / "adapter")
    assert without.status == 2
    assert "--clip FOLDER" in without.err
    made = run(*generate, "--clip", clip, "--out", tmp_path / "adapter")
    assert made.status == 0, made.err
    assert (tmp_path / "adapter" / "provenance.json").is_file()

    compare = ("evaluate", "--zoo", world.zoo, "--generator", out, *suite, "--clip", clip, "--samples", "1")
    found = run(*compare, "--out", tmp_path / "table", "--json")
    assert found.status == 0, found.err
    assert any(row["source"] == "generated" for row in found.json["rows"])
    refused = run("evaluate", "--run", world.run, "--clip", clip, "--out", tmp_path / "table")
    assert refused.status == 2
    assert "not with --run" in refused.err
