"""Words of a description as a prior of the classifier: their effect on logits, the fit, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.words import WordAlignment, WordReader
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.dataset import Dataset, PlainTask
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import Classification, of_many
from wildpdiff.zoo.features import task_features

WORDS = [f"word{number}" for number in range(16)]
SEEN = 12


class Bag(nn.Module):
    """Mean of the tokens' embeddings, a linear layer without effect, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS) + 2, 16)
        self.mix = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, 2)
        nn.init.eye_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.table(input_ids) * attention_mask[..., None]
        result: Tensor = self.classifier(self.mix(states.sum(1) / attention_mask.sum(1, keepdim=True)))
        return result


def backbone() -> Backbone:
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    known = {"[PAD]": 0, "[UNK]": 1, **{word: number + 2 for number, word in enumerate(WORDS)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    collate = TextCollate(tokenizer.to_str(), special, 6, ("input_ids", "attention_mask"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Bag()
    lora = LoraSpec(1, 1.0, ("mix",), ("classifier",))
    return Backbone.of(module, name="bag", lora=lora, objective=Classification(("no", "yes")), collate=collate)


def task(word: str) -> PlainTask:
    """Whether a text holds the word, which the description names."""
    draws = numpy_generator(0, "words", word)

    def data(size: int) -> Dataset:
        texts, others = [], [other for other in WORDS if other != word]
        for number in range(size):
            own = list(draws.choice(others, 3, replace=False))
            texts.append(" ".join([word, *own[:2]] if number % 2 else own))
        return Dataset(texts, [number % 2 for number in range(size)])

    return PlainTask(word, {"train": data(24), "validation": data(12)}, Description(text=word))


@pytest.fixture(scope="module")
def model() -> Backbone:
    return backbone()


@pytest.fixture(scope="module")
def tasks() -> list[PlainTask]:
    return [task(word) for word in WORDS]


def fitted(model: Backbone, tasks: list[PlainTask]) -> tuple[WordAlignment, Tensor]:
    """The alignment fitted to seen tasks whose predicted adapters know nothing, and those of the unseen tasks."""
    tensors = model.initial_adapter(0).tensors
    layout = Layout.of(tensors)
    vectors = layout.flatten(tensors)[None] + 0.01 * torch.randn(
        len(tasks), layout.size, generator=torch.Generator().manual_seed(0)
    )
    codec = Codec.fit(layout, vectors)
    descriptions = [one.description for one in tasks[:SEEN]]

    def batches() -> list[Batch]:
        return [task_features(model, one).train for one in tasks[:SEEN]]

    alignment = WordAlignment.of(WordReader.fit(descriptions, model, ("text",), batches), codec, descriptions)
    assert alignment is not None
    assert alignment.strength == 0.0
    images = TaskExamples(tuple(task_features(model, one) for one in tasks[:SEEN]), 0)
    return alignment.fitted(model, codec.encode(vectors[:SEEN]), images, 12), codec.encode(vectors)


def accuracy(model: Backbone, alignment: WordAlignment, vectors: Tensor, tasks: list[PlainTask]) -> float:
    adapters = alignment.codec.layout.unflatten(alignment.codec.decode(vectors))
    found = []
    for row, one in enumerate(tasks):
        batch = model.batch(one.data("validation"))
        outputs = model.predict(batch, {name: value[row] for name, value in adapters.items()})
        found.append(float(of_many(model.objective.score, outputs[None], batch).mean()))
    return sum(found) / len(found)


def test_unseen_words_are_recognised_by_what_seen_ones_taught(model: Backbone, tasks: list[PlainTask]) -> None:
    alignment, vectors = fitted(model, tasks)
    assert alignment.slopes[1] > 0 > alignment.slopes[0]
    unseen, own = tasks[SEEN:], vectors[SEEN:]
    moved = alignment(own, alignment.reader.of([one.description for one in unseen]))
    assert accuracy(model, alignment, moved, unseen) > 0.75
    assert accuracy(model, alignment, own, unseen) < 0.65


def test_the_moved_classifier_has_the_logits_of_the_fit(model: Backbone, tasks: list[PlainTask]) -> None:
    alignment, vectors = fitted(model, tasks)
    shifts = alignment.reader.of([tasks[0].description])
    layout, codec = alignment.codec.layout, alignment.codec
    batch = model.batch(tasks[0].data("validation"))
    before, after = (
        model.predict(batch, {name: value[0] for name, value in layout.unflatten(codec.decode(row)).items()})
        for row in (vectors[:1], alignment(vectors[:1], shifts))
    )
    adapted = {name: value[0] for name, value in layout.unflatten(codec.decode(vectors[:1])).items()}
    weight, bias = alignment.classifier
    less = -(shifts @ alignment.reader.center).expand(2)
    words = {**adapted, weight: shifts.expand(2, -1), bias: less}
    wanted = alignment.share * before + model.predict(batch, words) * alignment.slopes + alignment.offsets
    torch.testing.assert_close(after, wanted, atol=1e-4, rtol=1e-4)


def test_a_description_without_words_moves_nothing_and_the_state_restores_it(
    model: Backbone, tasks: list[PlainTask]
) -> None:
    alignment, vectors = fitted(model, tasks)
    without = alignment.reader.of([Description(metadata={"x": 1.0})])
    torch.testing.assert_close(alignment(vectors[:1], without), vectors[:1])
    again = WordAlignment.from_state(alignment.config, alignment.tensors, alignment.codec, backbone())
    shifts = again.reader.of([tasks[3].description])
    torch.testing.assert_close(again(vectors[:1], shifts), alignment(vectors[:1], shifts))
    assert len(alignment.without(torch.arange(SEEN) < 5).seen) == SEEN - 5


def test_there_is_none_without_texts_or_words(model: Backbone, tasks: list[PlainTask]) -> None:
    descriptions = [one.description for one in tasks]
    assert WordReader.fit(descriptions, model, ("metadata",), list) is None
    assert WordReader.fit([replace(entry, text=None) for entry in descriptions], model, ("text",), list) is None
    module, lora = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), LoraSpec(1, 1.0, ("0",), ("1",))
    plain = Backbone.of(module, name="p", lora=lora, objective=Classification(("a", "b")))
    assert WordReader.fit(descriptions, plain, ("text",), list) is None
