"""``wildpdiff generate``: adapters from a description."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.cli.description import (
    BackgroundsOption,
    DescriptionOption,
    ExamplesOption,
    Images,
    MetadataOption,
    OfSuiteOption,
    OfTaskOption,
    OwnBackboneOption,
    build_description,
    description_file,
    metadata_pairs,
)
from wildpdiff.cli.folders import may_write_adapters
from wildpdiff.cli.generators import ClipOption, open_generator
from wildpdiff.cli.options import JsonOption, OutOption, SeedOption, SuiteSettings, find_task, open_suite
from wildpdiff.cli.terminal import print_json, show
from wildpdiff.errors import DescriptionError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.description import Description
    from wildpdiff.trust.report import TrustReport

MinTrustOption = Annotated[
    str | None,
    typer.Option(
        "--min-trust",
        metavar="X|auto",
        help="Below this trust the pretrained model's adapter is written; default auto: as the calibration chose.",
    ),
]


def generate(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder of a fitted generator.")],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many adapters.")] = 1,
    sample: Annotated[
        bool | None,
        typer.Option(
            "--sample/--estimate",
            help="Posterior samples, or the best estimate; default: the estimate, samples with -n.",
        ),
    ] = None,
    seed: SeedOption = 0,
    description: DescriptionOption = None,
    metadata: MetadataOption = None,
    backgrounds: BackgroundsOption = None,
    examples: ExamplesOption = None,
    text: Annotated[str | None, typer.Option("--text", help="The task in words.")] = None,
    suite: OfSuiteOption = None,
    option: SuiteSettings = None,
    task: OfTaskOption = None,
    backbone: OwnBackboneOption = None,
    clip: ClipOption = None,
    min_trust: MinTrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate adapters for the task that is described: one PEFT folder, or one a sample below the folder."""
    may_write_adapters(out, n)
    least = least_trust(min_trust)
    parts = given_parts(description, metadata, backgrounds, examples, text, suite, task)

    clock = time.perf_counter
    started = clock()
    loaded = open_generator(generator, backbone, clip)
    fingerprint = loaded.fingerprint
    after_load = clock()
    told = described(loaded, parts, suite, option, task)
    loaded.conditions.encode(told)  # refuses what cannot be read, before anything else is done
    after_condition = clock()
    loaded = _drawing(loaded, n > 1 if sample is None else sample)
    adapters = loaded.sample(told, n, seed)
    check_logits(loaded, adapters)
    after_sample = clock()
    report = assessed(generator, loaded, adapters, told, least) if least is not None or has_trust(generator) else None
    if report is not None:
        adapters = _trusted(generator, loaded, adapters, told, report)
    after_trust = clock()
    folders = _write(adapters, out)
    used = [part for part in told.parts if part in loaded.conditions.parts]
    seconds = {
        "load": after_load - started,
        "condition": after_condition - after_load,
        "sample_and_decode": after_sample - after_condition,
        **({} if report is None else {"trust": after_trust - after_sample}),
        "write": clock() - after_trust,
    }
    seconds = {name: round(value, 4) for name, value in seconds.items()}
    if as_json:
        print_json(
            {
                "adapters": [str(folder) for folder in folders],
                "generator": fingerprint,
                "parts": used,
                "seed": seed,
                "drawn": "samples" if loaded.stochastic else "estimate",
                "made_of": None if loaded.cross_validation is None else loaded.cross_validation.composition,
                "parameters": adapters[0].size,
                "seconds": seconds,
                **({} if report is None else {"trust": report.to_json()}),
            }
        )
        return
    kind = "posterior sample" if loaded.stochastic else "estimate"
    what = f"{n} adapters ({kind}s) below {out}" if n > 1 else f"Adapter ({kind}) in {out}"
    times = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in seconds.items())
    show(f"{what}: {adapters[0].size} parameters, from {', '.join(used)}. Seconds: {times}.")
    if report is not None:
        show(report.recommendation)
        if not report.use_generated:
            show(
                "Written was therefore the pretrained model's adapter, which changes nothing; --min-trust 0 writes the "
                "generated one."
            )
    elif loaded.cross_validation is not None:
        show(loaded.cross_validation.verdict)
    elif "leave_one_out" in loaded.training:
        show(loaded.training["leave_one_out"]["note"])


def _drawing(generator: Generator, samples: bool) -> Generator:
    """The generator with the estimate or samples drawn; samples are refused where it knows no posterior."""
    if not samples or generator.mean is None:
        return generator
    if generator.posterior is None:
        raise DescriptionError(
            "The generator has one estimate a description and no posterior to sample: its seen tasks are too few, or "
            "had no images. Ask for one adapter, or fit it to ten tasks or more with their images."
        )
    return generator.with_sampling(draw="posterior")


def check_logits(generator: Generator, adapters: list[Adapter]) -> None:
    """Refuse adapters that give no finite logits on a grey picture; raises :class:`ArtifactError`."""
    import numpy as np

    from wildpdiff.backbones.backbone import finite_logits

    backbone = generator.backbone
    if not backbone.runs:
        for adapter in adapters:
            adapter.check_finite()
        return
    grey = backbone.stem(np.full((1, backbone.image_size, backbone.image_size, 3), 128, dtype=np.uint8))
    for adapter in adapters:
        adapter.check_finite()
        finite_logits(backbone.predict(grey, adapter.tensors), backbone.name)


def given_parts(
    description: Path | None,
    metadata: list[str] | None,
    backgrounds: Images,
    examples: Images,
    text: str | None,
    suite: str | None,
    task: str | None,
) -> dict[str, Any]:
    """What the command line says of the task; options outdo the file.

    Raises:
        DescriptionError: a description and a task of a suite, or half of the latter.
    """
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
    return parts


def described(
    generator: Generator, parts: dict[str, Any], suite: str | None, option: list[str] | None, task: str | None
) -> Description:
    """The description that the command line means, read for this generator."""
    if option and suite is None:
        raise DescriptionError(
            f"-o {option[0]} is an option of a suite, and no suite is given. Add --suite and --task."
        )
    if suite is not None and task is not None:
        return _of_task(generator, suite, option, task)
    return build_description(parts, generator)


def least_trust(text: str | None) -> float | Literal["auto"] | None:
    """The threshold that was typed; raises :class:`DescriptionError` unless it is a probability or ``auto``."""
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DescriptionError(f"--min-trust is {text!r}; give a probability from 0 to 1, or auto.")
    return value


def has_trust(folder: Path) -> bool:
    """Whether a generator has a model of trust."""
    return (folder / "trust" / "manifest.json").is_file()


def assessed(
    folder: Path,
    generator: Generator,
    adapters: list[Adapter],
    told: Description,
    least: float | Literal["auto"] | None,
) -> TrustReport:
    """What the generator's model of trust says; raises :class:`ArtifactError` where it has none."""
    from wildpdiff.trust.model import TrustModel

    model = TrustModel.beside(folder, generator.backbone, generator.fingerprint)
    return model.assess(adapters, told, min_trust=least if isinstance(least, float) else None)


def _trusted(
    folder: Path,
    generator: Generator,
    adapters: list[Adapter],
    told: Description,
    report: TrustReport,
) -> list[Adapter]:
    """The adapters with their trust in the provenance; the pretrained model in their place where it is too low."""
    from wildpdiff.trust.model import TrustModel, with_trust

    if report.use_generated:
        return [with_trust(adapter, report) for adapter in adapters]
    model = TrustModel.beside(folder, generator.backbone, generator.fingerprint)
    return [model.fallback(report, told, int(adapter.provenance["seed"])) for adapter in adapters]


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
