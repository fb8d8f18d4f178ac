"""What every refusal must look like."""

from __future__ import annotations

from tiny_world import Outcome


def refused(outcome: Outcome, *expected: str) -> None:
    """Status 2, one sentence that names these words, no traceback and no result."""
    assert outcome.status == 2, outcome.err
    sentence = outcome.err.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for word in expected:
        assert word in sentence, sentence
