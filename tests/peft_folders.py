"""Adapters that plain PEFT wrote: a smooth function of two descriptors plus noise, in factors of random bases."""

from __future__ import annotations

import copy
import csv
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

MODULES = {"block.first": (10, 12), "block.second": (8, 10)}
RANKS = (2, 4, 8)
TARGETS = (("block.first",), ("block.first", "block.second"))
DECAY = torch.tensor([1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08]).sqrt()


class Network(nn.Module):
    """A model that imported adapters are for; the package never sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({name.split(".")[1]: nn.Linear(size[1], size[0]) for name, size in MODULES.items()})
        self.name_or_path = "somebody/base"

    def forward(self, inputs: Tensor) -> Tensor:
        return self.block["second"](self.block["first"](inputs))


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network().eval()


@dataclass(frozen=True)
class Folders:
    """Where the adapters lie, with their descriptors."""

    root: Path
    table: Path
    descriptors: dict[str, tuple[float, float]]

    @property
    def paths(self) -> list[Path]:
        return [self.root / name for name in self.descriptors]


def updates(x: float, y: float, rank: int = 8) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of the noiseless updates at a description."""
    draws = torch.Generator().manual_seed(5)
    weights = torch.tensor([1.0, 2 * x - 1, 2 * y - 1])
    found = {}
    for name, (outputs, inputs) in MODULES.items():
        b = torch.einsum("k,kor->or", weights, torch.randn(3, outputs, 8, generator=draws)) * DECAY
        a = torch.einsum("k,kri->ri", weights, torch.randn(3, 8, inputs, generator=draws)) * DECAY[:, None]
        found[name] = (b[:, :rank], a[:rank])
    return found


def peft_model(rank: int, targets: tuple[str, ...]) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets))
        model = get_peft_model(network(), config)
    model.peft_config["default"].base_model_name_or_path = "somebody/base"
    return model


def write(root: Path, count: int) -> Folders:
    """As many PEFT folders and a CSV table next to them."""
    draws = torch.Generator().manual_seed(0)
    kinds = list(itertools.product(RANKS, TARGETS))
    models = {kind: peft_model(*kind) for kind in kinds}
    descriptors = {}
    for number in range(count):
        x, y = torch.rand(2, generator=draws).tolist()
        rank, targets = kinds[number % len(kinds)]
        state = {}
        for name, (b, a) in updates(x, y, rank).items():
            b = b + 0.05 * torch.randn(b.shape, generator=draws)
            a = a + 0.05 * torch.randn(a.shape, generator=draws)
            rotation = torch.linalg.qr(torch.randn(rank, rank, generator=draws)).Q
            mixing = rotation * torch.exp(0.7 * torch.randn(rank, generator=draws))
            if name in targets:  # PEFT's scaling is 2
                state[f"base_model.model.{name}.lora_A.default.weight"] = mixing @ a
                state[f"base_model.model.{name}.lora_B.default.weight"] = b @ torch.linalg.inv(mixing) / 2
        models[rank, targets].load_state_dict(state, strict=False)
        descriptors[f"task-{number:03d}"] = (x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models[rank, targets].save_pretrained(str(root / f"task-{number:03d}"), save_embedding_layers=False)
    table = root / "tasks.csv"
    with open(table, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["task", "x", "y"])
        writer.writerows((name, x, y) for name, (x, y) in descriptors.items())
    return Folders(root, table, descriptors)


def opened_by_peft(folder: Path) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(copy.deepcopy(network()), str(folder)).eval()
