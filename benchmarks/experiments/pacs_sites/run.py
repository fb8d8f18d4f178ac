"""The whole job on real images: sites made of PACS, a backbone, adapters, generators, table and page.

    python benchmarks/experiments/pacs_sites/run.py --pacs PACS --table conservision_site_label.csv --out runs/pacs

Settings are in ``experiment.json``. Stopped and started again with the same options, it resumes. The
settings of fine-tuning were chosen on the validation images of seen sites.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_sites

from wildbench.pipeline import PipelineConfig, run_pipeline
from wildbench.run_folder import RunFolder
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.cli.terminal import Stages, prepare_torch, show
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError, WildpdiffError
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.report.terminal import results_table
from wildpdiff.zoo.steps import FinetuneConfig

HERE = Path(__file__).parent
NESTED = {
    "autoencoder_config": AutoencoderConfig,
    "diffusion": DiffusionConfig,
    "task_loss": TaskLossConfig,
    "sampling": Sampling,
}
NOT_METADATA = ("domain",)
"""A site's style is to be found in its images: as metadata it would be given away."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pacs", type=Path, required=True, help="a local copy of PACS: DOMAIN/CLASS/*.jpg")
    parser.add_argument("--table", type=Path, required=True, help="CSV with the columns site and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=("full", "smoke"), default="full")
    parser.add_argument("--threads", type=int)
    return parser.parse_args(arguments)


def generator_config(values: dict[str, Any]) -> GeneratorConfig:
    nested = {name: kind(**values[name]) for name, kind in NESTED.items() if name in values}
    return replace(GeneratorConfig(), **{**values, "parts": tuple(values["parts"]), **nested})


def claim(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Refuse to mix two jobs in one folder: sites and backbone are taken as found there."""
    path = options.out / "job.json"
    wanted = {"seed": options.seed, **{name: settings[name] for name in ("image_size", "cut", "rank", "sites")}}
    if not path.is_file():
        write_file(path, json_bytes(wanted))
    elif read_json(path) != wanted:
        raise ArtifactError(f"{options.out} holds a job with other sites or another backbone. Choose another --out.")


def make_table(options: argparse.Namespace, sizes: dict[str, int]) -> Path:
    """The table of sites, once; ``meta.json``, written last, marks it complete."""
    folder: Path = options.out / "sites"
    if not (folder / "meta.json").is_file():
        paths = {"pacs": options.pacs, "table": options.table, "out": folder, "seed": options.seed}
        make_sites.main([f"--{name}={value}" for name, value in {**paths, **sizes}.items()])
    return folder / "sites.csv"


def make_backbone(folder: Path, table: Path, suite_options: dict[str, Any], settings: dict[str, Any]) -> None:
    """EfficientNet-Lite0 with a classifier fitted to the pretraining tasks, once."""
    if folder.is_dir():
        return
    suite = load_suite(table, image_size=settings["image_size"], classes=make_sites.CLASSES, **suite_options)
    backbone = efficientnet_lite0(
        suite.classes, settings["cut"], image_size=settings["image_size"], rank=settings["rank"]
    )
    save_backbone(fit_head(backbone, suite.tasks("pretraining")), folder)


def run(options: argparse.Namespace, settings: dict[str, Any], command: str) -> None:
    claim(options, settings)
    started = time.perf_counter()
    with Stages() as stages:
        stages("make sites")
        table = make_table(options, settings["sites"])
        suite_options = {"root": str(options.pacs), "ignore": list(NOT_METADATA)}
        stages("fit the backbone's classifier")
        make_backbone(options.out / "backbone", table, suite_options, settings)
        prepared = time.perf_counter() - started
        config = PipelineConfig(
            suite=str(table),
            suite_options=suite_options,
            backbone=str(options.out / "backbone"),
            seed=options.seed,
            finetune=FinetuneConfig(**settings["finetune"]),
            per_shard=settings["per_shard"],
            generator=generator_config(settings["generator"]),
            generator_seeds=settings["generator_seeds"],
            samples=settings["samples"],
        )
        result = run_pipeline(config, options.out / "run", command=command, reporter=stages)
    backbone = load_backbone(options.out / "backbone")
    show(results_table(result.results))
    show(f"\nBackbone: {backbone.name}, {result.results.backbone.adapter_parameters} parameters an adapter")
    show(f"Seconds: {prepared:.0f} sites and backbone, {time.perf_counter() - started:.0f} this call in all")
    for stage in RunFolder(options.out / "run").stages:
        show(f"  {stage.seconds:8.1f}  {stage.name}")
    show(f"Report: {result.report}")


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/experiments/pacs_sites/run.py", *given])
    prepare_torch(options.threads)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))[options.size]
    try:
        run(options, settings, command)
    except WildpdiffError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
