"""Ceiling of adapters that have all information of a description, but not the site itself.

    python benchmarks/experiments/description_ceiling/run.py --zoo ZOO --suite-seed 0 --sites 60 --out results.json

A *twin* of a site is a camera elsewhere, with everything that the site's metadata and backgrounds determine of its
animals and light, and another scene. Adapters are fine-tuned on the labelled images of 1, 5 or 20 twins and scored on
test images of the site (a *seen* one; unseen ones are never read). Of *matched* twins the shares of species and blanks
are those of the site; of *redrawn* ones, the hidden part is drawn anew. What is in the file stays.
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
from wildpdiff.tasks.batch import concatenate
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

HERE = Path(__file__).parent
KINDS = ("matched", "redrawn")
LAST = 10


class Twin(SavannaTask):
    """A camera elsewhere with the causes of a seen site."""

    def __init__(self, config: SavannaConfig, index: int, kind: str, number: int) -> None:
        super().__init__(config, "seen", index)
        self.kind, self.number = kind, number

    def _rng(self, purpose: str) -> np.random.Generator:
        # The name in the seed is the one that the published numbers were drawn with.
        kind = "told" if self.kind == "matched" else self.kind
        return numpy_generator(self.config.seed, "twin", self.index, kind, self.number, purpose)

    @cached_property
    def location(self) -> Location:
        """The site's, in another scene; redrawn ones differ in the hidden part, too."""
        own, rng = super().location, self._rng("location")
        moved = replace(own, scene_seed=int(rng.integers(2**31)), horizon=float(rng.uniform(0.26, 0.44)))
        if self.kind == "matched":
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
    return replace(parts[0], train=concatenate([entry.train for entry in parts]))


class Study:
    """Sites with their test images, and the accuracy of adapters of twins on them."""

    def __init__(self, zoo: Zoo, config: SavannaConfig, sites: int) -> None:
        self.zoo, self.config = zoo, config
        self.backbone = load_backbone("savanna-cnn")
        self.sites = [SavannaTask(config, "seen", index) for index in range(sites)]
        tests = [site.data("test") for site in self.sites]
        self.tests = [self.backbone.batch(found) for found in tests]

    def accuracies(self, tensors: Mapping[str, Tensor]) -> list[float]:
        found = []
        for row, batch in enumerate(self.tests):
            outputs = self.backbone.predict(batch, {name: value[row] for name, value in tensors.items()})
            found.append(float(self.backbone.objective.score(outputs, batch).mean()))
        return found

    def pretrained(self) -> list[float]:
        count = len(self.sites)
        return self.accuracies({name: v.expand(count, *v.shape) for name, v in self.zoo.initial.tensors.items()})

    def finetuned(self, tasks: Sequence[TaskFeatures], **changes: int) -> list[float]:
        config = replace(FinetuneConfig(**self.zoo.plan.finetune), **changes)
        run = finetune(
            self.backbone, tasks, self.zoo.initial.tensors, config=config, seed=sub_seed(self.config.seed, "twins")
        )
        return self.accuracies({name: value[:, -LAST:].mean(1) for name, value in run.tensors.items()})

    def own(self) -> list[float]:
        return self.finetuned([task_features(self.backbone, site) for site in self.sites])

    def of_twins(self, kind: str, twins: int, **changes: int) -> list[float]:
        rows = [[Twin(self.config, site.index, kind, number) for number in range(twins)] for site in self.sites]
        parts = [joined([task_features(self.backbone, twin) for twin in row]) for row in rows]
        return self.finetuned(parts, **changes)


def gain_text(report: Mapping[str, list[float]], name: str) -> str:
    """The recovered gain in words; nothing before fine-tuned adapters are there."""
    if "fine-tuned" not in report:
        return ""
    gain = recovered_gain(*(np.array(report[entry]) for entry in (name, "pretrained", "fine-tuned")))
    if gain.value is None:
        return ", no gain to recover"
    return f", recovered gain {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", required=True, type=Path)
    parser.add_argument("--suite-seed", type=int, default=0)
    parser.add_argument("--sites", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.is_file() else {}
    if any(len(row) != arguments.sites for row in report.values()):
        raise SystemExit(f"{arguments.out} is of another number of sites. Give another file, or the number it is of.")
    study = Study(Zoo.open(arguments.zoo), SavannaConfig(seed=arguments.suite_seed), arguments.sites)
    jobs = {"pretrained": study.pretrained, "fine-tuned": study.own}
    for twins in settings["twins"]:
        for kind in KINDS:
            changes = {"steps": settings["steps"][str(twins)], "batch": settings["batch"][str(twins)]}
            jobs[f"{twins} twins, {kind}"] = lambda k=kind, t=twins, c=changes: study.of_twins(k, t, **c)
    for name, job in jobs.items():
        if name not in report:
            report[name] = job()
            write_file(arguments.out, json_bytes(report))
        print(f"{name:20s} {100 * float(np.mean(report[name])):.2f} %{gain_text(report, name)}", flush=True)


if __name__ == "__main__":
    main()
