"""Adapters centred on the backgrounds of their site, measured on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/centering/run.py --zoo ZOO --suite-seed 0 --out results.json

Every source of adapters is made without one fold of the seen tasks, for every training seed, and scored on all labelled
images of that fold at every strength of ``experiment.json``, and at the strength that the generator chose on the other
folds. What is in the file stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import toys
from wildbench.methods.hypernetwork import HypernetworkSource
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.conditional_mean.centering import FeatureAlignment
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.encoding import EncodedTasks, EncodingConfig
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.evaluate.statistics import paired_difference
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

HERE = Path(__file__).parent
LEARNED = "learned"
RANDOM_FREE: dict[str, Callable[[SeenTasks], Source]] = {
    "mean adapter": lambda seen: MeanSource(seen.adapters),
    "kernel ridge regression": lambda seen: KernelRegressionSource(seen.encoder, seen.descriptions, seen.adapters),
    "additive kernel regression": lambda seen: AdditiveKernelSource(seen.encoder, seen.descriptions, seen.adapters),
}
"""Sources that have no training seed."""


def vectors_of(source: Source, tests: Sequence[TestSet], centering: FeatureAlignment) -> Tensor:
    """Normalised adapters of a source, one a held-out task."""
    flatten, encode = centering.codec.layout.flatten, centering.codec.encode
    return encode(torch.stack([flatten(source.sample(test.description, 1, 0)[0].tensors) for test in tests]))


def scored(backbone: Backbone, tests: Sequence[TestSet], centering: FeatureAlignment, vectors: Tensor) -> list[float]:
    """Accuracy on every held-out task, of adapters centred with the given strength."""
    shifts = centering.reader.of([test.description for test in tests])
    tensors = centering.codec.layout.unflatten(centering.codec.decode(centering(vectors, shifts)))
    found = []
    for row, test in enumerate(tests):
        adapter = Adapter({name: value[row] for name, value in tensors.items()}, backbone.adapter_config)
        found.append(mean_scores(backbone, test, [adapter])[0])
    return found


def rows_of(
    name: str, vectors: Tensor, centering: FeatureAlignment, backbone: Backbone, tests: Sequence[TestSet],
    strengths: Sequence[float],
) -> dict[str, list[float]]:  # fmt: skip
    """Accuracies by ``source @ strength``."""
    strength_of = {f"{name} @ {strength}": strength for strength in strengths}
    if centering.strength:
        strength_of[f"{name} @ {LEARNED}"] = centering.strength
    return {
        key: scored(backbone, tests, replace(centering, strength=value), vectors) for key, value in strength_of.items()
    }


def measured(
    fold: Sequence[str], seed: int, settings: Mapping[str, Any], zoo: Zoo, descriptions: Mapping[str, Description],
    suite: Any, backbone: Backbone, data: FeatureCache,
) -> dict[str, list[float]]:  # fmt: skip
    """Every source without one fold, at every strength."""
    tests = []
    for name in fold:
        own = data(name)
        images, labels = (
            torch.cat([own.train, own.validation]),
            torch.cat([own.train["targets"], own.validation["targets"]]),
        )
        tests.append(TestSet(name, descriptions[name], toys.batch(images, labels)))
    encoding = EncodingConfig(**{**settings["reading"], "parts": tuple(settings["reading"]["parts"])})
    encoded = EncodedTasks.of(TrainingSet.of(suite, backbone, zoo, data).without(fold), encoding)
    mean = fit_conditional_mean(encoded, TaskLossConfig(), seed).mean
    if mean.centering is None:
        raise SystemExit("This zoo cannot be centred: its descriptions have no images, or its backbone no embed.")
    rest = [descriptions[name] for name in encoded.tasks]
    encoder = fit_fusion(
        rest, suite.metadata_schema, backbone.image_features, components=settings["components"], whiten=False
    )
    seen = SeenTasks(backbone, zoo.only(encoded.tasks), rest, encoder, {}, data, seed=seed)
    plain = replace(mean.centering, strength=0.0)
    sources: dict[str, Source] = {"hypernetwork, task loss": HypernetworkSource(seen, "task")}
    if seed == settings["seeds"][0]:
        sources |= {name: make(seen) for name, make in RANDOM_FREE.items()}
    query = torch.stack([encoded.conditions.encode(test.description).values for test in tests])
    found = rows_of("generator's mean", mean.predict(query), mean.centering, backbone, tests, settings["strengths"])
    for name, source in sources.items():
        found |= rows_of(name, vectors_of(source, tests, plain), plain, backbone, tests, settings["strengths"])
    if seed == settings["seeds"][0]:
        start = encoded.codec.encode(encoded.codec.layout.flatten(zoo.initial.tensors)[None])
        start = start.expand(len(tests), -1).contiguous()
        found |= rows_of("pretrained", start, plain, backbone, tests, settings["strengths"])
    found["strength"] = [mean.centering.strength]
    return found


def show(report: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Means over folds and seeds, and paired differences from strength 0; of one task all seeds count as one."""
    folds = sorted({cell.split(" seed ")[0] for cell in report})

    def of(key: str) -> np.ndarray[Any, Any]:
        found = [[report[c][key] for c in report if c.split(" seed ")[0] == f and key in report[c]] for f in folds]
        return np.concatenate([np.mean(part, axis=0) for part in found])

    for key in sorted({key for cell in report.values() for key in cell if "@" in key}):
        values, base = of(key), of(f"{key.split(' @ ')[0]} @ 0.0")
        over = paired_difference(values, base)
        print(
            f"{key:40s} {100 * values.mean():.2f} %, over strength 0 {100 * over.value:+.2f} points "
            f"[{100 * over.low:+.2f}, {100 * over.high:+.2f}]"
        )
    print("learned strengths", sorted(cell["strength"][0] for cell in report.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.is_file() else {}
    backbone, suite = load_backbone("savanna-cnn"), load_suite("savanna", seed=arguments.suite_seed)
    zoo = Zoo.open(arguments.zoo)
    data = FeatureCache(backbone, suite.tasks("seen"))
    descriptions = {task.name: task.description for task in suite.tasks("seen")}
    for number in settings["use"]:
        fold = list(zoo.tasks)[number :: settings["folds"]]
        for seed in settings["seeds"]:
            cell = f"fold {number} seed {seed}"
            if cell not in report:
                report[cell] = measured(fold, seed, settings, zoo, descriptions, suite, backbone, data)
                write_file(arguments.out, json_bytes(report))
                print(cell, flush=True)
    show(report)


if __name__ == "__main__":
    main()
