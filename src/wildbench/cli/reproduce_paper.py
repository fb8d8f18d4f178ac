"""``wildpdiff reproduce paper``: the paper's questions on the simulated camera traps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import BackboneOption, JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show

if TYPE_CHECKING:
    from wildbench.studies.paper import PaperConfig

Size = Literal["default", "tiny"]


def paper(
    seed: SeedOption = 0,
    out: OutOption = Path("runs/paper"),
    size: Annotated[Size, typer.Option("--size", help="tiny: a minute, a smoke test.")] = "default",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of generators of each kind.")] = 3,
    backbone: BackboneOption = "savanna-cnn",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repeat the paper's experiments: one and several seen tasks, what lies between two, unseen tasks.

    The paper's method and this package's appear next to each other, with the paper's own numbers. After an
    interruption, the same command resumes.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildbench.report.paper_terminal import paper_table
    from wildbench.sections import PAPER
    from wildbench.studies.paper import run_paper
    from wildpdiff.records import encode

    with Stages() as stages:
        result = run_paper(_config(size, seed, seeds, backbone), out, command=recorded_command(), reporter=stages)
    if as_json:
        print_json(
            {
                "results": str(out / "results.json"),
                "report": str(result.report),
                "paper": encode(PAPER.of(result.results) or ()),
            }
        )
        return
    show(paper_table(result.results))
    show(f"\nResults: {out / 'results.json'}\nReport: {result.report}")


def _config(size: Size, seed: int, seeds: int, backbone: str) -> PaperConfig:
    from dataclasses import replace

    from wildbench.studies.paper import PaperConfig

    config = PaperConfig()
    if size == "tiny":
        return _tiny(seed, seeds, backbone)
    return replace(config, run=replace(config.run, seed=seed, generator_seeds=seeds, backbone=backbone))


def _tiny(seed: int, seeds: int, backbone: str) -> PaperConfig:
    from dataclasses import replace

    from wildbench.presets import LATENTS, tiny_finetune, tiny_generator, tiny_run
    from wildbench.studies.few_tasks import FewTasksStudy
    from wildbench.studies.paper import PaperConfig
    from wildbench.studies.paper_method import PAPER_METHOD, PAPER_METHOD_ONE_TASK

    finetune = tiny_finetune(30)
    settings = {"backbone": backbone, "seed": seed, "generator_seeds": seeds, "seen_tasks": 6}
    small = replace(PAPER_METHOD.diffusion, steps=30, batch=16)
    method = replace(PAPER_METHOD, components=4, autoencoder_config=LATENTS, diffusion=small)
    return PaperConfig(
        run=tiny_run(finetune, tiny_generator(), **settings),
        method=method,
        few_tasks=FewTasksStudy(
            tasks=2,
            checkpoints=4,
            intervals=(1, 10),
            before=10,
            finetune=finetune,
            method=replace(PAPER_METHOD_ONE_TASK, autoencoder_config=LATENTS, diffusion=small),
            several=3,
            several_method=method,
        ),
        pairs=2,
        middle_pairs=2,
        least_gain=-1.0,
    )
