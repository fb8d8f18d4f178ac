"""A description from a JSON file or from the command line's options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.errors import DescriptionError

if TYPE_CHECKING:
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.description import Description

KEYS = ("metadata", "backgrounds", "examples", "text", "task_id")

Images = list[Path] | None
DescriptionOption = Annotated[
    Path | None,
    typer.Option("--description", help="JSON file with metadata, backgrounds, examples, text; paths relative to it."),
]
MetadataOption = Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeatable.")]
BackgroundsOption = Annotated[Images, typer.Option("--backgrounds", help="Images of the empty place: files, folder.")]
ExamplesOption = Annotated[Images, typer.Option("--examples", help="Unlabelled images of the task: files, folder.")]
OfSuiteOption = Annotated[str | None, typer.Option("--suite", help="Take the description of a task of this suite.")]
OfTaskOption = Annotated[str | None, typer.Option("--task", help="The task of the suite.")]
OwnBackboneOption = Annotated[
    str | None, typer.Option("--backbone", help="Only if the generator does not bring its own: a folder.")
]


def metadata_pairs(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a dictionary; raises :class:`DescriptionError`."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise DescriptionError(f"--metadata {pair!r} has no key or no value; write it as KEY=VALUE.")
        if name.strip() in values:
            raise DescriptionError(f"--metadata {name.strip()!r} is given twice; give one value.")
        values[name.strip()] = value.strip()
    return values


def description_file(path: Path) -> dict[str, Any]:
    """The parts in a JSON file, image paths resolved against its folder.

    Raises:
        ArtifactError: the file is missing or not JSON.
        DescriptionError: an unknown key, or a value of another kind.
    """
    from wildpdiff.disk import read_json

    content = read_json(path)
    if not isinstance(content, dict):
        raise DescriptionError(f"{path} is not a JSON object; give one with {', '.join(KEYS)}.")
    kinds: dict[str, type] = dict(zip(KEYS, (dict, list, list, str, str), strict=True))
    needs: dict[type, str] = {dict: "an object", list: "a list of image files", str: "a text"}
    for key, value in content.items():
        if key not in kinds:
            raise DescriptionError(f"{path} has the key {key!r}; known keys are {', '.join(KEYS)}.")
        if not isinstance(value, kinds[key]):
            raise DescriptionError(f"{path}: {key!r} is {value!r}; {needs[kinds[key]]} is needed.")
    if re.search("[\ud800-\udfff]", json.dumps(content, ensure_ascii=False)):
        raise DescriptionError(f"{path} holds a half of a Unicode pair, which is no letter. Write the text anew.")
    for name, value in content.get("metadata", {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise DescriptionError(f"{path}: metadata {name!r} is {value!r}; a number or a text is needed.")
        if isinstance(value, int) and abs(value) > 1e300:
            raise DescriptionError(
                f"{path}: metadata {name!r} is a number of {len(str(value))} digits. Give a measure."
            )
    for key in ("backgrounds", "examples"):
        if key in content:
            if not all(isinstance(entry, str) for entry in content[key]):
                raise DescriptionError(f"{path}: {key!r} holds something else than names of image files.")
            content[key] = [path.parent / entry for entry in content[key]]
    return content


def build_description(parts: Mapping[str, Any], generator: Generator) -> Description:
    """Read the images at the size that the generator's backbone takes, and check the metadata by its schema.

    A category that no seen task has is no error: the generator leaves it out, and the user is told so on stderr.

    Raises:
        DataError: an image is missing or unreadable.
        DescriptionError: an unknown metadata key, a value that is no number, or nothing that the generator can read.
    """
    from wildpdiff.cli.terminal import remark
    from wildpdiff.conditions.metadata import MetadataEncoder
    from wildpdiff.prediction import find_images
    from wildpdiff.tasks.description import Description
    from wildpdiff.tasks.image_files import read_images

    metadata = parts.get("metadata") or None
    if metadata is not None:
        for encoder in generator.conditions.encoders:
            if isinstance(encoder, MetadataEncoder):
                metadata = encoder.schema.check(metadata, open_categories=True)
    images = {
        key: read_images(find_images(parts[key]), generator.backbone.image_size) if parts.get(key) else None
        for key in ("backgrounds", "examples")
    }
    description = Description(
        metadata=metadata,
        backgrounds=images["backgrounds"],
        examples=images["examples"],
        text=parts.get("text"),
        task_id=parts.get("task_id"),
    )
    generator.conditions.encode_parts(description)  # refuses what cannot be read before anything is said of the rest
    for sentence in generator.conditions.unknown(description):
        remark(f"Warning: {sentence}")
    return description
