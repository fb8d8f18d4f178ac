"""The frozen pretrained model: preprocessing, where adapters attach, and logits from (inputs, adapter tensors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.spec import AdapterSpec
from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.image_features import BATCH, FeatureMemory, ImageFeaturiser
from wildpdiff.backbones.lora import branch_parameters, initial_adapter, spec_of, with_branches
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DataError, TrainingError
from wildpdiff.tasks.description import Images


@dataclass(frozen=True)
class LoraSpec:
    """LoRA setting: rank, alpha, the modules that get factors, and the modules saved whole.

    ``peft`` is the content of PEFT's configuration where it has more than these (:class:`AdapterConfig`).
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...] = ()
    peft: Mapping[str, Any] | None = None

    @classmethod
    def from_peft(cls, config: Any, module: nn.Module) -> LoraSpec:
        """The settings of a ``peft.LoraConfig``, its target modules resolved on the module."""
        found = AdapterConfig.of(AdapterSpec.from_peft(config, module))
        return cls(found.rank, found.alpha, found.target_modules, found.modules_to_save, found.peft)


class _Part(nn.Module):
    """One method of the wrapped module as a module of its own, so that ``functional_call`` can reach it."""

    def __init__(self, module: nn.Module, method: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module = module
        self._method = method

    @classmethod
    def of(cls, module: nn.Module) -> _Part:
        """The part after the stem; the whole module where it has none."""
        # The bound __call__ and not the module: registered a second time under another name, its weights would count
        # as tied, and functional_call would leave the adapter's in the frozen model.
        return cls(module, module.head if _is_split(module) else module.__call__)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the part."""
        result: Tensor = self._method(inputs)
        return result


def _is_split(module: nn.Module) -> bool:
    return hasattr(module, "stem") and hasattr(module, "head")


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen classifier of images that adapters attach to. Any ``nn.Module`` from images to logits can be one.

    A module that has the methods ``stem(x)`` and ``head(h)`` with ``forward(x) == head(stem(x))`` is run in two
    parts: no adapter may touch the stem, whose output is then computed once per image. A module that has
    ``embed(h)`` (features before the classifier) gives richer image features to the conditions.

    Attributes:
        name: registered name, written into every adapter.
        module: the pretrained module, in evaluation mode, its parameters frozen.
        classes: the class names, in the order of the logits.
        image_size: height and width of the inputs in pixels.
        mean: per-channel mean that preprocessing subtracts, of values in [0, 1].
        std: per-channel standard deviation that preprocessing divides by.
        lora: where adapters attach.
        backbone_hash: SHA-256 of the frozen weights.
        memory: cache of :meth:`image_features`. No adapter changes them, so :meth:`with_lora` shares it.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    lora: LoraSpec
    backbone_hash: str
    memory: FeatureMemory = field(default_factory=FeatureMemory, init=False, repr=False)

    @classmethod
    def wrap(
        cls,
        module: nn.Module,
        *,
        name: str,
        classes: Sequence[str],
        image_size: int,
        lora: LoraSpec,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
    ) -> Backbone:
        """Freeze a module and make a backbone of it; raises ``TrainingError`` where a target module does not exist."""
        module = module.eval().requires_grad_(False)
        backbone = cls(
            name, module, tuple(classes), image_size, mean, std, lora, tensors_hash(dict(module.state_dict()))
        )
        backbone.check_lora()
        return backbone

    @classmethod
    def named(cls, config: AdapterConfig) -> Backbone:
        """The base model of adapters made elsewhere, of which only the name is known; nothing runs on it."""
        lora = LoraSpec(config.rank, config.alpha, config.target_modules, config.modules_to_save, config.peft)
        return cls(config.backbone, nn.Module(), config.classes, 0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), lora, "")

    @property
    def runs(self) -> bool:
        """Whether the model itself is at hand, and not its name alone."""
        return self.backbone_hash != ""

    @property
    def adapter_config(self) -> AdapterConfig:
        """The configuration that every adapter of this backbone has."""
        lora = self.lora
        return AdapterConfig(
            backbone=self.name,
            backbone_hash=self.backbone_hash,
            classes=self.classes,
            rank=lora.rank,
            alpha=lora.alpha,
            target_modules=lora.target_modules,
            modules_to_save=lora.modules_to_save,
            peft=None if lora.peft is None else {**lora.peft, "base_model_name_or_path": self.name or None},
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of an adapter's tensors."""
        return self.spec.shapes

    @cached_property
    def spec(self) -> AdapterSpec:
        """Kind, rank and scaling of every module that adapters change."""
        return spec_of(self.module, self.adapter_config)

    def check_lora(self) -> None:
        """Raise ``TrainingError`` where adapters cannot attach as :attr:`lora` states."""
        if self.spec.bias == "all" and self.split:
            raise TrainingError("bias is 'all', and no adapter may change the stem's biases. Give bias 'lora_only'.")

    def initial_adapter(self, seed: int) -> Adapter:
        """The shared starting point of all fine-tunings; equals the pretrained model in effect. Imports PEFT."""
        tensors = initial_adapter(self.module, self.adapter_config, seed)
        return Adapter(tensors, self.adapter_config, {"source": "initial", "seed": seed})

    def check(self, adapter: Adapter) -> None:
        """Raise :class:`AdapterMismatchError` unless the adapter was made for this backbone."""
        known = adapter.config.backbone_hash != ""  # empty for adapters made elsewhere
        if known and adapter.config.backbone_hash != self.backbone_hash:
            raise AdapterMismatchError(
                f"The adapter is for backbone {adapter.config.backbone!r} with weights "
                f"{adapter.config.backbone_hash[:12]}; this is {self.name!r} with {self.backbone_hash[:12]}. "
                "Load the backbone that the adapter was made for."
            )
        if known and adapter.config.classes != self.classes:
            raise AdapterMismatchError(
                f"The adapter's classes are {', '.join(adapter.config.classes)}; those of the backbone "
                f"{self.name!r} are {', '.join(self.classes)}. Its provenance.json was altered, or it belongs to "
                "another backbone."
            )
        found = {name: tuple(value.shape) for name, value in adapter.tensors.items()}
        expected = self.shapes
        for name in sorted(set(found) | set(expected)):
            if found.get(name) != expected.get(name):
                raise AdapterMismatchError(
                    f"Tensor {name} has shape {found.get(name, 'missing')}; the backbone {self.name!r} expects "
                    f"{expected.get(name, 'no such tensor')}. The adapter belongs to another backbone or LoRA setting."
                )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, for another process: what is cached is made again there."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    # Running -----------------------------------------------------------------------------------------------------

    def preprocess(self, images: Images) -> Float[Tensor, "n 3 h w"]:
        """``uint8 [n, h, w, 3]`` to normalised floats; raises :class:`DataError` on another size."""
        if not self.runs:
            raise ArtifactError(f"Of the base model {self.name!r} only the name is known; it cannot be run. Use PEFT.")
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError(f"Images are {images.dtype} of shape {images.shape}; uint8 [n, h, w, 3] is needed.")
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise DataError(
                f"Images are {images.shape[2]}×{images.shape[1]} pixels; backbone {self.name!r} takes "
                f"{self.image_size}×{self.image_size}. Resize them."
            )
        values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255.0)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return ((values - mean) / std).contiguous()

    @property
    def split(self) -> bool:
        """Whether the module is run in two parts, of which the first is the same for every adapter."""
        return _is_split(self.module)

    @cached_property
    def _adapted(self) -> _Part:
        """The part after the stem, with low-rank branches."""
        return _Part.of(with_branches(self.module, self.spec))

    def stem(self, images: Images) -> Tensor:
        """Outputs of the part before any adapted layer, ``[n, …]``, in batches without gradient. Worth caching."""
        with torch.inference_mode():
            parts = []
            for start in range(0, len(images), BATCH):
                inputs = self.preprocess(images[start : start + BATCH])
                parts.append(self.module.stem(inputs) if self.split else inputs)  # type: ignore[operator]
            if not parts:
                raise DataError("There are no images. Give at least one.")
            features = torch.cat(parts)
        return features.clone()  # a tensor made in inference mode could not take part in autograd

    def logits(self, features: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Float[Tensor, "n c"]:
        """Logits from stem features and one adapter's tensors; differentiable in both.

        Args:
            features: output of :meth:`stem`, ``[n, …]``.
            tensors: the adapter's tensors under PEFT's names; ``None`` is the pretrained model.
        """
        if tensors is None:
            return _Part.of(self.module)(features)  # type: ignore[no-any-return]
        given = {f"module.{name}": value for name, value in branch_parameters(tensors, self.spec).items()}
        result: Tensor = torch.func.functional_call(self._adapted, given, (features,))
        return result

    def predict(self, features: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Float[Tensor, "n c"]:
        """Logits without gradient, in batches."""
        with torch.inference_mode():
            parts = [self.logits(features[i : i + BATCH], tensors) for i in range(0, len(features), BATCH)]
            return torch.cat(parts)

    def predict_many(self, features: Tensor, stacked: Mapping[str, Tensor]) -> Float[Tensor, "a n c"]:
        """Logits of many adapters on the same stem features, vectorised over adapters (leading axis of ``stacked``).

        Raises:
            ArtifactError: a logit is not finite.
        """
        many = torch.func.vmap(lambda tensors, inputs: self.logits(inputs, tensors), in_dims=(0, None))
        with torch.no_grad():
            parts = [many(dict(stacked), features[i : i + BATCH]) for i in range(0, len(features), BATCH)]
        return finite_logits(torch.cat(parts, dim=1), self.name)

    @cached_property
    def image_features(self) -> ImageFeaturiser:
        """Features of images for conditions; called with a set of images it gives ``[n, f]``."""
        return ImageFeaturiser(self)

    def with_lora(self, lora: LoraSpec) -> Backbone:
        """The same backbone with adapters of another rank or on other modules."""
        changed = replace(self, lora=lora)
        changed.check_lora()
        object.__setattr__(changed, "memory", self.memory)
        return changed


def finite_logits(logits: Tensor, name: str) -> Tensor:
    """Logits as they are; softmax and argmax would make a class even of those that are not finite.

    Args:
        logits: of any shape.
        name: of the backbone, for the message.

    Raises:
        ArtifactError: one is not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ArtifactError(
            f"Logits of the backbone {name!r} are not finite with an adapter: its values are out of all range. Do not "
            "use it; generate or train it again."
        )
    return logits
