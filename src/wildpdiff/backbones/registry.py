"""Backbones by name: the bundled one, and any that was saved to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from wildpdiff.artifact import Artifact, read_artifact, write_artifact
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.savanna_cnn import SavannaCNN
from wildpdiff.backbones.small_cnn import SmallCNN
from wildpdiff.errors import ArtifactError

WEIGHTS = Path(__file__).parent / "weights"
BUNDLED = ("savanna-cnn",)
"""Names of the backbones whose weights are inside the package."""


def is_bundled(backbone: Backbone) -> bool:
    """Whether these very weights are inside the package; a name alone says nothing, anyone may pretrain anew."""
    return (
        backbone.name in BUNDLED
        and (WEIGHTS / backbone.name).is_dir()
        and load_backbone(backbone.name).backbone_hash == backbone.backbone_hash
    )


def _efficientnet(artifact: Artifact) -> Backbone:
    from wildpdiff.backbones.efficientnet_lite import from_state

    return from_state(artifact.config, artifact.tensors["weights"])


def _savanna(artifact: Artifact) -> Backbone:
    return _restored(artifact, SavannaCNN(len(artifact.config["classes"])))


def _small(artifact: Artifact) -> Backbone:
    return _restored(
        artifact, SmallCNN(len(artifact.config["classes"]), len(artifact.tensors["weights"]["neck.weight"]))
    )


def _restored(artifact: Artifact, module: nn.Module) -> Backbone:
    config = artifact.config
    module.load_state_dict(artifact.tensors["weights"])
    lora = LoraSpec(
        config["lora"]["rank"],
        config["lora"]["alpha"],
        tuple(config["lora"]["target_modules"]),
        tuple(config["lora"]["modules_to_save"]),
        config["lora"].get("peft"),
    )
    return Backbone.wrap(
        module, name=config["name"], classes=config["classes"], image_size=config["image_size"], lora=lora
    )


ARCHITECTURES: dict[str, Callable[[Artifact], Backbone]] = {
    "SavannaCNN": _savanna,
    "SmallCNN": _small,
    "EfficientNetLite0": _efficientnet,
}
"""How a backbone is rebuilt from its stored configuration and weights, by the name of its module's class."""


def save_backbone(backbone: Backbone, folder: Path | str) -> str:
    """Write a backbone's weights and configuration; returns the artifact's fingerprint."""
    architecture = type(backbone.module).__name__
    if architecture not in ARCHITECTURES:
        raise ArtifactError(
            f"A {architecture} cannot be rebuilt from its weights alone; known are {', '.join(sorted(ARCHITECTURES))}. "
            "Keep your own code for it and pass the Backbone where it is needed."
        )
    lora = backbone.lora
    config = {
        "architecture": architecture,
        "name": backbone.name,
        "classes": list(backbone.classes),
        "image_size": backbone.image_size,
        "lora": {
            "rank": lora.rank,
            "alpha": lora.alpha,
            "target_modules": list(lora.target_modules),
            "modules_to_save": list(lora.modules_to_save),
            **({} if lora.peft is None else {"peft": dict(lora.peft)}),
        },
    }
    return write_artifact(Path(folder), "backbone", config, {"weights": dict(backbone.module.state_dict())})


def load_backbone(name_or_folder: str | Path) -> Backbone:
    """A bundled backbone by name, or a saved one by its folder.

    Raises:
        ArtifactError: neither a bundled name nor a folder with a backbone.
    """
    text = str(name_or_folder)
    folder = WEIGHTS / text if text in BUNDLED else Path(text)
    if not folder.is_dir():
        raise ArtifactError(
            f"{text!r} is neither a bundled backbone ({', '.join(BUNDLED)}) nor the folder of one. Check the name."
        )
    artifact = read_artifact(folder, "backbone")
    architecture = artifact.config.get("architecture")
    if architecture not in ARCHITECTURES:
        raise ArtifactError(f"{folder} holds a backbone of unknown architecture {architecture!r}. Update wildpdiff.")
    return ARCHITECTURES[architecture](artifact)
