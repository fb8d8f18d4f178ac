"""Descriptions made of parts of many tasks."""

from __future__ import annotations

from wildpdiff.evaluate.run import mixed_description
from wildpdiff.tasks.description import Description


def test_every_part_is_that_of_some_task() -> None:
    known = [
        Description(metadata={"x": number}, text=f"task {number}", examples=[f"a {number}"]) for number in range(9)
    ]
    found = [mixed_description(known, seed) for seed in range(20)]
    for made in found:
        assert made.metadata in [entry.metadata for entry in known]
        assert made.text in [entry.text for entry in known]
        assert made.examples in [entry.examples for entry in known]
        assert made.backgrounds is None
    assert any((made.metadata or {})["x"] != int(str(made.text).split()[1]) for made in found)
    assert mixed_description(known, 3) == found[3]
