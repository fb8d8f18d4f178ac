"""``wildpdiff trust``: the reliability of a generated adapter, without labels."""

from __future__ import annotations

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
from wildpdiff.cli.generate import MinTrustOption, check_logits, least_trust, trust_of
from wildpdiff.cli.terminal import print_json, show

if TYPE_CHECKING:
    from rich.panel import Panel

    from wildpdiff.trust.report import TrustReport

WIDTH = 30
"""Characters of the gauge that shows trust."""

MOST_REASONS = 5


def trust(
    generator: options.GeneratorArgument,
    description: DescriptionOption = None,
    metadata: MetadataOption = None,
    backgrounds: BackgroundsOption = None,
    examples: ExamplesOption = None,
    suite: OfSuiteOption = None,
    option: options.SuiteSettings = None,
    task: OfTaskOption = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="Number of adapters that are assessed.")] = 4,
    seed: options.SeedOption = 0,
    min_trust: MinTrustOption = None,
    backbone: options.GeneratorBackboneOption = None,
    clip: options.ClipOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Predict, without a label, the gain of the adapter that would be generated, and the probability that it helps."""
    least = least_trust(min_trust)
    given = {"metadata": metadata, "backgrounds": backgrounds, "examples": examples}
    query = TaskQuery.of(description, given, (suite, option, task))
    loaded = options.open_generator(generator, backbone, clip)
    described = query.description(loaded)
    adapters = loaded.sample(described, n, seed)
    check_logits(loaded, adapters)
    model = trust_of(generator, loaded)
    report = model.assess(adapters, described, min_trust=least if isinstance(least, float) else None)
    if as_json:
        print_json(report.to_json())
        return
    show(_panel(report))


def _panel(report: TrustReport) -> Panel:
    """Trust as a gauge with its threshold, the gain with its interval, the reasons, and what to do."""
    from rich.panel import Panel
    from rich.text import Text

    colour = "green" if report.use_generated else "yellow"
    filled = round(WIDTH * report.trust)
    lines = Text()
    lines.append("trust  ")
    lines.append("━" * filled, style=colour)
    lines.append("─" * (WIDTH - filled), style="dim")
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
