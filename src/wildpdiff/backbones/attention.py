"""Fused attention that vectorises over adapters.

``torch`` computes attention on the CPU without its matrix of weights, which for a vision transformer is most of the
memory of a training step, but has no batching rule for that kernel: ``vmap`` would run it in a loop. Attention knows no
adapter, so the axis of the adapters is one more axis of examples.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

HARMLESS = {
    "cache_position",
    "dropout",
    "is_causal",  # the mask that is always made has it
    "output_attentions",
    "output_hidden_states",
    "position_ids",
    "return_dict",
    "scaling",
    "sliding_window",  # as above
    "use_cache",
}
"""Arguments of an attention function of ``transformers`` that leave it plain, as caps, sinks and biases do not."""


def is_plain(query: Tensor, value: Tensor, named: dict[str, Any], *, mask: Tensor | None = None) -> bool:
    """Whether the fused kernel computes this attention: on the CPU, with values as wide as keys, nothing added.

    A mask that is trained, as one with a bias of positions may be, gets no gradient from the kernel.
    """
    extra = any(name not in HARMLESS and value is not None for name, value in named.items())
    kept = not named.get("dropout") and not named.get("output_attentions")
    trained = mask is not None and mask.requires_grad
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and kept and not extra and not trained


def fused_attention(
    query: Float[Tensor, "n h t d"],
    key: Float[Tensor, "n g s d"],
    value: Float[Tensor, "n g s d"],
    *,
    mask: Float[Tensor, "#n #h #t s"] | None,
    scale: float,
) -> Float[Tensor, "n h t d"]:
    """``softmax(scale * q k + mask) v``; where there are fewer keys' heads than queries', neighbours share one."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if mask is not None:
        mask = mask.expand(len(query), -1, -1, -1)  # of every example, since adapters are folded into these
    result: Tensor = _Fused.apply(query, key, value, mask, scale)[0]  # type: ignore[no-untyped-call]
    return result


def _folded(size: int, tensors: tuple[Tensor | None, ...], axes: tuple[int | None, ...]) -> list[Tensor | None]:
    """Tensors whose axis of adapters, or a repetition where they lack it, is joined with that of the examples."""
    found: list[Tensor | None] = []
    for tensor, axis in zip(tensors, axes, strict=True):
        if tensor is None:
            found.append(None)
            continue
        many = tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        found.append(many.flatten(0, 1))
    return found


class _Fused(torch.autograd.Function):
    """Attention and the logarithm of its normalisation, which the gradient takes."""

    @staticmethod
    def forward(*given: Any) -> Any:
        query, key, value, mask, scale = given
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=scale
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        query, key, value, mask, ctx.scale = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(query, key, value, mask, *output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        found = _FusedGradient.apply(gradient, *ctx.saved_tensors, ctx.scale)  # type: ignore[no-untyped-call]
        return (*found, None, None)

    @staticmethod
    def vmap(info: Any, axes: Any, *given: Any) -> Any:
        folded = _folded(info.batch_size, given[:4], axes[:4])
        found = _Fused.apply(*folded, given[4])  # type: ignore[no-untyped-call]
        return tuple(entry.unflatten(0, (info.batch_size, -1)) for entry in found), (0, 0)


class _FusedGradient(torch.autograd.Function):
    """Gradients of query, key and value."""

    @staticmethod
    def forward(*given: Any) -> Any:
        gradient, query, key, value, mask, output, log_sum, scale = given
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, key, value, output, log_sum, 0.0, False, attn_mask=mask, scale=scale
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no ``backward``, and a second derivative is refused."""

    @staticmethod
    def vmap(info: Any, axes: Any, *given: Any) -> Any:
        folded = _folded(info.batch_size, given[:7], axes[:7])
        found = _FusedGradient.apply(*folded, given[7])  # type: ignore[no-untyped-call]
        return tuple(entry.unflatten(0, (info.batch_size, -1)) for entry in found), (0, 0, 0)
