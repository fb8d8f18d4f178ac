"""LoRA's gauge: which zoo, and which form of its adapters? On held-out *seen* tasks; the unseen are never read.

    python benchmarks/experiments/gauge/run.py --zoo ZOO --suite-seed 0 --out results.json

Every zoo of ``experiment.json`` is fine-tuned by ``ZOO``'s plan (its first tasks), but for the A factors and for
what the adapters hold: a classifier has no freedom of basis, and where it does most of the work, the LoRA factors could
be anything. The learning rate of LoRA alone was chosen on other tasks than these. For every form of the adapters,
kernel ridge regression and additive kernel regression from descriptions are fitted on four fifths of the tasks and
scored on the validation images of the rest, in five splits in which every task is held out once; and principal
components fitted on the same four fifths reconstruct the held-out tasks' own adapters. What is predicted
or reconstructed in ΔW is cut to the rank of an adapter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.canonical import aligned, balanced_factors, canonical, factor_pairs
from wildpdiff.adapters.layout import Layout
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.regression import AdditiveKernelSource, KernelRegressionSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.codec.codec import Codec
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.evaluate.statistics import mean_interval, paired_difference, recovered_gain
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

HERE = Path(__file__).parent
REGRESSIONS = (KernelRegressionSource, AdditiveKernelSource)
CHANGE = ".lora_change."
LAST = 10
TASKS_AT_ONCE = 20

Tensors = Mapping[str, Tensor]


def changes(tensors: Tensors) -> dict[str, Tensor]:
    """LoRA factors replaced by the updates ``ΔW = B A`` that they give."""
    result = dict(tensors)
    for name_a, name_b in factor_pairs(tensors):
        a, b = result.pop(name_a), result.pop(name_b)
        result[name_a.replace(".lora_A.", CHANGE)] = b.flatten(1) @ a.flatten(1)
    return result


def factored(tensors: Tensors, like: Tensors) -> dict[str, Tensor]:
    """Updates cut to the rank of an adapter's factors."""
    result = {name: value for name, value in tensors.items() if CHANGE not in name}
    for name_a, name_b in factor_pairs(like):
        change = tensors[name_a.replace(".lora_A.", CHANGE)]
        found = balanced_factors(change, torch.eye(change.shape[1]), len(like[name_a]))
        result[name_a], result[name_b] = found.a.reshape(like[name_a].shape), found.b.reshape(like[name_b].shape)
    return result


def average(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """The adapter of the mean update, in canonical form: it does not depend on anyone's factors."""
    each = [changes(entry.tensors) for entry in adapters]
    mean = {name: torch.stack([entry[name] for entry in each]).mean(0) for name in each[0]}
    return factored(mean, adapters[0].tensors)


def in_form(form: str, adapters: Sequence[Adapter], reference: Tensors) -> list[Adapter]:
    def change(tensors: Tensors) -> dict[str, Tensor]:
        if form == "raw factors":
            return dict(tensors)
        if form == "canonical factors":
            return canonical(tensors)
        return aligned(tensors, reference) if form == "aligned factors" else changes(tensors)

    return [Adapter(change(entry.tensors), entry.config) for entry in adapters]


def as_adapter(form: str, adapter: Adapter, like: Tensors) -> Adapter:
    return Adapter(factored(adapter.tensors, like), adapter.config) if form == "ΔW" else adapter


@dataclass(frozen=True)
class Material:
    """Inputs and test sets of every zoo."""

    backbone: Backbone
    zoo: Zoo
    names: Sequence[str]
    data: Callable[[str], TaskFeatures]
    encoders: Sequence[FusionEncoder]
    tests: Sequence[TestSet]
    pretrained: np.ndarray


@dataclass(frozen=True)
class Measured:
    """One zoo."""

    names: Sequence[str]
    adapters: Sequence[Adapter]
    tests: Sequence[TestSet]
    descriptions: Sequence[Description]
    pretrained: np.ndarray
    own: np.ndarray


def fine_tuned(material: Material, backbone: Backbone, variant: Mapping[str, Any]) -> list[Adapter]:
    """The mean of the last checkpoints of every task."""
    names, zoo = material.names, material.zoo
    changed = {"train_factor_a": variant["train_factor_a"], "learning_rate": variant["learning_rate"]}
    config = FinetuneConfig(**{**zoo.plan.finetune, **changed})
    shared = {name: value for name, value in zoo.initial.tensors.items() if name in backbone.shapes}
    found = []
    for low in range(0, len(names), TASKS_AT_ONCE):
        group = names[low : low + TASKS_AT_ONCE]
        starts = [shared for _ in group]
        if variant["own_start"]:
            starts = [backbone.initial_adapter(sub_seed(zoo.plan.seed, "own start", n)).tensors for n in group]
        features = [material.data(n) for n in group]
        run = finetune(backbone, features, starts, config=config, seed=sub_seed(zoo.plan.seed, "finetune"))
        means = {name: value[:, -LAST:].mean(1) for name, value in run.tensors.items()}
        found += [
            Adapter({name: value[i].clone() for name, value in means.items()}, backbone.adapter_config)
            for i in range(len(group))
        ]
    return found


def reconstructed(train: Sequence[Adapter], held: Sequence[Adapter], like: Tensors, components: int) -> list[Adapter]:
    """Held-out adapters behind principal components of the others, one scale a tensor as in a generator.

    A tensor counts as much as the parameters of an adapter that stand behind it: ΔW has many more entries than factors.
    """
    layout = Layout.of(train[0].tensors)
    vectors, held_out = (torch.stack([layout.flatten(entry.tensors) for entry in part]) for part in (train, held))
    codec = Codec.fit(layout, vectors, "tensor")
    behind = {name: value.numel() for name, value in like.items()}
    for name_a, name_b in factor_pairs(like):
        behind[name_a.replace(".lora_A.", CHANGE)] = behind[name_a] + behind[name_b]
    weights = torch.cat(
        [
            torch.full((size,), (behind[name] / size) ** 0.5)
            for name, size in zip(layout.names, layout.sizes, strict=True)
        ]
    )
    model = PCAAutoencoder.fit(codec.encode(vectors) * weights, components)
    decoded = model.decode(model.encode(codec.encode(held_out) * weights)) / weights
    tensors = layout.unflatten(codec.decode(decoded))
    return [Adapter({n: v[i].clone() for n, v in tensors.items()}, held[0].config) for i in range(len(held))]


def scored(
    backbone: Backbone, zoo: Measured, form: str, encoders: Sequence[FusionEncoder], components: Sequence[int]
) -> dict[str, np.ndarray]:
    """Accuracy on every task while it is held out, by method."""
    scores: dict[str, np.ndarray] = {}
    splits = len(encoders)
    for number, encoder in enumerate(encoders):
        held = list(range(len(zoo.names)))[number::splits]
        rest = [i for i in range(len(zoo.names)) if i not in set(held)]
        reference = average([zoo.adapters[i] for i in rest])
        forms = in_form(form, zoo.adapters, reference)
        described, train = [zoo.descriptions[i] for i in rest], [forms[i] for i in rest]

        def note(method: str, answers: Sequence[Adapter], rows: Sequence[int] = held) -> None:
            table = scores.setdefault(method, np.zeros(len(zoo.names)))
            for i, answer in zip(rows, answers, strict=True):
                adapter = as_adapter(form, answer, zoo.adapters[i].tensors)
                table[i] = mean_scores(backbone, zoo.tests[i], [adapter])[0]

        for kind in REGRESSIONS:
            source = kind(encoder, described, train)
            note(kind.name, [source.sample(zoo.descriptions[i], 1, 0)[0] for i in held])
        for size in components:
            answers = reconstructed(train, [forms[i] for i in held], zoo.adapters[0].tensors, size)
            note(f"{size} components", answers)
    return scores


def summarised(scores: Mapping[str, np.ndarray], zoo: Measured, first: Mapping[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for method, values in scores.items():
        gain = recovered_gain(values, zoo.pretrained, zoo.own)
        over = paired_difference(values, first[method])
        row[method] = {
            "accuracy": float(values.mean()),
            "gain": [gain.value, gain.low, gain.high],
            "over the first": [over.value, over.low, over.high],
            "accuracies": values.tolist(),
        }
    return row


def prepare(
    folder: Path, suite_seed: int, experiment: Mapping[str, Any], data: Callable[[str], TaskFeatures] | None = None
) -> Material:
    backbone = load_backbone("savanna-cnn")
    suite = load_suite("savanna", seed=suite_seed)
    zoo = Zoo.open(folder)
    names = list(zoo.tasks)[: experiment["tasks"]]
    data = data or FeatureCache(backbone, suite.tasks("seen"))
    descriptions = {task.name: task.description for task in suite.tasks("seen")}
    encoders = []
    for number in range(experiment["splits"]):
        held = set(names[number :: experiment["splits"]])
        rest = [descriptions[n] for n in names if n not in held]
        encoders.append(fit_fusion(rest, suite.metadata_schema, backbone.image_features, components=8, whiten=False))
    tests = [TestSet(n, descriptions[n], data(n).validation) for n in names]
    pretrained = np.array([mean_scores(backbone, test, [zoo.initial])[0] for test in tests])
    return Material(backbone, zoo, names, data, encoders, tests, pretrained)


def measured(material: Material, backbone: Backbone, variant: Mapping[str, Any]) -> Measured:
    adapters = fine_tuned(material, backbone, variant)
    own = np.array([mean_scores(backbone, t, [a])[0] for t, a in zip(material.tests, adapters, strict=True)])
    descriptions = [test.description for test in material.tests]
    return Measured(material.names, adapters, material.tests, descriptions, material.pretrained, own)


def compare(material: Material, experiment: Mapping[str, Any], report: dict[str, Any], out: Path | None) -> None:
    """Fill the report with what it does not have yet."""
    report["pretrained"] = float(material.pretrained.mean())
    for held, settings in experiment["adapters"].items():
        lora = material.backbone.lora
        saved = lora.modules_to_save if settings["classifier"] else ()
        backbone = material.backbone.with_lora(replace(lora, modules_to_save=saved))
        zoos = report.setdefault("adapters", {}).setdefault(held, {})
        for name, variant in experiment["zoos"].items():
            row = zoos.setdefault(name, {"forms": {}})
            missing = [form for form in experiment["forms"] if form not in row["forms"]]
            if not missing:
                continue
            zoo = measured(material, backbone, {**variant, **settings})
            own = mean_interval(zoo.own)
            row["own"] = [own.value, own.low, own.high]
            print(f"{held}, {name}: own {own.value:.4f}", flush=True)
            for form in missing:
                started = time.process_time()
                scores = scored(backbone, zoo, form, material.encoders, experiment["components"])
                first = next(iter(zoos.values()))["forms"].get(experiment["forms"][0])
                base = {method: np.array(entry["accuracies"]) for method, entry in first.items()} if first else scores
                row["forms"][form] = summarised(scores, zoo, base)
                gains = {m: [round(v, 3) for v in entry["gain"]] for m, entry in row["forms"][form].items()}
                print(f"  {form}: {gains}  {time.process_time() - started:.0f} s", flush=True)
                if out is not None:
                    out.write_text(json.dumps(report, indent=1, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    experiment = json.loads((HERE / "experiment.json").read_text())
    known = arguments.out is not None and arguments.out.is_file()
    report = json.loads(arguments.out.read_text()) if known else {}
    compare(prepare(arguments.zoo, arguments.suite_seed, experiment), experiment, report, arguments.out)


if __name__ == "__main__":
    main()
