"""Checks of shapes and types on the first calls of every function in every test, and on few of the later ones.

A check of every call was a third of the suite's time: trainings call the same functions thousands of times, and a
function inside another is compiled anew with its checks whenever the outer one runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial, wraps
from types import CodeType, FunctionType
from typing import Any

import jaxtyping

FIRST = 16
"""Calls of a function that are checked in each test."""
LATER = 64
"""Of the calls after these, one in so many is checked."""
INNER = 2
"""Definitions of an inner function that are checked in each test."""

_jaxtyped = jaxtyping.jaxtyped
_calls: Counter[CodeType] = Counter()
_definitions: Counter[CodeType] = Counter()


def install(modules: list[str]) -> None:
    """Checks for these packages, which must not be imported yet; late imports are checked too."""
    jaxtyping.jaxtyped = _sampled  # the decorator that the hook writes before every function and class
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def begin_test() -> None:
    """The next calls are the first of a test."""
    _calls.clear()
    _definitions.clear()


def _sampled(decorated: Any = None, *, typechecker: Any) -> Any:
    if decorated is None:
        return partial(_sampled, typechecker=typechecker)
    if not isinstance(decorated, FunctionType):
        return _jaxtyped(decorated, typechecker=typechecker)
    code = decorated.__code__
    if "<locals>" in decorated.__qualname__:
        _definitions[code] += 1
        if _definitions[code] > INNER:
            return decorated
    return _wrapped(decorated, code, cache(lambda: _jaxtyped(decorated, typechecker=typechecker)))


def _wrapped(plain: Callable[..., Any], code: CodeType, checked: Callable[[], Callable[..., Any]]) -> Any:
    """The function, which gets its checks when it is first called: most are not, in a process of few tests."""

    @wraps(plain)
    def call(*args: Any, **keywords: Any) -> Any:
        __tracebackhide__ = True
        _calls[code] = number = _calls[code] + 1
        if number > FIRST and number % LATER:
            return plain(*args, **keywords)
        return checked()(*args, **keywords)

    return call
