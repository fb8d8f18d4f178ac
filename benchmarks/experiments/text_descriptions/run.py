"""Sentences against the metadata that they were written from, on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/text_descriptions/run.py --zoo ZOO --suite-seed 0 --out results.json [--only NAME …]

Each variant of ``experiment.json`` is what two regressions read: they are fitted on the zoo without one fold of its
tasks and scored on the validation images of that fold. Needs the extra ``text``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.zoo.store import Zoo

HERE = Path(__file__).parent
SOURCES: dict[str, Any] = {source.name: source for source in (KernelRegressionSource, AdditiveKernelSource)}


def relative_error(source: Any, parts: list[str]) -> float:
    """Squared leave-one-out error over that of the mean adapter, for the regression that reads just these parts."""
    if isinstance(source, KernelRegressionSource):
        return next(choice.relative_error for choice in source.choices if set(choice.parts) == set(parts))
    return float(source.mean.relative_error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", required=True)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    backbone, suite = load_backbone("savanna-cnn"), load_suite("savanna", seed=arguments.suite_seed)
    zoo = Zoo.open(arguments.zoo)
    tasks = {task.name: task for task in suite.tasks("seen")}
    descriptions = {name: tasks[name].description for name in zoo.tasks}
    folds = [list(zoo.tasks)[number :: settings["folds"]] for number in range(settings["use"])]
    tests, pretrained, finetuned = {}, {}, {}
    adapters = zoo.task_adapters()
    for name in [name for fold in folds for name in fold]:
        data = tasks[name].data("validation")
        tests[name] = TestSet(name, descriptions[name], backbone.batch(data))
        pretrained[name] = mean_scores(backbone, tests[name], [zoo.initial])[0]
        finetuned[name] = mean_scores(backbone, tests[name], [adapters[name]])[0]
    base = float(np.mean(list(pretrained.values())))
    gap = float(np.mean(list(finetuned.values()))) - base
    report: dict[str, Any] = {"pretrained": base, "fine-tuned": base + gap}
    for variant in arguments.only or settings["variants"]:
        chosen = settings["variants"][variant]
        for source_name, kind in SOURCES.items():
            started = time.perf_counter()
            scores, errors = [], []
            for fold in folds:
                rest = [name for name in zoo.tasks if name not in fold]
                train_descriptions = [descriptions[name] for name in rest]
                encoder = fit_fusion(
                    train_descriptions,
                    suite.metadata_schema,
                    backbone.image_features,
                    chosen["parts"],
                    components=chosen["components"],
                    whiten=settings["whiten"],
                )
                source = kind(encoder, train_descriptions, [adapters[name] for name in rest])
                errors.append(relative_error(source, chosen["parts"]))
                for name in fold:
                    adapter = source.sample(descriptions[name], 1, 0)[0]
                    scores.append(mean_scores(backbone, tests[name], [adapter])[0])
            found = {
                "leave_one_out": float(np.mean(errors)),
                "accuracy": float(np.mean(scores)),
                "recovered_gain": (float(np.mean(scores)) - base) / gap,
                "seconds": time.perf_counter() - started,
            }
            report[f"{variant}: {source_name}"] = found
            print(f"{variant}: {source_name}", {key: round(value, 3) for key, value in found.items()}, flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
