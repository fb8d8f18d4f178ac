import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from refusals import refused
from wildpdiff.conditions.base import BlockFeaturiser
from wildpdiff.conditions.clip import ClipFeaturiser
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.errors import ArtifactError, DataError, DescriptionError
from wildpdiff.tasks.description import Description, Images, MetadataSchema

transformers = pytest.importorskip("transformers")


def vision_config(width: int = 16) -> "transformers.CLIPVisionConfig":
    return transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=12,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of random weights, its image half with the projection."""
    folder_of_model = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPVisionModelWithProjection(vision_config()).save_pretrained(folder_of_model)
    return folder_of_model


def images(count: int, seed: int = 0, height: int = 40, width: int = 48) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def test_embeddings_of_unit_length_each_of_its_own_image(folder: Path) -> None:
    clip = ClipFeaturiser(folder)
    assert isinstance(clip, BlockFeaturiser)
    found = clip(images(5))
    assert found.shape == (5, sum(clip.blocks.values())) == (5, 12)
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(clip(images(5)[3:4]), found[3:4], atol=1e-5)
    assert torch.equal(clip(images(5)), found)


def test_it_equals_the_model_that_transformers_runs(folder: Path) -> None:
    square = images(3, height=32, width=32)  # of the model's own size, so that nothing is resized
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    pixels = (torch.from_numpy(square).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(pixel_values=pixels).image_embeds, dim=1)
    assert torch.allclose(ClipFeaturiser(folder)(square), expected, atol=1e-5)


def test_the_image_half_without_projection_and_other_scaling_can_be_read(tmp_path: Path) -> None:
    transformers.CLIPVisionModel(vision_config()).save_pretrained(tmp_path)
    plain = ClipFeaturiser(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    scaled = ClipFeaturiser(tmp_path)
    assert dict(plain.blocks) == {"clip": 16}
    assert plain.identity == scaled.identity
    assert not torch.allclose(plain(images(2)), scaled(images(2)), atol=1e-3)


def test_a_condition_fitted_with_it_asks_for_it_again(folder: Path, tmp_path: Path) -> None:
    clip = ClipFeaturiser(folder)
    seen = [Description(backgrounds=images(3, seed)) for seed in range(5)]
    fusion = fit_fusion(seen, MetadataSchema(), clip, ("backgrounds",), components=3)
    state = fusion.config, fusion.tensors
    assert fusion.config["encoders"][0]["config"]["featuriser"] == clip.identity
    again = FusionEncoder.from_state(*state, ClipFeaturiser(folder))
    assert torch.equal(again.encode(seen[1]).values, fusion.encode(seen[1]).values)
    transformers.CLIPVisionModelWithProjection(vision_config(width=8)).save_pretrained(tmp_path)
    for other in (ClipFeaturiser(tmp_path), lambda _: torch.zeros(1, 12)):
        with refused(DescriptionError, "backgrounds", clip.identity):
            FusionEncoder.from_state(*state, other)


def test_folders_without_clip_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(ArtifactError, tmp_path, "config.json"):
        ClipFeaturiser(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with refused(ArtifactError, tmp_path, "'bert'"):
        ClipFeaturiser(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip_vision_model"}')
    with refused(ArtifactError, tmp_path):
        ClipFeaturiser(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refused(ArtifactError, "transformers"):
        ClipFeaturiser(tmp_path)


def test_bad_images_are_refused(folder: Path) -> None:
    clip = ClipFeaturiser(folder)
    with refused(DataError, "[n, h, w, 3]"):
        clip(images(2)[0])
    with refused(DataError):
        clip(images(2)[:0])
