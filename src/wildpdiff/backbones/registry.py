"""Backbones by name: the bundled one, and any that was saved to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from wildpdiff.artifact import MANIFEST, Artifact, read_artifact, write_artifact
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.savanna_cnn import SavannaCNN
from wildpdiff.errors import ArtifactError
from wildpdiff.records import decode, encode
from wildpdiff.registry import registered
from wildpdiff.tasks.framing import Framing

WEIGHTS = Path(__file__).parent / "weights"
STORED_LORA = ("rank", "alpha", "target_modules", "modules_to_save")
BUNDLED = ("savanna-cnn",)
"""Names of the backbones whose weights are inside the package."""


def is_bundled(backbone: Backbone) -> bool:
    """Whether these very weights are inside the package; the name is no evidence, anyone may pretrain anew."""
    return (
        backbone.name in BUNDLED
        and (WEIGHTS / backbone.name).is_dir()
        and load_backbone(backbone.name).backbone_hash == backbone.backbone_hash
    )


def _efficientnet(artifact: Artifact) -> Backbone:
    from wildpdiff.backbones.efficientnet_lite import from_state

    return from_state(artifact.config, artifact.tensors["weights"])


def _savanna(artifact: Artifact) -> Backbone:
    return restored(artifact, SavannaCNN(len(artifact.config["classes"])))


def stored_lora(config: Mapping[str, Any]) -> LoraSpec:
    """The LoRA setting in a stored backbone's configuration."""
    lora = config["lora"]
    names = (tuple(lora["target_modules"]), tuple(lora["modules_to_save"]))
    return LoraSpec(lora["rank"], lora["alpha"], *names, lora.get("peft"))


def restored(artifact: Artifact, module: nn.Module) -> Backbone:
    """A stored backbone with default preprocessing, from an untrained module of its architecture."""
    config = artifact.config
    module.load_state_dict(artifact.tensors["weights"])
    lora = stored_lora(config)
    return Backbone.wrap(
        module, name=config["name"], classes=config["classes"], image_size=config["image_size"], lora=lora
    )


def _transformers(artifact: Artifact) -> Backbone:
    from wildpdiff.backbones.pretrained import restored_model

    return restored_model(artifact, stored_lora(artifact.config))


ARCHITECTURES: dict[str, Callable[[Artifact], Backbone]] = {
    "SavannaCNN": _savanna,
    "EfficientNetLite0": _efficientnet,
    "transformers": _transformers,
}
"""Constructors of stored backbones by the class of their module."""


def architectures() -> dict[str, Callable[[Artifact], Backbone]]:
    """:data:`ARCHITECTURES` and those that installed packages add."""
    return {**registered("architectures"), **ARCHITECTURES}


def stored_kind(backbone: Backbone) -> dict[str, Any] | None:
    """Plain JSON values that name the module's architecture; None where its weights alone cannot rebuild it."""
    architecture = type(backbone.module).__name__
    if architecture in architectures():
        return {"architecture": architecture, "classes": list(backbone.classes), "image_size": backbone.image_size}
    from wildpdiff.backbones.pretrained import stored_model

    return stored_model(backbone)


def is_stored(name_or_folder: str) -> bool:
    """Whether :func:`load_backbone` reads it: a bundled name, or a folder with a backbone of :func:`save_backbone`."""
    return name_or_folder in BUNDLED or (Path(_split(name_or_folder)[1]) / MANIFEST).is_file()


def _split(text: str) -> tuple[str, str]:
    """Function and folder of ``module:function=folder``; an empty function of a folder alone."""
    from wildpdiff.backbones.pretrained import FUNCTION_NAME

    function, found, folder = text.partition("=")
    return (function, folder) if found and FUNCTION_NAME.fullmatch(function) else ("", text)


def save_backbone(backbone: Backbone, folder: Path | str) -> str:
    """Write a backbone's weights and configuration; returns the artifact's fingerprint."""
    from wildpdiff.backbones.pretrained import stored_module

    kind = stored_kind(backbone) or stored_module(backbone)
    if kind is None:
        known = ", ".join(sorted(architectures()))
        raise ArtifactError(
            f"A {type(backbone.module).__name__} cannot be rebuilt from its weights alone; known are {known}. "
            "Keep your own code for it and pass the Backbone where it is needed."
        )
    config = {
        **kind,
        "name": backbone.name,
        "lora": {name: encode(getattr(backbone.lora, name)) for name in STORED_LORA}
        | ({} if backbone.lora.peft is None else {"peft": dict(backbone.lora.peft)}),
    }
    if backbone.framing != "square":  # what a configuration without the key means
        config["framing"] = backbone.framing
    # Copies: tied weights share their memory.
    weights = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    return write_artifact(Path(folder), "backbone", config, {"weights": weights})


def load_backbone(name_or_folder: str | Path) -> Backbone:
    """A bundled backbone by name, or a saved one by its folder.

    Args:
        name_or_folder: also ``module:function=folder`` of a module that a function of your own gives. Code that a
            folder names is never run.

    Raises:
        ArtifactError: neither a bundled name nor a folder with a backbone.
    """
    from wildpdiff.backbones.pretrained import FUNCTION, restored_module

    function, text = _split(str(name_or_folder))
    folder = WEIGHTS / text if text in BUNDLED else Path(text)
    if not folder.is_dir():
        raise ArtifactError(f"There is no backbone {text!r}. Name a bundled one ({', '.join(BUNDLED)}), or a folder.")
    artifact = read_artifact(folder, "backbone")
    architecture = artifact.config.get("architecture")
    if architecture == FUNCTION:
        if not function:
            name = artifact.config["name"]
            raise ArtifactError(f"{folder} needs the code of {name}, which is not run unasked. Give {name}={folder}.")
        return restored_module(artifact, stored_lora(artifact.config), function)
    build = architectures().get(str(architecture))
    if build is None:
        raise ArtifactError(f"{folder} holds a backbone of unknown architecture {architecture!r}. Update wildpdiff.")
    return build(artifact).with_framing(decode(Framing, artifact.config.get("framing", "square"), f"{folder}: framing"))
