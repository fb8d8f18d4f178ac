"""The verdict on memorisation, as the report tells it."""

from __future__ import annotations

from wildbench.observers.verdict import verdict
from wildbench.sections import MEMORISATION
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.summary import GENERATED


def verdict_sentence(results: Results) -> str | None:
    """One sentence computed from the points of the novelty plane; None where the generator is not among them."""
    found = MEMORISATION.of(results)
    if found is None or not any((point.source, point.condition) == (GENERATED, "own") for point in found.points):
        return None
    return verdict(found).sentence
