"""A domain: where its tasks come from, what they are measured by, and which opponents stand next to the generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wildbench.methods.classifier_alone import CLASSIFIER_ALONE
from wildbench.methods.few_label_methods import LABELLED_NAMES
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.panel_page import METHODS as PANEL
from wildbench.studies.panel_page import ShownMethod
from wildbench.studies.pooled_scores import PooledScore
from wildpdiff.disk import content_hash, file_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.evaluate.summary import FINETUNED
from wildpdiff.fit import GeneratorConfig

GROUPS = "groups"
"""Key of the suite's settings with the name of the group of every unseen task that is held out with its group."""

OF_IMAGES = ("feature prompt", "best of 8 by unlabelled images", "best of 8 by 5 labels")
"""Methods of the panel that are not measured in domains."""

EVOLUTION = next(name for name in LABELLED_NAMES if "latent" in name)

METHODS = (
    *(method for method in PANEL if method.source not in (FINETUNED, CLASSIFIER_ALONE, *OF_IMAGES)),
    ShownMethod(EVOLUTION, EVOLUTION, trained=True),
    ShownMethod("fine-tuned, classifier alone", CLASSIFIER_ALONE),
    ShownMethod("fine-tuned", FINETUNED),
)
"""The lines of a domain's table in order, before its own opponents; those without rows are left out."""

Open = Callable[..., OpenBenchmark]
"""Opens a domain from the data folder, the run's own folder, a seed, a report of progress, and options by name."""


@dataclass(frozen=True)
class Domain:
    """A domain of tasks.

    Attributes:
        name: as the command takes it.
        title: one line.
        files: that are read, relative to the data folder.
        layout: the data in words, where they are no files of fixed names; with neither the domain reads none.
        open: makes suite, backbone, recipe and opponents.
        generator: settings of the generators.
        pooled: scores of all examples of a group of tasks together.
        without: sources of :data:`METHODS` that have no meaning here.
        further: lines of registered methods that have a meaning here alone.
        samples: adapters a task in the evaluation.
        seen_tasks: seen tasks that are scored.
        remarks: sentences below the table: what is honest to say about it.
        options: of ``open``, each with the conversion of its text.
        content: a hash of what is read of the data folder; by default of the files.
    """

    name: str
    title: str
    files: tuple[str, ...]
    open: Open
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    pooled: tuple[PooledScore, ...] = ()
    without: tuple[str, ...] = ()
    further: tuple[ShownMethod, ...] = ()
    samples: int = 4
    seen_tasks: int = 20
    remarks: tuple[str, ...] = ()
    layout: str = ""
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    content: Callable[[Path], str] | None = None

    @property
    def reads(self) -> str:
        """Its data in words; empty where it needs none."""
        return self.layout or ", ".join(self.files)

    def require(self, data: Path) -> None:
        """Raise :class:`DataError` where the data folder lacks a file."""
        for name in self.files:
            if not (data / name).exists():
                raise DataError(f"The domain {self.name} reads {name}, which the data folder {data} does not have.")

    def content_of(self, data: Path) -> str:
        """A hash of what is read of the data folder: of files their content, of folders their files' names and sizes.

        Raises:
            DataError: the data cannot be read.
        """
        if self.content is not None:
            return self.content(data)
        found: dict[str, Any] = {}
        for name in self.files:
            path = data / name
            files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else []
            sizes = [[entry.relative_to(path).as_posix(), entry.stat().st_size] for entry in files]
            found[name] = sizes if path.is_dir() else file_hash(path)
        return content_hash(json_bytes(found))

    def methods(self, *, trained: bool) -> tuple[ShownMethod, ...]:
        """The lines of its table but for its own opponents; without ``trained``, only those with almost no training."""
        *methods, last = METHODS
        own = [one for one in (*methods, *self.further, last) if one.source not in self.without]
        return tuple(one for one in own if trained or not one.trained)


def in_groups(groups: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The setting of a suite that names the group of each unseen task that is held out with its group."""
    return {GROUPS: dict(groups)}
