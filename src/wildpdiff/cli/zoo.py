"""``wildpdiff zoo``: fine-tune many tasks and keep their checkpoints, or import adapters made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import adapter_folders, check_output_folder
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, remark
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.tasks.metric import Metric
    from wildpdiff.zoo.recipe import ChosenRecipe
    from wildpdiff.zoo.steps import FinetuneConfig
    from wildpdiff.zoo.store import Zoo

app = typer.Typer(help="Zoos of fine-tuned adapters: build one, or import adapters.", rich_markup_mode=None)

MODEL_CARDS = "model-cards"


@app.command("build")
def build(
    out: options.OutOption,
    suite: options.SuitesOption = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    backbone: options.ModelOption = "savanna-cnn",
    lora: options.LoraOption = None,
    rank: options.RankOption = None,
    alpha: options.AlphaOption = None,
    targets: options.TargetsOption = None,
    layers: options.LayersOption = None,
    group: Annotated[
        Literal["seen", "unseen"], typer.Option(help="Tasks to fine-tune; unseen: for comparison only.")
    ] = "seen",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="auto|bundled|ZOO",
            help="How to fine-tune: chosen on a few seen tasks (the default; unseen ones have no part in it), the "
            "bundled recipe (the default with any of the next five options), or that of the zoo in a folder.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps per task.")] = None,
    checkpoints: Annotated[int | None, typer.Option(min=1, help="Checkpoints kept per task.")] = None,
    interval: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the learning rate.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples per step and task.")] = None,
    tasks_per_shard: Annotated[int, typer.Option(min=1, help="Tasks fine-tuned and stored together.")] = 20,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace a zoo of other settings or of tasks whose data has changed.")
    ] = False,
    engine: Annotated[
        Literal["processes", "serial", "ray"],
        typer.Option(help="Where shards are fine-tuned: processes of this machine, or a Ray cluster."),
    ] = "processes",
    address: Annotated[
        str, typer.Option(help="Address of the Ray cluster, HOST:PORT; local starts one on this machine.")
    ] = "local",
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Fine-tune one adapter per task. After an interruption, the same command resumes.

    With more tasks than the zoo has, the others are added; files of the zoo are not changed.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildpdiff.backbones.registry import is_stored, save_backbone, stored_kind
    from wildpdiff.engine import ENGINES, RayEngine
    from wildpdiff.tasks.task import learned_fingerprint
    from wildpdiff.zoo.build import build_zoo, zoo_recipe
    from wildpdiff.zoo.recipe import drawn_tasks

    settings: dict[str, Any] = {
        "steps": steps,
        "checkpoints": checkpoints,
        "interval": interval,
        "learning_rate": learning_rate,
        "batch": batch,
    }
    if address != "local" and engine != "ray":
        raise DataError(f"--address {address} is that of a Ray cluster. Give --engine ray with it.")
    config = _given(recipe, {name: value for name, value in settings.items() if value is not None})
    settings = options.lora_settings(lora, rank, alpha, targets, layers=layers)
    option = options.with_columns(option, columns)
    loaded = options.open_model(backbone, settings, lambda: options.open_suite(suite, option, remarks="none"))
    opened = options.open_suite(suite, option, loaded, remarks="all")
    kept = None if is_stored(backbone) and not settings else out.absolute().with_name(f"{out.absolute().name}-backbone")
    tasks, fingerprint = options.tasks_of(opened, group), learned_fingerprint(opened, group)
    resumed = len(list((out / "shards").glob("shard-*.safetensors")))
    if group == "seen" and len(tasks) == 1 and not opened.metadata_schema.fields:
        remark(f"{tasks[0].name} is the only seen task and has no metadata: a generator learns from two on.")
    if (out / "plan.json").is_file():
        remark(f"{out} holds a zoo of {resumed} finished shards: resuming.")
    with Stages() as stages:
        if config is None:
            seen = opened.tasks("seen")
            tick = stages(f"choose the recipe on {len(drawn_tasks(task.name for task in seen))} seen tasks")
            config = zoo_recipe(out, loaded, seen, fingerprint, seed=seed, per_shard=tasks_per_shard, progress=tick)
        tick = stages(f"fine-tune {len(tasks)} {group} tasks")
        runs = RayEngine(address, threads) if engine == "ray" else ENGINES[engine]()
        sizes: dict[str, Any] = {"seed": seed, "per_shard": tasks_per_shard}
        zoo = build_zoo(
            out, loaded, tasks, fingerprint, config=config, **sizes, engine=runs, progress=tick, rebuild=rebuild
        )
    if kept is not None:  # only now: a refused build leaves that of an earlier one as it is
        save_backbone(loaded, kept)
        name = str(kept) if stored_kind(loaded) is not None else f"{loaded.name}={kept}"
        remark(f"The backbone is in {kept}: give --backbone {name} from here on.")
    _report(out, zoo, loaded.objective.metric, resumed, as_json=as_json)


def _report(out: Path, zoo: Zoo, metric: Metric, resumed: int, *, as_json: bool) -> None:
    """Show a zoo that is built, of which so many shards were there before."""
    accuracies = zoo.column("validation_accuracy")
    mean = sum(accuracies) / len(accuracies)
    remarks = list((zoo.plan.recipe or {}).get("remarks", []))
    for text in remarks:
        remark(text)
    values = {
        "zoo": str(out),
        "tasks": len(zoo.tasks),
        "checkpoints": len(zoo),
        "resumed_shards": resumed,
        "validation_accuracy": mean,
        "finetune": dict(zoo.plan.finetune),
        "remarks": remarks,
        "fingerprint": zoo.plan.fingerprint,
    }
    scored = f"{metric.name} {metric.scale * mean:.{1 if metric.unit == '%' else 3}f} {metric.unit}".strip()
    done = f"Zoo in {out}: {len(zoo)} checkpoints of {len(zoo.tasks)} tasks, validation {scored}"
    answer(as_json, values, f"{done} on average; {_words(zoo)}.")


def _given(recipe: str | None, settings: Mapping[str, Any]) -> FinetuneConfig | ChosenRecipe | None:
    """The fine-tuning that the options name; None where it is to be chosen.

    Raises:
        DataError: settings and a recipe that leaves none open.
    """
    from wildpdiff.zoo.build import recipe_of
    from wildpdiff.zoo.steps import FinetuneConfig
    from wildpdiff.zoo.store import Zoo

    if recipe is None:
        recipe = "bundled" if settings else "auto"
    if recipe == "bundled":
        return FinetuneConfig(**settings)
    if settings:
        name = next(iter(settings)).replace("_", "-")
        raise DataError(f"--recipe {recipe} decides --{name} too. Leave one of them out, or give --recipe bundled.")
    return None if recipe == "auto" else recipe_of(Zoo.open(Path(recipe)).plan)


def _words(zoo: Zoo) -> str:
    """The fine-tuning's settings, as the end of a sentence."""
    config, recipe = zoo.plan.finetune, zoo.plan.recipe
    settings = f"{config['steps']} steps, learning rate {config['learning_rate']:g}"
    if config["shrinkage"]:
        settings += f", shrinkage {config['shrinkage']:g}"
    return settings if recipe is None else f"{settings}, chosen on {len(recipe['tasks'])} seen tasks"


@app.command("import", short_help="Read LoRA adapters that PEFT wrote into a zoo.")
def import_zoo(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="PEFT folders, or folders of them; each name is its task's.")
    ],
    descriptions: Annotated[
        str,
        typer.Option(
            "--descriptions",
            metavar=f"CSV|{MODEL_CARDS}",
            help="Table with the columns task and text or metadata, one row per adapter; or the adapters' README.md.",
        ),
    ],
    out: options.OutOption,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of the common layout.", show_default="the largest")
    ] = None,
    as_json: options.JsonOption = False,
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
    for text in read.remarks:
        remark(text)
    unused = [name for name in read.by_task if name not in report]
    if unused:
        remark(
            f"{len(unused)} descriptions are of no adapter, for example that of task {unused[0]!r}; they are unused."
        )
    lost = [entry["lost_energy"] for entry in report.values()]
    ranks = sorted({entry["rank"] for entry in report.values()})
    config = zoo.plan.adapter
    values = {
        "zoo": str(out),
        "tasks": len(zoo.tasks),
        "base_model": config.backbone,
        "rank": config.rank,
        "modules": len(config.target_modules),
        "metadata": list(TaskDescriptions.of_zoo(zoo).schema.names),
        "adapters": report,
        "fingerprint": zoo.plan.fingerprint,
    }
    answer(
        as_json,
        values,
        f"Zoo in {out}: {len(zoo)} adapters of {config.backbone or 'an unnamed base model'}, of rank "
        f"{', '.join(map(str, ranks))}, in one layout of rank {config.rank} on {len(config.target_modules)} modules. "
        f"Lost energy: {100 * sum(lost) / len(lost):.2g} % on average, at most {100 * max(lost):.2g} %.",
    )
