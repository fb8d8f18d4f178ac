import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from refusals import refused
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.trust import space
from wildpdiff.trust.folds import calibration_folds
from wildpdiff.trust.space import DescriptionSpace, Novelty

SCHEMA = MetadataSchema(
    (
        MetadataField("latitude", "number", geographic="latitude"),
        MetadataField("longitude", "number", geographic="longitude"),
        MetadataField("height", "number"),
        MetadataField("season", "cyclic", period=365.0),
        MetadataField("camera", "category", categories=("Nyati", "Simba", "Tembo")),
    )
)


def featurise(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float().mean((1, 2))


def description(rng: np.random.Generator, camera: str = "Simba", **changes: float) -> Description:
    metadata = {
        "latitude": float(rng.uniform(-3, -1)),
        "longitude": float(rng.uniform(34, 36)),
        "height": float(rng.uniform(0, 1)),
        "season": float(rng.uniform(0, 365)),
        "camera": camera,
        **changes,
    }
    images = rng.integers(100, 140, (4, 3, 3, 3)).astype(np.uint8)
    return Description(metadata=metadata, backgrounds=images)


RNG = np.random.default_rng(0)
SEEN = [description(RNG, "Simba" if index % 2 else "Tembo") for index in range(40)]
# The adapters depend on the height alone.
HEIGHTS = torch.tensor([float((entry.metadata or {})["height"]) for entry in SEEN])
ADAPTERS = HEIGHTS[:, None] * torch.ones(1, 6)
SPACE = DescriptionSpace.fit(SEEN, SCHEMA, featurise, adapters=ADAPTERS)


def novelty(**changes: float | str) -> Novelty:
    return SPACE.novelty(description(np.random.default_rng(7), **changes), featurise)  # type: ignore[arg-type]


def test_factors_are_the_index_the_other_fields_and_the_images() -> None:
    assert [factor.name for factor in SPACE.factors] == ["place", "height", "season", "camera", "backgrounds"]


def test_what_decides_the_adapters_weighs_most() -> None:
    assert sum(SPACE.weights.values()) == pytest.approx(1.0)
    assert SPACE.weights["height"] > 0.8
    assert min(SPACE.weights.values()) >= 0.02 - 1e-9


def test_an_ordinary_description_is_near() -> None:
    found = novelty(height=0.5)
    assert found.unknown == {}
    assert found.missing == ()
    assert found.percentiles["overall"] < 0.95
    assert found.evidence["distance"] < 3


@pytest.mark.parametrize(
    ("factor", "changes"),
    [("place", {"latitude": 40.0}), ("height", {"height": 9.0})],
)
def test_a_far_value_is_descriptions_of_its_own_factor_alone(factor: str, changes: dict[str, float]) -> None:
    near, far = novelty(height=0.5), novelty(**{"height": 0.5, **changes})
    assert far.percentiles[factor] == 1.0
    assert far.evidence["distance"] > near.evidence["distance"]
    assert far.evidence["farthest_factor"] > near.evidence["farthest_factor"]
    for other in set(far.percentiles) - {factor, "overall"}:
        assert far.percentiles[other] == near.percentiles[other]


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({"height": 0.5}, ()),
        ({"height": 1.3}, ()),
        ({"height": 9.0}, ("height",)),
        ({"height": -1e308}, ("height",)),
        ({"latitude": 34.8, "longitude": -2.4}, ("place",)),
        ({"season": 1e6}, ()),
    ],
)
def test_slips_of_the_pen_lie_outside_and_new_sites_do_not(changes: dict[str, float], outside: tuple[str, ...]) -> None:
    assert novelty(**changes).outside == outside


def test_where_seen_tasks_are_all_alike_nothing_lies_outside() -> None:
    rng = np.random.default_rng(3)
    alike = DescriptionSpace.fit(
        [description(rng, height=0.5) for _ in range(12)], SCHEMA, featurise, adapters=ADAPTERS[:12]
    )
    assert alike.novelty(description(rng, height=90.0), featurise).outside == ()


def test_images_unlike_the_seen_ones_are_far() -> None:
    white = np.full((4, 3, 3, 3), 255, dtype=np.uint8)
    found = SPACE.novelty(Description(metadata=SEEN[0].metadata, backgrounds=white), featurise)
    assert found.percentiles["backgrounds"] == 1.0


@pytest.mark.parametrize("camera", ["Nyati", "Faru"])
def test_a_category_of_no_seen_task_is_unknown_whether_or_not_the_schema_has_it(camera: str) -> None:
    found = novelty(camera=camera)
    assert found.unknown == {"camera": camera}
    assert found.evidence["unknown_categories"] == 1.0


def test_seasons_are_near_across_the_turn_of_the_year() -> None:
    angle = {name: SPACE.novelty(Description(metadata={"season": name}), featurise) for name in (0.0, 364.9)}
    assert angle[0.0].evidence["distance"] == pytest.approx(angle[364.9].evidence["distance"], abs=0.1)


def test_missing_factors_are_named_and_weighed() -> None:
    found = SPACE.novelty(Description(metadata={"height": 0.5}), featurise)
    assert found.missing == ("place", "season", "camera", "backgrounds")
    assert found.evidence["missing_weight"] == pytest.approx(1 - SPACE.weights["height"])


def test_a_description_with_nothing_in_common_is_as_far_as_can_be() -> None:
    found = SPACE.novelty(Description(text="a river"), featurise)
    assert found.evidence["distance"] == 10.0
    assert found.evidence["missing_weight"] == pytest.approx(1.0)
    assert all(math.isfinite(value) for value in found.evidence.values())


def test_seen_tasks_that_tell_nothing_are_refused() -> None:
    with refused(DescriptionError):
        DescriptionSpace.fit([Description(text="a")] * 4, SCHEMA, featurise, adapters=ADAPTERS[:4])


def test_it_is_restored_as_it_was() -> None:
    again = DescriptionSpace.from_state(json.loads(json.dumps(SPACE.config)), SPACE.tensors)
    query = description(np.random.default_rng(3), "Nyati")
    assert again.novelty(query, featurise) == SPACE.novelty(query, featurise)


def by_day(images: np.ndarray) -> Tensor:
    """The first feature is not known of dark images, as the light is not known by night."""
    features = featurise(images)
    features[features.mean(1) < 50, 0] = torch.nan
    return features


def test_what_images_do_not_tell_counts_as_average() -> None:
    dark = description(np.random.default_rng(3), height=0.5)
    assert dark.backgrounds is not None
    dark = replace(dark, backgrounds=dark.backgrounds // 4)
    space = DescriptionSpace.fit([dark, *SEEN], SCHEMA, by_day, adapters=torch.cat([ADAPTERS[:1], ADAPTERS]))
    points = {entry.factor.name: entry.points for entry in space.seen}
    assert all(bool(values.isfinite().all()) for values in points.values())
    assert points["backgrounds"][0, 0] == 0
    found = space.novelty(dark, by_day)
    assert found.missing == ()
    assert all(math.isfinite(value) for value in found.evidence.values())
    assert found.percentiles["backgrounds"] > 0.9, "the other features tell how dark it is"


def test_images_that_tell_nothing_can_be_divided_into_edges() -> None:
    names = [f"task {number}" for number in range(len(SEEN))]
    descriptions = dict(zip(names, SEEN, strict=True))
    night = description(np.random.default_rng(3))
    assert night.backgrounds is not None
    descriptions[names[0]] = replace(night, backgrounds=night.backgrounds // 4)
    folds = calibration_folds(names, descriptions, SCHEMA, by_day, groups=10, seed=0)
    edge = next(fold for fold in folds if fold.name == "end of backgrounds")
    assert len(edge.held_out) == 8


def test_groups_are_descriptions_apart_by_their_names() -> None:
    fields = (("camera", ("model x", "other")), ("camera model", ("x", "y")), ("camera: model", ("x", "z")))
    schema = MetadataSchema(tuple(MetadataField(name, "category", categories=values) for name, values in fields))
    tasks = [f"t{number}" for number in range(30)]
    descriptions = {
        name: Description(
            metadata={
                "camera": "model x" if number % 5 == 0 else "other",
                "camera model": "x" if number % 3 == 0 else "y",
                "camera: model": "x" if number % 4 == 0 else "z",
            }
        )
        for number, name in enumerate(tasks)
    }
    folds = calibration_folds(tasks, descriptions, schema, lambda images: torch.zeros(len(images), 2), groups=3, seed=0)
    assert len(folds) == len({fold.name for fold in folds})


def test_words_are_a_factor_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths(texts: list[str]) -> Tensor:
        return torch.tensor([[float(len(text)), float(text.count("a"))] for text in texts])

    monkeypatch.setattr(space, "packaged_sentences", lengths)
    known = [Description(text="b" * (3 + number % 5) + "a" * (number % 3)) for number in range(12)]
    found = DescriptionSpace.fit(known, MetadataSchema(()), featurise, adapters=ADAPTERS[:12], parts=("text",))
    assert [(factor.name, factor.kind) for factor in found.factors] == [("text", "text")]
    near, far = (found.novelty(Description(text=text), featurise) for text in ("bbbbba", "b" * 90))
    assert near.evidence["distance"] < far.evidence["distance"]
    assert far.evidence["far"] == 1.0
    assert found.novelty(Description(text="  "), featurise).missing == ("text",)
    again = DescriptionSpace.from_state(json.loads(json.dumps(found.config)), found.tensors)
    assert again.novelty(Description(text="b" * 90), featurise).evidence == far.evidence
