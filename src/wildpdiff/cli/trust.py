"""``wildpdiff trust``: how far a generated adapter may be relied on, before any label is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.description import (
    BackgroundsOption,
    DescriptionOption,
    ExamplesOption,
    MetadataOption,
    OfSuiteOption,
    OfTaskOption,
    OwnBackboneOption,
)
from wildpdiff.cli.generate import MinTrustOption, assessed, check_logits, described, given_parts, least_trust
from wildpdiff.cli.generators import ClipOption, open_generator
from wildpdiff.cli.options import JsonOption, SeedOption, SuiteSettings
from wildpdiff.cli.terminal import print_json, show

if TYPE_CHECKING:
    from rich.panel import Panel

    from wildpdiff.trust.report import TrustReport

BAR = 30
MOST_REASONS = 5


def trust(
    generator: Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder of a fitted generator.")],
    description: DescriptionOption = None,
    metadata: MetadataOption = None,
    backgrounds: BackgroundsOption = None,
    examples: ExamplesOption = None,
    suite: OfSuiteOption = None,
    option: SuiteSettings = None,
    task: OfTaskOption = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many adapters are looked at.")] = 4,
    seed: SeedOption = 0,
    min_trust: MinTrustOption = None,
    backbone: OwnBackboneOption = None,
    clip: ClipOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how far the adapter that would be generated for this task may be relied on. Reads no label."""
    least = least_trust(min_trust)
    parts = given_parts(description, metadata, backgrounds, examples, None, suite, task)
    loaded = open_generator(generator, backbone, clip)
    told = described(loaded, parts, suite, option, task)
    adapters = loaded.sample(told, n, seed)
    check_logits(loaded, adapters)
    report = assessed(generator, loaded, adapters, told, least)
    if as_json:
        print_json(report.to_json())
        return
    show(_panel(report))


def _panel(report: TrustReport) -> Panel:
    """Trust as a bar with its threshold, the gain with its interval, the reasons, and what to do."""
    from rich.panel import Panel
    from rich.text import Text

    colour = "green" if report.use_generated else "yellow"
    filled = round(BAR * report.trust)
    lines = Text()
    lines.append("trust  ")
    lines.append("━" * filled, style=colour)
    lines.append("─" * (BAR - filled), style="dim")
    lines.append(f"  {report.trust:.2f}", style=f"bold {colour}")
    lines.append(f"   least {report.min_trust:.2f}\n", style="dim")
    lines.append(f"gain   {report.gain:+.1f} points")
    lines.append(f"   90 % interval {report.low:+.1f} to {report.high:+.1f}\n\n", style="dim")
    for reason in report.reasons[:MOST_REASONS]:
        lines.append(f"· {reason}\n")
    lines.append(f"\n{report.recommendation}", style="bold")
    seen = {"description": "from the description alone"}.get(
        report.basis, f"from the description and the {report.basis}"
    )
    return Panel(lines, title="Trust", subtitle=seen, border_style=colour, width=100, padding=(1, 2))
