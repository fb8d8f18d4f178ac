"""Remarks of tables: tests pin their number and the values that they name, not their sentences."""

from collections.abc import Sequence


def remarked(remarks: Sequence[str], *values: object) -> None:
    """Assert that exactly one remark names all of the values."""
    named = [remark for remark in remarks if all(str(value) in remark for value in values)]
    assert len(named) == 1, f"{len(named)} remarks name {values}: {list(remarks)}"
