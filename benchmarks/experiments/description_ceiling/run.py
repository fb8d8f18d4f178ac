"""How good can an adapter be that knows all that a description could tell, but has not seen the place itself?

    python benchmarks/experiments/description_ceiling/run.py --zoo ZOO --suite-seed 0 --places 60 --out results.json

A *twin* of a place is a camera elsewhere, with everything that the place's metadata and backgrounds tell of its animals
and its light, and another scene. Adapters are fine-tuned on the labelled images of 1, 5 or 20 twins and scored on the
test images of the place (a *seen* one; unseen ones are never read). Of *told* twins the shares of species and blanks
are those of the place; of *redrawn* ones, what nothing tells is drawn anew. What is in the file stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.locations import Location
from wildbench.datasets.savanna.suite import SavannaConfig, SavannaTask
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.evaluate.statistics import recovered_gain
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

HERE = Path(__file__).parent
KINDS = ("told", "redrawn")
LAST = 10


class Twin(SavannaTask):
    """A camera elsewhere with the causes of a seen place."""

    def __init__(self, config: SavannaConfig, index: int, kind: str, number: int) -> None:
        super().__init__(config, "seen", index)
        self.kind, self.number = kind, number

    def _rng(self, purpose: str) -> np.random.Generator:
        return numpy_generator(self.config.seed, "twin", self.index, self.kind, self.number, purpose)

    @cached_property
    def location(self) -> Location:
        """The place's, in another scene; redrawn ones differ in what nothing tells, too."""
        own, rng = super().location, self._rng("location")
        moved = replace(own, scene_seed=int(rng.integers(2**31)), horizon=float(rng.uniform(0.26, 0.44)))
        if self.kind == "told":
            return moved
        noise = world.SITE_NOISE / world.PRIOR_TEMPERATURE * rng.standard_normal(world.BLANK)
        rates = own.prior[:-1] * np.exp(noise)
        mean, spread = world.BLANK_LOGIT
        share = 1 / (1 + np.exp(-(mean + spread * rng.standard_normal())))
        blank = float(np.clip(share, *world.BLANK_RANGE))
        return replace(
            moved,
            prior=np.append((1 - blank) * rates / rates.sum(), blank),
            scale=own.scale * float(np.exp(0.06 * rng.standard_normal())),
            night_share=float(rng.beta(*world.NIGHT_BETA)),
        )


def joined(parts: Sequence[TaskFeatures]) -> TaskFeatures:
    """The training images of several cameras as one task's."""
    images, labels = torch.cat([entry.train for entry in parts]), torch.cat([entry.train_labels for entry in parts])
    return replace(parts[0], train=images, train_labels=labels)


class Study:
    """Places with their test images, and what adapters of twins score on them."""

    def __init__(self, zoo: Zoo, config: SavannaConfig, places: int) -> None:
        self.zoo, self.config = zoo, config
        self.backbone = load_backbone("savanna-cnn")
        self.places = [SavannaTask(config, "seen", index) for index in range(places)]
        tests = [place.data("test") for place in self.places]
        self.tests = [(self.backbone.stem(found.images), torch.from_numpy(found.labels)) for found in tests]

    def accuracies(self, tensors: Mapping[str, Tensor]) -> list[float]:
        found = []
        for row, (inputs, labels) in enumerate(self.tests):
            logits = self.backbone.predict(inputs, {name: value[row] for name, value in tensors.items()})
            found.append(float((logits.argmax(1) == labels).float().mean()))
        return found

    def pretrained(self) -> list[float]:
        count = len(self.places)
        return self.accuracies({name: v.expand(count, *v.shape) for name, v in self.zoo.initial.tensors.items()})

    def finetuned(self, tasks: Sequence[TaskFeatures], **changes: int) -> list[float]:
        config = replace(FinetuneConfig(**self.zoo.plan.finetune), **changes)
        run = finetune(self.backbone, tasks, self.zoo.initial.tensors, config, sub_seed(self.config.seed, "twins"))
        return self.accuracies({name: value[:, -LAST:].mean(1) for name, value in run.tensors.items()})

    def own(self) -> list[float]:
        return self.finetuned([task_features(self.backbone, place) for place in self.places])

    def of_twins(self, kind: str, twins: int, **changes: int) -> list[float]:
        rows = [[Twin(self.config, place.index, kind, number) for number in range(twins)] for place in self.places]
        parts = [joined([task_features(self.backbone, twin) for twin in row]) for row in rows]
        return self.finetuned(parts, **changes)


def told(report: Mapping[str, list[float]], name: str) -> str:
    """The recovered gain in words; nothing before fine-tuned adapters are there."""
    if "fine-tuned" not in report:
        return ""
    gain = recovered_gain(*(np.array(report[entry]) for entry in (name, "pretrained", "fine-tuned")))
    if gain.value is None:
        return f", {gain.reason}"
    return f", recovered gain {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.is_file() else {}
    if any(len(row) != arguments.places for row in report.values()):
        raise SystemExit(f"{arguments.out} is of another number of places. Give another file, or the number it is of.")
    study = Study(Zoo.open(arguments.zoo), SavannaConfig(seed=arguments.suite_seed), arguments.places)
    jobs = {"pretrained": study.pretrained, "fine-tuned": study.own}
    for twins in settings["twins"]:
        for kind in KINDS:
            changes = {"steps": settings["steps"][str(twins)], "batch": settings["batch"][str(twins)]}
            jobs[f"{twins} twins, {kind}"] = lambda k=kind, t=twins, c=changes: study.of_twins(k, t, **c)
    for name, job in jobs.items():
        if name not in report:
            report[name] = job()
            write_file(arguments.out, json_bytes(report))
        print(f"{name:20s} {100 * float(np.mean(report[name])):.2f} %{told(report, name)}", flush=True)


if __name__ == "__main__":
    main()
