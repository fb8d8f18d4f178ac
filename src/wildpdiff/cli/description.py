"""The task of a command line: a description from a JSON file or from options, or a task of a suite."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli.options import find_task, key_values, open_suite
from wildpdiff.errors import DescriptionError

if TYPE_CHECKING:
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.description import Description

Images = list[Path] | None
DescriptionOption = Annotated[
    Path | None,
    typer.Option("--description", help="JSON file: metadata, backgrounds, examples, text; paths relative to it."),
]
MetadataOption = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="One value; repeatable.")
]
BackgroundsOption = Annotated[Images, typer.Option("--backgrounds", help="Images of the empty site: files, folders.")]
ExamplesOption = Annotated[
    Images, typer.Option("--examples", help="Unlabelled images of the task: files, folders; or files of texts.")
]
OfSuiteOption = Annotated[
    list[str] | None, typer.Option("--suite", help="Suite whose --task is described; several are joined.")
]
OfTaskOption = Annotated[str | None, typer.Option("--task", help="Task of the suite.")]

KINDS: Mapping[str, Any] = {
    "metadata": dict[str, Any],
    "backgrounds": tuple[str, ...],
    "examples": tuple[str, ...],
    "text": str,
    "task_id": str,
}
"""The keys of a description's JSON file; images are paths relative to it."""

MOST_METADATA = 1e300
"""Largest number that is taken for a measurement."""


def description_file(path: Path) -> dict[str, Any]:
    """The parts in a JSON file, image paths resolved against its folder.

    Raises:
        ArtifactError: the file is missing or not JSON, or a value is of another kind.
        DescriptionError: an unknown key, or a value that is no number or text.
    """
    from wildpdiff.disk import read_json
    from wildpdiff.records import decode

    content = decode(dict[str, Any], read_json(path), str(path))
    for key in content:
        if key not in KINDS:
            raise DescriptionError(f"{path} has the key {key!r}; known keys are {', '.join(KINDS)}.")
    parts: dict[str, Any] = {key: decode(KINDS[key], value, f"{path}: {key}") for key, value in content.items()}
    if re.search("[\ud800-\udfff]", json.dumps(content, ensure_ascii=False)):
        raise DescriptionError(f"{path} holds a half of a Unicode pair, which is no letter. Write the text anew.")
    for name, value in parts.get("metadata", {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise DescriptionError(f"{path}: metadata {name!r} is {value!r}; a number or a text is needed.")
        if isinstance(value, int) and abs(value) > MOST_METADATA:
            digits = len(str(value))
            raise DescriptionError(f"{path}: metadata {name!r} is a number of {digits} digits. Give a measurement.")
    for key in ("backgrounds", "examples"):
        if key in parts:
            parts[key] = [path.parent / entry for entry in parts[key]]
    return parts


@dataclass(frozen=True)
class TaskQuery:
    """The task of a command line, checked as far as that is possible without a generator.

    Attributes:
        parts: of a description; images are paths.
        suite, option, task: a task of a suite with its options, instead of a description.
    """

    parts: Mapping[str, Any]
    suite: list[str] | None = None
    option: list[str] | None = None
    task: str | None = None

    @classmethod
    def of(
        cls, file: Path | None, options: Mapping[str, Any], suite: tuple[list[str] | None, list[str] | None, str | None]
    ) -> TaskQuery:
        """The task that a file, options (which outdo the file) or (suite, its options, task) describe.

        Raises:
            ArtifactError, DescriptionError: the file is damaged, a key or a value is unknown, or the task is
                described twice or by half.
        """
        parts = description_file(file) if file is not None else {}
        metadata = key_values("--metadata", options.get("metadata"), DescriptionError)
        given = {**options, "metadata": {**parts.get("metadata", {}), **metadata}}
        parts |= {key: value for key, value in given.items() if value}
        names, option, task = suite
        if (not names) != (task is None):
            raise DescriptionError("A task of a suite is named by both: give --suite and --task.")
        if names and parts:
            raise DescriptionError("Give a description, or a task of a suite, not both.")
        if option and not names:
            raise DescriptionError(f"-o {option[0]} is an option of a suite. Add --suite and --task.")
        return cls(parts, names, option, task)

    def description(self, generator: Generator) -> Description:
        """The description, read for a generator; raises as :func:`build_description` and :func:`open_suite`."""
        if not self.suite or self.task is None:
            return build_description(self.parts, generator)
        from wildpdiff.tasks.task import title_of

        found = find_task(open_suite(self.suite, self.option, generator.backbone, learning=False), self.task)
        description = found.description
        # The name goes into the provenance; a generator that reads names knows the safe ones of its seen tasks.
        if "task_id" in generator.conditions.parts:
            return description
        return replace(description, task_id=title_of(found))


def build_description(parts: Mapping[str, Any], generator: Generator) -> Description:
    """Read the images at the size that the generator's backbone takes, and check the metadata by its schema.

    A category that no seen task has is no error: the generator leaves it out, with a warning on stderr.

    Raises:
        DataError: an image is missing or unreadable.
        DescriptionError: an unknown metadata key, a value that is no number, or nothing that the generator can read.
    """
    from wildpdiff.backbones.collate import TextCollate
    from wildpdiff.camera_traps.picture_files import read_most
    from wildpdiff.cli.terminal import remark
    from wildpdiff.prediction import find_images
    from wildpdiff.tasks.description import Description
    from wildpdiff.tasks.framing import View
    from wildpdiff.texts import read_texts

    metadata, encoder = parts.get("metadata") or None, generator.conditions.metadata_encoder
    if metadata is not None and encoder is not None:
        metadata = encoder.schema.check(metadata, open_categories=True)
    size, framing = generator.backbone.image_size, generator.backbone.framing
    images: dict[str, Any] = {
        key: read_texts(parts[key])
        if isinstance(generator.backbone.collate, TextCollate)
        else read_most([View(file) for file in find_images(parts[key])], size, framing, remark)[0]
        for key in ("backgrounds", "examples")
        if parts.get(key)
    }
    description = Description(metadata=metadata, text=parts.get("text"), task_id=parts.get("task_id"), **images)
    generator.conditions.encode_parts(description)  # refuses what cannot be read before any warning
    for sentence in generator.conditions.unknown(description):
        remark(f"Warning: {sentence}")
    return description
