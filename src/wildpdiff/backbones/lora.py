"""LoRA as a pure function of adapter tensors, and its injection through PEFT.

Two routes to the same numbers, held together by a test. PEFT decides which tensors an adapter has, their shapes and
their initial values (once, when a zoo is planned). Everything that runs often, and everything on the path of
generating and using an adapter, works on merged weights ``W + alpha / r * B @ A`` through ``functional_call``: it is
differentiable, it vectorises over adapters, and it needs no PEFT import (some seconds).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wildpdiff.adapter import PEFT_PREFIX, AdapterConfig
from wildpdiff.errors import AdapterMismatchError, TrainingError

__all__ = ["expected_shapes", "initial_adapter", "merged_parameters"]


def _lora_delta(factor_a: Tensor, factor_b: Tensor) -> Tensor:
    """``B @ A`` for a linear layer or a (non-grouped) convolution, whose A keeps the kernel's extent."""
    if factor_a.ndim == 2:
        return factor_b @ factor_a
    return torch.einsum("or,rihw->oihw", factor_b[:, :, 0, 0], factor_a)


def merged_parameters(
    base: Mapping[str, Tensor], tensors: Mapping[str, Tensor], config: AdapterConfig
) -> dict[str, Tensor]:
    """The backbone's parameters with one adapter merged in (Hu et al. 2021, section 4.1).

    Args:
        base: the backbone's parameters by full name.
        tensors: the adapter's tensors under PEFT's names.
        config: where the tensors attach.

    Returns:
        Only the parameters that differ from ``base``; differentiable with respect to ``tensors``.
    """
    merged: dict[str, Tensor] = {}
    for module in config.target_modules:
        factor_a = tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"]
        factor_b = tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"]
        merged[f"{module}.weight"] = base[f"{module}.weight"] + config.scaling * _lora_delta(factor_a, factor_b)
    for module in config.modules_to_save:
        prefix = f"{PEFT_PREFIX}{module}."
        for name, value in tensors.items():
            if name.startswith(prefix):
                merged[f"{module}.{name.removeprefix(prefix)}"] = value
    return merged


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
