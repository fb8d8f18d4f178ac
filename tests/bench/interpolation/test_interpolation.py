import numpy as np
import pytest
import torch

from refusals import refused
from toys import ToySuite
from wildbench.interpolation.interpolation import (
    POSITIONS,
    TaskPair,
    choose_pairs,
    description_similarity,
    gainful_tasks,
    interpolate,
)
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import seen_material
from wildpdiff.evaluate.score import mean_scores, test_set
from wildpdiff.fit import FittedGenerator
from wildpdiff.tasks.batch import concatenate
from wildpdiff.zoo.store import Zoo


def distances(count: int) -> torch.Tensor:
    places = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    return 1 - torch.cdist(places, places)


def test_pairs_are_disjoint_and_ordered_by_likeness() -> None:
    similarity = distances(40)
    pairs = choose_pairs(similarity, range(40), 4, middle=5, seed=1)
    places = [index for pair in pairs for index in (pair.first, pair.second)]
    assert len(places) == len(set(places)) == 26
    by_group = {
        group: [pair.similarity for pair in pairs if pair.group == group] for group in ("high", "middle", "low")
    }
    assert {group: len(values) for group, values in by_group.items()} == {"high": 4, "middle": 5, "low": 4}
    assert min(by_group["high"]) > max(by_group["middle"])
    assert min(by_group["middle"]) > max(by_group["low"])
    assert all(pair.similarity == pytest.approx(float(similarity[pair.first, pair.second])) for pair in pairs)
    assert max(by_group["high"]) == pytest.approx(float((similarity - 2 * torch.eye(40)).max()))


def test_only_eligible_tasks_are_paired_and_too_few_are_refused() -> None:
    pairs = choose_pairs(distances(40), range(0, 40, 2), 3, middle=3, seed=1)
    assert {index % 2 for pair in pairs for index in (pair.first, pair.second)} == {0}
    with refused(DataError, 12, 24, 20):
        choose_pairs(distances(40), range(0, 40, 2), 4, middle=4, seed=1)


def test_similarity_is_one_to_itself_and_falls_with_the_level(toy_fit: FittedGenerator) -> None:
    generator = toy_fit.generator
    descriptions = [task.description for task in ToySuite().tasks("seen")]
    embeddings = torch.stack([generator.conditions.encode(entry).values for entry in descriptions])
    similarity = description_similarity(generator, embeddings)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(5))
    torch.testing.assert_close(similarity, similarity.T)
    assert float(similarity[0, 1]) > float(similarity[0, 4])


def test_ends_are_the_tasks_own_adapters(toy_backbone: Backbone, toy_zoo: Zoo, toy_fit: FittedGenerator) -> None:
    suite = ToySuite()
    seen = seen_material(suite, toy_backbone, toy_zoo, generator=toy_fit.generator, features=None, seed=0)
    tests = {task.name: test_set(toy_backbone, task) for task in suite.tasks("seen")}
    pairs = (TaskPair(0, 1, 0.9, "high"), TaskPair(0, 4, 0.1, "low"))
    found = interpolate([toy_fit.generator], seen, tests, pairs, samples=2, seed=0)
    assert [path.way for path in found.paths] == ["conditions", "latents", "adapters"] * 2
    finals = toy_zoo.task_adapters()
    for path in found.paths:
        assert path.places == POSITIONS
        if path.way == "adapters":
            for name, end, line in ((path.first, 0, path.first_accuracy), (path.second, -1, path.second_accuracy)):
                assert line[end] == mean_scores(toy_backbone, tests[name], [finals[name]])[0]
    for pair in found.pairs:
        assert set(pair.alignment) == set(found.alignments) == {"connectivity", "cosine", "principal angles"}
        assert pair.finetuned[0] == mean_scores(toy_backbone, tests[pair.first], [finals[pair.first]])[0]
    assert found.pairs[0].condition_distance == pytest.approx(0.1)
    # Half-way to a index that is alike, more of both remains than half-way to one that is not.
    assert found.pairs[0].alignment["cosine"] > found.pairs[1].alignment["cosine"]
    again = interpolate([toy_fit.generator], seen, tests, pairs, samples=2, seed=0)
    assert again == found


def test_gainful_tasks_are_those_that_fine_tuning_helps(
    toy_backbone: Backbone, toy_zoo: Zoo, toy_fit: FittedGenerator
) -> None:
    seen = seen_material(ToySuite(), toy_backbone, toy_zoo, generator=toy_fit.generator, features=None, seed=0)
    gains = []
    for name in toy_zoo.tasks:
        data = seen.data(name)
        batch = concatenate([data.train, data.validation])
        before, after = (
            float((toy_backbone.predict(batch, adapter.tensors).argmax(1) == batch["targets"]).double().mean())
            for adapter in (toy_zoo.initial, toy_zoo.task_adapters()[name])
        )
        gains.append(after - before)
    cut = float(np.median(gains))
    assert gainful_tasks(seen, cut) == tuple(index for index, gain in enumerate(gains) if gain >= cut)
    assert gainful_tasks(seen, 2.0) == ()
