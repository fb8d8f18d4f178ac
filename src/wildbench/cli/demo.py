"""``wildpdiff demo``: everything once, on the simulated camera traps."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import BackboneOption, JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, remark, show

if TYPE_CHECKING:
    from wildbench.pipeline import PipelineConfig

Size = Literal["default", "tiny"]
SEEN_TASKS = 20
"""Seen sites that are scored; scoring all of them took as long as fitting and calibrating the generator."""
PICTURES = 6
PICTURE_QUALITY = 95


def demo(
    seed: SeedOption = 0,
    out: OutOption = Path("runs/demo"),
    size: Annotated[Size, typer.Option("--size", help="tiny: a minute, a smoke test.")] = "default",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of generators, each of another seed.")] = 1,
    seen: Annotated[
        int | None, typer.Option("--seen", min=2, help="Number of seen sites; fewer take less time and teach less.")
    ] = None,
    backbone: BackboneOption = "savanna-cnn",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run everything on simulated camera traps: fine-tune, fit a generator, generate for unseen sites, compare.

    After an interruption, the same command resumes.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildbench.pipeline import run_pipeline
    from wildpdiff.records import encode
    from wildpdiff.report.terminal import results_table

    config = _config(size, seed, seeds, backbone)
    if seen is not None:
        config = replace(config, suite_options={**config.suite_options, "seen": seen})
    remark(
        "A simulated network of camera traps: a small classifier is fine-tuned at every seen site, a generator learns "
        "to map the description of a site to its adapter, and is tested on sites it has never seen."
    )
    with Stages() as stages:
        result = run_pipeline(config, out, command=recorded_command(), reporter=stages)
    pictures = _pictures(config, out / "images")
    needed = [] if backbone == "savanna-cnn" else ["--backbone", backbone]
    try_next = shlex.join(["wildpdiff", "predict", str(result.adapters[0]), str(pictures), *needed])
    if as_json:
        print_json(
            {
                "folder": str(out),
                "adapters": [str(path) for path in result.adapters],
                "images": str(pictures),
                "results": str(out / "results.json"),
                "report": str(result.report),
                "next": try_next,
                "summary": encode(result.results.summary),
            }
        )
        return
    show(results_table(result.results))
    show(f"\n{len(result.adapters)} generated adapters: {result.adapters[0].parent}")
    show(f"Report: {result.report}")
    show(f"Try next: {try_next}")


def _config(size: Size, seed: int, seeds: int, backbone: str) -> PipelineConfig:
    from wildbench.pipeline import PipelineConfig
    from wildbench.presets import tiny_finetune, tiny_generator, tiny_run
    from wildpdiff.autoencoder.fit import AutoencoderConfig

    if size == "default":
        return PipelineConfig(seed=seed, backbone=backbone, generator_seeds=seeds, seen_tasks=SEEN_TASKS)
    generator = tiny_generator(AutoencoderConfig(latent_size=8))
    return tiny_run(tiny_finetune(12), generator, backbone=backbone, seed=seed, generator_seeds=seeds)


def _pictures(config: PipelineConfig, folder: Path) -> Path:
    """A handful of test images of the first unseen site as files, so that the suggested command works."""
    from PIL import Image

    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.camera_traps.registry import load_suite
    from wildpdiff.disk import write_file

    suite = load_suite(
        config.suite, seed=config.seed, image_size=load_backbone(config.backbone).image_size, **config.suite_options
    )
    task = suite.tasks("unseen")[0]
    target = folder / task.name
    for number, image in enumerate(task.data("test").images[:PICTURES]):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=PICTURE_QUALITY, subsampling=0)
        path = target / f"{task.name}-{number}.jpg"
        if not path.is_file() or path.read_bytes() != stream.getvalue():  # missing, or cut
            write_file(path, stream.getvalue())
    return target
