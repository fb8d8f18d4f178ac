"""Choosing among adapters by unlabelled images: each rule finds what it is meant to find."""

import pytest
import torch

import toys
from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError, DescriptionError
from wildpdiff.selection import RULES, SelectedSource, average, select
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description

IMAGES = toys.random_images(12)


def leaning(of: Backbone, bias: list[float]) -> Adapter:
    """The pretrained classifier with other biases: how sure it is, and of what, is known beforehand."""
    tensors = {name: torch.zeros(shape) for name, shape in of.shapes.items()}
    bias_name = next(name for name in tensors if name.endswith("classifier.bias"))
    tensors[bias_name] = torch.tensor(bias)
    return Adapter(tensors, of.adapter_config, {"source": "leaning"})


@pytest.fixture(scope="module")
def candidates(toy_backbone: Backbone) -> list[Adapter]:
    return [leaning(toy_backbone, bias) for bias in ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0])]


def test_entropy_takes_the_most_certain(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    chosen = select(candidates, toy_backbone, IMAGES, "entropy")
    assert chosen.place == 2
    assert chosen.adapter is candidates[2]
    assert chosen.scores[0] == pytest.approx(-torch.log(torch.tensor(3.0)).item(), abs=1e-5)


def test_agreement_takes_what_most_say(toy_backbone: Backbone) -> None:
    many = [leaning(toy_backbone, bias) for bias in ([0.0, 4.0, 0.0], [3.0, 0.0, 0.0], [4.0, 0.0, 0.0])]
    assert select(many, toy_backbone, IMAGES, "agreement").place == 1


def test_prior_takes_the_nearest_frequencies(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    wanted = torch.tensor([1.0, 0.0, 0.0]).softmax(0)
    chosen = select(candidates, toy_backbone, IMAGES, "prior", wanted * 7)  # counts do as well as frequencies
    assert chosen.place == 1
    assert chosen.scores[1] == pytest.approx(0.0, abs=1e-5)


def test_average_is_the_mean_of_the_tensors(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    chosen = select(candidates, toy_backbone, IMAGES, "average")
    assert chosen.place is None
    for name, value in chosen.adapter.tensors.items():
        assert torch.allclose(value, sum(entry.tensors[name] for entry in candidates) / 3)


def test_what_cannot_be_chosen_from_is_refused(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    with pytest.raises(DataError, match="no candidates"):
        select([], toy_backbone, IMAGES, "entropy")
    with pytest.raises(DataError, match="There are no images"):
        select(candidates, toy_backbone, IMAGES[:0], "entropy")
    with pytest.raises(DataError, match="compares with class frequencies"):
        select(candidates, toy_backbone, IMAGES, "prior")
    for wrong in (torch.tensor([0.5, 0.5]), torch.tensor([2.0, -1.0, 0.0]), torch.zeros(3)):
        with pytest.raises(DataError, match="give 3, none negative, not all 0"):
            select(candidates, toy_backbone, IMAGES, "prior", wrong)
    with pytest.raises(AdapterMismatchError, match="Load the backbone"):
        select([toys.random_adapter(toys.backbone(1), 0)], toy_backbone, IMAGES, "entropy")
    with pytest.raises(AdapterMismatchError, match="only like ones average"):
        average([candidates[0], toys.random_adapter(toys.backbone(1), 0)])
    with pytest.raises(DataError, match="give at least one"):
        SelectedSource([], toy_backbone, "entropy")
    with pytest.raises(DataError, match="Give a function"):
        SelectedSource([Fixed([candidates[0]], "a")], toy_backbone, "prior")


class Fixed:
    """A source whose samples are a list."""

    def __init__(self, adapters: list[Adapter], name: str) -> None:
        self.adapters = adapters
        self.name = name

    @property
    def stochastic(self) -> bool:
        return len(self.adapters) > 1

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        return self.adapters[:n]


def test_a_source_chooses_among_all_samples_of_all_sources(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    sources = [Fixed(candidates[1:], "two"), Fixed(candidates[:1], "one")]
    source = SelectedSource(sources, toy_backbone, "entropy", samples=2)
    assert isinstance(source, Source)
    assert source.name == "two or one, selected by entropy"
    adapter = source.sample(Description(examples=IMAGES, task_id="t"), 2, seed=4)[1]
    assert {"candidates": 3, "candidate": 1, "task": "t", "seed": 4}.items() <= dict(adapter.provenance).items()
    assert adapter.provenance["selected_from"] == {"source": "leaning"}
    assert adapter.distance(candidates[2]) == 0.0


def test_a_source_needs_images_to_choose_and_none_to_average(toy_backbone: Backbone, candidates: list[Adapter]) -> None:
    fixed = Fixed(candidates[:2], "two")
    for rule in set(RULES) - {"average"}:
        source = SelectedSource([fixed], toy_backbone, rule, frequencies=lambda _: torch.ones(3))
        with pytest.raises(DescriptionError, match="no images of the task to select by"):
            source.sample(Description(metadata={"level": 1.0}), 1, 0)
    averaged = SelectedSource([fixed], toy_backbone, "average")
    assert averaged.name == "two, averaged"
    assert averaged.sample(Description(), 1, 0)[0].provenance["candidate"] is None
