"""Features of unlabelled examples of any kind for conditions, by the frozen backbone, in named blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.backbones.image_features import BATCH, PROBABILITIES, columns_of
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import concatenate
from wildpdiff.tasks.examples import count, part

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone

MOST_VALUES = 1024
"""Numbers of an input, and of an output that is no class, that are features as they are."""


@dataclass(frozen=True, eq=False)
class ExampleFeaturiser:
    """Features of a set of examples for conditions: small numeric inputs, embedding, class probabilities or outputs.

    The counterpart of :class:`~wildpdiff.backbones.image_features.ImageFeaturiser` for texts, signals and other
    tensors; a :class:`~wildpdiff.conditions.base.BlockFeaturiser`. The features are cached in the backbone's memory.

    Attributes:
        backbone: whose frozen weights make the features.
    """

    backbone: Backbone

    def __call__(self, examples: Any) -> Float[Tensor, "n f"]:
        """Features of examples as the backbone takes them.

        Raises:
            DataError: as the backbone's ``stem``.
            DescriptionError: nothing of the model is one row of numbers an example.
        """
        return self.backbone.memory(examples, lambda new: torch.cat(list(self._compute(new).values()), dim=1))

    @property
    def identity(self) -> str:
        """``backbone``, as for images."""
        return "backbone"

    @property
    def blocks(self) -> Mapping[str, int]:
        """The kinds of features in their order, with the number of each; none before the first call."""
        return self.backbone.memory.blocks

    def columns(self, block: str) -> slice | None:
        """The columns of a block; ``None`` where there is no such block, or no call yet."""
        return columns_of(self.blocks, block)

    @property
    def factors(self) -> tuple[str, ...]:
        """Class probabilities: the labels of a task are a cause of their own of how tasks differ."""
        return (PROBABILITIES,)

    def _compute(self, examples: Any) -> dict[str, Tensor]:
        backbone, blocks = self.backbone, self._inputs(examples)
        batch = backbone.stem(examples)
        embedding = backbone.embedding(batch)
        if embedding is not None:
            blocks["embedding"] = embedding
        outputs = backbone.predict(batch).flatten(1)
        if backbone.classes:
            blocks[PROBABILITIES] = outputs.softmax(1)
        elif outputs.shape[1] <= MOST_VALUES:
            blocks["outputs"] = outputs
        if not blocks:
            raise DescriptionError(
                f"The model {backbone.name!r} gives no features of examples: its outputs are neither classes nor few "
                "numbers, and its last layer is not linear. Leave examples out, or give a featuriser."
            )
        backbone.memory.blocks = {name: values.shape[1] for name, values in blocks.items()}
        return {name: values.clone() for name, values in blocks.items()}

    def _inputs(self, examples: Any) -> dict[str, Tensor]:
        """The model's inputs where they are few real numbers: a signal's mean and spread describe its source."""
        starts = range(0, count(examples), BATCH)
        batch = concatenate([self.backbone.collate(part(examples, slice(start, start + BATCH))) for start in starts])
        rows = [values.flatten(1) for values in batch.values() if values.is_floating_point()]
        return {"inputs": torch.cat(rows, 1)} if rows and sum(row.shape[1] for row in rows) <= MOST_VALUES else {}
