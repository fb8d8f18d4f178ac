"""Trained networks kept on disk as each is finished, so that a fit that was killed loses the one in training alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wildpdiff.artifact import read_safetensors, safetensors_bytes, tensors_hash
from wildpdiff.disk import content_hash, json_bytes, write_file
from wildpdiff.errors import ArtifactError

STEPS, LOSSES, HELD_OUT = "steps", "losses", "held_out_losses"
CHECK = "sha256"
"""Key of the hash of a file's name and of all its other tensors."""
PREFIX = "network."


@dataclass(frozen=True)
class StoredNetwork:
    """What is stored of a trained network: the fields of a ``FittedNetwork``, its network as tensors."""

    state: dict[str, Tensor]
    steps: int
    losses: Tensor
    held_out_losses: Tensor


@dataclass(frozen=True)
class NetworkStore:
    """Networks in a folder, under names that are hashes of everything that decides their weights.

    One folder may hold networks of several fits: other data, settings or seeds are other names. A file appears whole
    or not at all.

    Attributes:
        folder: made with the first network.
        key: hash of what decides all networks of one fit.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> NetworkStore:
        """The networks that these tensors and plain JSON values decide, with the versions of package and torch."""
        try:
            package = version("wildpdiff")
        except PackageNotFoundError:  # run from a source tree
            package = "unknown"
        versions = {"wildpdiff": package, "torch": str(torch.__version__)}
        return cls(folder, content_hash(json_bytes({**settings, **versions}) + tensors_hash(tensors).encode()))

    def load(self, *name: int) -> StoredNetwork | None:
        """A network, by the numbers that distinguish it; None where it is not there, or not as it was written."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            tensors = read_safetensors(path)
            if not torch.equal(tensors.pop(CHECK), self._check(name, tensors)):
                return None
            steps, losses, held_out = int(tensors.pop(STEPS)), tensors.pop(LOSSES), tensors.pop(HELD_OUT)
        except (ArtifactError, KeyError, RuntimeError):
            return None
        state = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
        return StoredNetwork(state, steps, losses, held_out)

    def save(self, network: nn.Module, steps: int, losses: Tensor, held_out_losses: Tensor, *name: int) -> None:
        """Keep a trained network; raises :class:`ArtifactError` where the disk refuses."""
        state = {f"{PREFIX}{key}": value for key, value in network.state_dict().items()}
        numbers = {STEPS: torch.tensor(steps), LOSSES: losses, HELD_OUT: held_out_losses}
        tensors = {**state, **numbers}
        write_file(self._path(name), safetensors_bytes({**tensors, CHECK: self._check(name, tensors)}))

    def _check(self, name: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
        told = content_hash(json_bytes([self.key, *name]) + tensors_hash(tensors).encode())
        return torch.frombuffer(bytearray.fromhex(told), dtype=torch.uint8)

    def _path(self, name: tuple[int, ...]) -> Path:
        return self.folder / f"network-{content_hash(json_bytes([self.key, *name]))[:32]}.safetensors"
