from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import toys
from refusals import refused
from wildbench.studies.grid import FittedSources, StudyInputs, fit_sources
from wildbench.studies.groups import HeldOutGroups, add_groups, group_kinds, held_out_groups, task_groups
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import BackboneInfo, Results, SuiteInfo, provenance
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema, MetadataValue
from wildpdiff.tasks.task import Group, LabelledImages, SplitName
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.store import Zoo

SCHEMA = MetadataSchema(
    (
        MetadataField("level", "number"),
        MetadataField("habitat", "category", categories=("forest", "grass", "river", "rock")),
        MetadataField("latitude", "number", geographic="latitude"),
        MetadataField("longitude", "number", geographic="longitude"),
    )
)
HABITATS = ("forest", "grass", "forest", "grass", "forest", "grass", "grass", "river", None)
"""Of the nine seen sites: three, four and one; the last one's is not known."""
SOURCES = {"mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression"}


@dataclass(frozen=True)
class Site:
    """A toy task with a habitat and coordinates."""

    toy: toys.ToyTask
    metadata: dict[str, MetadataValue]

    @property
    def name(self) -> str:
        return self.toy.name

    @property
    def description(self) -> Description:
        return replace(self.toy.description, metadata=self.metadata)

    def data(self, split: SplitName) -> LabelledImages:
        return self.toy.data(split)


@dataclass(frozen=True)
class Sites:
    """Nine seen sites on a grid of three by three."""

    name: str = "sites"
    classes: tuple[str, ...] = toys.CLASSES
    image_size: int = toys.SIZE
    metadata_schema: MetadataSchema = SCHEMA
    fingerprint: str = "sites-1"

    def tasks(self, group: Group) -> tuple[Site, ...]:
        found = []
        for i, habitat in enumerate(HABITATS if group == "seen" else ()):
            level = 50.0 + 17 * i
            known = {} if habitat is None else {"habitat": habitat}
            coordinates = {"latitude": float(i // 3), "longitude": float(i % 3)}
            found.append(Site(toys.ToyTask(f"seen-{i}", level), {"level": level, **known, **coordinates}))
        return tuple(found)


SUITE = Sites()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    folder: Path = tmp_path_factory.mktemp("sites") / "zoo"
    return build_zoo(folder, toy_backbone, SUITE.tasks("seen"), SUITE.fingerprint, config=toys.FINETUNE, per_shard=9)


class Requested:
    """Labelled images of the seen sites, and the requests for them."""

    def __init__(self, backbone: Backbone) -> None:
        self._cache = FeatureCache(backbone, SUITE.tasks("seen"), toys.FINETUNE.batch)
        self.names: list[str] = []

    def __call__(self, name: str) -> TaskFeatures:
        self.names.append(name)
        return self._cache(name)


def inputs(zoo: Zoo, backbone: Backbone) -> StudyInputs:
    config = toys.generator_config()
    config = replace(config, diffusion=replace(config.diffusion, steps=20), task_loss=TaskLossConfig(steps=3, images=8))
    return StudyInputs(SUITE, backbone, zoo, Requested(backbone), config)


@pytest.fixture(scope="module")
def study(zoo: Zoo, toy_backbone: Backbone) -> StudyInputs:
    return inputs(zoo, toy_backbone)


@pytest.fixture(scope="module")
def found(study: StudyInputs) -> HeldOutGroups:
    return held_out_groups(study, "habitat", generator_seeds=(0, 7), most_tasks=3, samples=2, seed=5)


def sites(*numbers: int) -> set[str]:
    return {f"seen-{number}" for number in numbers}


def test_tasks_are_grouped_by_categories_and_by_quarters_of_the_map() -> None:
    assert group_kinds(SCHEMA) == ("habitat", "region")
    assert group_kinds(toys.SCHEMA) == ()
    habitats = task_groups(SUITE.tasks("seen"), SCHEMA, "habitat")
    assert {group.value: set(group.tasks) for group in habitats} == {
        "forest": sites(0, 2, 4),
        "grass": sites(1, 3, 5, 6),
        "river": sites(7),
    }
    regions = task_groups(SUITE.tasks("seen"), SCHEMA, "region")
    # Latitudes 0, 1, 2 are cut behind the median 1, and so are longitudes.
    assert {group.value: set(group.tasks) for group in regions} == {
        "south-west": sites(0, 1, 3, 4),
        "south-east": sites(2, 5),
        "north-west": sites(6, 7),
        "north-east": sites(8),
    }


def test_what_tasks_do_not_have_they_cannot_be_grouped_by() -> None:
    for kind in ("level", "colour"):
        with refused(DataError, kind, "habitat", "region"):
            task_groups(SUITE.tasks("seen"), SCHEMA, kind)


def test_every_source_is_scored_on_every_held_out_task(found: HeldOutGroups) -> None:
    assert {row.split for row in found.rows} == {"held-out habitat"}
    scored = {row.task for row in found.rows}
    assert scored >= sites(0, 2, 4)
    assert len(scored & sites(1, 3, 5, 6)) == 3  # most_tasks
    assert len(scored) == 6
    for task in scored:
        counted: dict[tuple[str, int | None], int] = {}
        for row in found.rows:
            if row.task == task:
                key = (row.source, row.generator_seed)
                counted[key] = counted.get(key, 0) + 1
        alone = {(name, None): 1 for name in (*SOURCES, "pretrained", "fine-tuned")}
        assert counted == {**alone, ("generated", 0): 1, ("generated", 7): 1}


def test_what_was_left_out_is_noted(found: HeldOutGroups) -> None:
    assert found.notes == (
        "held-out habitat, river: left out, because it has 1 tasks.",
        "held-out habitat, grass: 3 of its 4 tasks are scored.",
    )


def test_the_held_out_group_takes_no_part_in_any_fit(
    zoo: Zoo, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[set[str]] = []

    def watched(inputs: StudyInputs, part: Zoo, seeds: Sequence[int]) -> FittedSources:
        assert isinstance(inputs.data, Requested)
        inputs.data.names.clear()
        result = fit_sources(inputs, part, seeds)
        assert set(part.column("task")) == set(part.tasks) == set(inputs.data.names)
        fitted.append(set(part.tasks))
        return result

    monkeypatch.setattr("wildbench.studies.groups.fit_sources", watched)
    held_out_groups(inputs(zoo, toy_backbone), "region", most_tasks=1, samples=1)
    assert fitted == [sites(2, 5, 6, 7, 8)]  # the other quarters have fewer than three sites


def test_labels_help_on_held_out_tasks_too(found: HeldOutGroups) -> None:
    means = {}
    for name in ("pretrained", "fine-tuned"):
        values = [row.accuracy for row in found.rows if row.source == name]
        means[name] = sum(values) / len(values)
    assert means["fine-tuned"] > means["pretrained"] + 0.1


def test_costs_are_known_for_every_source(found: HeldOutGroups) -> None:
    assert set(found.training) == SOURCES | {"generated"}
    assert set(found.seconds) == SOURCES | {"generated", "pretrained", "fine-tuned"}


def empty_results() -> Results:
    suite = SuiteInfo("sites", 3, SUITE.fingerprint, 9, 0, {})
    return Results(provenance("a test", 0), suite, BackboneInfo("toy", "0", 1, 1), None, None, (), ())


def test_the_rows_are_added_to_results(found: HeldOutGroups) -> None:
    results = add_groups(empty_results(), found)
    assert Results.from_json(results.to_json()) == results
    assert results.notes == found.notes
    lines = {row.source: row for row in results.summary}
    assert set(lines) == SOURCES | {"pretrained", "fine-tuned", "generated"}
    assert {row.split for row in results.summary} == {"held-out habitat"}
    assert (lines["generated"].tasks, lines["generated"].samples, lines["generated"].seeds) == (6, 1, 2)
    assert lines["generated"].training_seconds == pytest.approx(found.training["generated"])
    assert lines["pretrained"].seconds_per_adapter is None
    assert lines["kernel ridge regression"].recovered_gain is not None
    with refused(DataError, "held-out habitat"):
        add_groups(results, found)


@pytest.mark.parametrize(
    ("kind", "changes", "values"),
    [
        ("habitat", {"most_tasks": 0}, (0,)),
        ("habitat", {"generator_seeds": ()}, ()),
        ("camera", {}, ("camera",)),
    ],
)
def test_what_cannot_be_done_is_refused(study: StudyInputs, kind: str, changes: dict, values: tuple) -> None:
    with refused(DataError, *values):
        held_out_groups(study, kind, **changes)


def test_groups_that_are_all_too_small_are_refused(study: StudyInputs) -> None:
    few = replace(study, zoo=study.zoo.only(sorted(sites(1, 2, 4, 7, 8))))
    with refused(DataError, "habitat", 3, 5):
        held_out_groups(few, "habitat")
