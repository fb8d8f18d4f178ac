"""Embedding of a set of unlabelled images that depends neither on their order nor on their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, BlockFeaturiser, ConditionEmbedding, Featuriser, feature_blocks
from wildpdiff.conditions.reduction import Reduction, strongest
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, Inputs


@dataclass(frozen=True)
class ImageFeatures:
    """Features of every image of every task, computed once and resampled at every training step.

    Attributes:
        values: features, zero where a task has fewer images than the most that any task has.
        mask: which entries are images; a task without the part has none.
    """

    values: Float[Tensor, "t k f"]
    mask: Bool[Tensor, "t k"]

    @classmethod
    def stack(cls, sets: Sequence[Tensor | None]) -> ImageFeatures:
        """Sets ``[k_t, f]`` padded to one tensor; ``None`` is a task without images.

        Raises:
            DescriptionError: no task has images.
        """
        found = [entry for entry in sets if entry is not None and len(entry)]
        if not found:
            raise DescriptionError("None of the descriptions has images of this part. Leave it out of the condition.")
        values = found[0].new_zeros(len(sets), max(len(entry) for entry in found), found[0].shape[1])
        mask = torch.zeros(values.shape[:2], dtype=torch.bool)
        for row, entry in enumerate(sets):
            if entry is not None:
                values[row, : len(entry)] = entry
                mask[row, : len(entry)] = True
        return cls(values, mask)

    @classmethod
    def of(cls, descriptions: Sequence[Description], part: str, featurise: Featuriser) -> ImageFeatures:
        """Features of ``backgrounds`` or ``examples``; raises :class:`DescriptionError` where no task has them."""
        sets: list[Inputs | None] = [getattr(entry, part) for entry in descriptions]
        return cls.stack([None if images is None or not count(images) else featurise(images) for images in sets])

    def row(self, index: int) -> Float[Tensor, "k f"]:
        """Features of one task, without padding."""
        return self.values[index][self.mask[index]]


@dataclass(frozen=True)
class ImageSetEncoder:
    """Mean and spread of frozen image features over a set, standardised over the seen tasks and reduced by PCA.

    A set is a sample of a camera's view; its mean and standard deviation estimate the same quantities for any number of
    images, so descriptions with many or few images share one space. With a single image the spread is not known and
    counts as the average of the seen tasks.

    With a :class:`~wildpdiff.conditions.base.BlockFeaturiser` the mean and the spread of every block have the same
    total variance, and the blocks that are factors have components of their own, after those of the whole.

    Attributes:
        spread: whether the standard deviation over the set is used with the mean.
        center: mean of the summaries over the seen tasks; the summary is ``f`` or, with spread, ``2 f`` long.
        scale: standard deviation of the summaries over the seen tasks, 1 where constant, times the block's weight.
        directions: principal directions, divided by the standard deviation along them (or by one common value).
        featurise: images to features; not stored, given again at load.
        own: number of columns, at the end, of each factor of the featuriser.
        identity: of the featuriser; empty where it is a plain function.
    """

    part: str
    spread: bool
    center: Float[Tensor, " s"]
    scale: Float[Tensor, " s"]
    directions: Float[Tensor, "s c"]
    featurise: Featuriser
    own: tuple[int, ...] = ()
    identity: str = ""
    kind: ClassVar[str] = "images"

    @classmethod
    def fit(
        cls,
        descriptions: Sequence[Description],
        part: str,
        featurise: Featuriser,
        *,
        components: int = 16,
        spread: bool = True,
        whiten: bool = True,
        features: ImageFeatures | None = None,
    ) -> ImageSetEncoder:
        """Standardise and reduce the summaries of the seen tasks.

        Args:
            descriptions: of the seen tasks; those without the part are skipped.
            components: most principal components to keep, of the whole and of each factor of the featuriser; never
                more than the seen tasks can determine.
            spread: whether the standard deviation over the set is used with the mean.
            whiten: give every component unit variance over the seen tasks; else all share one factor.

        Raises:
            DescriptionError: fewer than two descriptions have the part.
        """
        known = features or ImageFeatures.of(descriptions, part, featurise)
        rows = [known.row(index) for index in range(len(known.mask)) if bool(known.mask[index].any())]
        if len(rows) < 2:
            raise DescriptionError(f"Only {len(rows)} of the descriptions has {part}; two are needed at least.")
        lengths = feature_blocks(featurise, known.values.shape[2])
        names = list(lengths) * (2 if spread else 1)
        factors = featurise.factors if isinstance(featurise, BlockFeaturiser) else ()
        fitted = Reduction.fit(
            torch.stack([_summary(row, spread) for row in rows]),
            components=components,
            whiten=whiten,
            blocks=[lengths[name] for name in names],
            own=[[i for i, own in enumerate(names) if own == name] for name in factors if name in lengths],
        )
        center, scale, directions = fitted.center.float(), fitted.scale.float(), fitted.directions.float()
        return cls(part, spread, center, scale, directions, featurise, fitted.sizes[1:], _identity(featurise))

    @property
    def size(self) -> int:
        """Number of components."""
        return int(self.directions.shape[1])

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """All components of the whole together, the four strongest alone, and those of every factor."""
        start = self.size - sum(self.own)
        found = list(strongest(range(start)))
        for columns in self.own:
            found.append(tuple(range(start, start + columns)))
            start += columns
        return tuple(found)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {"part": self.part, "spread": self.spread, "own": list(self.own), "featuriser": self.identity}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state."""
        return {"center": self.center, "scale": self.scale, "directions": self.directions}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> ImageSetEncoder:
        """Inverse of :attr:`config` and :attr:`tensors`.

        Raises:
            DescriptionError: no featuriser is given, or another one than the encoder was fitted with.
        """
        part, wanted = config["part"], config.get("featuriser", "")
        if featurise is None:
            raise DescriptionError(f"The condition reads {part}, so its image featuriser is needed. Give the backbone.")
        if wanted and _identity(featurise) != wanted:
            raise DescriptionError(
                f"The condition reads {part} by the features of {wanted!r}; those of "
                f"{_identity(featurise) or 'another function'!r} were given. Give the featuriser that it was fitted "
                "with; for CLIP that is ClipFeaturiser(folder), or --clip FOLDER."
            )
        own = tuple(config.get("own", ()))
        return cls(part, config["spread"], featurise=featurise, own=own, identity=wanted, **tensors)

    def encode(self, description: Description) -> ConditionEmbedding:
        """Embedding ``[c]`` of the description's images; no images, or none in the array, count as missing."""
        images: Inputs | None = getattr(description, self.part)
        return self.encode_set(None if images is None or not count(images) else self.featurise(images))

    def encode_set(self, features: Float[Tensor, "k f"] | None) -> ConditionEmbedding:
        """Embedding of a set by its features; none count as missing."""
        if features is None or not len(features):
            return ConditionEmbedding(torch.zeros(self.size), False)
        return ConditionEmbedding(self.encode_features(features), True)

    def encode_features(self, features: Float[Tensor, "k f"]) -> Float[Tensor, " c"]:
        """Embedding of a set of ``k >= 1`` images by their features."""
        summary = _summary(features, self.spread).float()
        # A single image has no spread: nan stands for it, and zero is the average of the seen tasks.
        return self.clip(((summary - self.center) / self.scale).nan_to_num(0.0) @ self.directions)

    def clip(self, embedding: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """An embedding limited to ±4, so that a set unlike any seen one does not drive a network."""
        return embedding.clamp(-CLIP, CLIP)


def _identity(featurise: Featuriser) -> str:
    return featurise.identity if isinstance(featurise, BlockFeaturiser) else ""


def _summary(features: Float[Tensor, "k f"], spread: bool) -> Float[Tensor, " s"]:
    """Mean and, with spread, unbiased-variance standard deviation over a set, in float64; spread nan for one image."""
    values = features.double()
    mean = values.mean(0)  # nan where the featuriser does not know
    if not spread:
        return mean
    return torch.cat([mean, values.std(0) if len(values) > 1 else torch.full_like(mean, torch.nan)])
