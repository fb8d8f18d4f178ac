"""The command ``wildbench``: the studies, also to be had as ``wildpdiff reproduce``. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from wildbench.cli.reproduce import app
from wildpdiff.cli.main import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line of ``wildbench`` and return its exit status, see :func:`wildpdiff.cli.main.run`."""
    return run(app, "wildbench", arguments)


if __name__ == "__main__":
    sys.exit(main())
