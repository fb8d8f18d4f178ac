import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.rng import sub_seed
from wildpdiff.zoo import build, recipe
from wildpdiff.zoo.build import build_zoo, recipe_of, zoo_recipe
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.recipe import ChosenRecipe, RecipeSearch, RecipeTrial, drawn_tasks, search_work
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

SUITE = toys.ToySuite()
RATES = (1e-4, 0.01, 0.1, 0.3)
DEFAULT = FinetuneConfig(steps=12, batch=8, warmup=2, checkpoints=3, interval=2)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of few and short runs."""
    monkeypatch.setattr(build, "DEFAULT", DEFAULT)
    monkeypatch.setattr(recipe, "RATES", RATES)
    monkeypatch.setattr(recipe, "SHRINKAGES", (0.3, 1.0))
    monkeypatch.setattr(recipe, "COARSE_TASKS", 2)


@pytest.fixture(scope="module")
def tasks(toy_backbone: Backbone) -> list[TaskFeatures]:
    return [task_features(toy_backbone, task) for task in SUITE.tasks("seen")[:3]]


@pytest.fixture(scope="module")
def initial(toy_backbone: Backbone) -> Mapping[str, Tensor]:
    return toy_backbone.initial_adapter(sub_seed(0, "initial")).tensors


def scores(losses: list[float], steps: int = 20) -> recipe.Scores:
    config = replace(DEFAULT, steps=steps)
    return recipe.Scores(config, torch.tensor(losses), torch.zeros(len(losses)))


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([scores([0.9, 1.1, 0.95])], 0),  # better on average, but not beyond its noise
        ([scores([0.9, 0.9, 0.9])], 1),  # surely better
        ([scores([0.5, 0.5, 0.5]), scores([0.5, 0.49, 0.53], steps=10)], 2),  # as good, and shorter
        ([scores([0.5, 0.5, 0.5]), scores([0.6, 0.6, 0.61], steps=10)], 1),  # shorter, but surely worse
        ([scores([math.inf] * 3), scores([0.5, 0.5, 0.5])], 2),  # a divergence loses
    ],
)
def test_the_default_stays_unless_another_is_surely_better(others: list[recipe.Scores], expected: int) -> None:
    candidates = [scores([1.0, 1.0, 1.0]), *others]
    assert recipe._preferred(candidates) is candidates[expected]


def test_where_all_diverge_nothing_is_chosen() -> None:
    with refused(TrainingError, f"{min(RATES):g}"):
        recipe._preferred([scores([math.inf] * 2), scores([math.inf] * 2)])


@pytest.mark.parametrize("given", [1e-4, 1e30])
def test_the_learning_rate_follows_the_tasks_and_not_the_default(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: Mapping[str, Tensor], given: float
) -> None:
    """A default that hardly moves anything loses, and one that diverges is a line of the table."""
    found = RecipeSearch(toy_backbone, tasks, initial, 0).choose(replace(DEFAULT, learning_rate=given))
    coarse = [trial for trial in found.trials if trial.tasks < len(tasks)]
    assert {trial.learning_rate for trial in coarse} in (set(RATES), set(RATES[2:]))
    assert {trial.tasks for trial in coarse} == {recipe.COARSE_TASKS}
    whole = found.trials[len(coarse) :]
    assert {trial.tasks for trial in whole} == {len(tasks)}
    assert (whole[0].learning_rate, whole[0].loss is None) == (given, given > 1)
    chosen = (found.config.learning_rate, found.config.steps, found.config.shrinkage)
    (loss,) = {trial.loss for trial in whole if (trial.learning_rate, trial.steps, trial.shrinkage) == chosen}
    assert loss is not None
    assert found.accuracy > found.pretrained
    assert RATES[0] < found.config.learning_rate <= RATES[-1]


@pytest.mark.parametrize(("best", "tried"), [(0.3, 2), (0.1, 4), (0.01, 4), (1e-4, 4)])
def test_low_rates_are_tried_where_the_best_may_be_among_them(
    toy_backbone: Backbone,
    tasks: list[TaskFeatures],
    initial: Mapping[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    best: float,
    tried: int,
) -> None:
    rates: list[float] = []

    def run(self: RecipeSearch, configs: list[FinetuneConfig], most: int = 8, pooled: object = None) -> list:
        rates.extend(config.learning_rate for config in configs if most < len(tasks))
        losses = [abs(math.log(config.learning_rate / best)) + config.shrinkage for config in configs]
        return [
            recipe.Scores(own, torch.full((3,), loss), torch.zeros(3))
            for own, loss in zip(configs, losses, strict=True)
        ]

    monkeypatch.setattr(RecipeSearch, "run", run)
    chosen = RecipeSearch(toy_backbone, tasks, initial, 0).choose(replace(DEFAULT, learning_rate=1e-6))
    assert chosen.config.learning_rate == best
    assert len(rates) == len(set(rates)) == tried


def test_the_chosen_accuracy_is_that_of_the_mean_of_the_checkpoints(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: Mapping[str, Tensor]
) -> None:
    found = RecipeSearch(toy_backbone, tasks, initial, 3).choose(DEFAULT)
    run = recipe.finetune(toy_backbone, tasks, initial, config=found.config, seed=sub_seed(3, "recipe"))
    hits = []
    for row, task in enumerate(tasks):
        logits = toy_backbone.predict(task.validation, {name: v[row].mean(0) for name, v in run.tensors.items()})
        hits.append(float((logits.argmax(1) == task.validation["targets"]).float().mean()))
    assert found.accuracy == pytest.approx(np.mean(hits), abs=1e-4)


def test_the_same_search_gives_the_same_choice_and_reports_its_progress(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: Mapping[str, Tensor]
) -> None:
    done: list[int] = []
    one = RecipeSearch(toy_backbone, tasks, initial, 0, progress=done.append).choose(DEFAULT)
    assert one == RecipeSearch(toy_backbone, tasks, initial, 0, together=2).choose(DEFAULT)
    assert done == sorted(done)
    assert done[-1] <= search_work(DEFAULT, len(tasks))


def test_the_multi_task_adapter_has_not_seen_the_images_it_is_judged_by(
    toy_backbone: Backbone, tasks: list[TaskFeatures], initial: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tasks[0]
    count = first.train_size
    own = first.keys[count:]
    # The second task trains on what the first is judged by.
    second = replace(tasks[1], train=first.validation, keys=(*own, *tasks[1].keys[tasks[1].train_size :]))
    pooled: list[TaskFeatures] = []
    real = recipe.finetune

    def finetune(backbone, features, initial, **settings):  # type: ignore[no-untyped-def]
        pooled.extend(entry for entry in features if entry.name == "pooled")
        return real(backbone, features, initial, **settings)

    monkeypatch.setattr(recipe, "finetune", finetune)
    assert RecipeSearch(toy_backbone, [first, second], initial, 0).choose(DEFAULT).multi_task is not None
    assert torch.equal(pooled[0].train[toys.KEPT], first.train[toys.KEPT])


def test_tasks_are_drawn_by_their_names_alone() -> None:
    names = [f"camera-{number}" for number in range(40)]
    drawn = drawn_tasks(names)
    assert len(set(drawn)) == recipe.SEARCH_TASKS
    assert drawn == drawn_tasks(reversed(names))
    assert set(drawn_tasks([*names, "one more"])) - {"one more"} <= set(drawn)


def test_the_search_of_a_small_zoo_is_on_a_third_of_its_tasks_but_not_on_fewer_than_four() -> None:
    counts = {count: len(drawn_tasks(map(str, range(count)))) for count in (1, 4, 5, 14, 15, 23, 24, 300)}
    assert counts == {1: 1, 4: 4, 5: 4, 14: 4, 15: 5, 23: 7, 24: 8, 300: 8}
    work = {count: search_work(FinetuneConfig(), len(drawn_tasks(map(str, range(count))))) for count in (10, 24)}
    assert work[10] < 0.52 * work[24]


CHOSEN = ChosenRecipe(
    DEFAULT, ("a", "b"), (RecipeTrial(0.3, 6, 0.0, 2, None, None), RecipeTrial(0.1, 6, 0.5, 2, 0.5, 0.8)), 0.8, 0.7, 0.6
)


def test_a_remark_for_each_simpler_model_that_does_better() -> None:
    assert CHOSEN.remarks == ()
    (worse,) = replace(CHOSEN, pretrained=0.85).remarks
    assert "80.0 % accuracy and the pretrained model 85.0 %" in worse
    assert len(replace(CHOSEN, pretrained=0.85, multi_task=0.9).remarks) == 2
    assert replace(CHOSEN, multi_task=None).remarks == ()
    (level,) = replace(CHOSEN, pretrained=CHOSEN.accuracy).remarks
    assert level.count("80.0 %") == 1
    assert "pretraining" in level


def test_a_recipe_survives_the_plan() -> None:
    stored = json.loads(json.dumps(CHOSEN.to_json()))
    assert ChosenRecipe.from_json(CHOSEN.config.to_json(), stored, "plan.json") == CHOSEN


def test_a_plan_with_remarks_in_other_words_stays_the_same_plan() -> None:
    stored = {**CHOSEN.to_json(), "remarks": ["words of an earlier version"]}
    assert ChosenRecipe.from_json(CHOSEN.config.to_json(), stored, "plan.json").to_json() == stored


@pytest.mark.parametrize("change", [{"trials": [{"loss": 1}]}, {"accuracy": None}, {"tasks": 3}, {"trials": None}])
def test_a_damaged_recipe_is_refused(change: dict[str, object]) -> None:
    with refused(ArtifactError, "here/plan.json", next(iter(change))):
        ChosenRecipe.from_json(CHOSEN.config.to_json(), {**CHOSEN.to_json(), **change}, "here/plan.json")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def auto(folder: Path, backbone: Backbone, **changes: object) -> Zoo:
    settings: dict = {"tasks": SUITE.tasks("seen")[:4], "suite_fingerprint": "toy", "per_shard": 2, **changes}
    return build_zoo(folder, backbone, **settings)


def test_a_zoo_without_settings_keeps_its_choice_and_goes_on_without_a_second_search(
    tmp_path: Path, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = auto(tmp_path / "z", toy_backbone)
    whole = tree(tmp_path / "z")
    kept = recipe_of(zoo.plan)
    assert isinstance(kept, ChosenRecipe)
    assert zoo.plan.finetune == kept.config.to_json()
    real = RecipeSearch.choose
    with monkeypatch.context() as patch:
        patch.setattr(RecipeSearch, "choose", lambda *_, **__: pytest.fail("searched again"))
        (tmp_path / "z" / "shards" / "shard-00001.safetensors").unlink()
        auto(tmp_path / "z", toy_backbone)
        assert tree(tmp_path / "z") == whole
        with refused(ArtifactError, tmp_path / "z", "seed"):
            auto(tmp_path / "z", toy_backbone, seed=1)

    def killed(*arguments, **settings):  # type: ignore[no-untyped-def]
        real(*arguments, **settings)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecipeSearch, "choose", killed)
        with pytest.raises(KeyboardInterrupt):
            auto(tmp_path / "again", toy_backbone)
    assert not (tmp_path / "again" / "plan.json").exists()
    auto(tmp_path / "again", toy_backbone)
    assert tree(tmp_path / "again") == whole


def test_unseen_tasks_get_the_recipe_of_the_seen_ones(tmp_path: Path, toy_backbone: Backbone) -> None:
    seen = SUITE.tasks("seen")[:4]
    zoo = auto(tmp_path / "z", toy_backbone)
    chosen = zoo_recipe(tmp_path / "u", toy_backbone, seen, "toy", per_shard=2)
    assert chosen == recipe_of(zoo.plan)
    unseen = auto(tmp_path / "u", toy_backbone, tasks=SUITE.tasks("unseen"), config=chosen)
    assert (unseen.plan.finetune, unseen.plan.recipe) == (zoo.plan.finetune, zoo.plan.recipe)
    assert zoo_recipe(tmp_path / "u", toy_backbone, seen, "toy", per_shard=2) == chosen


def test_a_folder_that_may_not_be_used_is_refused_before_the_search(tmp_path: Path, toy_backbone: Backbone) -> None:
    auto(tmp_path / "given", toy_backbone, config=DEFAULT)
    with refused(ArtifactError, tmp_path / "given", "recipe"):
        auto(tmp_path / "given", toy_backbone)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with refused(ArtifactError, tmp_path / "other"):
        zoo_recipe(tmp_path / "other", toy_backbone, (), "toy")
    with refused(DataError, "seen tasks"):
        zoo_recipe(tmp_path / "new", toy_backbone, (), "toy")


def test_a_given_recipe_is_taken_as_it_is(toy_zoo: Zoo) -> None:
    assert toy_zoo.plan.recipe is None
    assert "recipe" not in toy_zoo.plan.to_json()
    assert recipe_of(toy_zoo.plan) == toys.FINETUNE


def test_tasks_of_fewer_images_than_a_batch_are_fine_tuned(tmp_path: Path, toy_backbone: Backbone) -> None:
    labels = np.array([0, 1, 2, 0, 1])
    small = [toys.FixedTask(f"small-{n}", toys.random_images(5, seed=n), labels) for n in range(3)]
    zoo = auto(tmp_path / "z", toy_backbone, tasks=small)
    batch = zoo.plan.finetune["batch"]
    assert batch > len(labels)
    assert len(zoo.task_adapters()) == 3


def test_a_stopped_search_goes_on_where_it_was(
    toy_backbone: Backbone,
    tasks: list[TaskFeatures],
    initial: Mapping[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm, memory = RecipeSearch(toy_backbone, tasks, initial, 0).choose(DEFAULT), tmp_path / "recipe.json"
    calls, train = [], recipe.finetune

    def counted(*given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return train(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(recipe, "finetune", counted)
    limit = 6
    with pytest.raises(KeyboardInterrupt):
        RecipeSearch(toy_backbone, tasks, initial, 0, memory=memory).choose(DEFAULT)
    assert len(json.loads(memory.read_text())) == 5
    calls.clear()
    limit = 1000
    assert RecipeSearch(toy_backbone, tasks, initial, 0, memory=memory).choose(DEFAULT) == calm
    assert len(calls) == len(calm.trials) - 5 + 1, "all but the five, and the adapter for all tasks"
    calls.clear()
    done: list[int] = []
    again = RecipeSearch(toy_backbone, tasks, initial, 0, memory=memory, progress=done.append)
    assert (again.choose(DEFAULT), calls) == (calm, []), "the adapter for all tasks is kept too"
    assert done == sorted(done)
    assert done[-1] <= search_work(DEFAULT, len(tasks))
    other = [toys.relabelled(tasks[0], 1 - tasks[0].train["targets"].clamp(max=1)), *tasks[1:]]
    assert RecipeSearch(toy_backbone, other, initial, 0, memory=memory).choose(DEFAULT) != calm
    assert len(calls) > len(RATES), "other labels are other data"
    kept = json.loads(memory.read_text())
    key = next(iter(kept))
    kept[key]["scores"][0][0] = 0.0
    memory.write_text(json.dumps(kept))
    assert RecipeSearch(toy_backbone, tasks, initial, 0, memory=memory).choose(DEFAULT) == calm


def test_what_a_stopped_search_has_kept_is_no_obstacle_and_does_not_stay(
    tmp_path: Path, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, folder = SUITE.tasks("seen"), tmp_path / "zoo"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecipeSearch, "multi_task", stop)
        with pytest.raises(KeyboardInterrupt):
            build_zoo(folder, toy_backbone, seen, "toy", config=None)
    assert [path.name for path in folder.iterdir()] == [".unfinished"]
    build_zoo(folder, toy_backbone, seen, "toy", config=None)
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.parquet",
        "initial.safetensors",
        "plan.json",
        "shards",
    ]
