"""Several files of results as one report: what the first lacks is taken from the others, where that is honest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.sections import section_kinds
from wildpdiff.evaluate.trust_points import TrustPoint, TrustSection, worlds_of


@dataclass(frozen=True)
class NamedResults:
    """Results and the file they were read from."""

    name: str
    results: Results


def merge_results(main: Results, others: Sequence[NamedResults]) -> Results:
    """The main results with sections and held-out splits that they lack, from the first other file that has them.

    Trust is of a world each: worlds that no file before had are added, so that one page can speak of all together.
    Rows of seen and unseen tasks are never taken: the table is the main file's. A note names each section's source.

    Args:
        main: stays as it is wherever it has something.
        others: in order of preference.

    Raises:
        ArtifactError: a section about the table's own tasks comes from another suite or another backbone, or a
            section that stands for itself from another backbone.
    """
    merged, kinds = main, section_kinds()
    for other in others:
        taken: dict[str, Any] = {}
        names = []
        sections = dict(merged.sections)
        for section, found in other.results.sections.items():
            if section not in merged.sections:
                # Sections with tasks of their own may be of another suite; one that nobody here knows may not.
                own_tasks = section not in kinds or kinds[section].own_tasks
                _refuse_foreign(main, other, section.replace("_", " "), suite=own_tasks)
                sections[section] = found
                names.append(section.replace("_", " "))
        taken["sections"] = sections
        if other.results.calibration and not merged.calibration:
            _refuse_foreign(main, other, "calibration", suite=True)
            taken["calibration"] = other.results.calibration
            names.append("calibration")
        held_out = _new_splits(merged, other.results)
        if held_out:
            _refuse_foreign(main, other, ", ".join(held_out), suite=True)
            for part in ("rows", "summary"):
                added = [row for row in getattr(other.results, part) if row.split in held_out]
                taken[part] = (*getattr(merged, part), *added)
            names += held_out
        worlds = _new_worlds(merged, other.results)
        if worlds:
            _refuse_foreign(main, other, "trust", suite=False)
            taken["trust"] = TrustSection(
                (*_points(merged), *(point for point in _points(other.results) if point.world in worlds))
            )
            names.append(f"trust in {', '.join(worlds)}")
        if not names:
            continue
        known = {info.name for info in merged.sources}
        taken["sources"] = (*merged.sources, *(info for info in other.results.sources if info.name not in known))
        taken["notes"] = (*merged.notes, _origin(main, other, names))
        merged = dataclasses.replace(merged, **taken)
    return merged


def _new_splits(main: Results, other: Results) -> list[str]:
    own = {row.split for row in main.rows}
    return list(
        dict.fromkeys(row.split for row in other.rows if row.split.startswith("held-out ") and row.split not in own)
    )


def _new_worlds(main: Results, other: Results) -> list[str]:
    own = worlds_of(_points(main))
    return [world for world in worlds_of(_points(other)) if world not in own]


def _points(results: Results) -> tuple[TrustPoint, ...]:
    return () if results.trust is None else results.trust.points


def _refuse_foreign(main: Results, other: NamedResults, section: str, *, suite: bool) -> None:
    """Raise where the other file's numbers are not about the same tasks or model."""
    if suite and other.results.suite.fingerprint != main.suite.fingerprint:
        raise ArtifactError(
            f"{other.name} has {section} of another suite ({other.results.suite.name}, fingerprint "
            f"{other.results.suite.fingerprint[:12]}; the first file's is {main.suite.fingerprint[:12]}). Leave it "
            "out, or measure it on the same suite."
        )
    ours, theirs = main.generator, other.results.generator
    if suite and ours is not None and theirs is not None and not set(ours.hashes) & set(theirs.hashes):
        raise ArtifactError(
            f"{other.name} has {section} of other generators ({theirs.hashes[0][:12]}; the first file's is "
            f"{ours.hashes[0][:12]}). Leave it out, or measure it with the same generator."
        )
    if other.results.backbone.hash != main.backbone.hash:
        raise ArtifactError(
            f"{other.name} has {section} of another backbone ({other.results.backbone.name}, "
            f"{other.results.backbone.hash[:12]}; the first file's is {main.backbone.hash[:12]}). Leave it out, or "
            "measure it with the same backbone."
        )


def _origin(main: Results, other: NamedResults, names: Sequence[str]) -> str:
    made = other.results.provenance
    text = f"{', '.join(names)[:1].upper()}{', '.join(names)[1:]}: measured by {made.command}, {made.created[:10]}"
    if other.results.suite.fingerprint != main.suite.fingerprint:
        there = other.results.suite
        text += f", on another set of tasks ({there.name}, {there.seen} seen, {there.unseen} unseen)"
    return text + "."
