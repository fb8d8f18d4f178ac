"""The frozen pretrained model: collation, where adapters attach, and outputs from (batch, adapter tensors)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.spec import AdapterSpec
from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.collate import Collate, ImageCollate, TensorCollate, first_argument
from wildpdiff.backbones.image_features import BATCH, FeatureMemory, ImageFeaturiser
from wildpdiff.backbones.lora import (
    initial_adapter,
    is_base_weight,
    lacking,
    run_adapted,
    spec_of,
    with_branches,
    without_effect,
)
from wildpdiff.backbones.many import over_adapters
from wildpdiff.backbones.prefix import (
    KEY,
    Prefix,
    compute_prefix,
    find_prefix,
    first_only,
    install,
    only_first,
    outputs_of,
    replay,
)
from wildpdiff.disk import content_hash
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DataError, TrainingError
from wildpdiff.tasks.batch import Batch, batch_size, concatenate, count, part, take
from wildpdiff.tasks.framing import Framing, check_framing
from wildpdiff.tasks.objective import IGNORED, TARGETS, Classification, NextToken, Objective, Regression, Unknown
from wildpdiff.tasks.task import Examples

OTHER_BACKBONE = "Load the backbone that the adapter was made for."
"""Advice where an adapter is of another backbone."""


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
        return cls.of(AdapterConfig.of(AdapterSpec.from_peft(config, module)))

    @classmethod
    def of(cls, config: AdapterConfig) -> LoraSpec:
        """The settings of an adapter."""
        return cls(config.rank, config.alpha, config.target_modules, config.modules_to_save, config.peft)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen model that adapters attach to. Any ``nn.Module`` can be one, see :meth:`of`.

    Everything that the module computes before the first adapted submodule is the same for all adapters: it is found by
    hooks (:mod:`wildpdiff.backbones.prefix`) and computed once an example.

    Attributes:
        name: registered name, written into every adapter.
        module: the pretrained module, in evaluation mode, its parameters frozen.
        objective: of all its tasks.
        collate: examples to the module's inputs.
        lora: where adapters attach.
        backbone_hash: identity of the model, see :func:`model_hash`.
        memory: cache of :meth:`image_features`. No adapter changes them, so :meth:`with_lora` shares it.
        prefixes: of inputs, by their shapes and the adapted modules, and of batches, by their shapes.
    """

    name: str
    module: nn.Module
    objective: Objective
    collate: Collate
    lora: LoraSpec
    backbone_hash: str
    memory: FeatureMemory = field(default_factory=FeatureMemory, init=False, repr=False)
    prefixes: dict[Hashable, Prefix] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, module: nn.Module, *, name: str, lora: LoraSpec, objective: Objective, collate: Collate | None = None
    ) -> Backbone:
        """Freeze a module and make a backbone of it.

        Args:
            collate: by default examples are tensors or arrays, the first argument of the module's ``forward``.

        Raises:
            TrainingError: a target module does not exist, or a parameter is not in single precision.
        """
        module = module.eval().requires_grad_(False)
        strange = {value.dtype for value in module.parameters() if value.is_floating_point()} - {torch.float32}
        if strange:
            raise TrainingError(f"The model {name!r} has parameters of {strange.pop()}. Give model.float().")
        collate = collate or TensorCollate(first_argument(module))
        backbone = cls(name, module, objective, collate, lora, model_hash(module, collate))
        backbone.check_lora()
        return backbone

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
        """A backbone of a classifier of images; raises as :meth:`of`."""
        collate = ImageCollate(first_argument(module), image_size, mean, std)
        return cls.of(module, name=name, lora=lora, objective=Classification(tuple(classes)), collate=collate)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | nn.Module,
        *,
        lora: Any,
        objective: Objective | None = None,
        collate: Collate | None = None,
        name: str | None = None,
        length: int = 128,
    ) -> Backbone:
        """A backbone of a model of ``transformers``, or of any module.

        Args:
            source: a folder or a downloaded name of ``transformers``, ``module:function`` of a function that gives a
                module, or the module. Of pickled weights none are read.
            lora: a ``peft.LoraConfig``, a part of its content (a classifier's head is then saved whole), or a
                :class:`LoraSpec`.
            objective: by default the one that the model states: its classes, its regression, or its next token. A model
                without a head for it gets one that is not trained; name it in ``modules_to_save``.
            collate: by default images for a model of pixels, texts for one with a tokenizer, else tensors.
            name: written into every adapter; by default the source.
            length: tokens of a text, unless the model takes fewer.

        Raises:
            ArtifactError: there is no such model.
            TrainingError: the objective is not known, or LoRA cannot attach as stated.
        """
        from wildpdiff.backbones.pretrained import from_pretrained

        settings = {"lora": lora, "objective": objective, "collate": collate, "name": name, "length": length}
        return from_pretrained(source, **settings)

    @classmethod
    def named(cls, config: AdapterConfig) -> Backbone:
        """The base model of adapters made elsewhere, of which only the name is known; nothing runs on it."""
        lora = LoraSpec.of(config)
        return cls(config.backbone, nn.Module(), Unknown(config.classes), TensorCollate(""), lora, "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; none where outputs are no classes."""
        return self.objective.labels

    @property
    def image_size(self) -> int:
        """Height and width of the inputs in pixels; 0 where examples are no images of one size."""
        return int(getattr(self.collate, "image_size", 0))

    @property
    def framing(self) -> Framing:
        """The part of a picture that the model was pretrained on, ``square`` where examples are no pictures."""
        return check_framing(getattr(self.collate, "framing", "square"))

    def with_framing(self, framing: Framing) -> Backbone:
        """The same weights for pictures of another framing: another model, whose adapters do not fit this one.

        Raises:
            TrainingError: its examples are no images.
        """
        if framing == self.framing:
            return self
        if not isinstance(self.collate, ImageCollate):
            raise TrainingError(f"The examples of {self.name!r} are no images, which alone have a framing.")
        collate = replace(self.collate, framing=framing)
        return replace(self, collate=collate, backbone_hash=model_hash(self.module, collate))

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

    @cached_property
    def buffers(self) -> dict[str, torch.dtype]:
        """Types in the model of an adapter's tensors that no training moves: running statistics of saved modules."""
        known = {name: value.dtype for name, value in self.module.named_buffers(remove_duplicate=False)}
        return {name: known[own] for name, own in self.spec.parameters.items() if own in known}

    def check_lora(self) -> None:
        """Raise ``TrainingError`` where adapters cannot attach as :attr:`lora` states."""
        _ = self.spec

    def initial_adapter(self, seed: int) -> Adapter:
        """The shared starting point of all fine-tunings; equals the pretrained model in effect. Imports PEFT."""
        tensors = initial_adapter(self.module, self.adapter_config, seed)
        return Adapter(tensors, self.adapter_config, {"source": "initial", "seed": seed})

    def require(self, config: AdapterConfig, what: str, advice: str) -> None:
        """Raise :class:`AdapterMismatchError`, which begins with ``what``, unless a config is of this backbone."""
        if config.backbone_hash != self.backbone_hash:
            raise AdapterMismatchError(
                f"{what} for the backbone {config.backbone!r} with weights {config.backbone_hash[:12]}; this is "
                f"{self.name!r} with {self.backbone_hash[:12]}. {advice}"
            )

    def check(self, adapter: Adapter) -> None:
        """Raise :class:`AdapterMismatchError` unless the adapter was made for this backbone."""
        config = adapter.config
        if config.backbone_hash:  # empty for adapters made elsewhere
            self.require(config, "The adapter is", OTHER_BACKBONE)
            if config.classes != self.classes:
                raise AdapterMismatchError(
                    f"The adapter's classes are {', '.join(config.classes)}; those of the backbone {self.name!r} are "
                    f"{', '.join(self.classes)}. Its provenance.json was altered, or it belongs to another backbone."
                )
        expected = self.shapes
        found = {
            name: tuple(value.shape)
            for name, value in adapter.tensors.items()
            if name in expected or not is_base_weight(self.module, name, value)
        }
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

    def stem(self, examples: Any) -> dict[str, Tensor]:
        """The batch of some examples, computed up to the first adapted module, without gradient. Worth keeping.

        Args:
            examples: as :attr:`collate` takes them, for images ``uint8 [n, h, w, 3]``.

        Raises:
            DataError: there are none, they cannot be collated, or the model does not take them.
            TrainingError: the model's outputs are not as many as the objective needs.
            ArtifactError: of the model only the name is known.
        """
        if not self.runs:
            raise ArtifactError(f"Of the base model {self.name!r} only the name is known; it cannot be run. Use PEFT.")
        if not count(examples):
            raise DataError("There are no examples. Give at least one.")
        parts = []
        for start in range(0, count(examples), BATCH):
            batch = self.collate(part(examples, slice(start, start + BATCH)))
            targets = {name: batch.pop(name) for name in (TARGETS,) if name in batch}
            try:
                batch_size({**batch, **targets})
                prefix = self._prefix(batch)
                with torch.inference_mode():
                    parts.append({**compute_prefix(self.module, prefix, batch), **targets})
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                found = ", ".join(f"{name} {value.dtype} {tuple(value.shape)}" for name, value in batch.items())
                raise DataError(f"{self.name!r} cannot be run on {found} ({error}). Check the examples.") from error
        with torch.inference_mode():
            joined = concatenate(parts)
        # A tensor made in inference mode could not take part in autograd.
        return {name: value.clone() for name, value in joined.items()}

    def batch(self, examples: Examples) -> dict[str, Tensor]:
        """The batch of examples with their targets; raises as :meth:`stem`, and for a bad target."""
        found = self.stem(examples.inputs)
        return found if examples.targets is None and TARGETS in found else {**found, TARGETS: self.targets(examples)}

    def targets(self, examples: Examples) -> Tensor:
        """Targets of examples, of language models their tokens; raises :class:`DataError` for a bad one."""
        if examples.targets is not None:
            return self.objective.targets(examples.targets)
        found = self.collate(examples.inputs)
        if TARGETS not in found:
            raise DataError("The examples have no targets, and none follow from them. Give one target each.")
        return found[TARGETS]

    def _prefix(self, inputs: Batch) -> Prefix:
        """The prefix of inputs of these shapes."""
        key = (self._changed, _shapes(inputs))
        if key not in self.prefixes:
            with torch.inference_mode(False):
                some = {name: value[torch.tensor([0, len(value) - 1])] for name, value in inputs.items()}
                self._check_outputs(some)
                prefix = replace(find_prefix(self.module, some, self._changed), first=self._first_only(some))
                self.prefixes[_shapes(compute_prefix(self.module, prefix, some))] = prefix
                self.prefixes[key] = prefix
        return self.prefixes[key]

    def _first_only(self, inputs: Batch) -> tuple[str, ...]:
        """Layers that need to compute one token alone, found with a made-up adapter, forwards and backwards."""
        if self.buffers:
            return ()
        draws = torch.Generator().manual_seed(0)
        made = {name: 0.1 * torch.randn(shape, generator=draws) for name, shape in self.spec.shapes.items()}
        tensors = {name: value.requires_grad_(True) for name, value in made.items()}
        # Texts that begin with padding, too: a classifier of the last token reads the first one of a single word.
        both = {
            name: torch.cat([value, value if value.is_floating_point() or value.ndim != 2 else value.flip(1)])
            for name, value in inputs.items()
        }
        model = with_branches(self.module, self.spec)
        return first_only(model, lambda: outputs_of(run_adapted(model, self.spec, tensors, **both)))

    def _check_outputs(self, inputs: Batch) -> None:
        """Refuse a model of other outputs than the objective's; indices of classes would hide it."""
        with torch.no_grad():
            branches = with_branches(self.module, self.spec)
            outputs, again = (
                outputs_of(model(**{name: value.clone() for name, value in inputs.items()}))
                for model in (self.module, branches)
            )
        if outputs.shape != again.shape or not torch.allclose(outputs, again, 1e-4, 1e-5, equal_nan=True):
            raise TrainingError(
                f"The model {self.name!r} gives other outputs for the same examples: something in it is random, or "
                "keeps a state. Give one that does not."
            )
        if unused := without_effect(branches):
            raise TrainingError(
                f"The model {self.name!r} reads the weight of {unused[0]!r} and never calls it, so that factors of "
                "PEFT change nothing there. Leave it out of target_modules, or name it in exclude_modules."
            )
        if missing := lacking(branches):
            layer, attribute = missing
            raise TrainingError(
                f"The model {self.name!r} reads {attribute!r} of {layer!r}, which PEFT's layers lack, so that PEFT "
                "cannot run it. Leave the module out of target_modules, or name it in exclude_modules."
            )
        wanted, found = len(self.classes), outputs.shape[-1]
        if isinstance(self.objective, NextToken) and outputs.ndim != 3:
            raise TrainingError(f"The outputs of {self.name!r} are no logits of each token. Give another objective.")
        if isinstance(self.objective, Regression):
            wanted, found = self.objective.size, outputs[0].numel()
        if wanted and wanted != found:
            raise TrainingError(
                f"The model {self.name!r} has {found} outputs an example, and its {self.objective.kind} {wanted}. Give "
                "a model and an objective of one size."
            )

    def _recognise(self, batch: Batch) -> None:
        """Find the prefix of a batch of images that another object of the same backbone has computed."""
        if self.image_size and _shapes(batch) not in self.prefixes and any(name.startswith(KEY) for name in batch):
            self._prefix(self.collate(np.zeros((2, self.image_size, self.image_size, 3), np.uint8)))

    @cached_property
    def _changed(self) -> frozenset[str]:
        """Names of the modules that adapters change."""
        return frozenset(self.spec.modules) | {name.rpartition(".")[0] for name in self.spec.parameters.values()}

    @cached_property
    def _models(self) -> dict[tuple[Prefix, bool], nn.Module]:
        return {}

    def _model(self, batch: Batch, adapted: bool) -> tuple[Prefix, nn.Module]:
        """The prefix of a batch, and a copy of the module that replays it, with low-rank branches or without."""
        prefix = self.prefixes.get(_shapes(batch), Prefix())
        if (prefix, adapted) not in self._models:
            replaced = (*prefix.live, *(name for name, _ in prefix.dead))
            known = [name for name in batch if name.startswith(KEY)] if not replaced else []
            if known or any(f"{name}.".startswith(f"{other}.") for name in self._changed for other in replaced):
                raise AdapterMismatchError(
                    f"The batch was computed up to {', '.join(known or prefix.live)}, which is unknown to this "
                    "backbone, or behind a module that its adapters change. Compute it with this backbone."
                )
            model = with_branches(self.module, self.spec if adapted else AdapterSpec({}))
            install(model, replaced)
            only_first(model, prefix.first if adapted else ())
            self._models[prefix, adapted] = model
        return prefix, self._models[prefix, adapted]

    def outputs(self, batch: Batch, tensors: Mapping[str, Tensor] | None = None) -> Float[Tensor, "n ..."]:
        """Outputs of the model, for classifiers the logits, with one adapter; differentiable in batch and adapter.

        Args:
            batch: of :meth:`stem`; targets in it are not read.
            tensors: the adapter's tensors under PEFT's names; ``None`` is the pretrained model.
        """
        inputs = {name: value for name, value in batch.items() if name != TARGETS}
        prefix, model = self._model(inputs, tensors is not None)
        if tensors is None:
            return replay(model, prefix, inputs)
        whole = {name: kind for name, kind in self.buffers.items() if not kind.is_floating_point}
        tensors = {**tensors, **{name: tensors[name].to(kind) for name, kind in whole.items()}} if whole else tensors
        return replay(model, prefix, inputs, lambda **given: run_adapted(model, self.spec, tensors, **given))

    def predict(self, batch: Batch, tensors: Mapping[str, Tensor] | None = None) -> Float[Tensor, "n ..."]:
        """Outputs without gradient, some examples at a time."""
        self._recognise(batch)
        with torch.inference_mode():
            return torch.cat([self.outputs(some, tensors) for some in _parts(batch)])

    def predict_many(self, batch: Batch, stacked: Mapping[str, Tensor]) -> Float[Tensor, "a n ..."]:
        """Outputs of many adapters on the same examples, vectorised over adapters (leading axis of ``stacked``).

        Raises:
            ArtifactError: an output is not finite.
        """
        self._recognise(batch)
        many = over_adapters(lambda tensors, inputs: self.outputs(inputs, tensors), shared=(1,))
        with torch.no_grad():
            parts = [many(dict(stacked), some) for some in _parts(batch)]
        return finite_outputs(torch.cat(parts, dim=1), self.name)

    def embedding(self, batch: Batch) -> Float[Tensor, "n f"] | None:
        """Input of the linear layer that gives the pretrained model's outputs; None where no such layer does.

        Of language models it is the mean over the tokens that count.
        """
        found = []
        self._recognise(batch)
        for some in _parts(batch):
            calls: list[tuple[Tensor, Tensor]] = []
            _, model = self._model(some, False)
            hooks = [
                layer.register_forward_hook(lambda _, given, output, calls=calls: calls.append((given[0], output)))
                for layer in model.modules()
                if isinstance(layer, nn.Linear)
            ]
            try:
                with torch.inference_mode():
                    result = self.outputs(some)
            finally:
                for hook in hooks:
                    hook.remove()
            own = [given for given, output in calls if output is result]
            if isinstance(self.objective, NextToken):
                own = [_over_tokens(given, some) for given in own if given.ndim == 3]
            found += [given for given in own if given.ndim == 2]
        return torch.cat(found) if found else None

    @cached_property
    def image_features(self) -> ImageFeaturiser:
        """Features of images for conditions; called with a set of images it gives ``[n, f]``."""
        return ImageFeaturiser(self)

    def with_lora(self, lora: LoraSpec) -> Backbone:
        """The same backbone with adapters of another rank or on other modules."""
        changed = replace(self, lora=lora)
        changed.check_lora()
        object.__setattr__(changed, "memory", self.memory)
        object.__setattr__(changed, "prefixes", self.prefixes)
        return changed


def model_hash(module: nn.Module, collate: Collate) -> str:
    """Identity of a model: the SHA-256 of its weights, and of its framing unless that is ``square``.

    With another framing the same weights see animals at another size, and have other outputs for the same file.
    """
    weights = tensors_hash(dict(module.state_dict()))
    framing = getattr(collate, "framing", "square")
    return weights if framing == "square" else content_hash(f"{weights} {framing}".encode())


def finite_outputs(outputs: Tensor, name: str) -> Tensor:
    """Outputs as they are; softmax and argmax would make a class even of those that are not finite.

    Args:
        outputs: of any shape.
        name: of the backbone, for the message.

    Raises:
        ArtifactError: one is not finite.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise ArtifactError(f"Outputs of {name!r} are not finite with an adapter. Generate or train it again.")
    return outputs


def _shapes(batch: Batch) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of one example."""
    return tuple(sorted((name, tuple(value.shape[1:])) for name, value in batch.items() if name != TARGETS))


def _over_tokens(values: Float[Tensor, "n t f"], batch: Batch) -> Float[Tensor, "n f"]:
    """Mean over the tokens of each example; where the batch has targets, over those that are not ignored."""
    ones = torch.ones(values.shape[:2], dtype=torch.bool)
    counted = (batch[TARGETS] != IGNORED if TARGETS in batch else ones)[..., None]
    return (values * counted).sum(1) / counted.sum(1).clamp_min(1)


def _parts(batch: Batch) -> Iterator[dict[str, Tensor]]:
    """Consecutive parts of a batch."""
    for start in range(0, batch_size(batch), BATCH):
        yield take(batch, slice(start, start + BATCH))
