"""Residual and direct networks of the conditional mean, measured on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/network_kinds/run.py --zoo ZOO --suite-seed 0 --out results.json [--only NAME …]

The mean is fitted on the zoo without one fold of its tasks, once for every variant and seed of ``experiment.json``, and
scored on all labelled images of that fold, which nothing was fitted to. What is in the file stays.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.encoding import EncodedTasks, EncodingConfig
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.evaluate.statistics import paired_difference
from wildpdiff.tasks.batch import concatenate
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Fold:
    """The tasks that are kept as numbers, and the others as test sets."""

    encoded: EncodedTasks
    tests: Sequence[TestSet]
    backbone: Backbone
    data: FeatureCache

    @classmethod
    def of(
        cls, training_set: TrainingSet, data: FeatureCache, encoding: EncodingConfig, held_out: Sequence[str]
    ) -> Fold:
        encoded = EncodedTasks.of(training_set.without(held_out), encoding)
        tests = []
        for name in held_out:
            own = data(name)
            tests.append(TestSet(name, training_set.descriptions[name], concatenate([own.train, own.validation])))
        return cls(encoded, tests, training_set.backbone, data)

    def scores(self, config: TaskLossConfig, seed: int) -> list[float]:
        fitted = fit_conditional_mean(replace(self.encoded, features=self.data if config.steps else None), config, seed)
        layout = self.encoded.codec.layout
        found = []
        for test in self.tests:
            query = self.encoded.conditions.encode(test.description).values[None]
            vector = self.encoded.codec.decode(fitted.mean.predict(query))[0]
            adapter = Adapter(layout.unflatten(vector), self.backbone.adapter_config)
            found.append(mean_scores(self.backbone, test, [adapter])[0])
        return found


def show(report: Mapping[str, Any], names: Sequence[str]) -> None:
    """Means over folds and seeds, and paired differences from the first variant."""
    kept = [name for name in names if name in report]
    shared = sorted(set.intersection(*[set(report[name]["accuracies"]) for name in kept]))
    table = {name: np.mean([np.array(report[name]["accuracies"][cell]) for cell in shared], axis=-1) for name in kept}
    for name in kept:
        # Of one task all seeds count as one number.
        rows = {cell: np.array(report[name]["accuracies"][cell]) for cell in shared}
        base = {cell: np.array(report[kept[0]]["accuracies"][cell]) for cell in shared}
        folds = sorted({cell.split(" seed ")[0] for cell in shared})
        own, first = (
            np.concatenate([np.mean([of[c] for c in shared if c.split(" seed ")[0] == fold], axis=0) for fold in folds])
            for of in (rows, base)
        )
        difference = paired_difference(own, first)
        seconds = np.mean([report[name]["seconds"][cell] for cell in shared])
        print(
            f"{name:36s} {100 * table[name].mean():.2f} %, over the first {100 * difference.value:+.2f} points "
            f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}], {seconds:.0f} s of a core"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.is_file() else {}
    backbone, suite = load_backbone("savanna-cnn"), load_suite("savanna", seed=arguments.suite_seed)
    zoo = Zoo.open(arguments.zoo)
    data = FeatureCache(backbone, suite.tasks("seen"))
    training_set = TrainingSet.of(suite, backbone, zoo)
    encoding = EncodingConfig(**{**settings["reading"], "parts": tuple(settings["reading"]["parts"])})
    names = arguments.only or list(settings["variants"])
    for number in settings["use"]:
        held_out = list(zoo.tasks)[number :: settings["folds"]]
        fold = Fold.of(training_set, data, encoding, held_out)
        for name in names:
            chosen = settings["variants"][name]
            config = TaskLossConfig(**{key: tuple(v) if key == "bases" else v for key, v in chosen.items()})
            row = report.setdefault(name, {"accuracies": {}, "seconds": {}})
            for seed in settings["seeds"]:
                cell = f"fold {number} seed {seed}"
                if cell in row["accuracies"]:
                    continue
                started = time.process_time()
                row["accuracies"][cell] = fold.scores(config, seed)
                row["seconds"][cell] = time.process_time() - started
                write_file(arguments.out, json_bytes(report))
                print(name, cell, f"{100 * float(np.mean(row['accuracies'][cell])):.2f} %", flush=True)
    show(report, names)


if __name__ == "__main__":
    main()
