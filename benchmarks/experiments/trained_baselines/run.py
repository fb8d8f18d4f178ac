"""Accuracy of networks trained on all seen tasks, measured on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/trained_baselines/run.py --zoo ZOO --suite-seed 0 --out results.json [--only NAME …]

Each variant of ``experiment.json`` is trained without one fold of the seen tasks and scored on the validation images
of that fold. Mean adapter and kernel regressions on the same folds are scored next to it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildbench.methods.hypernetwork import HypernetworkConfig, HypernetworkSource
from wildbench.methods.multitask import MultiTaskConfig, MultiTaskSource
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

HERE = Path(__file__).parent
BASELINES: dict[str, Callable[[SeenTasks], Any]] = {
    "mean adapter": lambda seen: MeanSource(seen.adapters),
    "kernel ridge regression": lambda seen: KernelRegressionSource(seen.encoder, seen.descriptions, seen.adapters),
    "additive kernel regression": lambda seen: AdditiveKernelSource(seen.encoder, seen.descriptions, seen.adapters),
}


def changed(config: Any, changes: dict[str, Any]) -> Any:
    training = replace(config.training, **changes.pop("training", {}))
    return replace(config, training=training, **changes)


def trained(seen: SeenTasks, variant: dict[str, Any]) -> Any:
    changes = json.loads(json.dumps(variant.get("config", {})))
    if variant["source"] == "hypernetwork":
        return HypernetworkSource(seen, variant["loss"], changed(HypernetworkConfig.of(variant["loss"]), changes))
    return MultiTaskSource(seen, variant["with_description"], changed(MultiTaskConfig(), changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True)
    parser.add_argument("--backbone", default="savanna-cnn")
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--use", type=int, default=2, help="how many of the folds are run")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    backbone = load_backbone(arguments.backbone)
    suite = load_suite("savanna", seed=arguments.suite_seed)
    zoo = Zoo.open(arguments.zoo)
    tasks = {task.name: task for task in suite.tasks("seen")}
    data = FeatureCache(backbone, suite.tasks("seen"))
    descriptions = {name: tasks[name].description for name in zoo.tasks}
    tests = {}
    for name in zoo.tasks:
        found = data(name)
        tests[name] = TestSet(name, descriptions[name], found.validation)
    finals, initial = zoo.task_adapters(), zoo.initial
    folds = [list(zoo.tasks)[i :: arguments.folds] for i in range(arguments.use)]
    held_out = [name for fold in folds for name in fold]
    pretrained = np.mean([mean_scores(backbone, tests[n], [initial])[0] for n in held_out])
    finetuned = np.mean([mean_scores(backbone, tests[n], [finals[n]])[0] for n in held_out])
    print(f"pretrained {pretrained:.4f}, fine-tuned {finetuned:.4f}, {len(held_out)} held-out tasks", flush=True)
    materials = []
    for number, fold in enumerate(folds):
        rest = [name for name in zoo.tasks if name not in fold]
        train_descriptions = [descriptions[name] for name in rest]
        encoder = fit_fusion(
            train_descriptions, suite.metadata_schema, backbone.image_features, components=16, whiten=False
        )
        seen = SeenTasks(backbone, zoo.only(rest), train_descriptions, encoder, {}, data, seed=number)
        seen.embeddings  # noqa: B018 - computed here and not in the time of the first source
        materials.append(seen)
    variants = json.loads((HERE / "experiment.json").read_text())["variants"]
    report: dict[str, Any] = {"pretrained": float(pretrained), "finetuned": float(finetuned), "sources": {}}
    for name in arguments.only or [*BASELINES, *variants]:
        scores: dict[str, float] = {}
        updates, seconds = [], 0.0
        for seen, fold in zip(materials, folds, strict=True):
            started = time.perf_counter()
            source = BASELINES[name](seen) if name in BASELINES else trained(seen, variants[name])
            seconds += time.perf_counter() - started
            for n in fold:
                adapters = source.sample(descriptions[n], 1, 0)
                scores[n] = mean_scores(backbone, tests[n], adapters)[0]
            if name not in BASELINES:
                updates.append(source.fit.steps)
        accuracy = float(np.mean(list(scores.values())))
        gain = float((accuracy - pretrained) / (finetuned - pretrained))
        row = {"accuracy": accuracy, "recovered_gain": gain, "updates": updates, "seconds": seconds / len(folds)}
        report["sources"][name] = row
        print(f"{name:50s} accuracy {accuracy:.4f}  gain {gain:.3f}  {updates}  {row['seconds']:.1f} s", flush=True)
        if arguments.out:
            Path(arguments.out).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
