from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import toys
from refusals import refused
from remarked import remarked
from wildbench.sections import DISTANCES, LATENT_MAP, MEMORISATION, PICTURES, SPREAD
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.results import Results, Stage, hardware, provenance, read_results, write_results
from wildpdiff.fit import FittedGenerator, fit_generator
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import Examples, SplitName, Task
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

SUITE = toys.ToySuite()
STAGES = (Stage("fine-tune seen tasks", 1.5),)


@pytest.fixture(scope="module")
def comparison(
    tmp_path_factory: pytest.TempPathFactory, toy_zoo: Zoo, toy_fit: FittedGenerator, toy_backbone: Backbone
) -> Comparison:
    folder: Path = tmp_path_factory.mktemp("reference") / "zoo"
    reference = build_zoo(folder, toy_backbone, SUITE.tasks("unseen"), SUITE.fingerprint, config=toys.FINETUNE)
    training_set = TrainingSet.of(SUITE, toy_backbone, toy_zoo)
    second = fit_generator(training_set, toys.generator_config(), seed=1).generator
    return Comparison(SUITE, toy_backbone, toy_zoo, reference, [toy_fit.generator, second], {"levels": 5})


@pytest.fixture(scope="module")
def results(comparison: Comparison) -> Results:
    return compare_sources(comparison, made=provenance("a test", 3), samples=2, stages=STAGES)


def test_the_table_is_whole(results: Results) -> None:
    sources = {
        ("pretrained", "none"): 1,
        ("mean adapter", "none"): 1,
        ("nearest task", "own"): 1,
        ("kernel ridge regression", "own"): 1,
        ("additive kernel regression", "own"): 1,
        ("generated", "own"): 2,
        ("generated", "shuffled"): 2,
        ("generated", "random"): 2,
        ("fine-tuned", "own"): 1,
    }
    counted: dict[tuple[str, str, str, str], int] = {}
    for row in results.rows:
        key = (row.split, row.task, row.source, row.condition)
        counted[key] = counted.get(key, 0) + 1
    tasks = [(split, task.name) for split in ("seen", "unseen") for task in SUITE.tasks(split)]
    assert counted == {(*index, *source): count for index in tasks for source, count in sources.items()}
    assert {row.generator_seed for row in results.rows if row.source == "generated"} == {0, 1}
    assert {row.generator_seed for row in results.rows if row.source != "generated"} == {None}


def test_the_summary_has_every_source_on_both_splits(results: Results) -> None:
    assert len(results.summary) == 18
    for row in results.summary:
        assert (row.seconds_per_adapter is None) is (row.source == "pretrained")
        assert row.accuracy_interval is not None
        assert row.tasks == {"seen": 5, "unseen": 3}[row.split]
        assert (row.recovered_gain is None) is (row.source in ("pretrained", "fine-tuned"))
        if row.source == "fine-tuned":  # its share of the training, not the time of looking it up
            assert row.seconds_per_adapter == 1.5 / 5
        assert (row.samples, row.seeds) == ((1, 2) if row.source == "generated" else (1, 1))


def test_labels_help_and_the_reference_is_the_best_to_be_had(results: Results) -> None:
    accuracy = {(row.split, row.source, row.condition): row.accuracy for row in results.summary}
    assert accuracy["unseen", "fine-tuned", "own"] > accuracy["unseen", "pretrained", "none"] + 0.1


def test_the_rest_is_recorded(results: Results, comparison: Comparison, toy_backbone: Backbone) -> None:
    assert results.provenance.command == "a test"
    assert results.provenance.seed == 3
    assert (results.suite.name, results.suite.seen, results.suite.unseen) == ("toy", 5, 3)
    assert results.suite.knobs == {"levels": 5}
    assert results.backbone.hash == toy_backbone.backbone_hash
    assert results.backbone.adapter_parameters == comparison.zoo.initial.size
    assert results.generator is not None
    assert results.generator.hashes == tuple(entry.fingerprint for entry in comparison.generators)
    assert results.generator.checkpoints == 25
    assert results.autoencoder is not None
    assert set(results.autoencoder.ceiling) == {"seen", "unseen"}
    seen = results.autoencoder.ceiling["seen"]
    assert abs(seen.accuracy - seen.finetuned) < 0.1
    assert results.stages == STAGES


def test_everything_beside_accuracy_is_measured(results: Results) -> None:
    rows = dict.fromkeys(row.source for row in results.rows if row.source != "fine-tuned")
    assert [info.name for info in results.sources] == [*rows, "fine-tuned"]
    memorisation, latent_map = MEMORISATION.of(results), LATENT_MAP.of(results)
    assert memorisation is not None
    assert {point.source for point in memorisation.points} == {info.name for info in results.sources}
    assert {(entry.split, entry.source) for entry in SPREAD.of(results) or ()} == {
        ("seen", "generated"),
        ("unseen", "generated"),
    }
    assert all(entry.over_samples is None and entry.over_seeds is not None for entry in SPREAD.of(results) or ())
    assert [(entry.split, entry.task) for entry in DISTANCES.of(results) or ()] == [
        (split, task.name) for split in ("seen", "unseen") for task in SUITE.tasks(split)
    ]
    assert {(entry.split, entry.source, entry.condition) for entry in results.calibration} == {
        (row.split, row.source, row.condition) for row in results.rows
    }
    assert latent_map is not None
    assert {point.kind for point in latent_map.points} == {"fine-tuned", "generated"}
    assert {picture.split for picture in PICTURES.of(results) or ()} == {"unseen"}


def test_seen_tasks_are_drawn_by_the_seed(comparison: Comparison) -> None:
    fewer = replace(comparison, seen_tasks=2)
    found = [compare_sources(fewer, made=provenance("a test", seed), samples=1) for seed in (3, 3, 4, 5)]
    drawn = [{row.task for row in entry.rows if row.split == "seen"} for entry in found]
    assert {len(tasks) for tasks in drawn} == {2}
    assert drawn[0] == drawn[1]
    assert len({frozenset(tasks) for tasks in drawn}) > 1


def test_written_and_read_it_is_the_same(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_the_same_seed_gives_the_same_rows(results: Results, comparison: Comparison) -> None:
    assert compare_sources(comparison, made=provenance("again", 3), samples=2).rows == results.rows


def test_without_unseen_tasks_only_the_seen_are_compared(
    toy_zoo: Zoo, toy_fit: FittedGenerator, toy_backbone: Backbone
) -> None:
    alone = Comparison(SUITE, toy_backbone, toy_zoo, None, [toy_fit.generator], {})
    found = compare_sources(alone, made=provenance("a test", 0), samples=1)
    assert {row.split for row in found.rows} == {"seen"}
    assert found.suite.unseen == 0


@dataclass(frozen=True)
class Few:
    """An unseen task that is not in the reference."""

    name: str
    of: Task

    @property
    def description(self) -> Description:
        return self.of.description

    def data(self, split: SplitName) -> Examples:
        return self.of.data(split)


def test_unseen_tasks_without_a_fine_tuned_adapter_are_scored_apart_from_it(
    results: Results, comparison: Comparison
) -> None:
    first, *_ = SUITE.tasks("unseen")
    few = replace(comparison, untuned=[Few("few", first)])
    found = compare_sources(few, made=provenance("a test", 3), samples=2, stages=STAGES)
    kept = {row for row in found.rows if row.task != "few"}
    assert kept == set(results.rows)
    scored = {(row.source, row.condition): row.accuracy for row in found.rows if row.task == "few"}
    same = {(row.source, row.condition): row.accuracy for row in results.rows if row.task == first.name}
    references = [("pretrained", "none"), ("mean adapter", "none"), ("nearest task", "own")]
    assert {key: scored[key] for key in references} == {key: same[key] for key in references}
    assert scored.keys() == {key for key in same if key[0] != "fine-tuned" and key[1] not in ("shuffled", "random")}
    counts = {(row.source, row.condition): row.tasks for row in found.summary if row.split == "unseen"}
    unseen = len(SUITE.tasks("unseen"))
    assert {key for key, count in counts.items() if count == unseen + 1} == scored.keys()
    assert found.suite.unseen == unseen + 1
    gains = [{(row.split, row.label): row.recovered_gain for row in one.summary} for one in (found, results)]
    assert gains[0] == gains[1]
    remarked(found.notes, "few", 1)
    assert Results.from_json(found.to_json()).rows == found.rows
    alone = compare_sources(replace(few, reference=None), made=provenance("a test", 3), samples=1)
    assert {row.task for row in alone.rows if row.split == "unseen"} == {"few"}


def test_without_a_generator_there_is_nothing_to_compare(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    with refused(DataError):
        compare_sources(Comparison(SUITE, toy_backbone, toy_zoo, None, [], {}), made=provenance("a test", 0))


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    assert "cores" in hardware()
    assert platform.node() not in hardware()
