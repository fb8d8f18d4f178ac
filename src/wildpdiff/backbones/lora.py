"""LoRA as a pure function of adapter tensors, and its injection through PEFT.

Two routes to the same numbers, held together by a test. PEFT decides which tensors an adapter has, their shapes and
their initial values (once, when a zoo is planned). Everything that runs often, and everything on the path of
generating and using an adapter, works on a copy of the frozen module whose target layers have a low-rank branch,
``W x + s B (A x)``, through ``functional_call``: it is differentiable and needs no PEFT import (some seconds).
Vectorised over adapters, the frozen product ``W x`` is one matrix product for all of them, and no gradient of a dense
weight is ever computed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding, linear

from wildpdiff.adapters.adapter import AdapterConfig
from wildpdiff.adapters.spec import PEFT_PREFIX, AdapterSpec, Kind, ModuleSpec, plain_names
from wildpdiff.errors import AdapterMismatchError, TrainingError

PEFT_ATTRIBUTES = frozenset({"in_features", "out_features", "training"})
"""Attributes of a layer that PEFT's layer around it has too, parameters apart."""


class _Adapted(nn.Module):
    """A layer with LoRA factors; subclasses add the low-rank branch to the layer's own output.

    As with PEFT, whoever reads the ``weight`` of a layer and does not call it gets the pretrained one.
    """

    scaling: float
    factor_a: Tensor
    factor_b: Tensor
    pretrained: nn.Module
    called = read = False
    lacking = ""

    def attach(self, spec: ModuleSpec, layer: nn.Module) -> None:
        """Register the factors as buffers; at zero this copy of a layer is the layer.

        Hooks, and a ``forward`` of the object's own, stay with the layer: as with PEFT they do not see the branch.
        """
        state = vars(self)
        state |= {name: type(value)() for name, value in state.items() if name.endswith("hooks")}
        state.pop("forward", None)
        for name in [name for name in state if not name.startswith("_") and name not in PEFT_ATTRIBUTES]:
            del state[name]  # from here on :meth:`__getattr__` gives them
        state["pretrained"] = layer  # no submodule: its parameters are those of the copy
        self.scaling = spec.scaling
        for own, shape in zip(("factor_a", "factor_b"), spec.factors.values(), strict=True):
            self.register_buffer(own, self.frozen.new_zeros(shape), persistent=False)

    def __getattr__(self, name: str) -> Any:
        """The pretrained layer's attribute; that one is read which PEFT's layers lack is noted."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(vars(self)["pretrained"], name)
            self.lacking = name
            return found

    @property
    def frozen(self) -> Tensor:
        """The pretrained weight."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def weight(self) -> Tensor:
        """The pretrained weight; that it is read is noted."""
        self.read = True
        return self.frozen

    def forward(self, inputs: Tensor, *args: Any, **named: Any) -> Tensor:
        """The layer's own output, ``W x + b``, plus the branch."""
        self.called = True
        result: Tensor = self.pretrained(inputs, *args, **named) + self.branch(inputs)
        return result

    def branch(self, inputs: Tensor) -> Tensor:
        """``s B (A x)``."""
        return linear(linear(inputs, self.factor_a), self.scaling * self.factor_b)


class _AdaptedConv2d(_Adapted):
    def branch(self, inputs: Tensor) -> Tensor:
        """The same; A is a convolution of the kernel's extent, B one of 1×1 pixels."""
        own: Any = self.pretrained
        inner = conv2d(inputs, self.factor_a, None, own.stride, own.padding)  # zeros as padding, whatever the layer's
        # A matrix product: a convolution vectorised over its kernel would be a slow grouped one.
        return torch.einsum("or,...rhw->...ohw", self.scaling * self.factor_b[:, :, 0, 0], inner)


class _AdaptedEmbedding(_Adapted):
    def branch(self, inputs: Tensor) -> Tensor:
        """``s B`` times columns of A, in embeddings that multiply their output by a number with that too."""
        found = linear(embedding(inputs, self.factor_a.mT), self.scaling * self.factor_b)
        scale = getattr(self.pretrained, "embed_scale", None)
        return found if scale is None else found * scale


class _AdaptedConv1D(_Adapted):
    def forward(self, inputs: Tensor, *args: Any, **named: Any) -> Tensor:
        """The same; the layer of ``transformers`` refuses strided inputs, which those of many adapters may be."""
        return super().forward(inputs.contiguous(), *args, **named)


_BRANCHES: dict[Kind, type[_Adapted]] = {
    "linear": _Adapted,
    "conv2d": _AdaptedConv2d,
    "conv1d": _AdaptedConv1D,
    "embedding": _AdaptedEmbedding,
}


def _adapted_class(kind: Kind, own: type[nn.Module]) -> type[_Adapted]:
    """The class of a layer's copy that has a branch."""
    return type(f"_Adapted{own.__name__}", (_BRANCHES[kind], own), {})


def with_branches(module: nn.Module, spec: AdapterSpec) -> nn.Module:
    """A copy of a frozen module, sharing its tensors, whose target layers take factors of this spec.

    :func:`branch_parameters` gives the arguments of ``functional_call`` for it.
    """
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, dict(tensors))
    for name in spec.modules_to_save:  # as below
        copied.set_submodule(name, copy.deepcopy(copied.get_submodule(name), dict(tensors)))
    for name, entry in spec.modules.items():
        # As with PEFT, an object of its own under this name: the layer may be known by others too, without factors.
        pretrained = copied.get_submodule(name)
        layer = copy.copy(pretrained)
        layer._buffers, layer._non_persistent_buffers_set = dict(layer._buffers), set(layer._non_persistent_buffers_set)
        layer.__class__ = _adapted_class(entry.kind, type(layer))
        assert isinstance(layer, _Adapted)
        layer.attach(entry, pretrained)
        copied.set_submodule(name, layer)
    return copied


def without_effect(branches: nn.Module) -> list[str]:
    """Names of adapted layers that make an adapter useless: a run has read their weights and has not called them.

    PEFT's factors change nothing there. The output layer of ``nn.MultiheadAttention`` is one, which does no harm next
    to others that are called. Those of ``nn.TransformerEncoderLayer`` do harm: they are called in training alone.
    """
    layers = {name: layer for name, layer in branches.named_modules() if isinstance(layer, _Adapted)}
    unused = [name for name, layer in layers.items() if layer.read and not layer.called]
    parents = {name: branches.get_submodule(name.rpartition(".")[0]) for name in unused}
    fast = [name for name, parent in parents.items() if isinstance(parent, nn.TransformerEncoderLayer)]
    return fast or (unused if len(unused) == len(layers) else [])


def lacking(branches: nn.Module) -> tuple[str, str] | None:
    """An adapted layer and an attribute of it that a run has read and that PEFT's layers lack; None without one."""
    layers = ((name, layer) for name, layer in branches.named_modules() if isinstance(layer, _Adapted))
    return next(((name, layer.lacking) for name, layer in layers if layer.lacking), None)


def branch_parameters(tensors: Mapping[str, Tensor], spec: AdapterSpec) -> dict[str, Tensor]:
    """An adapter's tensors under the names that they have in the module of :func:`with_branches`.

    Args:
        tensors: under PEFT's names; those that are not of the spec are left out.
        spec: of the adapter.

    Raises:
        KeyError: a tensor of the spec is missing.
    """
    named = {
        f"{module}.{own}": tensors[f"{PEFT_PREFIX}{module}.{factor}"]
        for module, entry in spec.modules.items()
        for factor, own in zip(entry.factors, ("factor_a", "factor_b"), strict=True)
    }
    return named | {own: tensors[name] for name, own in spec.parameters.items()}


def run_adapted(
    branches: nn.Module, spec: AdapterSpec, tensors: Mapping[str, Tensor], *args: Any, **inputs: Any
) -> Any:
    """Output of a module of :func:`with_branches` with one adapter; differentiable, and vectorises over adapters.

    Args:
        branches: the module.
        spec: of the adapter.
        tensors: the adapter's, under PEFT's names.
        args, inputs: of the module's ``forward``.
    """
    # A saved module whose weight is tied to another's is replaced alone, as PEFT does.
    named = branch_parameters(tensors, spec)
    return torch.func.functional_call(branches, named, args, inputs, tie_weights=False)


def is_base_weight(module: nn.Module, name: str, value: Tensor) -> bool:
    """Whether an adapter's tensor is a weight of the model itself, which PEFT writes next to factors of embeddings."""
    layer, base, own = name.removeprefix(PEFT_PREFIX).rpartition(".base_layer.")
    known = dict(module.named_parameters(remove_duplicate=False)).get(f"{layer}.{own}") if base else None
    return known is not None and known.shape == value.shape and torch.equal(known, value.to(known))


def spec_of(module: nn.Module, config: AdapterConfig) -> AdapterSpec:
    """The spec of adapters of this configuration on a module.

    Raises:
        TrainingError: a named module does not exist, or is of a kind that cannot take LoRA factors.
    """
    try:
        if config.peft is not None:
            return AdapterSpec.from_peft(config.peft, module)
        ranks = dict.fromkeys(config.target_modules, (config.rank, config.scaling))
        return AdapterSpec.on(module, ranks, config.modules_to_save)
    except AdapterMismatchError as error:
        raise TrainingError(str(error)) from None


def initial_adapter(module: nn.Module, config: AdapterConfig, seed: int) -> dict[str, Tensor]:
    """The shared starting point of all fine-tunings, injected by PEFT: A random, B zero, saved modules as pretrained.

    One initialisation for all tasks is the cheap half of removing LoRA's GL(r) freedom (``B R⁻¹ R A = B A``): all
    adapters then live in one basin, where averages and differences mean something.

    Raises:
        TrainingError: PEFT cannot attach it.
        AdapterMismatchError: PEFT made other tensors than those of :func:`spec_of`.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    stated = ("peft_type", "base_model_name_or_path", "inference_mode", "task_type")
    arguments = {key: value for key, value in config.peft_json().items() if key not in stated}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's calls into transformers
        torch.manual_seed(seed % (2**63))
        try:
            wrapped = get_peft_model(copy.deepcopy(module), LoraConfig(**arguments))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise TrainingError(f"PEFT cannot attach adapters of this configuration ({error}). Change it.") from error
        state = plain_names(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
        state = {name: value.detach().clone().float() for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != spec_of(module, config).shapes:
        raise AdapterMismatchError(f"PEFT injected other tensors: {sorted(found)}. Name target modules in full.")
    return state
