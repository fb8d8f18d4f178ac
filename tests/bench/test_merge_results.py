"""Several files as one report: missing sections of the same tasks, with a note on their origin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refusals import refused
from wildbench.merge_results import NamedResults, merge_results
from wildbench.sections import ConditionDistance, ParameterSpread
from wildbench.study_sections import Scaling
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import (
    BackboneInfo,
    Provenance,
    ResultRow,
    Results,
    SourceInfo,
    SuiteInfo,
    TrustPoint,
    TrustSection,
)
from wildpdiff.evaluate.summary import summarise

SCALING = Scaling(("a",), (0.5,), (0.6,), ())
SPREAD = (ParameterSpread("seen", "generated", 0.1, None, None, None),)


def make(split: str = "unseen", accuracy: float = 0.5, **sections: Any) -> Results:
    rows = [ResultRow("savanna", split, "pretrained", "none", None, 0, task, accuracy, 10) for task in ("a", "b")]
    return Results(
        provenance=Provenance("0.1.0", "wildpdiff evaluate", 0, "2 cores", "3.11", "2.5", "2025-06-01"),
        suite=SuiteInfo("savanna", 10, "f" * 64, 60, 15, {}),
        backbone=BackboneInfo("savanna-cnn", "a" * 64, 1000, 100),
        generator=None,
        autoencoder=None,
        rows=tuple(rows),
        summary=tuple(summarise(rows, {})),
        **sections,
    )


def other(results: Results, **changes: Any) -> NamedResults:
    return NamedResults("other.json", replace(results, **changes))


FOREIGN = SuiteInfo("savanna", 10, "e" * 64, 320, 30, {})


def test_missing_sections_are_taken_with_a_note() -> None:
    made = replace(make().provenance, command="wildpdiff reproduce scaling")
    found = merge_results(make(), [other(make(accuracy=0.9, sections={"scaling": SCALING}), provenance=made)])
    assert found.sections == {"scaling": SCALING}
    assert found.rows == make().rows, "the table stays the first file's"
    (note,) = found.notes
    assert "Scaling: measured by wildpdiff reproduce scaling" in note
    assert Results.from_json(found.to_json()) == found


def test_the_first_file_that_has_a_section_wins() -> None:
    later = (ParameterSpread("seen", "generated", 0.9, None, None, None),)
    assert (
        merge_results(make(sections={"spread": SPREAD}), [other(make(sections={"spread": later}))]).sections["spread"]
        == SPREAD
    )
    both = merge_results(make(), [other(make(sections={"spread": SPREAD})), other(make(sections={"spread": later}))])
    assert both.sections["spread"] == SPREAD
    assert len(both.notes) == 1


def test_held_out_splits_are_appended_with_their_sources() -> None:
    info = SourceInfo("pretrained", "reference", None, "")
    found = merge_results(make(), [other(make("held-out habitat", 0.4), sources=(info,))])
    assert [line.split for line in found.summary] == ["unseen", "held-out habitat"]
    assert len(found.rows) == 4
    assert found.sources == (info,)


def test_a_study_of_its_own_may_be_of_another_suite_with_a_note() -> None:
    found = merge_results(make(), [other(make(sections={"scaling": SCALING}), suite=FOREIGN)])
    assert "another set of tasks (savanna, 320 seen, 30 unseen)" in found.notes[0]


@pytest.mark.parametrize(
    ("added", "what"),
    [
        (make(sections={"spread": SPREAD}), "spread"),
        (make(sections={"distances": (ConditionDistance("unseen", "a", 1.0),)}), "distances"),
        (make("held-out habitat"), "held-out habitat"),
    ],
)
def test_what_is_about_the_tasks_is_refused_from_another_suite(added: Results, what: str) -> None:
    with refused(ArtifactError, "other.json", what, "suite"):
        merge_results(make(), [other(added, suite=FOREIGN)])


def test_another_backbone_is_refused_even_for_a_study_of_its_own() -> None:
    backbone = BackboneInfo("efficientnet", "b" * 64, 1, 1)
    with refused(ArtifactError, "other.json", "scaling", "backbone"):
        merge_results(make(), [other(make(sections={"scaling": SCALING}), backbone=backbone)])


def test_a_foreign_file_that_adds_nothing_does_no_harm() -> None:
    assert merge_results(
        make(sections={"spread": SPREAD}), [other(make(sections={"spread": SPREAD}), suite=FOREIGN)]
    ) == make(sections={"spread": SPREAD})


def trust(world: str, gain: float = 1.0) -> TrustSection:
    return TrustSection((TrustPoint(world, "unseen", "a", "examples", 0.9, 5.0, 1.0, 9.0, gain, 0.7, True, 0),))


def test_variants_of_trust_are_joined_from_all_files() -> None:
    files = [other(make(trust=trust("b")), suite=FOREIGN), other(make(trust=trust("c"))), other(make(trust=trust("a")))]
    found = merge_results(make(trust=trust("a", 2.0)), files)
    assert found.trust is not None
    assert [(point.world, point.gain) for point in found.trust.points] == [("a", 2.0), ("b", 1.0), ("c", 1.0)]
    assert len(found.notes) == 2, "the last file adds nothing: its variant is there already"
    assert found.notes[0].startswith("Trust in b: measured by")
    assert "another set of tasks" in found.notes[0]
    alone = merge_results(make(), [other(make(trust=trust("b")))])
    assert alone.trust == trust("b")


def test_trust_of_another_backbone_is_refused() -> None:
    with refused(ArtifactError, "other.json", "trust", "backbone"):
        merge_results(make(), [other(make(trust=trust("b")), backbone=BackboneInfo("efficientnet", "b" * 64, 1, 1))])
