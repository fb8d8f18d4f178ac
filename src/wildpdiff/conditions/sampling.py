"""Conditions drawn anew at every training step: random subsets of the images, parts dropped, everything dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wildpdiff.conditions.base import ConditionEmbedding
from wildpdiff.conditions.images import ImageFeatures, ImageSetEncoder


@dataclass(frozen=True)
class PartTable:
    """Embeddings of one part of many descriptions.

    Attributes:
        values: one embedding a task, zero where the part is missing.
        present: presence mask.
    """

    values: Float[Tensor, "t s"]
    present: Bool[Tensor, " t"]

    @classmethod
    def of(cls, rows: Sequence[ConditionEmbedding]) -> PartTable:
        """Stacked embeddings of one part."""
        return cls(torch.stack([row.values for row in rows]), torch.tensor([row.present for row in rows]))

    def draw(self, indices: Int[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b s"]:
        """Embeddings of the tasks at ``indices``; not random."""
        return self.values[indices]


class ImageSubsets:
    """Embeddings of random subsets of every task's images, without a loop over the batch.

    The embedding is linear in mean and standard deviation, so the mean is projected once for every image. Features
    are held as differences from their task's mean: the variance of a subset is then a difference of two small
    numbers, exact enough in float32.
    """

    def __init__(self, encoder: ImageSetEncoder, features: ImageFeatures, smallest: int) -> None:
        """Precompute projections.

        Args:
            features: features of every image of every task.
            smallest: the smallest subset that is drawn; a task with fewer images always gives all of them.
        """
        mask = features.mask
        weights = mask.double() / mask.sum(1, keepdim=True).clamp_min(1)
        # Unknown features of a task (nan) count as the average of the seen tasks, as in the encoder.
        values = features.values.double()
        values = torch.where(values.isnan(), encoder.center[: values.shape[2]].double(), values)
        task_mean = torch.einsum("tk,tkf->tf", weights, values)
        differences = ((values - task_mean[:, None]) * mask[..., None]).float()
        width = values.shape[2]
        scaled = encoder.directions / encoder.scale[:, None]
        self._encoder = encoder
        self._mask = mask
        self._count = mask.sum(1)
        self._lowest = self._count.clamp_max(smallest)
        self._offset = (task_mean.float() - encoder.center[:width]) @ scaled[:width]
        self._spread_center, self._spread_scaled = encoder.center[width:], scaled[width:]
        tables = [differences @ scaled[:width]]
        if encoder.spread:
            tables += [differences, differences.square()]
        self._table = torch.cat(tables, dim=2).flatten(0, 1)

    def draw(self, indices: Int[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b c"]:
        """One random subset a row: its size is uniform, then all subsets of that size are equally likely."""
        count, lowest = self._count[indices], self._lowest[indices]
        span = (count - lowest + 1).float()
        size = lowest + (torch.rand(len(indices), generator=generator) * span).long().clamp_max(count - lowest)
        mask = self._mask[indices]
        order = torch.rand(mask.shape, generator=generator).masked_fill_(~mask, 2.0)
        threshold = order.sort(1).values.gather(1, (size - 1).clamp_min(0)[:, None])
        chosen = ((order <= threshold) & mask).float()
        number = chosen.sum(1, keepdim=True)
        # A bag sums its rows without gathering them first, which is ten times faster than indexing and a product.
        rows = indices[:, None] * mask.shape[1] + torch.arange(mask.shape[1])
        weights = chosen / number.clamp_min(1.0)
        moments = nn.functional.embedding_bag(rows, self._table, per_sample_weights=weights, mode="sum")
        components = self._encoder.size
        result = self._offset[indices] + moments[:, :components]
        if self._encoder.spread:
            first, second = moments[:, components:].chunk(2, dim=1)
            unbiased = number / (number - 1.0).clamp_min(1.0)
            deviation = ((second - first.square()) * unbiased).clamp_min_(0.0).sqrt_()
            centered = torch.where(number > 1.0, deviation - self._spread_center, 0.0)
            result = result + centered @ self._spread_scaled
        return self._encoder.clip(result)


class FusionSampler:
    """Condition of a batch of tasks, drawn anew at every call: a :data:`ConditionSampler`.

    Each part is dropped with probability ``drop_part``, but never all that a task has; everything is dropped with
    probability ``drop_all``, for classifier-free guidance (Ho & Salimans 2022).
    """

    def __init__(
        self,
        tables: Mapping[str, PartTable],
        subsets: Mapping[str, ImageSubsets],
        *,
        drop_part: float,
        drop_all: float,
    ) -> None:
        """``tables`` are by part in the order of the embedding; ``subsets`` take their role for images."""
        self._draws: list[PartTable | ImageSubsets] = [subsets.get(part, table) for part, table in tables.items()]
        self._present = torch.stack([table.present for table in tables.values()], dim=1)
        self._drop_part = drop_part
        self._drop_all = drop_all

    def __call__(self, indices: Int[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b e"]:
        """Embeddings for the tasks at ``indices``, in the layout of ``FusionEncoder``."""
        present = self._present[indices]
        luck = torch.rand(present.shape, generator=generator).masked_fill_(~present, -1.0)
        # The luckiest part of a row always stays: dropping parts alone must leave something to condition on.
        kept = (luck >= self._drop_part) | (luck == luck.amax(1, keepdim=True))
        everything = torch.rand(len(indices), 1, generator=generator) < self._drop_all
        flags = (kept & present & ~everything).float()
        values = [draw.draw(indices, generator) * flags[:, p : p + 1] for p, draw in enumerate(self._draws)]
        return torch.cat([*values, flags], dim=1)
