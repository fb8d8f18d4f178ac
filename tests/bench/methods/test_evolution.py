"""CMA-ES: it goes downhill, the same way for the same seed, within its budget and without side effects."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildbench.methods.evolution import EvolutionConfig, EvolutionSource, SearchSpace, evolve, latent_space, raw_space
from wildbench.methods.few_labels import few_labels
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.codec.codec import Codec
from wildpdiff.errors import DataError, DescriptionError, TrainingError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

CONFIG = EvolutionConfig(generations=10, population=8)
NAMES = [task.name for task in toys.ToySuite().tasks("seen")]
SPACES = ("latent", "raw")


@pytest.fixture(scope="module")
def data(toy_backbone: Backbone) -> FeatureCache:
    return FeatureCache(toy_backbone, toys.ToySuite().tasks("seen"), 1)


@pytest.fixture(scope="module")
def spaces(toy_zoo: Zoo) -> dict[str, SearchSpace]:
    seen = SeenAdapters.of(list(toy_zoo.task_adapters().values()))
    codec = Codec.fit(seen.layout, seen.vectors)
    autoencoder = PCAAutoencoder.fit(codec.encode(seen.vectors), latent_size=4)
    return {"latent": latent_space(codec, autoencoder, seen), "raw": raw_space(toy_zoo.initial, seen)}


def bowl(center: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda points: (points - center).square().sum(1)


def quadratic(diagonal: bool) -> SearchSpace:
    start, scale = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([1.0, 0.1, 2.0, 1.0])
    return SearchSpace("raw", start, scale, lambda points: {"x": points}, diagonal)


@pytest.mark.parametrize("diagonal", [False, True])
def test_it_finds_the_minimum_of_a_bowl(diagonal: bool) -> None:
    center = torch.tensor([0.2, -1.9, 0.0, 2.0])
    config = EvolutionConfig(generations=40, population=12, step=0.5)
    found = evolve(quadratic(diagonal), bowl(center), config, numpy_generator(0, "bowl"))
    torch.testing.assert_close(found.point, center, rtol=0.0, atol=0.02)
    assert len(found.best) == 41
    assert float(found.best[0]) == pytest.approx(float((quadratic(diagonal).start - center).square().sum()))
    assert float(found.best[-1]) < 1e-2 * float(found.best[0])


def test_the_first_population_has_the_spread_of_the_space() -> None:
    drawn: list[Tensor] = []

    def keep(points: Tensor) -> Tensor:
        drawn.append(points)
        return points.sum(1)

    space = quadratic(False)
    evolve(space, keep, EvolutionConfig(generations=1, population=1000, step=0.5), numpy_generator(0, "spread"))
    assert torch.equal(drawn[0], space.start[None])
    torch.testing.assert_close(drawn[1].mean(0), space.start, rtol=0.0, atol=0.1)
    torch.testing.assert_close(drawn[1].std(0), 0.5 * space.scale, rtol=0.12, atol=0.0)


def test_the_budget_is_spent_and_one_call_scores_a_generation() -> None:
    calls: list[int] = []

    def flat(points: Tensor) -> Tensor:
        calls.append(len(points))
        return torch.zeros(len(points))

    evolve(quadratic(False), flat, CONFIG, numpy_generator(0, "flat"))
    assert calls == [1] + [CONFIG.population] * CONFIG.generations
    assert CONFIG.evaluations == sum(calls) - 1


def test_it_seeds_nothing_globally_prints_nothing_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("evolution")
    monkeypatch.chdir(folder)
    before = np.random.get_state()[1].copy()
    evolve(quadratic(False), bowl(torch.zeros(4)), CONFIG, numpy_generator(0, "quiet"))
    assert np.array_equal(before, np.random.get_state()[1])
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with refused(TrainingError, 1):
        evolve(quadratic(False), lambda points: points.sum(1) * torch.nan, CONFIG, numpy_generator(0, "nan"))


@pytest.mark.parametrize("change", [{"generations": 0}, {"population": 3}, {"step": 0.0}])
def test_a_budget_of_nothing_is_refused(change: dict[str, float]) -> None:
    with refused(TrainingError, *(f"{value:g}" for value in change.values())):
        EvolutionConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", SPACES)
def test_it_lowers_its_objective_on_every_toy_task(
    spaces: dict[str, SearchSpace], toy_backbone: Backbone, data: FeatureCache, space: str
) -> None:
    source = EvolutionSource(spaces[space], data, toy_backbone, labels_per_class=5, config=CONFIG)
    for name in NAMES:
        task = few_labels(data(name), 5, seed=0)
        adapter = source.sample(Description(task_id=name), 1, 0)[0]
        stacked = {key: value[None] for key, value in adapter.tensors.items()}
        logits = toy_backbone.predict_many(task.train, stacked)[0]
        reached = torch.nn.functional.cross_entropy(logits, task.train["targets"])
        assert float(reached) < float(source.losses(task, spaces[space].start[None])[0])


@pytest.mark.parametrize("space", SPACES)
def test_the_start_is_the_mean_or_the_initial_adapter(spaces: dict[str, SearchSpace], toy_zoo: Zoo, space: str) -> None:
    seen = SeenAdapters.of(list(toy_zoo.task_adapters().values()))
    expected = seen.vectors.mean(0) if space == "latent" else seen.layout.flatten(toy_zoo.initial.tensors)
    found = seen.layout.flatten_many(spaces[space].tensors(spaces[space].start[None]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_raw_search_leaves_factor_a(spaces: dict[str, SearchSpace], toy_zoo: Zoo) -> None:
    space = spaces["raw"]
    moved = space.tensors(space.start[None] + space.scale)
    initial = toy_zoo.initial.tensors
    assert {name for name in moved if torch.equal(moved[name][0], initial[name])} == {
        name for name in initial if ".lora_A." in name
    }


def test_raw_search_needs_a_spread(toy_zoo: Zoo) -> None:
    with refused(DataError):
        raw_space(toy_zoo.initial, SeenAdapters.of([toy_zoo.initial] * 2))


def test_seeds_decide(spaces: dict[str, SearchSpace], toy_backbone: Backbone, data: FeatureCache) -> None:
    description = Description(task_id=NAMES[0])
    one, same, other = (
        EvolutionSource(spaces["raw"], data, toy_backbone, labels_per_class=2, config=CONFIG, seed=seed).sample(
            description, 1, 0
        )[0]
        for seed in (0, 0, 1)
    )
    assert one.distance(same) == 0.0
    assert one.distance(other) > 0.0


def test_names_budget_and_labels_are_on_record(
    spaces: dict[str, SearchSpace], toy_backbone: Backbone, data: FeatureCache
) -> None:
    sources = [
        EvolutionSource(spaces[space], data, toy_backbone, labels_per_class=5, config=CONFIG) for space in SPACES
    ]
    assert [source.name for source in sources] == [
        "CMA-ES in the latent space, 5 labels a class", "CMA-ES on raw LoRA, 5 labels a class"
    ]  # fmt: skip
    provenance = sources[0].sample(Description(task_id=NAMES[1]), 1, 3)[0].provenance
    labels = len(few_labels(data(NAMES[1]), 5, seed=0).train["targets"])
    assert provenance["labels"] == labels
    assert provenance["evaluations"] == 80


def test_it_refuses_no_labels_and_unknown_tasks(
    spaces: dict[str, SearchSpace], toy_backbone: Backbone, data: FeatureCache
) -> None:
    with refused(DataError, 0):
        EvolutionSource(spaces["raw"], data, toy_backbone, labels_per_class=0, config=CONFIG)
    with refused(DescriptionError, "nowhere"):
        EvolutionSource(spaces["raw"], data, toy_backbone, labels_per_class=2, config=CONFIG).sample(
            Description(task_id="nowhere"), 1, 0
        )
