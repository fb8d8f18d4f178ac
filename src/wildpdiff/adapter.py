"""An adapter: the task-specific tensors, where they attach, and where they come from. Its folder is a PEFT folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wildpdiff.artifact import read_safetensors, safetensors_bytes
from wildpdiff.disk import content_hash, file_hash, json_bytes, read_json, visible, write_folder
from wildpdiff.errors import AdapterMismatchError, ArtifactError, SchemaVersionError

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before every tensor name in ``adapter_model.safetensors``."""

PROVENANCE_VERSION = 2
"""Version 1 had no hashes; its adapters are still read."""

CONFIG_FILE, TENSORS_FILE, PROVENANCE_FILE = "adapter_config.json", "adapter_model.safetensors", "provenance.json"

PEFT_DEFAULTS: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "use_rslora": False,
    "use_dora": False,
}
"""What PEFT takes where its file lacks the key."""

PEFT_WITHOUT_EFFECT = {
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "lora_dropout"),
    *("megatron_core", "qalora_group_size", "runtime_config", "loftq_config", "eva_config", "corda_config"),
    "lora_ga_config",
}
"""Keys of PEFT's file that do not change the logits of an adapter that is loaded for use."""


@dataclass(frozen=True)
class AdapterConfig:
    """Which modules of which backbone an adapter changes, as PEFT's ``LoraConfig`` describes it.

    Attributes:
        backbone: the backbone's registered name.
        backbone_hash: SHA-256 of its frozen weights, so that an adapter is never applied to other weights.
        classes: names of the classes, in the order of the logits.
        rank: rank r of the LoRA factors (Hu et al. 2021).
        alpha: LoRA's alpha; the update is ``alpha / r * B @ A``.
        target_modules: full names of the modules that get LoRA factors.
        modules_to_save: full names of the modules that are replaced whole, as PEFT calls them: the classifier.
    """

    backbone: str
    backbone_hash: str
    classes: tuple[str, ...]
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]

    @property
    def scaling(self) -> float:
        """The factor ``alpha / r`` before ``B @ A``."""
        return self.alpha / self.rank

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {
            "backbone": self.backbone,
            "backbone_hash": self.backbone_hash,
            "classes": list(self.classes),
            "rank": self.rank,
            "alpha": self.alpha,
            "target_modules": list(self.target_modules),
            "modules_to_save": list(self.modules_to_save),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AdapterConfig:
        """The inverse of :meth:`to_json`."""
        names = ("classes", "target_modules", "modules_to_save")
        for name in names:
            if not isinstance(data[name], list) or not all(isinstance(entry, str) for entry in data[name]):
                raise TypeError(f"{name} is {data[name]!r}, no list of texts")
        for name in ("backbone", "backbone_hash"):
            if not isinstance(data[name], str):
                raise TypeError(f"{name} is {data[name]!r}, no text")
        rank, alpha = data["rank"], data["alpha"]
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise TypeError(f"rank is {rank!r}, no whole number from 1")
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < 1e30:
            raise TypeError(f"alpha is {alpha!r}, no number")
        return cls(**{**data, **{name: tuple(data[name]) for name in names}})

    def peft_json(self) -> dict[str, Any]:
        """The content of PEFT's ``adapter_config.json``."""
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": self.backbone,
            "task_type": None,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "use_rslora": False,
            "use_dora": False,
            "target_modules": list(self.target_modules),
            "modules_to_save": list(self.modules_to_save) or None,
        }


@dataclass(frozen=True)
class Adapter:
    """The tensors of one task, under the names that PEFT gives them in its file.

    Attributes:
        tensors: for each target module ``….lora_A.weight`` and ``….lora_B.weight``, for each saved module its
            parameters, all with PEFT's prefix.
        config: where they attach.
        provenance: plain JSON values: which source made it, from which generator hash, seed and description.
    """

    tensors: Mapping[str, Tensor]
    config: AdapterConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(value.numel() for value in self.tensors.values())

    def distance(self, other: Adapter) -> float:
        """Euclidean distance between the parameters of two adapters of one layout."""
        if {n: v.shape for n, v in self.tensors.items()} != {n: v.shape for n, v in other.tensors.items()}:
            raise AdapterMismatchError("The two adapters have different tensors; only like ones can be compared.")
        squares = sum(
            float((self.tensors[n].double() - other.tensors[n].double()).square().sum()) for n in self.tensors
        )
        return float(squares**0.5)

    def save(self, folder: Path | str) -> Path:
        """Write an ordinary PEFT folder, with a model card and ``provenance.json``; atomic. Returns the folder."""
        folder = Path(folder)
        hashed = {
            CONFIG_FILE: json_bytes(self.config.peft_json()),
            TENSORS_FILE: safetensors_bytes(self.tensors),
        }
        body = {
            "schema_version": PROVENANCE_VERSION,
            "adapter": self.config.to_json(),
            "provenance": dict(self.provenance),
            "files": {name: content_hash(data) for name, data in hashed.items()},
        }
        provenance = {**body, "fingerprint": content_hash(json_bytes(body))}
        card = visible(_model_card(self)).encode(errors="backslashreplace")
        files = {PROVENANCE_FILE: json_bytes(provenance), **hashed, "README.md": card}

        def fill(temporary: Path) -> None:
            for name, data in files.items():
                (temporary / name).write_bytes(data)

        write_folder(folder, fill)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Adapter:
        """Read a folder written by :meth:`save`; tensors of any precision become single, in which all is computed.

        Raises:
            ArtifactError: a file is missing, truncated, altered (its hash differs) or not of this package.
            SchemaVersionError: written by a newer version of the package.
            AdapterMismatchError: PEFT would read another adapter from its file beside it.
        """
        folder = Path(folder)
        if not (folder / PROVENANCE_FILE).is_file():
            raise ArtifactError(f"{folder} is no adapter of wildpdiff: provenance.json is missing. Check the path.")
        data = read_json(folder / PROVENANCE_FILE, finite=True)
        if not isinstance(data, dict) or not isinstance(data.get("schema_version", 0), int):
            raise ArtifactError(f"{folder / PROVENANCE_FILE} is not of this package. Check the path.")
        if data.get("schema_version", 0) > PROVENANCE_VERSION:
            raise SchemaVersionError(
                f"{folder} has provenance version {data['schema_version']}; this package reads up to "
                f"{PROVENANCE_VERSION}. Update wildpdiff."
            )
        try:
            config, provenance = AdapterConfig.from_json(data["adapter"]), dict(data["provenance"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder / PROVENANCE_FILE} lacks the adapter's configuration ({error}).") from None
        _check_peft(folder / CONFIG_FILE, config)
        tensors = read_safetensors(folder / TENSORS_FILE)
        _check_hashes(folder, data)
        return cls({name: value.float() for name, value in tensors.items()}, config, provenance)

    def check_finite(self) -> None:
        """Raise :class:`ArtifactError` where a value is not finite."""
        bad = [name for name, value in self.tensors.items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise ArtifactError(f"The adapter's tensor {bad[0]} holds values that are not finite; do not use it.")


def _check_peft(path: Path, config: AdapterConfig) -> None:
    """Refuse a folder that PEFT would read as another adapter than this package does."""
    if not path.is_file():
        return
    stated, meant = read_json(path), config.peft_json()
    if not isinstance(stated, dict):
        raise ArtifactError(f"{path} is no JSON object. Copy or generate the folder again.")
    for key in (*meant, *sorted(set(stated) - set(meant))):
        found, wanted = stated.get(key, PEFT_DEFAULTS.get(key)), meant.get(key)
        if key in PEFT_WITHOUT_EFFECT or found == wanted or (not found and not wanted):
            continue
        if isinstance(found, list) and isinstance(wanted, list) and sorted(map(str, found)) == sorted(wanted):
            continue  # PEFT's own order is that of a set
        raise AdapterMismatchError(
            f"{path} has {key} {found!r}, and provenance.json beside it {wanted!r}: PEFT would read another "
            "adapter there. Copy or generate the folder again."
        )


def has_hashes(folder: Path | str) -> bool:
    """Whether :meth:`Adapter.load` checks hashes of this folder; adapters of provenance version 1 have none."""
    data = read_json(Path(folder) / PROVENANCE_FILE)
    return isinstance(data, dict) and "files" in data


def _check_hashes(folder: Path, data: Mapping[str, Any]) -> None:
    """Refuse a folder whose files are not those that were written together; version 1 had no hashes."""
    files = data.get("files")
    if data.get("schema_version", 0) < 2 and files is None:
        return
    body = {key: value for key, value in data.items() if key != "fingerprint"}
    if not isinstance(files, dict) or data.get("fingerprint") != content_hash(json_bytes(body)):
        raise ArtifactError(
            f"{folder / PROVENANCE_FILE} is altered: its fingerprint differs from its content. Copy or generate the "
            "adapter again."
        )
    for name in (CONFIG_FILE, TENSORS_FILE):
        if file_hash(folder / name) != files.get(name):
            raise ArtifactError(
                f"{folder / name} is altered: its hash differs from the one in provenance.json. Copy or generate the "
                "adapter again."
            )


def _cross_validation(provenance: Mapping[str, Any]) -> str:
    """What the model card says of the generator's cross-validation."""
    checked = provenance.get("cross_validation")
    if not isinstance(checked, dict) or not isinstance(checked.get("accuracy"), dict):
        return ""
    rows = "\n".join(f"| {method} | {accuracy:.1f} |" for method, accuracy in checked["accuracy"].items())
    few = " They are few: this says little of a new task." if checked.get("few_tasks") else ""
    return (
        f"Accuracy in percent on {checked.get('tasks')} seen tasks of the generator, each held out.{few}\n\n"
        f"| adapters | accuracy |\n| --- | ---: |\n{rows}\n\n"
    )


def _labels(provenance: Mapping[str, Any]) -> str:
    """What the model card says of the task's labels."""
    if provenance.get("labels"):
        return (
            f"It was trained on {provenance['labels']} labelled images of this task. Check it on others before you "
            "rely on it."
        )
    return (
        "An adapter made by a generator was not trained on labels of this task. Check it on a few labelled examples of "
        "your own before you rely on it."
    )


def _model_card(adapter: Adapter) -> str:
    provenance = adapter.provenance
    config = adapter.config
    rows = "\n".join(
        f"- {key.replace('_', ' ')}: `{value}`"
        for key, value in sorted(provenance.items())
        if not isinstance(value, dict)
    )
    return f"""---
base_model: {config.backbone}
library_name: peft
tags: [lora, wildpdiff, generated-adapter]
---
# Adapter for {provenance.get("task") or "a described task"}

A LoRA adapter (rank {config.rank}, {adapter.size} parameters) of the backbone `{config.backbone}`
(weights `{config.backbone_hash[:12]}`), for {len(config.classes)} classes: {", ".join(config.classes)}.

{rows}

{_cross_validation(provenance)}{_labels(provenance)} `provenance.json` says how it was made.

Use: `wildpdiff predict THIS_FOLDER IMAGE…`, or in Python, with the logits in the order of the classes above:

```python
import peft
import wildpdiff

backbone = wildpdiff.load_backbone("{config.backbone}")  # or the folder of your own
model = peft.PeftModel.from_pretrained(backbone.module, "THIS_FOLDER").eval()
logits = model(backbone.preprocess(images))  # images: uint8, n x height x width x 3
```
"""
