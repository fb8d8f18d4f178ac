"""The panel's suites: the same call gives the same images, tests share none with training, options show in the hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refusals import refused
from wildbench.datasets.panel import rotated_digits as digits_module
from wildbench.datasets.panel import scanners as scanners_module
from wildbench.datasets.panel.altered import divided, with_distractors
from wildbench.datasets.panel.class_subsets import (
    ALL,
    BITS,
    ClassSubsetsConfig,
    class_subsets,
    draw_vectors,
    ten_classes,
)
from wildbench.datasets.panel.handwriting import HandwritingConfig, handwriting
from wildbench.datasets.panel.rotated_digits import RotatedDigitsConfig, rotated_digits
from wildbench.datasets.panel.scanners import Scanner, ScannersConfig, draw_scanner, scanners
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import GROUPS, SPLITS, Group, LabelledImages, Suite, Task

DATA = Path(__file__).parents[4] / "shared" / "data"
DIGITS = RotatedDigitsConfig(seen=4, unseen=3, pretraining=2, train=60, validation=10, test=60, pretraining_images=100)
SUBSETS = ClassSubsetsConfig(seen=6, unseen=3, train=20, validation=6, test=30)
WRITERS = HandwritingConfig(seen=3, unseen=2, pretraining=2, train=10, validation=4, examples=6)
SCANNERS = ScannersConfig(
    seen=4, unseen=2, pretraining=2, train=20, validation=8, test=30, pretraining_images=30, examples=5
)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with ten classes: every image differs."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("cifar") / "cifar10_subset.npz"
    arrays = {}
    for split, count in (("train", 1500), ("test", 600)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    np.savez(path, **arrays, classes=np.array(names))
    return path


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("writers") / "qmnist_writers.npz"
    owners = np.repeat(np.arange(8), 25)
    images = rng.integers(0, 256, (len(owners), 28, 28), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(len(owners)) % 10, writers=owners)
    return path


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("xrays") / "pneumoniamnist.npz"
    arrays = {}
    for split, count in (("train", 200), ("val", 40), ("test", 100)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


Open = Callable[[], Suite]


@pytest.fixture(params=["digits", "ambiguous", "subsets", "strict", "writers", "scanners", "distractors", "divided"])
def opened(request: pytest.FixtureRequest, cifar: Path, writers: Path, xrays: Path) -> Open:
    makers: dict[str, Open] = {
        "digits": lambda: rotated_digits(DIGITS),
        "ambiguous": lambda: rotated_digits(replace(DIGITS, ambiguous=True)),
        "subsets": lambda: class_subsets(cifar, SUBSETS),
        "strict": lambda: class_subsets(cifar, replace(SUBSETS, strict=True)),
        "writers": lambda: handwriting(writers, WRITERS),
        "scanners": lambda: scanners(xrays, SCANNERS),
        "distractors": lambda: with_distractors(rotated_digits(DIGITS)),
        "divided": lambda: divided(rotated_digits(DIGITS), "divided", ["seen-001", "seen-002"]),
    }
    return makers[request.param]


def test_two_openings_give_the_same_tasks_images_and_hash(opened: Open) -> None:
    one, two = opened(), opened()
    assert one.fingerprint == two.fingerprint
    for group in GROUPS:
        assert [task.name for task in one.tasks(group)] == [task.name for task in two.tasks(group)]
        for first, second in zip(one.tasks(group)[:2], two.tasks(group)[:2], strict=True):
            for split in reversed(SPLITS):  # in another order than it was made first
                first.data(split)
            for split in SPLITS:
                np.testing.assert_array_equal(first.data(split).images, second.data(split).images)
                np.testing.assert_array_equal(first.data(split).labels, second.data(split).labels)
            assert first.description.metadata == second.description.metadata
            assert first.description.parts == second.description.parts


def test_tasks_are_whole_and_their_descriptions_fit_the_schema(opened: Open) -> None:
    suite = opened()
    names = [task.name for group in GROUPS for task in suite.tasks(group)]
    assert len(names) == len(set(names))
    for group in GROUPS:
        assert suite.tasks(group)
        for task in suite.tasks(group):
            assert task.description.task_id == (task.name if group == "seen" else None)
            assert suite.metadata_schema.check(task.description.metadata or {}) == (task.description.metadata or {})
            for split in SPLITS:
                data = task.data(split)
                assert data.images.shape[1:] == (suite.image_size, suite.image_size, 3)
                assert data.images.dtype == np.uint8
                assert data.labels.dtype == np.int64
                assert set(data.labels.tolist()) <= set(range(len(suite.classes)))


def images(task: Task, *splits: str) -> set[bytes]:
    return {image.tobytes() for split in splits for image in task.data(split).images}  # type: ignore[arg-type]


@pytest.mark.parametrize("strict", [False, True])
def test_no_test_image_is_a_training_image_of_any_class_subset(cifar: Path, strict: bool) -> None:
    suite = class_subsets(cifar, replace(SUBSETS, strict=strict))
    tasks = [task for group in ("seen", "unseen") for task in suite.tasks(group)]  # type: ignore[arg-type]
    learned = set().union(*(images(task, "train", "validation") for task in tasks))
    trained = set().union(*(images(task, "train") for task in tasks))
    pretraining = images(suite.tasks("pretraining")[0], "train", "validation")
    tested = set().union(*(images(task, "test") for task in tasks))
    assert not tested & (learned | pretraining)
    assert not learned & pretraining
    assert pretraining == images(ten_classes(cifar, SUBSETS)[0], "train", "validation")
    for task in tasks:
        # Whatever tasks have in common: none validates on what another trains on.
        assert not trained & images(task, "validation")


def bytes_of(data: LabelledImages) -> set[bytes]:
    return {image.tobytes() for image in data.images}


def test_no_digit_is_in_the_tests_and_in_the_training_of_any_task() -> None:
    """Cameras that change nothing show the digits themselves, so that they can be compared."""
    config = replace(DIGITS, noise=0.0)
    digits = digits_module._load(config.seed)
    cameras = [
        digits_module._Camera(f"{group}-{number}", group, 0.0, 1.0, False) for group in GROUPS for number in range(3)
    ]
    made = {
        (camera.group, split): bytes_of(digits_module._data(config, digits, camera, split))
        for camera in cameras
        for split in SPLITS
    }
    learned = {group: made[group, "train"] | made[group, "validation"] for group in GROUPS}
    tested = set().union(*(made[group, "test"] for group in GROUPS))
    assert not tested & set().union(*learned.values())
    assert not learned["pretraining"] & (learned["seen"] | learned["unseen"])
    assert all(not made[group, "train"] & made[group, "validation"] for group in GROUPS)


def test_no_xray_is_in_the_tests_and_in_the_training_of_any_scanner(xrays: Path) -> None:
    """The same for scanners that change nothing."""
    neutral = Scanner(1.0, 1.0, 0.0, 0.0, 1.0, "positive", 0.5)
    with np.load(xrays) as file:
        every = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
        labels = np.concatenate([file[f"{split}_labels"].ravel() for split in ("train", "val", "test")])
    source = scanners_module._Xrays(every, labels.astype(np.int64), scanners_module._pools(labels, 240, SCANNERS.seed))
    learned: dict[str, set[bytes]] = {group: set() for group in GROUPS}
    tested: set[bytes] = set()
    for group in GROUPS:
        for number in range(3):
            for split in SPLITS:
                about = {"name": f"{group}-{number}", "group": group, "scanner": neutral}
                data = scanners_module._data(split, config=SCANNERS, xrays=source, **about)
                (tested if split == "test" else learned[group]).update(bytes_of(data))
    assert not tested & set().union(*learned.values())
    assert not learned["pretraining"] & (learned["seen"] | learned["unseen"])


def test_writers_share_no_digit(writers: Path) -> None:
    suite = handwriting(writers, WRITERS)
    tasks = [task for group in GROUPS for task in suite.tasks(group)]
    parts = [images(task, split) for task in tasks for split in SPLITS]
    assert len(set().union(*parts)) == sum(map(len, parts))
    assert all(len(task.data("test")) == 25 - 14 for task in tasks)


def test_a_scanners_prevalence_is_that_of_its_images(xrays: Path) -> None:
    for task in scanners(xrays, SCANNERS).tasks("seen"):
        wanted = draw_scanner(SCANNERS.seed, task.name, "seen").prevalence
        assert task.data("test").labels.mean() == pytest.approx(wanted, abs=0.02)
        assert set(task.description.metadata or {}) == {"blur", "noise", "field_of_view", "film"}


def test_class_subsets_are_balanced_and_described_by_their_vector(cifar: Path) -> None:
    suite = class_subsets(cifar, SUBSETS)
    for task in suite.tasks("seen"):
        assert task.data("test").labels.mean() == 0.5
        bits = "".join(str(int(value)) for value in reversed((task.description.metadata or {}).values()))  # type: ignore[call-overload,arg-type]
        assert task.name == f"seen-{bits}"


def test_the_strict_split_has_no_complement_and_no_neighbour_of_an_unseen_vector() -> None:
    loose = ClassSubsetsConfig(seen=300, unseen=40)
    seen, unseen = draw_vectors(replace(loose, strict=True))
    near = {ALL ^ vector for vector in unseen} | {vector ^ (1 << bit) for vector in unseen for bit in range(BITS)}
    assert not set(seen) & (near | set(unseen) | {0, ALL})
    assert len(set(seen)) == 300
    other, same = draw_vectors(loose)
    assert same == unseen
    assert set(other) & near, "random vectors have complements and neighbours among the seen ones"
    with refused(DataError, "vectors"):
        draw_vectors(ClassSubsetsConfig(seen=800, unseen=80, strict=True))


def test_ambiguous_digits_exchange_labels_by_a_coin_and_nothing_else() -> None:
    config = replace(DIGITS, seen=24, train=10, test=10, examples=1)
    plain, twofold = rotated_digits(config), rotated_digits(replace(config, ambiguous=True))
    exchanged = 0
    for one, two in zip(plain.tasks("seen"), twofold.tasks("seen"), strict=True):
        np.testing.assert_array_equal(one.data("test").images, two.data("test").images)
        assert one.description.metadata == two.description.metadata
        swapped = one.data("test").labels != two.data("test").labels
        assert swapped.all() or not swapped.any()
        if swapped.any():
            np.testing.assert_array_equal(one.data("test").labels ^ 1, two.data("test").labels)
        exchanged += bool(swapped.any())
    assert 6 <= exchanged <= 18
    for one, two in zip(plain.tasks("pretraining"), twofold.tasks("pretraining"), strict=True):
        np.testing.assert_array_equal(one.data("train").labels, two.data("train").labels)


def test_the_hash_changes_with_every_option(cifar: Path, writers: Path, xrays: Path) -> None:
    digits = rotated_digits(DIGITS)
    suites = [
        digits,
        rotated_digits(replace(DIGITS, seed=1)),
        rotated_digits(replace(DIGITS, ambiguous=True)),
        rotated_digits(replace(DIGITS, noise=3.0)),
        class_subsets(cifar, SUBSETS),
        class_subsets(cifar, replace(SUBSETS, strict=True)),
        handwriting(writers, WRITERS),
        handwriting(writers, replace(WRITERS, examples=5)),
        scanners(xrays, SCANNERS),
        scanners(xrays, replace(SCANNERS, seed=4)),
        with_distractors(digits),
        with_distractors(digits, 3),
        with_distractors(digits, seed=2),
        divided(digits, "divided", ["seen-001"]),
        divided(digits, "divided", ["seen-002"]),
    ]
    assert len({suite.fingerprint for suite in suites}) == len(suites)


def test_distractors_are_ten_numbers_next_to_what_was_there() -> None:
    plain = rotated_digits(DIGITS)
    suite = with_distractors(plain)
    for one, two in zip(plain.tasks("unseen"), suite.tasks("unseen"), strict=True):
        metadata = two.description.metadata or {}
        assert {key: metadata[key] for key in one.description.metadata or {}} == one.description.metadata
        assert len(metadata) == len(one.description.metadata or {}) + 10
        np.testing.assert_array_equal(one.data("train").images, two.data("train").images)
    values = [task.description.metadata["distractor-0"] for task in suite.tasks("seen")]  # type: ignore[index]
    assert len(set(values)) == len(values)
    with refused(DataError, "distractor-0"):
        with_distractors(suite)


def distractors(suite: Suite, group: Group) -> np.ndarray:
    """The distractors of the tasks of a group, a row a task."""
    metadata = [task.description.metadata or {} for task in suite.tasks(group)]
    return np.array([[float(entry[f"distractor-{number}"]) for number in range(10)] for entry in metadata])  # type: ignore[arg-type]


def test_distractors_are_made_of_name_and_seed_and_know_nothing_of_the_task() -> None:
    many = replace(DIGITS, seen=60, examples=1)
    suite = with_distractors(rotated_digits(many))
    values = distractors(suite, "seen")
    angles = np.array([float(task.description.metadata["angle"]) for task in suite.tasks("seen")])  # type: ignore[index, arg-type]
    others = with_distractors(rotated_digits(replace(many, seed=DIGITS.seed + 1, seen=61)))
    # Other tasks of the same names: other gains, images and angles.
    np.testing.assert_array_equal(distractors(others, "seen")[:60], values)
    assert np.abs(distractors(with_distractors(rotated_digits(many), seed=1), "seen") - values).min() > 0
    # Ten columns that are related neither to the angle nor to each other: at 60 tasks |r| > .5 has p < .0001.
    related = np.corrcoef(np.column_stack([angles, values]), rowvar=False) - np.eye(11)
    assert np.abs(related).max() < 0.5
    assert abs(values.mean()) < 0.2
    assert abs(values.std() - 1) < 0.2


def test_tasks_divided_anew_change_their_group_alone() -> None:
    plain = rotated_digits(DIGITS)
    suite = divided(plain, "divided", ["seen-001"])
    assert [task.name for task in suite.tasks("unseen")] == ["seen-001"]
    assert [task.name for task in suite.tasks("seen")] == ["seen-000", "seen-002", "seen-003"]
    with refused(DataError, "seen-009"):
        divided(plain, "divided", ["seen-009"])
    with refused(DataError, "seen"):
        divided(plain, "divided", [task.name for task in plain.tasks("seen")])


def test_too_many_images_and_files_that_are_not_there_are_refused(cifar: Path, tmp_path: Path) -> None:
    with refused(DataError, "array"):
        handwriting(cifar, WRITERS)
    with refused(DataError, tmp_path / "none.npz"):
        handwriting(tmp_path / "none.npz", WRITERS)
    (tmp_path / "bad.npz").write_text("no")
    with refused(DataError, tmp_path / "bad.npz"):
        scanners(tmp_path / "bad.npz", SCANNERS)
    task = rotated_digits(replace(DIGITS, test=5000)).tasks("seen")[0]
    with refused(DataError, 5000):
        task.data("test")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")
def test_the_real_files_have_enough_for_the_default_sizes() -> None:
    for suite in (
        handwriting(DATA / "qmnist_writers.npz"),
        class_subsets(DATA / "cifar10_subset.npz"),
        scanners(DATA / "pneumoniamnist.npz"),
        rotated_digits(),
    ):
        for group in GROUPS:
            for task in (suite.tasks(group)[0], suite.tasks(group)[-1]):
                assert all(len(task.data(split)) for split in SPLITS)
