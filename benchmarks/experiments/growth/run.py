"""Updates of a generator to a grown zoo, next to fresh fits of the whole zoo, on the toy suite of the tests.

    OMP_NUM_THREADS=1 python benchmarks/experiments/growth/run.py --out results.json

For every seed and every kind of added tasks: a zoo of the earlier tasks, which then grows; a generator of the earlier
tasks, its update, and a generator fitted to all. Scored is the accuracy on unseen tasks of the kind that was added. The
run stops where a file of an old shard was touched. What is in the file stays.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "tests"))

import toys  # noqa: E402
from wildpdiff.conditional_mean.correction import TaskLossConfig  # noqa: E402
from wildpdiff.disk import json_bytes, read_json, write_file  # noqa: E402
from wildpdiff.evaluate.statistics import paired_difference  # noqa: E402
from wildpdiff.fit import GeneratorConfig, fit_generator  # noqa: E402
from wildpdiff.generator import Generator  # noqa: E402
from wildpdiff.growth import update_generator  # noqa: E402
from wildpdiff.rng import numpy_generator  # noqa: E402
from wildpdiff.tasks.description import Description  # noqa: E402
from wildpdiff.tasks.task import LabelledImages, SplitName  # noqa: E402
from wildpdiff.zoo.build import build_zoo  # noqa: E402
from wildpdiff.zoo.features import FeatureCache  # noqa: E402
from wildpdiff.zoo.training_set import TrainingSet  # noqa: E402


@dataclass(frozen=True)
class UprightTask(toys.ToyTask):
    """A toy task whose stripes are upright, in its backgrounds too."""

    @property
    def description(self) -> Description:
        plain = super().description
        assert plain.backgrounds is not None
        striped = plain.backgrounds.copy()
        striped[:, :, ::2] = 255 - striped[:, :, ::2]
        return replace(plain, backgrounds=striped)

    def data(self, split: SplitName) -> LabelledImages:
        plain = super().data(split)
        return LabelledImages(np.ascontiguousarray(np.swapaxes(plain.images, 1, 2)), plain.labels)


def tasks_of(name: str, count: int, levels: tuple[float, float], upright: bool, seed: int) -> tuple[toys.ToyTask, ...]:
    kind = UprightTask if upright else toys.ToyTask
    drawn = numpy_generator(seed, "growth", name).uniform(*levels, count)
    return tuple(kind(f"{name}-{seed}-{i}", float(level), name != "unseen") for i, level in enumerate(drawn))


def accuracies(generator: Generator, tasks: tuple[toys.ToyTask, ...]) -> list[float]:
    found = []
    for task in tasks:
        data, backbone = task.data("test"), generator.backbone
        adapter = generator.sample(replace(task.description, task_id=None))[0]
        right = backbone.predict(backbone.stem(data.images), adapter.tensors).argmax(1) == torch.from_numpy(data.labels)
        found.append(float(right.float().mean()))
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def measured(settings: Mapping[str, Any], kind: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """One zoo that grows: CPU seconds and accuracies of the earlier generator, the updated one and a fresh one."""
    given = (tuple(kind.get("levels", settings["levels"])), kind.get("upright", False), seed)
    earlier = tasks_of("earlier", settings["earlier"], tuple(settings["levels"]), False, seed)
    every = (*earlier, *tasks_of("added", settings["added"], *given))
    unseen = tasks_of("unseen", settings["unseen"], *given)
    backbone = toys.backbone()
    finetune, task_loss = replace(toys.FINETUNE, **kind.get("finetune", {})), TaskLossConfig(**settings["task_loss"])
    config = GeneratorConfig(parts=tuple(settings["parts"]), task_loss=task_loss)

    def training_set(tasks: tuple[toys.ToyTask, ...]) -> TrainingSet:
        features = FeatureCache(backbone, tasks)
        zoo = build_zoo(folder, backbone, tasks, f"toy {len(tasks)}", config=finetune, seed=seed, features=features)
        return TrainingSet(zoo, {task.name: task.description for task in tasks}, toys.SCHEMA, backbone, features)

    few = training_set(earlier)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "shards").iterdir()}
    generator = fit_generator(few, config, seed=seed).generator
    grown = training_set(every)
    for path, (data, modified) in files.items():
        if (path.read_bytes(), path.stat().st_mtime_ns) != (data, modified):
            raise SystemExit(f"{path} was touched.")
    updated, update_seconds = timed(lambda: update_generator(generator, grown))
    fresh, fit_seconds = timed(lambda: fit_generator(grown, config, seed=seed).generator)
    return {
        "seconds": {"update": update_seconds, "fit": fit_seconds},
        "residuals": {"added": updated.residual, "earlier": updated.usual},
        "accuracies": {
            "earlier": accuracies(generator, unseen),
            "updated": accuracies(updated.generator, unseen),
            "fresh": accuracies(fresh, unseen),
        },
    }


def show(report: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, Any]) -> None:
    """Means over seeds and tasks; the difference from a fresh fit with its 95 % interval over tasks."""
    for kind in kinds:
        cells = [cell for name, cell in report.items() if name.split(" seed ")[0] == kind]
        if not cells:
            continue
        accuracy = {
            name: np.concatenate([cell["accuracies"][name] for cell in cells]) for name in cells[0]["accuracies"]
        }
        over = paired_difference(accuracy["updated"], accuracy["fresh"])
        share = [cell["seconds"]["update"] / cell["seconds"]["fit"] for cell in cells]
        ratio = [cell["residuals"]["added"] / cell["residuals"]["earlier"] for cell in cells]
        print(f"{kind}: " + ", ".join(f"{name} {100 * values.mean():.2f} %" for name, values in accuracy.items()))
        print(f"  updated over fresh {100 * over.value:+.2f} points [{100 * over.low:+.2f}, {100 * over.high:+.2f}]")
        print(f"  CPU time of an update {100 * min(share):.0f} to {100 * max(share):.0f} % of a fit's")
        print(f"  residual of the added tasks over that of the earlier ones {min(ratio):.2f} to {max(ratio):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.is_file() else {}
    for kind, changes in settings["kinds"].items():
        for seed in changes["seeds"]:
            cell = f"{kind} seed {seed}"
            if cell not in report:
                with tempfile.TemporaryDirectory() as folder:
                    report[cell] = measured(settings, changes, seed, Path(folder) / "zoo")
                write_file(arguments.out, json_bytes(report))
            show({cell: report[cell]}, {kind: changes})
    print()
    show(report, settings["kinds"])


if __name__ == "__main__":
    main()
