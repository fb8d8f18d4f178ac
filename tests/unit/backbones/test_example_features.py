"""Features of examples that are no images: which blocks there are, the alignment, and a generator that reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from refusals import refused
from wildpdiff import Backbone, Description, FinetuneConfig, Generator, LoraSpec, build_zoo, fit_generator
from wildpdiff.conditions.base import BlockFeaturiser
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import MetadataSchema, description_provenance
from wildpdiff.tasks.objective import Classification, NextToken, Objective, Regression
from wildpdiff.zoo.training_set import TrainingSet

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
        (backbone(), {"inputs": 4, "embedding": 6, "class probabilities": 3}),
        (backbone(Regression(2), 2), {"inputs": 4, "embedding": 6, "outputs": 2}),
    ],
)
def test_blocks_are_inputs_embedding_and_outputs(made: Backbone, blocks: dict[str, int]) -> None:
    featurise = made.features
    assert isinstance(featurise, BlockFeaturiser)
    assert featurise.columns("embedding") is None  # before the first call
    features = featurise(rows(5))
    assert dict(featurise.blocks) == blocks
    assert features.shape == (5, sum(blocks.values()))
    assert torch.equal(features[:, :4], torch.from_numpy(rows(5)))
    assert featurise.columns("embedding") == slice(4, 10)
    named = featurise({"input": rows(5)})
    assert torch.equal(named, features)


def test_a_model_without_rows_of_numbers_is_refused() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(3000, 4), nn.Linear(4, 3000))
    tokens = Backbone.of(module, name="tokens", lora=LoraSpec(1, 1.0, ("1",)), objective=NextToken())
    with refused(DescriptionError, "tokens"):
        tokens.features(np.array([[1, 2, 3]]))


def test_the_shift_of_examples_is_that_of_their_embedding() -> None:
    made = backbone()
    descriptions = [Description(examples=rows(6, mean, seed)) for seed, mean in enumerate((-1.0, 0.0, 2.0))]
    shift = FeatureShift.fit(descriptions, made, ("examples",))
    assert shift is not None
    embedded = [made.embedding(made.stem(entry.examples)) for entry in descriptions]
    means = torch.stack([values.mean(0) for values in embedded if values is not None])
    assert torch.allclose(shift.of(descriptions), means - means.mean(0), atol=1e-6)
    restored = FeatureShift.restore("examples", shift.center, backbone())  # nothing was computed there yet
    assert torch.allclose(restored.of(descriptions[:1]), shift.of(descriptions[:1]), atol=1e-6)


def test_empty_examples_are_missing_and_the_order_of_others_does_not_matter() -> None:
    made = backbone()
    descriptions = [Description(examples={"input": rows(6, mean, seed)}) for seed, mean in enumerate((-1.0, 0.0, 2.0))]
    encoder = fit_fusion(descriptions, MetadataSchema(()), made.features, ("examples",), components=2)
    turned = Description(examples={"input": rows(6, -1.0, 0)[::-1].copy()})
    assert torch.allclose(encoder.encode(turned).values, encoder.encode(descriptions[0]).values, atol=1e-5)
    with pytest.raises(DescriptionError):
        encoder.encode(Description(examples={"input": rows(0)}))


def test_provenance_counts_examples_that_are_no_images() -> None:
    texts = description_provenance(Description(examples=["a", "b"]))["examples"]
    assert texts["examples"] == 2
    assert texts["sha256"] != description_provenance(Description(examples=["a", "c"]))["examples"]["sha256"]


def test_a_generator_reads_examples_from_disk_as_it_was_fitted(tmp_path: Any) -> None:
    def task(number: int) -> PlainTask:
        mean = number / 4 - 1
        splits = {
            split: Dataset(inputs := rows(20, mean, seed + 7 * number), (inputs[:, 0] > mean).astype(np.int64))
            for seed, split in enumerate(("train", "validation", "test"))
        }
        return PlainTask(f"task-{number}", splits, Description(examples=rows(8, mean, 100 + number)))

    suite = PlainSuite("signals", [task(number) for number in range(8)], [task(8)])
    made = backbone()
    zoo = build_zoo(tmp_path / "zoo", made, suite.tasks("seen"), suite.fingerprint,
                    FinetuneConfig(steps=20, batch=8, checkpoints=1, interval=1, warmup=2))  # fmt: skip
    generator = fit_generator(TrainingSet.of(suite, made, zoo)).generator
    description = suite.tasks("unseen")[0].description
    (adapter,) = generator.sample(description, 1, 0)
    generator.save_pretrained(tmp_path / "generator")
    (again,) = Generator.from_pretrained(tmp_path / "generator", backbone()).sample(description, 1, 0)
    assert all(torch.equal(values, again.tensors[name]) for name, values in adapter.tensors.items())
