"""``wildpdiff generate`` and ``wildpdiff trust``: adapters from a description, and how far one may be relied on."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.description import (
    BackgroundsOption,
    DescriptionOption,
    ExamplesOption,
    MetadataOption,
    OfSuiteOption,
    OfTaskOption,
    TaskQuery,
)
from wildpdiff.cli.folders import check_output_adapters
from wildpdiff.cli.terminal import answer
from wildpdiff.errors import DescriptionError

if TYPE_CHECKING:
    from rich.panel import Panel

    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.generator import Generator
    from wildpdiff.trust.model import TrustModel
    from wildpdiff.trust.report import TrustReport

MinTrustOption = Annotated[
    str | None,
    typer.Option(
        "--min-trust",
        metavar="X|auto",
        help="Minimum trust, else the pretrained model's adapter is written; auto is the calibrated threshold.",
    ),
]

WIDTH = 30
"""Characters of the gauge that shows trust."""

MOST_REASONS = 5


def generate(
    generator: options.GeneratorArgument,
    out: options.OutOption,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="Number of adapters.")] = 1,
    sample: Annotated[
        bool | None,
        typer.Option(
            "--sample/--estimate",
            help="Posterior samples, or the best estimate; default: the estimate, samples with -n.",
        ),
    ] = None,
    seed: options.SeedOption = 0,
    description: DescriptionOption = None,
    metadata: MetadataOption = None,
    backgrounds: BackgroundsOption = None,
    examples: ExamplesOption = None,
    text: Annotated[str | None, typer.Option(help="The task in words.")] = None,
    suite: OfSuiteOption = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    task: OfTaskOption = None,
    backbone: options.GeneratorBackboneOption = None,
    clip: options.ClipOption = None,
    min_trust: MinTrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Generate adapters for the task that is described: one PEFT folder, or one per sample below the folder."""
    check_output_adapters(out, n)
    least = least_trust(min_trust)
    given = {"metadata": metadata, "backgrounds": backgrounds, "examples": examples, "text": text}
    query = TaskQuery.of(description, given, (suite, options.with_columns(option, columns), task))

    times = [time.perf_counter()]
    loaded = options.open_generator(generator, backbone, clip)
    fingerprint = loaded.fingerprint
    times.append(time.perf_counter())
    described = query.description(loaded)
    loaded.conditions.encode(described)  # refuses what cannot be read, before anything else is done
    times.append(time.perf_counter())
    loaded = _drawing(loaded, n > 1 if sample is None else sample)
    adapters = loaded.sample(described, n, seed)
    _check_logits(loaded, adapters)
    times.append(time.perf_counter())
    report = None
    model = trust_of(generator, loaded, wanted=min_trust)
    if model is not None:
        report = model.assess(adapters, described, min_trust=least)
        adapters = [model.delivered(adapter, described, report) for adapter in adapters]
        times.append(time.perf_counter())
    folders = _write(adapters, out)
    times.append(time.perf_counter())

    stages = ("load", "condition", "sample_and_decode", *(() if report is None else ("trust",)), "write")
    seconds = {name: round(end - start, 4) for name, (start, end) in zip(stages, pairwise(times), strict=True)}
    used = [part for part in described.parts if part in loaded.conditions.parts]
    kind = "posterior sample" if loaded.stochastic else "estimate"
    what = f"{n} adapters ({kind}s) below {out}" if n > 1 else f"Adapter ({kind}) in {out}"
    took = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in seconds.items())
    values = {
        "adapters": [str(folder) for folder in folders],
        "generator": fingerprint,
        "parts": used,
        "seed": seed,
        "drawn": "samples" if loaded.stochastic else "estimate",
        "model": adapters[0].provenance["source"],
        "made_of": None if loaded.cross_validation is None else loaded.cross_validation.composition,
        "parameters": adapters[0].size,
        "seconds": seconds,
        **({} if report is None else {"trust": report.to_json()}),
    }
    done = f"{what}: {adapters[0].size} parameters, from {', '.join(used)}. Seconds: {took}."
    answer(as_json, values, done, *_reliability(loaded, report))


def _reliability(generator: Generator, report: TrustReport | None) -> list[str]:
    """Sentences on how far the written adapters may be relied on."""
    if report is not None:
        kept = (
            "Therefore the pretrained model's adapter was written, which changes nothing; --min-trust 0 writes the "
            "generated one."
        )
        table = generator.cross_validation
        further = kept if not report.use_generated else table.unchanging if table and not generator.stochastic else ""
        return [report.recommendation, *([further] if further else [])]
    if generator.cross_validation is not None:
        return [generator.cross_validation.verdict]
    return [generator.training["leave_one_out"]["note"]] if "leave_one_out" in generator.training else []


def _drawing(generator: Generator, samples: bool) -> Generator:
    """The generator with the estimate or samples drawn; samples are refused where it knows no posterior."""
    if not samples or generator.mean is None:
        return generator
    if generator.posterior is None:
        raise DescriptionError(
            "The generator has one estimate per description and no posterior to sample: its seen tasks are too few, or "
            "had no data. Generate one adapter, or fit it to ten tasks or more with their data."
        )
    return generator.with_sampling(draw="posterior")


def _check_logits(generator: Generator, adapters: list[Adapter]) -> None:
    """Refuse adapters that give no finite logits on a grey picture; raises :class:`ArtifactError`."""
    import numpy as np

    from wildpdiff.backbones.backbone import finite_outputs

    backbone = generator.backbone
    for adapter in adapters:
        adapter.check_finite()
    if backbone.runs and backbone.image_size:
        grey = backbone.stem(np.full((1, backbone.image_size, backbone.image_size, 3), 128, dtype=np.uint8))
        for adapter in adapters:
            finite_outputs(backbone.predict(grey, adapter.tensors), backbone.name)


def least_trust(text: str | None) -> float | None:
    """The threshold that was typed; None is that of the calibration. Raises :class:`DescriptionError`."""
    if text is None or text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DescriptionError(f"--min-trust is {text!r}; give a probability from 0 to 1, or auto.")
    return value


def trust_of(folder: Path, generator: Generator, wanted: str | None) -> TrustModel | None:
    """The model of trust in a generator's folder; raises as :meth:`TrustModel.of_generator`.

    Args:
        wanted: the threshold that was typed. Without one, and with 0, which every adapter reaches, there may be none.
    """
    from wildpdiff.trust.model import FOLDER, TrustModel

    if (wanted is None or least_trust(wanted) == 0) and not (folder / FOLDER).is_dir():
        return None
    return TrustModel.of_generator(folder, generator.backbone, generator.fingerprint)


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


def trust(
    generator: options.GeneratorArgument,
    description: DescriptionOption = None,
    metadata: MetadataOption = None,
    backgrounds: BackgroundsOption = None,
    examples: ExamplesOption = None,
    suite: OfSuiteOption = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    task: OfTaskOption = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="Number of adapters that are assessed.")] = 4,
    seed: options.SeedOption = 0,
    min_trust: MinTrustOption = None,
    backbone: options.GeneratorBackboneOption = None,
    clip: options.ClipOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Predict, without a label, the gain of the adapter that would be generated, and the probability that it helps."""
    from wildpdiff.trust.model import TrustModel

    least = least_trust(min_trust)
    given = {"metadata": metadata, "backgrounds": backgrounds, "examples": examples}
    query = TaskQuery.of(description, given, (suite, options.with_columns(option, columns), task))
    loaded = options.open_generator(generator, backbone, clip)
    described = query.description(loaded)
    adapters = loaded.sample(described, n, seed)
    _check_logits(loaded, adapters)
    model = TrustModel.of_generator(generator, loaded.backbone, loaded.fingerprint)
    report = model.assess(adapters, described, min_trust=least)
    answer(as_json, report.to_json(), _panel(report))


def _panel(report: TrustReport) -> Panel:
    """Trust as a gauge with its threshold, the gain with its interval, the reasons, and what to do."""
    from rich.panel import Panel
    from rich.text import Text

    colour = "green" if report.use_generated else "yellow"
    filled = round(WIDTH * report.trust)
    lines = Text.assemble(
        "trust  ",
        ("━" * filled, colour),
        ("─" * (WIDTH - filled), "dim"),
        (f"  {report.trust:.2f}", f"bold {colour}"),
        (f"   least {report.min_trust:.2f}\n", "dim"),
        f"gain   {report.gain:+.1f} points",
        (f"   90 % interval {report.low:+.1f} to {report.high:+.1f}\n\n", "dim"),
        *(f"· {reason}\n" for reason in report.reasons[:MOST_REASONS]),
        (f"\n{report.recommendation}", "bold"),
    )
    seen = {"description": "from the description alone"}.get(
        report.basis, f"from the description and the {report.basis}"
    )
    return Panel(lines, title="Trust", subtitle=seen, border_style=colour, width=100, padding=(1, 2))
