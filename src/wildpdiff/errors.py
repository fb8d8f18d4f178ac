"""Every exception a user may catch. Each message names the fault and the remedy."""

from __future__ import annotations


class WildpdiffError(Exception):
    """Base of all errors that are the input's or the machine's fault, not the program's.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


class ArtifactError(WildpdiffError):
    """A stage on disk is missing, truncated, altered or cannot be written (for example: the disk is full)."""


class SchemaVersionError(ArtifactError):
    """An artifact was written by a newer version of the package."""


class AdapterMismatchError(WildpdiffError):
    """An adapter does not belong to this backbone: its names, shapes or backbone hash differ."""


class DataError(WildpdiffError):
    """Images, tables or labels that cannot be used: unreadable, missing, unknown, or too few."""


class DescriptionError(WildpdiffError):
    """A description is empty, names an unknown key or category, or has no part the generator can read."""


class TrainingError(WildpdiffError):
    """A training diverged, or its settings are impossible."""
