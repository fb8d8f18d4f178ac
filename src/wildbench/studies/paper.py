"""The paper's experiments, repeated: one and several seen tasks, what lies between two, and unseen tasks.

Zhang, Liu and Guan 2025, "Reimagining Parameter Space Exploration with Diffusion Models", arXiv 2506.17807. Its own
method (:data:`wildbench.studies.paper_method.PAPER_METHOD`) and this package's are compared on the same adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wildbench.interpolation.interpolation import choose_pairs, description_similarity, gainful_tasks, interpolate
from wildbench.methods.renamed import RenamedSource
from wildbench.pipeline import PipelineConfig, RunInputs, prepare
from wildbench.run_folder import Reporter, RunFolder, Tick, kept, null_progress
from wildbench.sections import INTERPOLATION, PAPER
from wildbench.studies.few_tasks import FewTasksStudy, run_few_tasks
from wildbench.studies.paper_method import PAPER_METHOD
from wildbench.studies.paper_rows import PAPER_SOURCE, comparison_rows
from wildbench.study_sections import Interpolation, PaperRow
from wildpdiff.evaluate.comparison import Comparison, compare_sources, seen_material
from wildpdiff.evaluate.results import Results, SourceInfo, provenance, read_results, write_results
from wildpdiff.evaluate.run import Method
from wildpdiff.evaluate.score import test_set
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.records import encode
from wildpdiff.report.page import write_report
from wildpdiff.zoo.training_set import TrainingSet


def _pipeline() -> PipelineConfig:
    # More test images than a demo's: a share of a gain is a noisy thing, and interpolation needs one a pair.
    return PipelineConfig(suite_options={"test": 500}, generator_seeds=3, seen_tasks=40, trust=False)


@dataclass(frozen=True)
class PaperConfig:
    """Configuration of the run.

    Attributes:
        run: suite, backbone, zoo, this package's generators and their seeds.
        method: the paper's generator for several tasks.
        few_tasks: the paper's first question, and the ablation of the saving interval.
        pairs: most alike and, as many, least alike pairs of tasks, for the second question.
        middle_pairs: pairs between.
        least_gain: what fine-tuning must gain on a task's own training and validation images to be in a pair.
    """

    run: PipelineConfig = field(default_factory=_pipeline)
    method: GeneratorConfig = PAPER_METHOD
    few_tasks: FewTasksStudy = field(default_factory=FewTasksStudy)
    pairs: int = 12
    middle_pairs: int = 12
    least_gain: float = 0.1

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {
            **self.run.to_json(),
            "method": encode(self.method),
            "few_tasks": self.few_tasks.to_json(),
            "pairs": self.pairs,
            "middle_pairs": self.middle_pairs,
            "least_gain": self.least_gain,
        }


@dataclass(frozen=True)
class PaperResult:
    """Files of a run: its folder, everything measured, and the page."""

    folder: Path
    results: Results
    report: Path


def run_paper(config: PaperConfig, out: Path | str, *, command: str, reporter: Reporter = null_progress) -> PaperResult:
    """Every row of the paper's tables, measured. Interrupted and called again, it resumes.

    Args:
        config: of the run.
        out: folder of the run; an unfinished run of the same configuration in it is finished.
        command: what the user typed, for the record.
        reporter: is descriptions of every stage and its progress.

    Raises:
        ArtifactError: the folder holds something else, or the disk is full.
        DataError: too few tasks for the pairs.
        WildpdiffError: whatever a stage raises.
    """
    folder = RunFolder(Path(out), reporter)
    folder.claim(config.to_json())
    path = folder.folder / "results.json"
    if path.is_file():
        results = read_results(path)
    else:
        results = _measure(config, folder, command)
        write_results(path, results)
    page = folder.timed("report", lambda tick: write_report(results, folder.folder).page)
    return PaperResult(folder.folder, results, page)


def _measure(config: PaperConfig, folder: RunFolder, command: str) -> Results:
    run, made = config.run, prepare(config.run, folder)
    own = [
        folder.timed(
            f"fit the paper's generator {number + 1} of {run.generator_seeds}",
            lambda tick, number=number: _paper_generator(config, folder.folder, made, number, tick=tick),  # type: ignore[misc]
        )
        for number in range(run.generator_seeds)
    ]
    single = folder.timed(
        "one and several seen tasks",
        lambda tick: run_few_tasks(
            config.few_tasks,
            folder.folder / "few-tasks",
            made,
            seed=run.seed,
            seeds=run.generator_seeds,
            samples=run.samples,
            tick=tick,
        ),
    )
    interpolation = folder.timed("between two tasks", lambda tick: _interpolation(config, made, made.generators, tick))
    further = [
        (Method(RenamedSource(generator, PAPER_SOURCE), "own", int(generator.training["seed"])), PAPER_INFO)
        for generator in own
    ]
    comparison = Comparison(
        made.suite,
        made.backbone,
        made.zoo,
        made.reference,
        made.generators,
        run.suite_options,
        made.features,
        seen_tasks=run.seen_tasks,
        further=further,
    )
    results: Results = folder.timed(
        "evaluate",
        lambda tick: compare_sources(
            comparison, made=provenance(command, run.seed), samples=run.samples, stages=folder.stages, progress=tick
        ),
    )
    rows: tuple[PaperRow, ...] = (*single, *comparison_rows(results, len(made.zoo.tasks)))
    results = PAPER.added_to(replace(results, stages=folder.stages), rows)
    return results if interpolation is None else INTERPOLATION.added_to(results, interpolation)


PAPER_INFO = SourceInfo(PAPER_SOURCE, "description", None, "the paper's autoencoder, denoiser and condition")


def _paper_generator(config: PaperConfig, out: Path, made: RunInputs, number: int, *, tick: Tick) -> Generator:
    path = out / f"paper-generator-{number}"
    seed = config.run.seed + 1000 * number
    wanted = {"config": encode(config.method), "seed": seed, "zoo": made.zoo.plan.fingerprint}
    found = kept(
        lambda: Generator.from_pretrained(path, made.backbone),
        lambda generator: all(generator.training.get(name) == value for name, value in wanted.items()),
    )
    if found is None:
        training_set = TrainingSet.of(made.suite, made.backbone, made.zoo)
        fitted = fit_generator(training_set, config.method, seed=seed, progress=tick)
        fitted.generator.save_pretrained(path)
        found = Generator.from_pretrained(path, made.backbone)
    return found


def _interpolation(config: PaperConfig, made: RunInputs, generators: Sequence[Generator], tick: Tick) -> Interpolation:
    """Pairs of tasks with a gain to keep, the likest, the least alike and some between."""
    run = config.run
    seen = seen_material(
        made.suite, made.backbone, made.zoo, generator=generators[0], features=made.features, seed=run.seed
    )
    similarity = description_similarity(generators[0], seen.embeddings)
    pairs = choose_pairs(
        similarity, gainful_tasks(seen, config.least_gain), config.pairs, middle=config.middle_pairs, seed=run.seed
    )
    needed = {made.zoo.tasks[index] for pair in pairs for index in (pair.first, pair.second)}
    tests = {task.name: test_set(made.backbone, task) for task in made.suite.tasks("seen") if task.name in needed}
    return interpolate(generators, seen, tests, pairs, seed=run.seed, progress=tick)
