"""The paper's first question: can the adapter of one seen task be generated as well as it was trained?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wildpdiff.baselines.finetuned import FinetunedSource
from wildpdiff.baselines.pretrained import PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import ResultRow
from wildpdiff.evaluate.run import Entrant, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.evaluate.sections import PaperRow
from wildpdiff.evaluate.spread import SpreadObserver
from wildpdiff.fit import PAPER_METHOD_ONE_TASK, GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.pipeline import Prepared
from wildpdiff.rng import numpy_generator
from wildpdiff.run_folder import Tick
from wildpdiff.studies.paper_rows import paper_row
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.finetune import FinetuneConfig
from wildpdiff.zoo.store import Zoo

__all__ = ["OneTaskStudy", "run_one_task"]


@dataclass(frozen=True)
class OneTaskStudy:
    """One generator a task, and the ablation of how far apart its checkpoints are.

    Attributes:
        tasks: how many seen tasks, each with generators of its own; drawn by the seed.
        checkpoints: of each fine-tuning; the paper has some hundreds.
        intervals: steps between them.
        before: steps before the first of them.
        finetune: everything else about the fine-tuning.
        method: the generator.
    """

    tasks: int = 3
    checkpoints: int = 50
    intervals: tuple[int, ...] = (1, 10, 100)
    before: int = 150
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    method: GeneratorConfig = PAPER_METHOD_ONE_TASK

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.checkpoints < 2 or not self.intervals:
            raise DataError(
                f"The study of one task has {self.tasks} tasks, {self.checkpoints} checkpoints and "
                f"{len(self.intervals)} intervals; at least 1, 2 and 1 are needed."
            )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        own = {name: getattr(self, name) for name in ("tasks", "checkpoints", "before")}
        return {
            **own,
            "intervals": list(self.intervals),
            "finetune": self.finetune.to_json(),
            "method": self.method.to_json(),
        }

    def finetuning(self, interval: int) -> FinetuneConfig:
        """The fine-tuning whose last checkpoints lie so many steps apart."""
        steps = self.before + interval * (self.checkpoints - 1) + 1
        return replace(self.finetune, steps=steps, checkpoints=self.checkpoints, interval=interval)


def run_one_task(
    study: OneTaskStudy, out: Path, made: Prepared, seed: int, seeds: int, samples: int, tick: Tick
) -> tuple[PaperRow, ...]:
    """Fine-tune, fit one generator a task, interval and seed, and score all samples; one row an interval.

    Zoos and generators that are already in ``out`` are used again.

    Raises:
        DataError: the suite has fewer seen tasks.
    """
    tasks = made.suite.tasks("seen")
    if len(tasks) < study.tasks:
        raise DataError(f"The suite has {len(tasks)} seen tasks; the study of one task wants {study.tasks}.")
    drawn = numpy_generator(seed, "one task").choice(len(tasks), study.tasks, replace=False)
    chosen = [tasks[place] for place in sorted(int(value) for value in drawn)]
    tests = [test_set(made.backbone, task) for task in chosen]
    total, done = len(study.intervals) * study.tasks * seeds, 0
    rows = []
    for interval in study.intervals:
        folder = out / f"interval-{interval:03d}"
        zoo = build_zoo(
            folder / "zoo",
            made.backbone,
            chosen,
            made.suite.fingerprint,
            study.finetuning(interval),
            seed=seed,
            features=made.features,
        )
        spread = SpreadObserver(zoo.initial)
        scores: list[ResultRow] = []
        finetuned = FinetunedSource(zoo.final_adapters())
        for test in tests:
            entrants = [Entrant(PretrainedSource(zoo.initial), "none"), Entrant(finetuned)]
            for number in range(seeds):
                generator = _generator(study, folder, zoo.only([test.task]), made, seed + 1000 * number)
                entrants.append(Entrant(generator, "own", seed + 1000 * number))
                done += 1
                tick(done, total)
            found = evaluate(
                made.suite.name,
                {"seen": [test]},
                made.backbone,
                entrants,
                samples=samples,
                seed=seed,
                observers=[spread],
            )
            scores += found.rows
        (varied,) = spread.result()
        rows.append(paper_row("RQ1", f"one seen task, saving interval {interval}", "paper", scores, varied))
    return tuple(rows)


def _generator(study: OneTaskStudy, folder: Path, zoo: Zoo, made: Prepared, seed: int) -> Generator:
    (name,) = zoo.tasks
    path = folder / f"generator-{name}-{seed}"
    if not path.is_dir():
        told = {task.name: task.description for task in made.suite.tasks("seen") if task.name == name}
        fitted = fit_generator(zoo, told, made.suite.metadata_schema, made.backbone, study.method, seed=seed)
        fitted.generator.save_pretrained(path)
    return Generator.from_pretrained(path, made.backbone)
