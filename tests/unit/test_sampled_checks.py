"""Shapes and types are checked on the first calls of a function in a test, and on some of the later ones."""

from __future__ import annotations

import jaxtyping
import pytest

import sampled_checks
from wildpdiff.rng import sub_seed


def test_a_wrong_type_is_refused_in_every_test_and_now_and_then_later() -> None:
    sampled_checks.begin_test()
    refused = []
    for number in range(1, 2 * sampled_checks.LATER + 1):
        try:
            sub_seed(number, 1.5)  # type: ignore[arg-type]
        except jaxtyping.TypeCheckError:
            refused.append(number)
        except Exception:
            continue
    first = list(range(1, sampled_checks.FIRST + 1))
    assert refused == [*first, sampled_checks.LATER, 2 * sampled_checks.LATER]
    sampled_checks.begin_test()
    with pytest.raises(jaxtyping.TypeCheckError):
        sub_seed(0, 1.5)  # type: ignore[arg-type]
