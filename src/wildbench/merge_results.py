"""Several files of results as one: missing sections are taken from further files about the same tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wildbench.trust_summary import worlds_of
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results, TrustPoint, TrustSection, section_kinds


@dataclass(frozen=True)
class NamedResults:
    """Results and the file they were read from."""

    name: str
    results: Results


def merge_results(main: Results, others: Sequence[NamedResults]) -> Results:
    """The main results with the sections and held-out splits that they lack, from the first other file that has them.

    Points of trust are added for variants that no earlier file has. Rows of seen and unseen tasks are never taken: the
    table is the main file's. A note names the origin of each section.

    Raises:
        ArtifactError: a section about the table's own tasks comes from another suite or another backbone, or a
            section with tasks of its own from another backbone.
    """
    merged, kinds = main, section_kinds()
    for other in others:
        found = other.results
        taken: dict[str, Any] = {}
        names = []
        sections = dict(merged.sections)
        for section, value in found.sections.items():
            if section not in merged.sections:
                name = section.replace("_", " ")
                # Sections with tasks of their own may be of another suite; unknown ones may not.
                _refuse_foreign(main, other, name, suite=section not in kinds or kinds[section].own_tasks)
                sections[section] = value
                names.append(name)
        taken["sections"] = sections
        if found.calibration and not merged.calibration:
            _refuse_foreign(main, other, "calibration", suite=True)
            taken["calibration"] = found.calibration
            names.append("calibration")
        splits = dict.fromkeys(row.split for row in found.rows if row.split.startswith("held-out "))
        held_out = [split for split in splits if split not in {row.split for row in merged.rows}]
        if held_out:
            _refuse_foreign(main, other, ", ".join(held_out), suite=True)
            for part in ("rows", "summary"):
                added = [row for row in getattr(found, part) if row.split in held_out]
                taken[part] = (*getattr(merged, part), *added)
            names += held_out
        variants = [name for name in worlds_of(_points(found)) if name not in worlds_of(_points(merged))]
        if variants:
            _refuse_foreign(main, other, "trust", suite=False)
            points = [point for point in _points(found) if point.world in variants]
            taken["trust"] = TrustSection((*_points(merged), *points))
            names.append(f"trust in {', '.join(variants)}")
        if not names:
            continue
        known = {info.name for info in merged.sources}
        taken["sources"] = (*merged.sources, *(info for info in found.sources if info.name not in known))
        taken["notes"] = (*merged.notes, _origin(main, other, names))
        merged = dataclasses.replace(merged, **taken)
    return merged


def _points(results: Results) -> tuple[TrustPoint, ...]:
    return () if results.trust is None else results.trust.points


def _refuse_foreign(main: Results, other: NamedResults, section: str, *, suite: bool) -> None:
    """Raise where the other file's section is of another backbone, or (``suite``) of another suite or generator."""
    found = other.results
    pairs: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
        ("backbone", found.backbone.name, (found.backbone.hash,), (main.backbone.hash,))
    ]
    if suite:
        pairs.insert(0, ("suite", found.suite.name, (found.suite.fingerprint,), (main.suite.fingerprint,)))
        if main.generator is not None and found.generator is not None:
            pairs.insert(1, ("generator", "generator", found.generator.hashes, main.generator.hashes))
    for kind, name, theirs, ours in pairs:
        if not set(theirs) & set(ours):
            raise ArtifactError(
                f"{other.name} has {section} of another {kind} ({name}, {theirs[0][:12]}; the first file's is "
                f"{ours[0][:12]}). Leave it out, or measure it with the same {kind}."
            )


def _origin(main: Results, other: NamedResults, names: Sequence[str]) -> str:
    made, there = other.results.provenance, other.results.suite
    listing = ", ".join(names)
    text = f"{listing[:1].upper()}{listing[1:]}: measured by {made.command}, {made.created[:10]}"
    if there.fingerprint != main.suite.fingerprint:
        text += f", on another set of tasks ({there.name}, {there.seen} seen, {there.unseen} unseen)"
    return text + "."
