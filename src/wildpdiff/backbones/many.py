"""Functions of one adapter applied to many: vectorised, and one after the other where a model cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from wildpdiff.errors import TrainingError

T = TypeVar("T")


def over_adapters(function: Callable[..., T], shared: tuple[int, ...] = ()) -> Callable[..., T]:
    """A function of tensors, or named tensors, applied along a new leading axis of them and of its result.

    Models whose code asks for values, or whose operations have no rule for ``torch.func.vmap``, run in a loop.

    Args:
        function: of one adapter, without side effects.
        shared: positions of arguments without the leading axis.
    """
    return _vectorised(function, function, shared)


def gradients_over_adapters(
    loss: Callable[..., Tensor],
) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """Gradients of a loss by its first argument, named tensors, and the loss, along a leading axis of all arguments.

    The function that is returned raises :class:`TrainingError` where there is no gradient.
    """

    def one(tensors: Mapping[str, Tensor], *others: Any) -> tuple[dict[str, Tensor], Tensor]:
        leaves = {name: value.detach().clone().requires_grad_(True) for name, value in tensors.items()}
        try:
            with torch.enable_grad():
                found = loss(leaves, *others)
            slopes = torch.autograd.grad(found, list(leaves.values()), materialize_grads=True)
        except RuntimeError as error:
            raise TrainingError(
                f"The model has no gradient by an adapter ({error}). Give one that can be trained, or other targets."
            ) from error
        return dict(zip(leaves, slopes, strict=True)), found.detach()

    return _vectorised(torch.func.grad_and_value(loss), one, ())


def _vectorised(function: Callable[..., Any], one: Callable[..., Any], shared: tuple[int, ...]) -> Callable[..., Any]:
    """A function over adapters by ``vmap``, and by a loop over ``one`` from where the loop does what ``vmap`` cannot.

    ``vmap`` names no kind of error for that. The model's own errors are raised by the loop again; a lack of memory or
    a fault of the device is none of it, and is raised at once.
    """
    loops = False

    def many(*arguments: Any) -> Any:
        nonlocal loops
        axes = tuple(None if position in shared else 0 for position in range(len(arguments)))
        if not loops:
            try:
                return torch.func.vmap(function, in_dims=axes)(*arguments)
            except RuntimeError as error:
                if _of_the_machine(error):
                    raise
        count = next(len(_first(own)) for own, axis in zip(arguments, axes, strict=True) if axis == 0)
        rows = ([own if axis is None else _row(own, i) for own, axis in zip(arguments, axes, strict=True)]
                for i in range(count))  # fmt: skip
        results = [one(*row) for row in rows]
        loops = True
        return _stacked(results)

    return many


def _of_the_machine(error: RuntimeError) -> bool:
    """Whether memory or the device failed; torch has no kind of error for the memory of the processor."""
    return isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or "DefaultCPUAllocator" in str(error)


def _first(value: Tensor | Mapping[str, Tensor]) -> Tensor:
    return value if isinstance(value, Tensor) else next(iter(value.values()))


def _row(value: Any, row: int) -> Any:
    return {name: own[row] for name, own in value.items()} if isinstance(value, Mapping) else value[row]


def _stacked(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, Tensor):
        return torch.stack(results)
    if isinstance(first, Mapping):
        return {name: _stacked([own[name] for own in results]) for name in first}
    return tuple(_stacked([own[part] for own in results]) for part in range(len(first)))
