"""Remarks on what a reader left out or changed: one sentence a kind, with a count and the first instance."""

from __future__ import annotations


class Remarks:
    """Counts by kind, in the order of their first instances."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count one instance.

        Args:
            kind: the beginning of the sentence, for example ``Boxes without width or height are left out``.
            where: the instance, for example ``annotation 12 of picture 'a.jpg'``; kept of the first one.
        """
        count, first = self._kinds.get(kind, (0, where))
        self._kinds[kind] = (count + 1, first)

    def sentences(self) -> tuple[str, ...]:
        """One sentence for each kind."""
        return tuple(
            f"{kind}: {first}." if count == 1 else f"{kind}: {count:,}, first {first}."
            for kind, (count, first) in self._kinds.items()
        )
