"""Comparison of codecs, autoencoders, denoisers and trainings on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/generator_design/run.py --zoo ZOO --suite-seed 0 --out results.json [--only NAME …]

Each variant of ``experiment.json`` is fitted on the zoo without one fold of its tasks and scored on the validation
images of that fold, as the mean over all samples. Kernel ridge regression on the same folds is scored next to it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

HERE = Path(__file__).parent
BASELINES: dict[str, Any] = {source.name: source for source in (KernelRegressionSource, AdditiveKernelSource)}


def variant_config(changes: dict[str, Any]) -> GeneratorConfig:
    parts = {
        "diffusion": DiffusionConfig,
        "autoencoder_config": AutoencoderConfig,
        "sampling": Sampling,
        "task_loss": TaskLossConfig,
    }
    base = GeneratorConfig()
    nested = {name: replace(getattr(base, name), **changes.pop(name)) for name in parts if name in changes}
    return replace(base, **changes, **nested)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True)
    parser.add_argument("--backbone", default="savanna-cnn")
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--use", type=int, default=2, help="how many of the folds are run")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    backbone = load_backbone(arguments.backbone)
    suite = load_suite("savanna", seed=arguments.suite_seed)
    zoo = Zoo.open(arguments.zoo)
    tasks = {task.name: task for task in suite.tasks("seen")}
    features = FeatureCache(backbone, suite.tasks("seen"))
    tests = {}
    for name in zoo.tasks:
        found = features(name)
        tests[name] = TestSet(name, tasks[name].description, found.validation)
    descriptions = {name: task.description for name, task in tasks.items()}
    finals = zoo.task_adapters()
    initial = zoo.initial
    pretrained = {n: mean_scores(backbone, tests[n], [initial])[0] for n in zoo.tasks}
    finetuned = {n: mean_scores(backbone, tests[n], [finals[n]])[0] for n in zoo.tasks}
    variants = json.loads((HERE / "experiment.json").read_text())["variants"]
    chosen = arguments.only or list(variants)
    folds = [list(zoo.tasks)[i :: arguments.folds] for i in range(arguments.use)]
    report: dict[str, Any] = {}

    def gain(values: dict[str, float]) -> float:
        names = list(values)
        base = np.mean([pretrained[n] for n in names])
        return float((np.mean(list(values.values())) - base) / (np.mean([finetuned[n] for n in names]) - base))

    for name in [*BASELINES, *chosen]:
        held: dict[str, float] = {}
        seen_gap: list[float] = []
        seconds = 0.0
        for number, fold in enumerate(folds):
            rest = [n for n in zoo.tasks if n not in fold]
            part = zoo.only(rest)
            started = time.perf_counter()
            if name in BASELINES:
                train_descriptions = [descriptions[n] for n in rest]
                encoder = fit_fusion(
                    train_descriptions, suite.metadata_schema, backbone.image_features, components=8, whiten=False
                )
                source: Any = BASELINES[name](encoder, train_descriptions, list(part.task_adapters().values()))
            else:
                config = variant_config(json.loads(json.dumps(variants[name])))
                source = fit_generator(TrainingSet.of(suite, backbone, part, features), config, seed=number).generator
            seconds += time.perf_counter() - started
            count = arguments.samples if source.stochastic else 1
            for n in fold:
                held[n] = float(np.mean(mean_scores(backbone, tests[n], source.sample(descriptions[n], count, 0))))
            for n in rest[:: max(1, len(rest) // 12)]:
                score = np.mean(mean_scores(backbone, tests[n], source.sample(descriptions[n], count, 0)))
                seen_gap.append(float(score) - finetuned[n])
        report[name] = {"recovered_gain": gain(held), "accuracy": float(np.mean(list(held.values()))),
                        "seen_minus_finetuned": float(np.mean(seen_gap)), "seconds": seconds / len(folds)}  # fmt: skip
        print(name, {k: round(v, 4) for k, v in report[name].items()}, flush=True)
        if arguments.out:
            Path(arguments.out).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
