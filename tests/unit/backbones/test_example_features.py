"""Features of examples that are no images: which blocks there are, the alignment, and a generator that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from refusals import refused
from wildpdiff import Backbone, Description, LoraSpec
from wildpdiff.conditions.base import BlockFeaturiser
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import MetadataSchema
from wildpdiff.tasks.objective import IGNORED, TARGETS, Classification, NextToken, Objective, Regression

CLASSES = Classification(("low", "high", "other"))


def backbone(objective: Objective = CLASSES, outputs: int = 3) -> Backbone:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))
    lora = LoraSpec(2, 2.0, ("0",), ("2",))
    return Backbone.of(module, name="small", lora=lora, objective=objective)


def rows(count: int, mean: float = 0.0, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(mean, 1.0, (count, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("made", "blocks"),
    [
        (backbone(), {"embedding": 6, "class probabilities": 3, "inputs": 4}),
        (backbone(Regression(2), 2), {"embedding": 6, "outputs": 2, "inputs": 4}),
    ],
)
def test_blocks_are_embedding_outputs_and_inputs(made: Backbone, blocks: dict[str, int]) -> None:
    featurise = made.image_features
    assert isinstance(featurise, BlockFeaturiser)
    features = featurise(rows(5))
    assert dict(featurise.blocks) == blocks
    assert features.shape == (5, sum(blocks.values()))
    assert torch.equal(features[:, -4:], torch.from_numpy(rows(5)))
    assert torch.equal(featurise({"input": rows(5)}), features)


def test_a_model_without_rows_of_numbers_is_refused() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(3000, 4), nn.Linear(4, 3000), nn.Tanh())
    tokens = Backbone.of(module, name="tokens", lora=LoraSpec(1, 1.0, ("1",)), objective=NextToken())
    with refused(DescriptionError, "tokens"):
        tokens.image_features(np.array([[1, 2, 3]]))


@dataclass(frozen=True)
class TokensAsTargets:
    """Token indices that are the targets too; 0 pads."""

    def __call__(self, examples: Any) -> dict[str, torch.Tensor]:
        ids = torch.as_tensor(np.asarray(examples))
        return {"input": ids, TARGETS: ids.masked_fill(ids == 0, IGNORED)}


def test_features_of_a_language_model_are_means_over_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
    lora = LoraSpec(1, 1.0, ("1",))
    examples = np.array([[1, 2, 3], [4, 5, 0], [0, 0, 0]])
    padded = Backbone.of(module, name="t", lora=lora, objective=NextToken(), collate=TokensAsTargets())
    found = padded.image_features(examples)
    assert dict(padded.image_features.blocks) == {"embedding": 4}
    table = module[0].weight.detach()
    assert torch.allclose(found, torch.stack([table[1:4].mean(0), table[4:6].mean(0), torch.zeros(4)]), atol=1e-6)
    every = Backbone.of(module, name="t", lora=lora, objective=NextToken())
    assert torch.allclose(every.image_features(examples), table[torch.from_numpy(examples)].mean(1), atol=1e-6)


def test_empty_examples_are_missing_and_the_order_of_others_does_not_matter() -> None:
    made = backbone()
    descriptions = [Description(examples={"input": rows(6, mean, seed)}) for seed, mean in enumerate((-1.0, 0.0, 2.0))]
    encoder = fit_fusion(descriptions, MetadataSchema(()), made.image_features, ("examples",), components=2)
    turned = Description(examples={"input": rows(6, -1.0, 0)[::-1].copy()})
    assert torch.allclose(encoder.encode(turned).values, encoder.encode(descriptions[0]).values, atol=1e-5)
    with pytest.raises(DescriptionError):
        encoder.encode(Description(examples={"input": rows(0)}))
