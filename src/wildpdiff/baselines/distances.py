"""How far descriptions are from each other, part by part, in units in which all parts are comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.conditions.sampling import PartTable
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description


@dataclass(frozen=True)
class SeenDistances:
    """Squared distances between seen descriptions, and from a new one to them; 1 is the mean over seen pairs.

    Attributes:
        tables: embeddings and presence of the seen tasks by part.
        units: mean squared distance between two different seen tasks by part, 1 where they are all alike.
    """

    tables: Mapping[str, PartTable]
    units: Mapping[str, float]

    @classmethod
    def of(
        cls,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        features: Mapping[str, ImageFeatures] | None = None,
    ) -> SeenDistances:
        """Encode the seen descriptions; ``features`` are their image features by part, where already known."""
        tables = encoder.tables(descriptions, features)
        units = {}
        for part, table in tables.items():
            values = table.values[table.present].double()
            pairs = len(values) * (len(values) - 1)
            mean = float(_squared(values, values).sum()) / pairs if pairs else 0.0
            units[part] = mean if mean > 0 else 1.0
        return cls(tables, units)

    def present(self, parts: Sequence[str]) -> Bool[Tensor, " t"]:
        """Which seen tasks have all these parts."""
        return torch.stack([self.tables[part].present for part in parts]).all(0)

    def between(self, part: str) -> Float[Tensor, "t t"]:
        """Squared distances between the seen tasks in one part; without meaning for tasks that lack it."""
        values = self.tables[part].values.double()
        return _squared(values, values) / self.units[part]

    def to(self, part: str, values: Float[Tensor, " s"]) -> Float[Tensor, " t"]:
        """Squared distances from an embedding of one part to the seen tasks; without meaning for those lacking it."""
        return _squared(values.double()[None], self.tables[part].values.double())[0] / self.units[part]

    def overall(self, parts: Mapping[str, Float[Tensor, " _"]]) -> Float[Tensor, " t"]:
        """Squared distances from a description to the seen tasks: the mean over the parts that both have.

        Args:
            parts: embeddings of the description's parts; their sizes differ.

        Raises:
            DescriptionError: no seen task has any of the parts. Those that have none are infinitely far.
        """
        total = torch.zeros(len(next(iter(self.tables.values())).present), dtype=torch.float64)
        shared = torch.zeros_like(total)
        for part, values in parts.items():
            present = self.present([part])
            total += torch.where(present, self.to(part, values), 0.0)
            shared += present
        if not bool(shared.any()):
            raise DescriptionError(
                f"No seen task has {' or '.join(parts)}, which is all that the description has. Give another part."
            )
        return torch.where(shared > 0, total / shared, torch.inf)

    def overall_between(self, parts: Sequence[str]) -> Float[Tensor, "t t"]:
        """The same between the seen tasks; infinite where two share none of the parts."""
        owners = {part: self.present([part]) for part in parts}
        shared = torch.stack([own[:, None] & own[None] for own in owners.values()])
        squared = torch.stack([self.between(part) for part in parts])
        total, counts = torch.where(shared, squared, 0.0).sum(0), shared.sum(0)
        return torch.where(counts > 0, total / counts, torch.inf)


def _squared(first: Float[Tensor, "n s"], second: Float[Tensor, "m s"]) -> Float[Tensor, "n m"]:
    # Differences first: the expanded square would lose the small distances to cancellation.
    return (first[:, None] - second[None]).square().sum(2)
