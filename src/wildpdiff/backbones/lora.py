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
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from wildpdiff.adapters.adapter import AdapterConfig
from wildpdiff.adapters.spec import PEFT_PREFIX, AdapterSpec, Kind, ModuleSpec, plain_names
from wildpdiff.errors import AdapterMismatchError, TrainingError


class _Adapted(nn.Module):
    """A layer with LoRA factors. Its ``weight`` is the merged one (Hu et al. 2021, section 4.1).

    Subclasses run the low-rank branch instead; the merged weight is for modules that read a layer's weight and never
    call it (``nn.MultiheadAttention`` with its output layer), and for layers with a ``forward`` of their own.
    """

    kind: Kind
    scaling: float
    factor_a: Tensor
    factor_b: Tensor

    def attach(self, spec: ModuleSpec) -> None:
        """Register the factors as buffers; at zero the layer is the pretrained one."""
        self.kind, self.scaling = spec.kind, spec.scaling
        for own, shape in zip(("factor_a", "factor_b"), spec.factors.values(), strict=True):
            self.register_buffer(own, self.frozen.new_zeros(shape), persistent=False)

    @property
    def frozen(self) -> Tensor:
        """The pretrained weight."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def weight(self) -> Tensor:
        """The pretrained weight with the factors merged in."""
        if self.kind == "conv2d":
            update = torch.einsum("or,rihw->oihw", self.factor_b[:, :, 0, 0], self.factor_a)
        else:
            update = self.factor_b @ self.factor_a
        return self.frozen + self.scaling * (update if self.kind in ("linear", "conv2d") else update.mT)


class _AdaptedLinear(_Adapted, nn.Linear):  # type: ignore[override]
    def forward(self, inputs: Tensor) -> Tensor:
        """``W x + b + s B (A x)``."""
        branch = linear(linear(inputs, self.factor_a), self.scaling * self.factor_b)
        result: Tensor = linear(inputs, self.frozen, self.bias) + branch
        return result


class _AdaptedConv2d(_Adapted, nn.Conv2d):  # type: ignore[override]
    def forward(self, inputs: Tensor) -> Tensor:
        """The same; A is a convolution of the kernel's extent, B one of 1×1 pixels."""
        inner = self._conv_forward(inputs, self.factor_a, None)
        # A matrix product: a convolution vectorised over its kernel would be a slow grouped one.
        branch = torch.einsum("or,...rhw->...ohw", self.scaling * self.factor_b[:, :, 0, 0], inner)
        result: Tensor = self._conv_forward(inputs, self.frozen, self.bias) + branch
        return result


class _AdaptedEmbedding(_Adapted, nn.Embedding):  # type: ignore[override]
    def forward(self, inputs: Tensor) -> Tensor:
        """Rows of ``W`` plus ``s B`` times columns of ``A``."""
        own = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)
        branch = linear(embedding(inputs, self.factor_a.mT), self.scaling * self.factor_b)
        result: Tensor = embedding(inputs, self.frozen, *own) + branch
        return result


class _AdaptedConv1D(_Adapted):
    def forward(self, inputs: Tensor) -> Tensor:
        """``x W + b + s B (A x)`` with the transposed weight of ``transformers``' Conv1D."""
        branch = linear(linear(inputs, self.factor_a), self.scaling * self.factor_b)
        bias: Tensor = self.bias  # type: ignore[assignment]
        return linear(inputs, self.frozen.mT, bias) + branch


def _adapted_class(kind: type[nn.Module]) -> type[_Adapted]:
    """The class of a layer's copy that has a branch; layers with a forward of their own run on the merged weight."""
    known: dict[type, type[_Adapted]] = {
        nn.Linear: _AdaptedLinear,
        nn.Conv2d: _AdaptedConv2d,
        nn.Embedding: _AdaptedEmbedding,
    }
    transposed = f"{kind.__module__}.{kind.__name__}" == "transformers.pytorch_utils.Conv1D"
    base = _AdaptedConv1D if transposed else _Adapted
    return known.get(kind) or type(f"_Adapted{kind.__name__}", (base, kind), {})


def with_branches(module: nn.Module, spec: AdapterSpec) -> nn.Module:
    """A copy of a frozen module, sharing its tensors, whose target layers take factors of this spec.

    :func:`branch_parameters` gives the arguments of ``functional_call`` for it.
    """
    tensors = [*module.parameters(), *module.buffers()]
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for name, entry in spec.modules.items():
        layer = copied.get_submodule(name)
        # The class is changed and not the object, which may be known by several names.
        layer.__class__ = _adapted_class(type(layer))
        assert isinstance(layer, _Adapted)
        layer.attach(entry)
    return copied


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
        AdapterMismatchError: PEFT made other tensors than those of :func:`spec_of`.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    stated = ("peft_type", "base_model_name_or_path", "inference_mode", "task_type")
    arguments = {key: value for key, value in config.peft_json().items() if key not in stated}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % (2**63))
        wrapped = get_peft_model(copy.deepcopy(module), LoraConfig(**arguments))
        state = plain_names(get_peft_model_state_dict(wrapped))
        state = {name: value.detach().clone() for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != spec_of(module, config).shapes:
        raise AdapterMismatchError(f"PEFT injected other tensors: {sorted(found)}. Name target modules in full.")
    return state
