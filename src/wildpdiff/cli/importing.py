"""``wildpdiff zoo import``, and fitting a generator to an imported zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.folders import adapter_folders, check_output_folder
from wildpdiff.cli.options import JsonOption, OutOption
from wildpdiff.cli.terminal import Stages, print_json, show

if TYPE_CHECKING:
    from rich.table import Table

    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.imported import ParameterErrors
    from wildpdiff.zoo.store import Zoo

MODEL_CARDS = "model-cards"


def import_zoo(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR…", help="PEFT folders, or folders of them; each name is its task's.")
    ],
    descriptions: Annotated[
        str,
        typer.Option(
            "--descriptions",
            metavar=f"CSV|{MODEL_CARDS}",
            help="Table with the columns task and text or metadata, one row per adapter; or the adapters' README.md.",
        ),
    ],
    out: OutOption,
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Rank of the common layout.", show_default="the largest")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read LoRA adapters that PEFT wrote, of any ranks and targets, into one zoo that a generator is fitted to."""
    check_output_folder(out)
    from wildpdiff.zoo.importing import TaskDescriptions, import_adapters, import_report

    found = adapter_folders(folders)
    read = (
        TaskDescriptions.from_cards(found) if descriptions == MODEL_CARDS else TaskDescriptions.from_csv(descriptions)
    )
    with Stages() as stages:
        zoo = import_adapters(found, read, out, rank=rank, progress=stages(f"import {len(found)} adapters"))
    report = import_report(zoo)
    lost = [entry["lost_energy"] for entry in report.values()]
    ranks = sorted({entry["rank"] for entry in report.values()})
    config = zoo.plan.adapter
    if as_json:
        print_json(
            {
                "zoo": str(out),
                "tasks": len(zoo.tasks),
                "base_model": config.backbone,
                "rank": config.rank,
                "modules": len(config.target_modules),
                "metadata": list(read.schema.names),
                "adapters": report,
                "fingerprint": zoo.plan.fingerprint,
            }
        )
        return
    show(
        f"Zoo in {out}: {len(zoo)} adapters of {config.backbone or 'an unnamed base model'}, of rank "
        f"{', '.join(map(str, ranks))}, in one layout of rank {config.rank} on {len(config.target_modules)} modules. "
        f"Lost energy: {100 * sum(lost) / len(lost):.2g} % on average, at most {100 * max(lost):.2g} %."
    )


def fit_imported_zoo(out: Path, zoo: Zoo, settings: GeneratorConfig, seed: int, as_json: bool) -> None:
    """Fit a generator to an imported zoo, write it and show its errors on held-out tasks."""
    from wildpdiff.imported import fit_imported

    with Stages() as stages:
        found = fit_imported(zoo, settings, seed=seed, progress=stages(f"fit a generator to {len(zoo)} adapters"))
    generator = found.generator
    generator.save_pretrained(out)
    parts = list(generator.conditions.parts)
    if as_json:
        print_json(
            {
                "generator": str(out),
                "fingerprint": generator.fingerprint,
                "parts": parts,
                "trust": False,
                "leave_one_out": dict(found.errors.rows),
                "note": found.errors.note,
                "seconds": round(found.fitted.seconds, 3),
            }
        )
        return
    show(f"Generator in {out}: reads {', '.join(parts)}, fitted in {found.fitted.seconds:.0f} s.")
    show(error_table(found.errors))
    show(found.errors.note)


def error_table(errors: ParameterErrors) -> Table:
    """Errors of the parameters on held-out tasks, by method."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"held-out tasks ({errors.tasks})")
    table.add_column("relative squared error of ΔW", justify="right")
    for method, error in errors.rows.items():
        table.add_row(method, f"{error:.3f}")
    return table
