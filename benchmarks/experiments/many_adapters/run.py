"""Training steps of many adapters of a ViT-tiny: seconds of one vectorised pass and of a loop over PEFT's, and memory.

    OMP_NUM_THREADS=1 python benchmarks/experiments/many_adapters/run.py            # seconds
    OMP_NUM_THREADS=1 python benchmarks/experiments/many_adapters/run.py --savanna  # seconds, against merged weights
    OMP_NUM_THREADS=1 python benchmarks/experiments/many_adapters/run.py --memory   # MiB, each way in its own process

Both have the same adapters and images and a gradient of every adapter in each step; losses and gradients are compared.
The vectorised pass runs the frozen layers before the first adapted one once for all steps: its seconds are given apart.
Memory is the most that is resident in a step: of the vectorised pass, and of one PEFT model with one adapter on the
same images. The net one is without that of the process before the step (libraries, model, images).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification

from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.prefix import replay
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.tasks.batch import Batch, stack, take
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.training import seeded

FOLDER = Path(__file__).parent


def resident(field: str) -> float:
    """MiB of this process now (``VmRSS``) or at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def memory(settings: dict[str, Any], targets: Any, way: str) -> dict[str, float]:
    """MiB of three training steps, in a process that does nothing else."""
    count = settings["adapters"] if way == "vectorised" else 1
    images = settings["adapters"] * settings["images"]
    pixels = np.random.default_rng(settings["seed"]).integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)
    labels = torch.arange(images) % settings["model"]["num_labels"]
    lora = LoraConfig(**settings["lora"], target_modules=targets)
    with seeded(settings["seed"]):
        module = ViTForImageClassification(ViTConfig(**settings["model"]))
    backbone = Backbone.from_pretrained(module, lora=lora)
    if way == "vectorised":
        start = backbone.initial_adapter(0).tensors
        batch = backbone.batch(Dataset(pixels, labels))
        batches = {name: value.unflatten(0, (count, settings["images"])) for name, value in batch.items()}
        stacked = {name: value.expand(count, *value.shape).clone() for name, value in start.items()}
        gradient = torch.func.vmap(
            torch.func.grad(lambda own, some: backbone.objective.loss(backbone.outputs(some, own), some).mean())
        )

        def step() -> None:
            gradient(stacked, batches)
    else:
        inputs = backbone.collate(pixels)["pixel_values"]
        model = get_peft_model(module, lora).eval()

        def step() -> None:
            cross_entropy(model(pixel_values=inputs).logits, labels).backward()
            model.zero_grad(set_to_none=True)

    del pixels
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = resident("VmRSS")
    for _ in range(3):
        step()
    return {"before": before, "at most": resident("VmHWM")}


def memory_of_both(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The two ways and their ratios."""
    found: dict[str, Any] = {}
    for way in ("vectorised", "one model"):
        done = subprocess.run([sys.executable, __file__, way, name], stdout=subprocess.PIPE, check=True)
        found[way] = json.loads(done.stdout)
    (most, before), (most_one, before_one) = ([found[way][key] for key in ("at most", "before")] for way in found)
    return {"MiB": found, "ratio": most / most_one, "net ratio": (most - before) / (most_one - before_one)}


def main(settings: dict[str, Any], targets: Any) -> dict[str, Any]:
    """Medians over the repeats, the two ways in turn."""
    count, images, steps = settings["adapters"], settings["images"], settings["steps"]
    with seeded(settings["seed"]):
        module = ViTForImageClassification(ViTConfig(**settings["model"]))
        pixels = np.random.default_rng(settings["seed"]).integers(0, 256, (count * images, 224, 224, 3), dtype=np.uint8)
        lora = LoraConfig(**settings["lora"], target_modules=targets)
        backbone = Backbone.from_pretrained(module, lora=lora)
        start = backbone.initial_adapter(0).tensors
        adapters = [
            {name: value + 0.02 * torch.randn(value.shape) for name, value in start.items()} for _ in range(count)
        ]
        labels = torch.arange(count * images) % settings["model"]["num_labels"]
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    began = time.perf_counter()
    batch = backbone.batch(Dataset(pixels, labels))
    prefix = time.perf_counter() - began
    batches = stack([take(batch, slice(row * images, (row + 1) * images)) for row in range(count)])
    stacked = {name: torch.stack([own[name] for own in adapters]) for name in start}
    gradient = torch.func.vmap(
        torch.func.grad_and_value(lambda own, some: backbone.objective.loss(backbone.outputs(some, own), some).mean())
    )

    def vectorised() -> torch.Tensor:
        grads, losses = gradient(stacked, batches)
        assert len(grads) == len(start)
        return losses

    inputs = backbone.collate(pixels)["pixel_values"]
    with seeded(settings["seed"]):
        again = ViTForImageClassification(ViTConfig(**settings["model"]))
        model = get_peft_model(again, lora, adapter_name="0")
        for number in range(1, count):
            model.add_adapter(str(number), lora)
    from peft import set_peft_model_state_dict

    for number, own in enumerate(adapters):
        set_peft_model_state_dict(model, own, adapter_name=str(number))
    model.eval()

    def loop() -> torch.Tensor:
        losses = []
        for number in range(count):
            model.set_adapter(str(number))
            rows = slice(number * images, (number + 1) * images)
            loss = cross_entropy(model(pixel_values=inputs[rows]).logits, labels[rows])
            loss.backward()
            model.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return torch.stack(losses)

    difference = float((vectorised() - loop()).abs().max())
    seconds: dict[str, list[float]] = {"vectorised": [], "loop": []}
    for _ in range(settings["repeats"]):
        for name, run, times in (("vectorised", vectorised, steps), ("loop", loop, max(1, steps // 4))):
            began = time.perf_counter()
            for _ in range(times):
                run()
            seconds[name].append((time.perf_counter() - began) / times)
    found = {name: median(values) for name, values in seconds.items()}
    return {
        "seconds a step": found,
        "seconds of what is computed once": prefix,
        "times faster": found["loop"] / found["vectorised"],
        "largest difference of a loss": difference,
        "MiB before": base,
        "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def savanna(settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a vectorised step on the bundled backbone: low-rank branches, and factors merged into the weights.

    Both replay the same prefix, so that they differ in the adapted layers alone. As in fine-tuning, A has no
    gradient.
    """
    count, images, backbone = settings["adapters"], settings["images"], load_backbone("savanna-cnn")
    draws = np.random.default_rng(settings["seed"])
    size = backbone.image_size
    pixels = draws.integers(0, 256, (count * images, size, size, 3), dtype=np.uint8)
    labels = torch.arange(count * images) % len(backbone.classes)
    batch = backbone.batch(Dataset(pixels, labels))
    batches = stack([take(batch, slice(row * images, (row + 1) * images)) for row in range(count)])
    start = backbone.initial_adapter(0).tensors
    with seeded(settings["seed"]):
        stacked = {
            name: torch.stack([value + 0.02 * torch.randn(value.shape) for _ in range(count)])
            for name, value in start.items()
        }
    fixed = {name: value for name, value in stacked.items() if ".lora_A." in name}
    trained = {name: value for name, value in stacked.items() if name not in fixed}
    prefix, model = backbone._model({name: value for name, value in batch.items() if name != TARGETS}, False)
    weights = dict(model.named_parameters())

    def merged(own: dict[str, torch.Tensor], some: dict[str, torch.Tensor]) -> torch.Tensor:
        changed = {name: own[stored] for stored, name in backbone.spec.parameters.items()}
        for name, entry in backbone.spec.modules.items():
            first, second = (own[f"{PEFT_PREFIX}{name}.{factor}"].flatten(1) for factor in entry.factors)
            weight = weights[f"{name}.weight"]
            changed[f"{name}.weight"] = weight + entry.scaling * (second @ first).reshape(weight.shape)
        inputs = {name: value for name, value in some.items() if name != TARGETS}
        return replay(model, prefix, inputs, lambda **given: torch.func.functional_call(model, changed, (), given))

    def step(outputs: Any) -> Any:
        def loss(own: dict[str, torch.Tensor], others: dict[str, torch.Tensor], some: Batch) -> torch.Tensor:
            return backbone.objective.loss(outputs({**own, **others}, some), some).mean()

        return torch.func.vmap(torch.func.grad_and_value(loss))

    ways = {"branches": step(lambda own, some: backbone.outputs(some, own)), "merged": step(merged)}
    losses = {name: way(trained, fixed, batches)[1] for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings["repeats"]):
        for name, way in ways.items():
            began = time.perf_counter()
            for _ in range(settings["steps"]):
                way(trained, fixed, batches)
            seconds[name].append((time.perf_counter() - began) / settings["steps"])
    found = {name: median(values) for name, values in seconds.items()}
    difference = float((losses["branches"] - losses["merged"]).abs().max())
    return {"seconds a step": found, "times faster": found["merged"] / found["branches"],
            "largest difference of a loss": difference}  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads((FOLDER / "experiment.json").read_text())
    if len(sys.argv) == 3:
        print(json.dumps(memory(given, given["targets"][sys.argv[2]], sys.argv[1])))
    elif sys.argv[1:] == ["--savanna"]:
        print(json.dumps(savanna(given["savanna"]), indent=2))
    elif sys.argv[1:] == ["--memory"]:
        print(json.dumps({name: memory_of_both(given, name) for name in given["targets"]}, indent=2))
    else:
        print(json.dumps({name: main(given, targets) for name, targets in given["targets"].items()}, indent=2))
