"""LoRA as a pure function of adapter tensors, and its injection through PEFT.

Two routes to the same numbers, held together by a test. PEFT decides which tensors an adapter has, their shapes and
their initial values (once, when a zoo is planned). Everything that runs often, and everything on the path of
generating and using an adapter, works on a copy of the frozen module whose target layers have a low-rank branch,
``W x + alpha / r * B (A x)``, through ``functional_call``: it is differentiable and needs no PEFT import (some
seconds). Vectorised over adapters, the frozen product ``W x`` is one matrix product for all of them, and no gradient of
a dense weight is ever computed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from wildpdiff.adapter import PEFT_PREFIX, AdapterConfig
from wildpdiff.errors import AdapterMismatchError, TrainingError

FACTORS = {"lora_A.weight": "factor_a", "lora_B.weight": "factor_b"}
"""PEFT's names of a target module's factors, and those of the buffers that hold them in a branch."""


def _lora_delta(factor_a: Tensor, factor_b: Tensor) -> Tensor:
    """``B @ A`` for a linear layer or a (non-grouped) convolution, whose A keeps the kernel's extent."""
    if factor_a.ndim == 2:
        return factor_b @ factor_a
    return torch.einsum("or,rihw->oihw", factor_b[:, :, 0, 0], factor_a)


class _Adapted(nn.Module):
    """A layer with LoRA factors. Its ``weight`` is the merged one (Hu et al. 2021, section 4.1).

    Subclasses run the low-rank branch instead; the merged weight is for modules that read a layer's weight and never
    call it (``nn.MultiheadAttention`` with its output layer), and for layers with a ``forward`` of their own.
    """

    scaling: float
    factor_a: Tensor
    factor_b: Tensor

    def attach(self, scaling: float, shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
        """Register the factors as buffers; at zero the layer is the pretrained one."""
        self.scaling = scaling
        frozen = self.frozen
        self.register_buffer("factor_a", frozen.new_zeros(shape_a), persistent=False)
        self.register_buffer("factor_b", frozen.new_zeros(shape_b), persistent=False)

    @property
    def frozen(self) -> Tensor:
        """The pretrained weight."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def weight(self) -> Tensor:
        """The pretrained weight with the factors merged in."""
        return self.frozen + self.scaling * _lora_delta(self.factor_a, self.factor_b)


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


def with_branches(module: nn.Module, config: AdapterConfig) -> nn.Module:
    """A copy of a frozen module, sharing its tensors, whose target layers take factors of this configuration.

    :func:`branch_parameters` names what ``functional_call`` puts into it.

    Raises:
        TrainingError: see :func:`expected_shapes`.
    """
    shapes = expected_shapes(module, config)
    tensors = [*module.parameters(), *module.buffers()]
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for name in config.target_modules:
        layer = copied.get_submodule(name)
        kind = type(layer)
        # The class is changed and not the object, which may be known by several names.
        known: dict[type, type[_Adapted]] = {nn.Linear: _AdaptedLinear, nn.Conv2d: _AdaptedConv2d}
        layer.__class__ = known.get(kind) or type(f"_Adapted{kind.__name__}", (_Adapted, kind), {})
        assert isinstance(layer, _Adapted)
        prefix = f"{PEFT_PREFIX}{name}"
        layer.attach(config.scaling, *(shapes[f"{prefix}.{factor}"] for factor in FACTORS))
    return copied


def branch_parameters(tensors: Mapping[str, Tensor], config: AdapterConfig) -> dict[str, Tensor]:
    """An adapter's tensors under the names that they have in the module of :func:`with_branches`.

    Args:
        tensors: under PEFT's names; those of modules that the configuration does not name are left out.
        config: where they attach.

    Raises:
        KeyError: a factor of a target module is missing.
    """
    named = {
        f"{module}.{own}": tensors[f"{PEFT_PREFIX}{module}.{factor}"]
        for module in config.target_modules
        for factor, own in FACTORS.items()
    }
    for module in config.modules_to_save:
        prefix = f"{PEFT_PREFIX}{module}."
        named |= {name.removeprefix(PEFT_PREFIX): value for name, value in tensors.items() if name.startswith(prefix)}
    return named


def expected_shapes(module: nn.Module, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that an adapter of this configuration has on this module.

    Raises:
        TrainingError: a named module does not exist, or is of a kind that cannot take LoRA factors.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    modules = dict(module.named_modules())
    for name in (*config.target_modules, *config.modules_to_save):
        if name not in modules:
            raise TrainingError(f"The backbone has no module {name!r}; its modules are listed by named_modules().")
    for name in config.target_modules:
        target = modules[name]
        prefix = f"{PEFT_PREFIX}{name}"
        if isinstance(target, nn.Linear):
            shapes[f"{prefix}.lora_A.weight"] = (config.rank, target.in_features)
            shapes[f"{prefix}.lora_B.weight"] = (target.out_features, config.rank)
        elif isinstance(target, nn.Conv2d) and target.groups == 1:
            shapes[f"{prefix}.lora_A.weight"] = (config.rank, target.in_channels, *target.kernel_size)
            shapes[f"{prefix}.lora_B.weight"] = (target.out_channels, config.rank, 1, 1)
        else:
            raise TrainingError(
                f"Module {name!r} is a {type(target).__name__}; LoRA goes into Linear layers and Conv2d without groups."
            )
    for name in config.modules_to_save:
        for parameter, value in modules[name].named_parameters():
            shapes[f"{PEFT_PREFIX}{name}.{parameter}"] = tuple(value.shape)
    return shapes


def initial_adapter(module: nn.Module, config: AdapterConfig, seed: int) -> dict[str, Tensor]:
    """The shared starting point of all fine-tunings, injected by PEFT: A random, B zero, saved modules as pretrained.

    One initialisation for all tasks is the cheap half of removing LoRA's GL(r) freedom (``B R⁻¹ R A = B A``): all
    adapters then live in one basin, where averages and differences mean something.

    Raises:
        AdapterMismatchError: PEFT made other tensors than :func:`expected_shapes` foretells.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % (2**63))
        wrapped = get_peft_model(
            copy.deepcopy(module),
            LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                target_modules=list(config.target_modules),
                modules_to_save=list(config.modules_to_save) or None,
            ),
        )
        state = {name: value.detach().clone() for name, value in get_peft_model_state_dict(wrapped).items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected_shapes(module, config):
        raise AdapterMismatchError(
            f"PEFT injected tensors {sorted(found)}, another set than this backbone's adapters have. "
            "Name the target modules in full, each one exactly."
        )
    return state
