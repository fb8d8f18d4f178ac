"""Refusals: tests pin the kind of error and the values that its message names, not its sentences."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception], *values: object) -> Iterator[None]:
    """Expect an error of this very kind whose message names each of the values."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert type(caught.value) is kind, f"{type(caught.value).__name__} instead of {kind.__name__}: {message}"
    missing = [value for value in values if str(value) not in message]
    assert not missing, f"the message does not name {missing}: {message}"
