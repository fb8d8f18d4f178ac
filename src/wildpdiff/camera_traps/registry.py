"""Suites by name or path: one that an installed package adds, a CSV table, or a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from wildpdiff.errors import DataError
from wildpdiff.registry import registered
from wildpdiff.tasks.framing import Framing
from wildpdiff.tasks.task import ImageSuite, Task


@runtime_checkable
class SuiteProvider(Protocol):
    """A suite that needs no files, added by an entry point of the group ``wildpdiff.suites`` under the suite's name."""

    @property
    def summary(self) -> str:
        """One line for lists of suites."""

    @property
    def options(self) -> Mapping[str, Callable[[str], Any]]:
        """The options by name, each with the conversion of its text."""

    @property
    def backbone(self) -> str | None:
        """The bundled backbone that was pretrained on it; None where there is none."""

    def open(self, **options: Any) -> ImageSuite:
        """The suite with these options; ``seed`` and ``image_size`` may be among them.

        Raises:
            DataError: an unknown option or a value out of range.
        """

    def export(self, suite: ImageSuite, tasks: Sequence[Task], folder: Path) -> None:
        """Write tasks as ordinary files with a table ``images.csv``."""


def parse_options(pairs: Mapping[str, str], kinds: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Texts to values of the named kinds; raises :class:`DataError` on an unknown name or an unreadable value.

    A kind is ``int``, ``float``, ``str`` or any function that raises ``ValueError`` on a text it cannot read.
    """
    values: dict[str, Any] = {}
    for name, text in pairs.items():
        if name not in kinds:
            raise DataError(f"There is no option {name!r}; options are {', '.join(sorted(kinds))}.")
        try:
            values[name] = kinds[name](text)
        except ValueError:
            kind = kinds[name]
            needed = "a whole number" if kind is int else "a number" if kind is float else "another value"
            raise DataError(f"Option {name!r} is {text!r}; {needed} is needed.") from None
    return values


def suite_providers() -> Mapping[str, SuiteProvider]:
    """The suites that installed packages add, by name."""
    return registered("suites")


def load_suite(
    spec: str | Path | Sequence[str | Path],
    *,
    seed: int = 0,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
    framing: Framing | None = "square",
    **options: Any,
) -> ImageSuite:
    """A suite from its name or path.

    Args:
        spec: a registered name, for example ``savanna``; or a table of pictures, a folder of images, or a file or
            folder of a camera-trap format (:data:`wildpdiff.camera_traps.formats.READERS`), or several of these, which
            are joined.
        seed: of a simulated suite, and of drawing unseen tasks where a table does not name them.
        image_size: pixels a side; the backbone decides it for tables.
        classes: the class names that a backbone knows, in the order of its logits; a table's labels are numbered by
            them, and a suite with a fixed list of its own must have the same.
        framing: of a table's pictures; None takes that of :func:`wildpdiff.camera_traps.crops.framing_for`.
        **options: of the registered suite, or those of :class:`wildpdiff.camera_traps.suite_options.TableOptions`.

    Raises:
        DataError: no such suite, an unknown option, or other classes than the backbone's.
    """
    inputs = [str(spec)] if isinstance(spec, str | Path) else [str(entry) for entry in spec]
    size = {} if image_size is None else {"image_size": image_size}
    provider = suite_providers().get(inputs[0]) if len(inputs) == 1 else None
    if provider is not None:
        suite = provider.open(**{"seed": seed, **size, **options})
        if classes is not None and tuple(classes) != suite.classes:
            raise DataError(
                f"The suite {suite.name} has {len(suite.classes)} classes, others than the {len(classes)} of the "
                f"backbone ({', '.join(tuple(classes)[:3])}, …). Give a backbone pretrained on this suite's classes."
            )
        return suite
    from wildpdiff.camera_traps.table_suite import TableSuite

    missing = [entry for entry in inputs if not Path(entry).exists()]
    if missing:
        raise DataError(f"There is no suite, file or folder {missing[0]!r}; suites are {', '.join(suite_providers())}.")
    known: dict[str, Any] = {"framing": framing, **({} if classes is None else {"classes": tuple(classes)})}
    try:
        return TableSuite.of(*inputs, **{"seed": seed, **size, **known, **options})
    except TypeError as error:
        raise DataError(f"{inputs[0]}: {error}. See TableOptions for the options of a table.") from error
