"""The suite: determinism, disjoint groups and splits, descriptions, configuration."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from refusals import refused
from wildbench.datasets.savanna import SavannaConfig, SavannaSuite, SavannaTask, species_sheet
from wildpdiff.errors import DataError
from wildpdiff.tasks.contact_sheet import contact_sheet
from wildpdiff.tasks.task import GROUPS, SPLITS

SMALL = SavannaConfig(seen=3, unseen=2, pretraining=2, train=30, validation=20, test=20, pretraining_images=40)


def digest(task: SavannaTask, split: str) -> str:
    data = task.data(split)
    return hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def suite() -> SavannaSuite:
    return SavannaSuite(SMALL)


def test_same_configuration_same_bytes_in_any_order(suite: SavannaSuite) -> None:
    forward = [digest(suite.tasks("seen")[1], split) for split in SPLITS]
    other = SavannaSuite(SMALL)
    other.tasks("seen")[0].data("test")
    assert other.tasks("seen")[1].description.backgrounds is not None
    assert [digest(other.tasks("seen")[1], split) for split in reversed(SPLITS)] == forward[::-1]


def test_everything_differs_from_everything_else(suite: SavannaSuite) -> None:
    other = SavannaSuite(replace(SMALL, seed=1))
    found = [digest(task, split) for group in GROUPS for task in suite.tasks(group) for split in SPLITS]
    found += [digest(task, split) for group in GROUPS[1:] for task in other.tasks(group) for split in SPLITS]
    assert len(set(found)) == len(found)


def test_splits_share_no_image(suite: SavannaSuite) -> None:
    task = suite.tasks("unseen")[0]
    images = [image.tobytes() for split in SPLITS for image in task.data(split).images]
    assert task.description.backgrounds is not None
    images += [image.tobytes() for image in task.description.backgrounds]
    assert len(set(images)) == len(images)


def test_pretraining_does_not_depend_on_the_seed(suite: SavannaSuite) -> None:
    other = SavannaSuite(replace(SMALL, seed=5))
    assert digest(suite.tasks("pretraining")[1], "train") == digest(other.tasks("pretraining")[1], "train")


def test_more_locations_change_none_of_the_first(suite: SavannaSuite) -> None:
    more = SavannaSuite(replace(SMALL, seen=9))
    assert digest(suite.tasks("seen")[2], "test") == digest(more.tasks("seen")[2], "test")


def test_locations_and_names_are_disjoint() -> None:
    suite = SavannaSuite()
    tasks = [task for group in GROUPS for task in suite.tasks(group)]
    assert len(tasks) == 510
    assert len({task.name for task in tasks}) == 510
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", task.name) for task in tasks)
    assert len({(task.location.latitude, task.location.longitude) for task in tasks}) == 510
    assert suite.tasks("seen")[7].name == "seen-007"


def test_data_have_the_promised_shape(suite: SavannaSuite) -> None:
    data = suite.tasks("seen")[0].data("train")
    assert data.images.shape == (30, 40, 40, 3)
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert set(data.labels) <= set(range(17))
    assert len(suite.classes) == 17
    assert suite.classes[-1] == "blank"


def test_description_is_checked_and_has_no_identity_of_unseen_locations(suite: SavannaSuite) -> None:
    for group, parts in (
        ("seen", ("metadata", "backgrounds", "text", "task_id")),
        ("unseen", ("metadata", "backgrounds", "text")),
    ):
        task = suite.tasks(group)[0]
        description = task.description
        assert description.parts == parts
        assert description.metadata is not None
        assert suite.metadata_schema.check(description.metadata) == dict(description.metadata)
        assert set(description.metadata) == set(suite.metadata_schema.names)
        assert description.text is not None
        assert str(description.metadata["habitat"]) in description.text


def test_half_of_the_backgrounds_or_more_are_by_day() -> None:
    for task in SavannaSuite(replace(SMALL, seen=12)).tasks("seen"):
        backgrounds = task.description.backgrounds
        assert backgrounds is not None
        assert len(backgrounds) == 8
        # Infrared frames are grey: their three channels are equal.
        gray = [np.ptp(image.astype(int), axis=-1).max() == 0 for image in backgrounds]
        assert sum(gray) == min(round(8 * task.location.night_share), 4)


def test_no_backgrounds_when_none_are_wanted() -> None:
    description = SavannaSuite(replace(SMALL, backgrounds=0)).tasks("seen")[0].description
    assert description.backgrounds is None


def test_fingerprint_follows_the_configuration(suite: SavannaSuite) -> None:
    assert suite.fingerprint == SavannaSuite(replace(SMALL)).fingerprint
    changed = [replace(SMALL, seed=1), replace(SMALL, similarity=0.5), replace(SMALL, test=21)]
    assert len({suite.fingerprint, *(SavannaSuite(config).fingerprint for config in changed)}) == 4


def test_the_fingerprint_of_zoos_built_before_the_choice_of_descriptions_stays() -> None:
    known = "3bd1614346c1f0c354acf971ffdf04aaf9e8532e383a11a635eee86c60375302"
    assert SavannaSuite().fingerprint == known
    assert SavannaSuite(SavannaConfig(description="foreign")).fingerprint != known


def test_foreign_descriptions_leave_the_task_as_it_is_and_are_independent_of_it(suite: SavannaSuite) -> None:
    foreign = SavannaSuite(replace(SMALL, description="foreign"))
    for group in ("seen", "unseen"):
        for own, other in zip(suite.tasks(group), foreign.tasks(group), strict=True):
            assert digest(own, "test") == digest(other, "test")
            assert own.name == other.name
            assert own.description.task_id == other.description.task_id
            assert other.description.metadata == other.described_location.metadata != own.description.metadata
            assert other.description.text == other.described_location.text != own.description.text
            assert own.description.backgrounds is not None
            assert other.description.backgrounds is not None
            assert own.description.backgrounds.shape == other.description.backgrounds.shape
            assert not np.array_equal(own.description.backgrounds, other.description.backgrounds)
    again = SavannaSuite(replace(SMALL, description="foreign", seen=9)).tasks("seen")[1]
    assert again.description.metadata == foreign.tasks("seen")[1].description.metadata


def test_foreign_locations_are_independent_of_the_own_and_of_each_other() -> None:
    tasks = SavannaSuite(replace(SMALL, seen=300, description="foreign")).tasks("seen")
    own, foreign = ([task.location for task in tasks], [task.described_location for task in tasks])
    for read in ("latitude", "longitude", "elevation", "camera_height", "season", "lushness"):
        values = np.array([[getattr(location, read) for location in locations] for locations in (own, foreign)])
        # 300 independent pairs: the correlation has a standard deviation of .058.
        assert abs(np.corrcoef(values)[0, 1]) < 0.2
        assert values[1].std() == pytest.approx(values[0].std(), rel=0.25)
    assert len({location.latitude for location in own + foreign}) == 600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seen", -1),
        ("image_size", 20),
        ("image_size", 161),
        ("similarity", 1.1),
        ("hidden_shift", -0.1),
        ("description", "other"),
    ],
)
def test_bad_configurations_are_refused(field: str, value: float | str) -> None:
    with refused(DataError, field):
        replace(SMALL, **{field: value})


def test_contact_sheet_has_one_row_a_task(suite: SavannaSuite) -> None:
    sheet = contact_sheet(suite, suite.tasks("seen")[:2], columns=5)
    assert sheet.shape == (2 * 41 - 1, 5 * 41 - 1, 3)
    first = suite.tasks("seen")[0].data("test").images[0]
    assert np.array_equal(sheet[:40, :40], first)
    with refused(DataError):
        contact_sheet(suite, [])


def test_species_sheet_has_a_row_for_every_class() -> None:
    sheet = species_sheet(32, columns=2, gap=0)
    assert sheet.shape == (17 * 32, 64, 3)
