"""Independent or structured zoo? Measured on held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/structured_zoo/run.py --zoo ZOO --suite-seed 0 --out results.json [--only NAME …]

``ZOO`` is the independent zoo. One fold of its tasks is held out; every variant of ``experiment.json`` fine-tunes the
other tasks together, from the same start, on the same images in the same order, for as many steps. Measured are the own
accuracy of the tasks (the ceiling of the paper's first question), what the midpoint of two tasks' adapters keeps (its
second), and what two kernel regressions from descriptions to the zoo's adapters recover on the held-out tasks (its
third). All accuracies are on validation images, which no fine-tuning sees.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.additive_kernel import AdditiveKernelSource
from wildpdiff.baselines.kernel_regression import KernelRegressionSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.conditional_mean.kernel_fit import fit_kernel_mean
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.evaluate.alignment import connectivity, cosine
from wildpdiff.evaluate.interpolation import TaskPair, choose_pairs, gainful_tasks
from wildpdiff.evaluate.score import TestSet, accuracies
from wildpdiff.evaluate.statistics import paired_difference, recovered_gain
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.registry import load_suite
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.finetune import FinetuneRun
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.structured import StructuredConfig, finetune_structured, project_rows

HERE = Path(__file__).parent
REGRESSIONS = (KernelRegressionSource, AdditiveKernelSource)
PAIRS = 12
CHOSEN_AFTER = 60
"""Steps after which the description's kernel is chosen, for the variants that are pulled to a regression on it."""


@dataclass(frozen=True)
class Material:
    """What every variant is measured with."""

    backbone: Backbone
    zoo: Zoo
    seen: SeenTasks
    data: FeatureCache
    descriptions: Mapping[str, Description]
    held_out: Sequence[str]
    pairs: Sequence[TaskPair]
    pretrained: Mapping[str, float]
    finetuned: Mapping[str, float]

    @property
    def encoder(self) -> FusionEncoder:
        return self.seen.encoder

    def test(self, name: str) -> TestSet:
        found = self.data(name)
        return TestSet(name, self.descriptions[name], found.validation, found.validation_labels)


@dataclass(frozen=True)
class Adapters:
    """The end of every run and the mean of its last checkpoints, by task."""

    final: Mapping[str, Adapter]
    mean: Mapping[str, Adapter]


def leave_one_out(kernel: Tensor, ridge: float) -> Tensor:
    """The matrix "t t" that takes targets to their leave-one-out predictions by kernel regression with intercept."""
    count = len(kernel)
    inverse = torch.linalg.inv(kernel + ridge * torch.eye(count, dtype=kernel.dtype))
    sums = inverse.sum(0)
    projected = inverse - torch.outer(sums, sums) / sums.sum()
    return torch.eye(count, dtype=kernel.dtype) - projected / projected.diagonal()[:, None]


class DescriptionPull:
    """Every task towards what leave-one-out regression on the descriptions makes of the other tasks, now."""

    def __init__(self, encoder: FusionEncoder, embeddings: Tensor, strength: float) -> None:
        self._encoder, self._embeddings, self._strength = encoder, embeddings, strength
        self._smoother: Tensor | None = None

    def __call__(self, step: int, vectors: Tensor) -> Tensor:
        if step < CHOSEN_AFTER:
            return vectors
        if self._smoother is None:
            mean = fit_kernel_mean(self._encoder, self._embeddings, vectors)
            kernel = mean.kernel_between(self._embeddings, self._embeddings).double()
            self._smoother = leave_one_out(kernel, mean.ridge).float()
        return vectors + self._strength * (self._smoother @ vectors - vectors)


def cut(adapters: Mapping[str, Adapter], components: int) -> dict[str, Adapter]:
    """Adapters projected on their own principal components: the same rank, without having been trained in it."""
    seen = SeenAdapters.of(list(adapters.values()))
    mean = seen.vectors.mean(0)
    vectors = mean + project_rows(seen.vectors - mean, components)
    return {task: seen.adapter(vector) for task, vector in zip(adapters, vectors, strict=True)}


def adapters_of(run: FinetuneRun, zoo: Zoo) -> Adapters:
    means = {name: value.mean(1) for name, value in run.tensors.items()}
    adapters = {
        task: Adapter({name: value[i].clone() for name, value in means.items()}, zoo.plan.adapter)
        for i, task in enumerate(run.names)
    }
    return Adapters(adapters, adapters)


def trained(material: Material, variant: Mapping[str, Any]) -> Adapters:
    zoo = material.seen.zoo
    if not variant:
        return Adapters(zoo.task_adapters(), zoo.task_adapters())
    if "cut" in variant:
        return Adapters(cut(zoo.task_adapters(), variant["cut"]), cut(zoo.task_adapters(), variant["cut"]))
    pull = None
    if "pull" in variant:
        pull = DescriptionPull(material.encoder, material.seen.embeddings, variant["pull"])
    run = finetune_structured(
        material.backbone,
        [material.data(name) for name in zoo.tasks],
        zoo.initial.tensors,
        FinetuneConfig(**zoo.plan.finetune),
        StructuredConfig(variant["directions"], variant.get("decay", 0.0)),
        sub_seed(zoo.plan.seed, "finetune"),
        pull=pull,
    )
    return adapters_of(run, zoo)


def kept_half_way(material: Material, adapters: Adapters) -> dict[str, float]:
    """Share of the gain that midpoints keep on training and validation images, by likeness of descriptions."""
    names, initial = material.seen.zoo.tasks, material.zoo.initial
    shares: dict[str, list[float]] = {}
    for pair in material.pairs:
        both = names[pair.first], names[pair.second]
        ends = adapters.final[both[0]], adapters.final[both[1]]
        data = material.data(both[0]), material.data(both[1])
        shares.setdefault(pair.group, []).append(connectivity(material.backbone, data, ends, initial))
        shares.setdefault("cosine", []).append(cosine(*ends, initial))
    return {group: float(np.mean(values)) for group, values in shares.items()}


def spectrum(adapters: Adapters, shares: Sequence[float] = (0.8, 0.9)) -> dict[str, int]:
    """How many principal components explain so much of the variance between tasks."""
    vectors = torch.stack(
        [torch.cat([v.flatten() for _, v in sorted(a.tensors.items())]) for a in adapters.mean.values()]
    )
    squares = torch.linalg.svdvals(vectors - vectors.mean(0)).square()
    total = squares.cumsum(0) / squares.sum()
    return {f"components for {share:.0%}": int((total < share).sum()) + 1 for share in shares}


def measured(material: Material, adapters: Adapters) -> dict[str, Any]:
    own = {n: accuracies(material.backbone, material.test(n), [adapters.final[n]])[0] for n in material.seen.zoo.tasks}
    row: dict[str, Any] = {
        "own": float(np.mean(list(own.values()))),
        "kept": kept_half_way(material, adapters),
        **spectrum(adapters),
        "accuracies": {},
    }
    told = list(material.seen.descriptions)
    for kind in REGRESSIONS:
        source = kind(material.encoder, told, [adapters.mean[n] for n in material.seen.zoo.tasks])
        scores = []
        for n in material.held_out:
            scores.append(
                accuracies(material.backbone, material.test(n), source.sample(material.descriptions[n], 1, 0))[0]
            )
        error = source.choices[0].relative_error if isinstance(source, KernelRegressionSource) else None
        relative = source.mean.relative_error if isinstance(source, AdditiveKernelSource) else error
        before = np.array([material.pretrained[n] for n in material.held_out])
        after = np.array([material.finetuned[n] for n in material.held_out])
        gain = recovered_gain(np.array(scores), before, after)
        row[kind.name] = {"gain": gain.value, "low": gain.low, "high": gain.high, "leave-one-out error": relative}
        row["accuracies"][kind.name] = scores
    return row


def prepare(folder: Path, suite_seed: int, fold: int, folds: int = 4, data: FeatureCache | None = None) -> Material:
    backbone = load_backbone("savanna-cnn")
    suite = load_suite("savanna", seed=suite_seed)
    zoo = Zoo.open(folder)
    data = data or FeatureCache(backbone, suite.tasks("seen"))
    descriptions = {task.name: task.description for task in suite.tasks("seen")}
    held_out = list(zoo.tasks)[fold::folds]
    rest = [name for name in zoo.tasks if name not in set(held_out)]
    told = [descriptions[n] for n in rest]
    encoder = fit_fusion(told, suite.metadata_schema, backbone.image_features, components=8, whiten=False)
    seen = SeenTasks(backbone, zoo.only(rest), told, encoder, {}, data, seed=fold)
    mean = AdditiveKernelSource(encoder, told, seen.adapters).mean
    kernel = mean.kernel_between(seen.embeddings, seen.embeddings)
    scale = kernel.diagonal().sqrt()
    similarity = (kernel / scale[:, None] / scale[None]).float()
    pairs = choose_pairs(similarity, gainful_tasks(seen), PAIRS, PAIRS, 0)
    finals, initial = zoo.task_adapters(), zoo.initial
    material = Material(backbone, zoo, seen, data, descriptions, held_out, pairs, {}, {})
    pretrained = {n: accuracies(backbone, material.test(n), [initial])[0] for n in zoo.tasks}
    finetuned = {n: accuracies(backbone, material.test(n), [finals[n]])[0] for n in zoo.tasks}
    return Material(backbone, zoo, seen, data, descriptions, held_out, pairs, pretrained, finetuned)


def compare(material: Material, fold: int, names: Sequence[str], variants: Mapping[str, Any], out: Path | None) -> None:
    """Measure variants on one fold; what the file already has of others stays."""
    folds: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.is_file() else {}
    report = folds.setdefault(f"fold {fold}", {})
    report["pretrained"] = float(np.mean([material.pretrained[n] for n in material.held_out]))
    report["finetuned"] = float(np.mean([material.finetuned[n] for n in material.held_out]))
    rows = report.setdefault("variants", {})
    for name in names:
        started = time.process_time()
        adapters = trained(material, variants[name])
        seconds = time.process_time() - started
        rows[name] = row = measured(material, adapters) | {"processor seconds": seconds}
        if name != "independent" and "independent" in rows:
            for kind in REGRESSIONS:
                ours, theirs = (np.array(rows[n]["accuracies"][kind.name]) for n in (name, "independent"))
                paired = paired_difference(ours, theirs)
                row[kind.name] |= {"over independent": [paired.value, paired.low, paired.high]}
        print(name, json.dumps({k: v for k, v in row.items() if k != "accuracies"}), flush=True)
        if out is not None:
            out.write_text(json.dumps(folds, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--fold", type=int)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    experiment = json.loads((HERE / "experiment.json").read_text())
    fold = experiment["fold"] if arguments.fold is None else arguments.fold
    material = prepare(arguments.zoo, arguments.suite_seed, fold)
    compare(material, fold, arguments.only or list(experiment["variants"]), experiment["variants"], arguments.out)


if __name__ == "__main__":
    main()
