"""The paper's first question: are generated adapters of one or several seen tasks as good as the trained ones?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wildbench.observers.spread import SpreadObserver
from wildbench.pipeline import RunInputs
from wildbench.run_folder import Tick, kept
from wildbench.studies.paper_method import PAPER_METHOD_ONE_TASK, PAPER_METHOD_SEVERAL_TASKS
from wildbench.studies.paper_rows import PUBLISHED, paper_row
from wildbench.study_sections import PaperRow
from wildpdiff.baselines.constant import FinetunedSource, PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import ResultRow
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.records import encode
from wildpdiff.rng import numpy_generator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet


@dataclass(frozen=True)
class FewTasksStudy:
    """One generator a task, with the ablation of how far apart its checkpoints are; and one for several tasks.

    Attributes:
        tasks: how many seen tasks, each with generators of its own; drawn by the seed.
        checkpoints: of each fine-tuning; the paper has about 3,000 in all.
        intervals: steps between them.
        before: steps before the first of them.
        finetune: everything else about the fine-tuning.
        method: the generator of one task.
        several: how many seen tasks one generator is fitted to together, with the zoo's own checkpoints.
        several_method: that generator.
    """

    tasks: int = 3
    checkpoints: int = 50
    intervals: tuple[int, ...] = (1, 10, 100)
    before: int = 150
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    method: GeneratorConfig = PAPER_METHOD_ONE_TASK
    several: int = 8
    several_method: GeneratorConfig = PAPER_METHOD_SEVERAL_TASKS

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.checkpoints < 2 or not self.intervals:
            raise DataError(
                f"The study of one task has {self.tasks} tasks, {self.checkpoints} checkpoints and "
                f"{len(self.intervals)} intervals; at least 1, 2 and 1 are needed."
            )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        own = {name: getattr(self, name) for name in ("tasks", "checkpoints", "before", "several")}
        return {
            **own,
            "intervals": list(self.intervals),
            "finetune": self.finetune.to_json(),
            "method": encode(self.method),
            "several_method": encode(self.several_method),
        }

    def finetuning(self, interval: int) -> FinetuneConfig:
        """The fine-tuning whose last checkpoints lie so many steps apart."""
        steps = self.before + interval * (self.checkpoints - 1) + 1
        return replace(self.finetune, steps=steps, checkpoints=self.checkpoints, interval=interval)


def run_few_tasks(
    study: FewTasksStudy, out: Path, made: RunInputs, *, seed: int, seeds: int, samples: int, tick: Tick
) -> tuple[PaperRow, ...]:
    """One generator a task, interval and seed, then one a seed for several tasks; all samples are scored.

    Zoos and generators that are already in ``out`` are used again.

    Raises:
        DataError: the suite has fewer seen tasks.
    """
    tasks = made.suite.tasks("seen")
    if len(tasks) < study.tasks:
        raise DataError(f"The suite has {len(tasks)} seen tasks; the study of one task wants {study.tasks}.")
    drawn = numpy_generator(seed, "one task").choice(len(tasks), study.tasks, replace=False)
    chosen = [tasks[index] for index in sorted(int(value) for value in drawn)]
    tests = [test_set(made.backbone, task) for task in chosen]
    total, done = (len(study.intervals) * study.tasks + 1) * seeds, 0
    rows = []
    for interval in study.intervals:
        folder = out / f"interval-{interval:03d}"
        zoo = build_zoo(
            folder / "zoo",
            made.backbone,
            chosen,
            made.suite.fingerprint,
            config=study.finetuning(interval),
            seed=seed,
            features=made.features,
        )
        spread = SpreadObserver(zoo.initial)
        scores: list[ResultRow] = []
        finetuned = FinetunedSource(zoo.task_adapters())
        for test in tests:
            methods = [Method(PretrainedSource(zoo.initial), "none"), Method(finetuned)]
            for number in range(seeds):
                generator = _generator(
                    study.method, folder / test.task, zoo.only([test.task]), made, seed=seed + 1000 * number
                )
                methods.append(Method(generator, "own", seed + 1000 * number))
                done += 1
                tick(done, total)
            found = evaluate(
                made.suite.name,
                {"seen": [test]},
                made.backbone,
                methods,
                samples=samples,
                seed=seed,
                observers=[spread],
            )
            scores += found.rows
        (varied,) = spread.result()
        published = PUBLISHED.get(f"one task, interval {interval}")
        setting = f"one seen task, saving interval {interval}"
        rows.append(paper_row("RQ1", setting, "paper", rows=scores, spread=varied, published=published))
    return (
        *rows,
        _several(study, out / "several", made, seed, seeds=seeds, samples=samples, done=lambda: tick(total, total)),
    )


def _several(
    study: FewTasksStudy, out: Path, made: RunInputs, seed: int, *, seeds: int, samples: int, done: Callable[[], None]
) -> PaperRow:
    """One generator for a handful of seen tasks, distinguished by their description."""
    tasks = made.suite.tasks("seen")
    drawn = numpy_generator(seed, "several tasks").choice(len(tasks), min(study.several, len(tasks)), replace=False)
    names = [tasks[index].name for index in sorted(int(value) for value in drawn)]
    zoo = made.zoo.only(names)
    spread = SpreadObserver(zoo.initial)
    methods = [Method(PretrainedSource(zoo.initial), "none"), Method(FinetunedSource(zoo.task_adapters()))]
    for number in range(seeds):
        generator = _generator(study.several_method, out, zoo, made, seed=seed + 1000 * number)
        methods.append(Method(generator, "own", seed + 1000 * number))
    tests = {"seen": [test_set(made.backbone, task) for task in tasks if task.name in names]}
    found = evaluate(
        made.suite.name, tests, made.backbone, methods, samples=samples, seed=seed, observers=[spread]
    ).rows
    done()
    setting, published = f"{len(names)} seen tasks", PUBLISHED["several tasks"]
    return paper_row("RQ1", setting, "paper", rows=found, spread=spread.result()[0], published=published)


def _generator(config: GeneratorConfig, folder: Path, zoo: Zoo, made: RunInputs, *, seed: int) -> Generator:
    path = folder / f"generator-{seed}"
    wanted = {"config": encode(config), "seed": seed, "zoo": zoo.plan.fingerprint}
    found = kept(
        lambda: Generator.from_pretrained(path, made.backbone),
        lambda generator: all(generator.training.get(name) == value for name, value in wanted.items()),
    )
    if found is None:
        fitted = fit_generator(TrainingSet.of(made.suite, made.backbone, zoo), config, seed=seed)
        fitted.generator.save_pretrained(path)
        found = Generator.from_pretrained(path, made.backbone)
    return found
