"""All parts of a description in one embedding, with a flag a part, so that any of them may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import ConditionEmbedding, ConditionEncoder, ConditionSampler, Featuriser
from wildpdiff.conditions.images import ImageFeatures, ImageSetEncoder
from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.conditions.sampling import FusionSampler, ImageSubsets, PartTable
from wildpdiff.conditions.task_id import TaskIdEncoder
from wildpdiff.conditions.text import SentenceFeaturiser, TextEncoder, packaged_sentences
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, MetadataSchema

ENCODERS: dict[str, type[ConditionEncoder]] = {
    "task_id": TaskIdEncoder,
    "metadata": MetadataEncoder,
    "metadata-2": MetadataEncoder,
    "images": ImageSetEncoder,
    "text": TextEncoder,
}
"""Encoders of one part by kind of stored state."""


@dataclass(frozen=True)
class FusionEncoder:
    """Concatenation of the embeddings of the parts, then one presence flag a part.

    The embedding is ``[part 1 | part 2 | … | flag 1, flag 2, …]``; a missing part has zeros and a flag of 0.
    """

    encoders: tuple[ConditionEncoder, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts in the order of the embedding."""
        return tuple(encoder.part for encoder in self.encoders)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Columns of each part."""
        return tuple(encoder.size for encoder in self.encoders)

    @property
    def size(self) -> int:
        """Length of the embedding."""
        return sum(self.sizes) + len(self.encoders)

    @property
    def groups(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Columns of the embedding that are one factor each, with the part that they belong to."""
        found: list[tuple[str, tuple[int, ...]]] = []
        start = 0
        for encoder in self.encoders:
            found += [(encoder.part, tuple(start + column for column in group)) for group in encoder.groups]
            start += encoder.size
        return tuple(found)

    @property
    def image_encoders(self) -> tuple[ImageSetEncoder, ...]:
        """Encoders of the parts that are images."""
        return tuple(entry for entry in self.encoders if isinstance(entry, ImageSetEncoder))

    @property
    def metadata_encoder(self) -> MetadataEncoder | None:
        """Encoder of the metadata, which has the schema; ``None`` where the metadata is not read."""
        return next((entry for entry in self.encoders if isinstance(entry, MetadataEncoder)), None)

    @property
    def featurise(self) -> Featuriser | None:
        """Featuriser of the images; ``None`` where no part is images."""
        return next((entry.featurise for entry in self.image_encoders), None)

    @property
    def null(self) -> Float[Tensor, " e"]:
        """Embedding of an unknown description, for classifier-free guidance."""
        return torch.zeros(self.size)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {"encoders": [{"kind": entry.kind, "config": entry.config} for entry in self.encoders]}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state of every part, as ``part.name``."""
        return {f"{e.part}.{name}": value for e in self.encoders for name, value in e.tensors.items()}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> FusionEncoder:
        """Inverse of :attr:`config` and :attr:`tensors`.

        Raises:
            DescriptionError: the condition reads images and no featuriser is given, or an encoder is of an unknown
                kind.
        """
        encoders = []
        for entry in config["encoders"]:
            kind = entry["kind"]
            if kind not in ENCODERS:
                raise DescriptionError(
                    f"The condition has an encoder of kind {kind!r}; known kinds are {', '.join(ENCODERS)}. "
                    "Update wildpdiff."
                )
            prefix = f"{entry['config'].get('part', kind)}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            encoders.append(ENCODERS[kind].from_state(entry["config"], own, featurise))
        return cls(tuple(encoders))

    def encode_parts(self, description: Description) -> dict[str, Float[Tensor, " s"]]:
        """Embeddings of the parts that are present, by part.

        Raises:
            DescriptionError: no part of the condition is present, or one holds a bad value.
        """
        description.require_any(self.parts)
        embeddings = {encoder.part: encoder.encode(description) for encoder in self.encoders}
        present = {part: entry.values for part, entry in embeddings.items() if entry.present}
        if not present:
            empty = ", ".join(part for part in self.parts if part in description.parts)
            found = "; ".join(self.unknown(description)) or f"The description's {empty} is empty"
            raise DescriptionError(f"{found.rstrip('.')}. Give at least one value that a seen task had, or an example.")
        return present

    def unknown(self, description: Description) -> tuple[str, ...]:
        """A sentence for every value of the description that was in no seen task and is therefore left out.

        Raises:
            DescriptionError: an unknown key of the metadata, or a value that is no finite number.
        """
        return () if self.metadata_encoder is None else self.metadata_encoder.unknown(description)

    def encode(self, description: Description) -> ConditionEmbedding:
        """The fused embedding; raises :class:`DescriptionError` as :meth:`encode_parts`."""
        present = self.encode_parts(description)
        values = [present.get(encoder.part, torch.zeros(encoder.size)) for encoder in self.encoders]
        flags = torch.tensor([float(part in present) for part in self.parts])
        return ConditionEmbedding(torch.cat([*values, flags]), True)

    def image_features(self, descriptions: Sequence[Description]) -> dict[str, ImageFeatures]:
        """Features of every image of the descriptions, by part, for the parts that are images.

        Raises:
            DescriptionError: no description has images of a part.
        """
        return {
            entry.part: ImageFeatures.of(descriptions, entry.part, entry.featurise) for entry in self.image_encoders
        }

    def tables(
        self, descriptions: Sequence[Description], features: Mapping[str, ImageFeatures] | None = None
    ) -> dict[str, PartTable]:
        """Embeddings and presence of every part of many descriptions, by part.

        Args:
            descriptions: any of them may lack any part.
        """
        known = features or {}
        rows = {e.part: [e.encode(one) for one in descriptions] for e in self.encoders if e.part not in known}
        for entry in self.image_encoders:
            if entry.part in known:
                rows[entry.part] = [entry.encode_set(known[entry.part].row(i)) for i in range(len(descriptions))]
        return {part: PartTable.of(rows[part]) for part in self.parts}

    def sampler(
        self,
        descriptions: Sequence[Description],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        drop_part: float = 0.2,
        drop_all: float = 0.1,
        smallest: int = 2,
    ) -> ConditionSampler:
        """Sampler of a training's conditions: another random view of the descriptions at every step.

        Args:
            descriptions: of the seen tasks, in the order of the sampler's indices.
            drop_part: probability of dropping each part of a row; one part always stays.
            drop_all: probability of dropping everything, for classifier-free guidance.
            smallest: the smallest subset of a task's images that is drawn.

        Returns:
            A function of task indices ``int64 [b]`` and a generator to embeddings ``[b, e]``.
        """
        known = dict(features or {}) or self.image_features(descriptions)
        subsets = {entry.part: ImageSubsets(entry, known[entry.part], smallest) for entry in self.image_encoders}
        return FusionSampler(self.tables(descriptions, known), subsets, drop_part=drop_part, drop_all=drop_all)


def fit_fusion(
    descriptions: Sequence[Description],
    schema: MetadataSchema,
    featurise: Featuriser,
    parts: Sequence[str] = ("metadata", "backgrounds"),
    *,
    components: int = 16,
    whiten: bool = True,
    features: Mapping[str, ImageFeatures] | None = None,
    sentences: SentenceFeaturiser = packaged_sentences,
) -> FusionEncoder:
    """Fit an encoder on the seen tasks, of those of the ``parts`` that at least two descriptions have.

    Args:
        parts: ``metadata``, ``backgrounds``, ``examples``, ``text`` or ``task_id``.
        components: most principal components of each part that is images or text.
        whiten: give every component unit variance.

    Raises:
        DescriptionError: no part can be used, an unknown part is named, a description holds a bad value, or text is
            to be read and the extra ``text`` is not installed.
    """

    def images(part: str) -> ImageSetEncoder:
        known = (features or {}).get(part)
        return ImageSetEncoder.fit(descriptions, part, featurise, components=components, whiten=whiten, features=known)

    fits: dict[str, Callable[[str], ConditionEncoder]] = {
        "metadata": lambda part: MetadataEncoder.fit(descriptions, schema),
        "backgrounds": images,
        "examples": images,
        "text": lambda part: TextEncoder.fit(descriptions, components=components, whiten=whiten, featurise=sentences),
        "task_id": lambda part: TaskIdEncoder.fit(descriptions),
    }
    encoders: list[ConditionEncoder] = []
    for part in dict.fromkeys(parts):
        if part not in fits:
            raise DescriptionError(f"The condition cannot read the part {part!r}; it reads {', '.join(fits)}.")
        # Statistics of images need two tasks; a zoo of a single task (the paper's RQ1) has nothing but its metadata.
        fewest = min(2, max(1, len(descriptions))) if part in ("metadata", "task_id") else 2
        if sum(has_part(entry, part) for entry in descriptions) >= fewest:
            encoders.append(fits[part](part))
    if not encoders:
        if len(descriptions) == 1:
            raise DescriptionError(
                f"A single task teaches by metadata alone, which it lacks or {', '.join(parts)} leaves out. Add a "
                "second task, or metadata."
            )
        raise DescriptionError(
            f"No part of {', '.join(parts) or '(none)'} is present in two or more of the {len(descriptions)} "
            "descriptions. Describe the seen tasks, or name other parts."
        )
    return FusionEncoder(tuple(encoders))


def has_part(description: Description, part: str) -> bool:
    """Whether the part is present and not empty."""
    value = getattr(description, part)
    if value is None:
        return False
    return count(value) > 0 if part == "examples" else len(value.strip() if isinstance(value, str) else value) > 0
