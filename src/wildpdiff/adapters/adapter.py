"""An adapter: the task-specific tensors, where they attach, and where they come from. Its folder is a PEFT folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wildpdiff.adapters.spec import WITHOUT_EFFECT, AdapterSpec, peft_config, plain_names
from wildpdiff.artifact import read_safetensors, safetensors_bytes
from wildpdiff.disk import content_hash, file_hash, json_bytes, read_json, visible, write_folder
from wildpdiff.errors import AdapterMismatchError, ArtifactError
from wildpdiff.records import check_version, decode, encode

PROVENANCE_VERSION = 2
"""Version 1 had no hashes; its adapters are still read."""

PICKLE_FILE = "adapter_model.bin"
CONFIG_FILE, TENSORS_FILE, PROVENANCE_FILE = "adapter_config.json", "adapter_model.safetensors", "provenance.json"

PEFT_DEFAULTS: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "use_rslora": False,
    "use_dora": False,
}
"""PEFT's defaults for keys that its file lacks."""


@dataclass(frozen=True)
class AdapterConfig:
    """Which modules of which backbone an adapter changes, as PEFT's ``LoraConfig`` describes it.

    Attributes:
        backbone: the backbone's registered name, or the base model of a PEFT folder.
        backbone_hash: SHA-256 of its frozen weights, so that an adapter is never applied to other weights; empty for
            adapters made elsewhere, of which only the base model's name is known.
        classes: names of the classes, in the order of the logits; empty where they are not known.
        rank: rank r of the LoRA factors (Hu et al. 2021), the largest where modules differ.
        alpha: LoRA's alpha; the update is ``alpha / r * B @ A``.
        target_modules: full names of the modules that get LoRA factors.
        modules_to_save: full names of the modules that are replaced whole, as PEFT calls them: the classifier.
        peft: the content of PEFT's ``adapter_config.json`` where it has more than one rank, alpha and these names.
    """

    backbone: str
    backbone_hash: str
    classes: tuple[str, ...]
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    peft: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, spec: AdapterSpec) -> AdapterConfig:
        """The configuration of adapters made elsewhere."""
        content = spec.to_peft()
        rank = max((entry.rank for entry in spec.modules.values()), default=int(content["r"]))
        plain = cls(spec.base_model, "", (), rank, content["lora_alpha"], tuple(spec.modules), spec.modules_to_save)
        return plain if plain.peft_json() == content else replace(plain, peft=content)

    @property
    def scaling(self) -> float:
        """The factor ``alpha / r`` before ``B @ A``."""
        return self.alpha / self.rank

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {name: value for name, value in encode(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Any, where: object = "adapter") -> AdapterConfig:
        """The inverse of :meth:`to_json`; raises :class:`ArtifactError`, which names ``where`` and the key."""
        values = {"peft": None, **data} if isinstance(data, dict) else data
        config: AdapterConfig = decode(cls, values, f"{where}: adapter")
        if config.rank < 1 or not abs(config.alpha) < 1e30:
            raise ArtifactError(f"{where}: rank {config.rank} or alpha {config.alpha} is out of range. Copy it again.")
        return replace(config, alpha=data["alpha"])  # a whole number stays one: hashes are of its text

    def peft_json(self) -> dict[str, Any]:
        """The content of PEFT's ``adapter_config.json``."""
        if self.peft is not None:
            return dict(self.peft)
        return peft_config(
            self.backbone,
            self.rank,
            self.alpha,
            target_modules=self.target_modules,
            modules_to_save=self.modules_to_save,
        )


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
    def spec(self) -> AdapterSpec:
        """Kind, rank and scaling of every module."""
        return AdapterSpec.from_tensors(self.config.peft_json(), self.tensors)

    def state_dict(self, adapter_name: str | None = None) -> dict[str, Tensor]:
        """The tensors for a model that PEFT has prepared.

        Args:
            adapter_name: None for ``peft.set_peft_model_state_dict``; the name of the adapter that is exchanged, for
                ``peft.utils.hotswap.hotswap_adapter_from_state_dict``.
        """
        if adapter_name is None:
            return dict(self.tensors)
        return {
            re.sub(r"(\.lora_(?:embedding_)?[AB])(\.weight)?$", rf"\1.{adapter_name}\2", name): value
            for name, value in self.tensors.items()
        }

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
        """Read any PEFT LoRA folder; tensors of any precision become single, in which all is computed.

        ``provenance.json`` is optional. Where it is there, its hashes are checked.

        Raises:
            ArtifactError: a file is missing, truncated, altered (its hash differs), or a pickle.
            SchemaVersionError: written by a newer version of the package.
            AdapterMismatchError: PEFT would read another adapter than provenance.json states, or the adapter is of a
                kind that is not supported.
        """
        folder = Path(folder)
        path = folder / PROVENANCE_FILE
        if not path.is_file() and not (folder / CONFIG_FILE).is_file():
            raise ArtifactError(f"{folder} is no adapter: {CONFIG_FILE} is missing. Check the path.")
        if not (folder / TENSORS_FILE).is_file() and (folder / PICKLE_FILE).is_file():
            raise ArtifactError(
                f"{folder / PICKLE_FILE} is a pickle, which can run any code when it is read. Save the adapter again "
                "with PEFT's save_pretrained(..., safe_serialization=True)."
            )
        parts = sorted(entry.name for entry in folder.glob("adapter_model-*.safetensors"))
        if parts and not (folder / TENSORS_FILE).is_file():
            raise ArtifactError(
                f"{folder} holds {parts[0]} and no {TENSORS_FILE}, which PEFT reads. Save it in one file."
            )
        if not path.is_file():
            return cls._foreign(folder)
        data = read_json(path, finite=True)
        if not isinstance(data, dict):
            raise ArtifactError(f"{path} is not of this package. Check the path.")
        check_version(data.get("schema_version", 1), PROVENANCE_VERSION, path)
        config = AdapterConfig.from_json(data.get("adapter"), path)
        provenance = decode(dict[str, Any], data.get("provenance"), f"{path}: provenance")
        _check_peft(folder / CONFIG_FILE, config)
        tensors = read_safetensors(folder / TENSORS_FILE)
        _check_hashes(folder, data)
        return cls(_single(tensors), config, provenance)

    @classmethod
    def _foreign(cls, folder: Path) -> Adapter:
        """Read a folder that PEFT wrote."""
        content = read_json(folder / CONFIG_FILE, finite=True)
        if not isinstance(content, dict):
            raise ArtifactError(f"{folder / CONFIG_FILE} is no JSON object. Copy the folder again.")
        tensors = plain_names(_single(read_safetensors(folder / TENSORS_FILE)))
        try:
            return cls(tensors, AdapterConfig.of(AdapterSpec.from_tensors(content, tensors)), {"source": "imported"})
        except AdapterMismatchError as error:
            raise AdapterMismatchError(f"{folder}: {error}") from None
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise ArtifactError(f"{folder / CONFIG_FILE} is not whole ({error}). Copy the folder again.") from None

    def check_finite(self) -> None:
        """Raise :class:`ArtifactError` where a value is not finite."""
        bad = [name for name, value in self.tensors.items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise ArtifactError(f"The adapter's tensor {bad[0]} holds values that are not finite; do not use it.")


def _single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _check_peft(path: Path, config: AdapterConfig) -> None:
    """Refuse a folder that PEFT would read as another adapter than this package does."""
    if not path.is_file():
        return
    stated, meant = read_json(path), config.peft_json()
    if not isinstance(stated, dict):
        raise ArtifactError(f"{path} is no JSON object. Copy or generate the folder again.")
    for key in (*meant, *sorted(set(stated) - set(meant))):
        found, wanted = stated.get(key, PEFT_DEFAULTS.get(key)), meant.get(key)
        if key in WITHOUT_EFFECT or found == wanted or (not found and not wanted):
            continue
        if isinstance(found, list) and isinstance(wanted, list) and sorted(map(str, found)) == sorted(wanted):
            continue  # PEFT's own order is that of a set
        raise AdapterMismatchError(
            f"{path} has {key} {found!r}, and provenance.json beside it {wanted!r}: PEFT would read another "
            "adapter there. Copy or generate the folder again."
        )


def has_hashes(folder: Path | str) -> bool:
    """Whether :meth:`Adapter.load` checks hashes of this folder; adapters of version 1, and of PEFT, have none."""
    path = Path(folder) / PROVENANCE_FILE
    data = read_json(path) if path.is_file() else None
    return isinstance(data, dict) and "files" in data


def _check_hashes(folder: Path, data: Mapping[str, Any]) -> None:
    """Refuse a folder whose files are not those that were written together; version 1 had no hashes."""
    files = data.get("files")
    if data.get("schema_version", 0) < 2 and files is None:
        return
    body = {key: value for key, value in data.items() if key != "fingerprint"}
    if not isinstance(files, dict) or data.get("fingerprint") != content_hash(json_bytes(body)):
        raise ArtifactError(f"{folder / PROVENANCE_FILE} is altered: its fingerprint differs. Copy the adapter again.")
    for name in (CONFIG_FILE, TENSORS_FILE):
        if file_hash(folder / name) != files.get(name):
            raise ArtifactError(f"{folder / name} is altered: its hash differs. Copy or generate the adapter again.")


def _cross_validation(provenance: Mapping[str, Any]) -> str:
    """Section of the model card on the generator's cross-validation."""
    checked = provenance.get("cross_validation")
    if not isinstance(checked, dict) or not isinstance(checked.get("accuracy"), dict):
        return ""
    rows = "\n".join(f"| {method} | {accuracy:.1f} |" for method, accuracy in sorted(checked["accuracy"].items()))
    few = " Too few to conclude much for a new task." if checked.get("few_tasks") else ""
    return (
        f"Cross-validation on {checked.get('tasks')} seen tasks of the generator, each held out.{few}\n\n"
        f"| adapters | {checked.get('metric', 'accuracy, %')} |\n| --- | ---: |\n{rows}\n\n"
    )


def _labels(provenance: Mapping[str, Any]) -> str:
    """Section of the model card on the task's labels."""
    if provenance.get("labels"):
        return (
            f"It was trained on {provenance['labels']} labelled examples of this task. Check it on others before you "
            "rely on it."
        )
    if provenance.get("source") == "pretrained" and provenance.get("trust"):
        return "It is the pretrained model's, since trust in the generated one was too low, and changes nothing."
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
        if value is not None and not isinstance(value, dict)
    )
    if config.backbone_hash:
        classes = f", for {len(config.classes)} classes: {', '.join(config.classes)}" if config.classes else ""
        known = f"the backbone `{config.backbone}`\n(weights `{config.backbone_hash[:12]}`){classes}."
        files = "`wildpdiff predict THIS_FOLDER FILE…`, or in Python, with logits in the order of these classes"
        use = f"""Use{": " + files if classes else " in Python"}:

```python
import peft
import wildpdiff

backbone = wildpdiff.load_backbone("{config.backbone}")  # a bundled name or a stored folder; else your own Backbone
model = peft.PeftModel.from_pretrained(backbone.module, "THIS_FOLDER").eval()
logits = model(**backbone.collate(examples))  # images as uint8, n x height x width x 3, or a list of texts
```
"""
    else:
        known = f"`{config.backbone}`." if config.backbone else "an unnamed base model."
        use = """Use, with the base model as it was loaded for the adapters that this one was learned from:

```python
import peft

model = peft.PeftModel.from_pretrained(base_model, "THIS_FOLDER").eval()
```
"""
    return f"""---
base_model: {config.backbone}
library_name: peft
tags: [lora, wildpdiff, generated-adapter]
---
# Adapter for {provenance.get("task") or "a described task"}

A LoRA adapter (rank {config.rank}, {adapter.size} parameters) of {known}

{rows}

{_cross_validation(provenance)}{_labels(provenance)} How it was made is in `provenance.json`.

{use}"""
