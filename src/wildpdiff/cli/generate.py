"""``wildpdiff generate``: adapters from a description."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli.description import build_description, description_file, metadata_pairs
from wildpdiff.cli.folders import may_write_adapters
from wildpdiff.cli.options import JsonOption, OutOption, SeedOption, SuiteSettings, find_task, open_suite
from wildpdiff.cli.terminal import print_json, show
from wildpdiff.errors import DescriptionError

if TYPE_CHECKING:
    from wildpdiff.adapter import Adapter
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.description import Description

__all__ = ["generate"]

Images = list[Path] | None


def generate(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder of a fitted generator.")],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many adapters.")] = 1,
    seed: SeedOption = 0,
    description: Annotated[
        Path | None,
        typer.Option(
            "--description", help="JSON file with metadata, backgrounds, examples, text; paths relative to it."
        ),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeatable.")] = None,
    backgrounds: Annotated[Images, typer.Option("--backgrounds", help="Images of the empty place: files, folder.")] = (
        None
    ),
    examples: Annotated[
        Images, typer.Option("--examples", help="Unlabelled images of the task: files, folder.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="The task in words.")] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="Take the description of a task of this suite.")] = None,
    option: SuiteSettings = None,
    task: Annotated[str | None, typer.Option("--task", help="The task of the suite.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Only if the generator does not bring its own: a folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate adapters for the task that is described: one PEFT folder, or one a sample below the folder."""
    may_write_adapters(out, n)
    parts = description_file(description) if description is not None else {}
    given: dict[str, Any] = {
        "metadata": {**parts.get("metadata", {}), **metadata_pairs(metadata)},
        "backgrounds": backgrounds,
        "examples": examples,
        "text": text,
    }
    parts |= {key: value for key, value in given.items() if value}
    if (suite is None) != (task is None):
        raise DescriptionError("A task of a suite is named by both: give --suite and --task.")
    if suite is not None and parts:
        raise DescriptionError("Give a description, or a task of a suite, not both.")

    clock = time.perf_counter
    started = clock()
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.generator import Generator

    loaded = Generator.from_pretrained(generator, None if backbone is None else load_backbone(backbone))
    fingerprint = loaded.fingerprint
    after_load = clock()
    if suite is not None and task is not None:
        told = _of_task(loaded, suite, option, task)
    else:
        told = build_description(parts, loaded)
    loaded.conditions.encode(told)  # refuses what cannot be read, before anything else is done
    after_condition = clock()
    adapters = loaded.sample(told, n, seed)
    after_sample = clock()
    folders = _write(adapters, out)
    used = [part for part in told.parts if part in loaded.conditions.parts]
    seconds = {
        "load": after_load - started,
        "condition": after_condition - after_load,
        "sample_and_decode": after_sample - after_condition,
        "write": clock() - after_sample,
    }
    seconds = {name: round(value, 4) for name, value in seconds.items()}
    if as_json:
        print_json(
            {
                "adapters": [str(folder) for folder in folders],
                "generator": fingerprint,
                "parts": used,
                "seed": seed,
                "parameters": adapters[0].size,
                "seconds": seconds,
            }
        )
        return
    what = f"{n} adapters below {out}" if n > 1 else f"Adapter in {out}"
    times = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in seconds.items())
    show(f"{what}: {adapters[0].size} parameters, from {', '.join(used)}. Seconds: {times}.")


def _of_task(generator: Generator, suite: str, option: list[str] | None, task: str) -> Description:
    found = find_task(open_suite(suite, option, generator.backbone), task)
    reads_names = "task_id" in generator.conditions.parts
    told = found.description
    # The name goes into the provenance; a generator that reads names must not be given one it cannot know.
    return told if told.task_id is not None or reads_names else replace(told, task_id=found.name)


def _write(adapters: list[Adapter], out: Path) -> list[Path]:
    if len(adapters) == 1:
        return [adapters[0].save(out)]
    from wildpdiff.disk import write_folder

    names = [f"{number:03d}" for number in range(len(adapters))]

    def fill(temporary: Path) -> None:
        for name, adapter in zip(names, adapters, strict=True):
            adapter.save(temporary / name)

    write_folder(out, fill)
    return [out / name for name in names]
