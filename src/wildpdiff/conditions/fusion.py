"""All parts of a description in one embedding, with a flag a part, so that any of them may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from wildpdiff.tasks.description import Description, MetadataSchema

ENCODERS: dict[str, type[ConditionEncoder]] = {
    "task_id": TaskIdEncoder,
    "metadata": MetadataEncoder,
    "metadata-2": MetadataEncoder,
    "images": ImageSetEncoder,
    "text": TextEncoder,
}
"""Encoders of one part by kind."""

READABLE = ("metadata", "backgrounds", "examples", "text", "task_id")
IMAGES = ("backgrounds", "examples")


@dataclass(frozen=True)
class FusionEncoder:
    """Concatenates the embeddings of the parts, then one presence flag a part.

    The embedding is ``[part 1 | part 2 | … | flag 1, flag 2, …]``; a missing part has zeros and a flag of 0.

    Attributes:
        encoders: one a part, fitted.
    """

    encoders: tuple[ConditionEncoder, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are read, in the order of the embedding."""
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
    def featurise(self) -> Featuriser | None:
        """What images are read by; ``None`` where no part is images."""
        return next((entry.featurise for entry in self.encoders if isinstance(entry, ImageSetEncoder)), None)

    @property
    def null(self) -> Float[Tensor, " e"]:
        """The embedding of a description of which nothing is known, for classifier-free guidance."""
        return torch.zeros(self.size)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the encoder."""
        return {"encoders": [{"kind": entry.kind, "config": entry.config} for entry in self.encoders]}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fitted statistics of every part, as ``part.name``."""
        return {f"{e.part}.{name}": value for e in self.encoders for name, value in e.tensors.items()}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> FusionEncoder:
        """Restore from :attr:`config` and :attr:`tensors`.

        Raises:
            DescriptionError: the condition reads images and no featuriser is given, or an encoder is of a kind that
                this version does not know.
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
        """The embeddings of the parts that are present, by part.

        Raises:
            DescriptionError: no part that is read here is present, or one holds a bad value.
        """
        description.require_any(self.parts)
        embeddings = {encoder.part: encoder.encode(description) for encoder in self.encoders}
        present = {part: entry.values for part, entry in embeddings.items() if entry.present}
        if not present:
            unknown = self.unknown(description)
            empty = ", ".join(part for part in self.parts if part in description.parts)
            found = "; ".join(unknown) if unknown else f"The description's {empty} is empty"
            raise DescriptionError(f"{found.rstrip('.')}. Give at least one value that a seen task had, or an image.")
        return present

    def unknown(self, description: Description) -> tuple[str, ...]:
        """A sentence for every value of the description that was in no seen task and is therefore left out.

        Raises:
            DescriptionError: an unknown key of the metadata, or a value that is no finite number.
        """
        told: tuple[str, ...] = ()
        for entry in self.encoders:
            if isinstance(entry, MetadataEncoder):
                told += entry.unknown(description)
        return told

    def encode(self, description: Description) -> ConditionEmbedding:
        """The fused embedding; raises :class:`DescriptionError` as :meth:`encode_parts`."""
        present = self.encode_parts(description)
        values = [present.get(encoder.part, torch.zeros(encoder.size)) for encoder in self.encoders]
        flags = torch.tensor([float(part in present) for part in self.parts])
        return ConditionEmbedding(torch.cat([*values, flags]), True)

    def image_features(self, descriptions: Sequence[Description]) -> dict[str, ImageFeatures]:
        """Features of every image of the descriptions, by part, for the parts that are images.

        Raises:
            DescriptionError: no description has images of a part that is read.
        """
        return {
            entry.part: ImageFeatures.of(descriptions, entry.part, entry.featurise)
            for entry in self.encoders
            if isinstance(entry, ImageSetEncoder)
        }

    def tables(
        self, descriptions: Sequence[Description], features: Mapping[str, ImageFeatures] | None = None
    ) -> dict[str, PartTable]:
        """Embeddings and presence of every part of many descriptions, by part.

        Args:
            descriptions: any of them may lack any part.
            features: image features of ``descriptions`` by part, where they are already known.
        """
        known = features or {}
        return {entry.part: _table(entry, descriptions, known.get(entry.part)) for entry in self.encoders}

    def sampler(
        self,
        descriptions: Sequence[Description],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        drop_part: float = 0.2,
        drop_all: float = 0.1,
        smallest: int = 2,
    ) -> ConditionSampler:
        """What gives a generator's training its conditions: another random view of the descriptions at every step.

        Args:
            descriptions: of the seen tasks; the sampler's indices count in them.
            features: image features of ``descriptions`` by part, where they are already known.
            drop_part: probability of dropping each part of a row; one part always stays.
            drop_all: probability of dropping everything, for classifier-free guidance.
            smallest: the smallest subset of a task's images that is drawn.

        Returns:
            A function of task indices ``int64 [b]`` and a generator that gives embeddings ``[b, e]``.
        """
        known = dict(features or {}) or self.image_features(descriptions)
        subsets: dict[str, ImageSubsets] = {
            entry.part: ImageSubsets(entry, known[entry.part], smallest)
            for entry in self.encoders
            if isinstance(entry, ImageSetEncoder)
        }
        return FusionSampler(self.tables(descriptions, known), subsets, drop_part=drop_part, drop_all=drop_all)


def fit_fusion(
    descriptions: Sequence[Description],
    schema: MetadataSchema,
    featurise: Featuriser,
    parts: Sequence[str] = ("metadata", "backgrounds"),
    *,
    components: int = 16,
    spread: bool = True,
    whiten: bool = True,
    features: Mapping[str, ImageFeatures] | None = None,
    sentences: SentenceFeaturiser = packaged_sentences,
) -> FusionEncoder:
    """Fit an encoder on the seen tasks, of those of the ``parts`` that at least two descriptions have.

    Args:
        descriptions: of the seen tasks.
        schema: of the metadata.
        featurise: the frozen featuriser of images.
        parts: which parts may be read: ``metadata``, ``backgrounds``, ``examples``, ``text``, ``task_id``.
        components: most principal components of each part that is images or text.
        spread: whether the standard deviation over a set of images is used beside the mean.
        whiten: give every component unit variance.
        features: image features of ``descriptions`` by part, where they are already known.
        sentences: the frozen featuriser of texts.

    Raises:
        DescriptionError: no part can be used, an unknown part is named, a description holds a bad value, or text is
            to be read and the extra ``text`` is not installed.
    """
    encoders: list[ConditionEncoder] = []
    for part in dict.fromkeys(parts):
        if part not in READABLE:
            raise DescriptionError(f"The condition cannot read the part {part!r}; it reads {', '.join(READABLE)}.")
        # Statistics of images need two tasks; a zoo of a single task (the paper's RQ1) is told apart by nothing else.
        fewest = 2 if part in (*IMAGES, "text") else min(2, len(descriptions))
        if sum(_has(entry, part) for entry in descriptions) < max(1, fewest):
            continue
        if part == "metadata":
            encoders.append(MetadataEncoder.fit(descriptions, schema))
        elif part == "task_id":
            encoders.append(TaskIdEncoder.fit(descriptions))
        elif part == "text":
            encoders.append(TextEncoder.fit(descriptions, components=components, whiten=whiten, featurise=sentences))
        else:
            encoders.append(
                ImageSetEncoder.fit(
                    descriptions,
                    part,
                    featurise,
                    components=components,
                    spread=spread,
                    whiten=whiten,
                    features=(features or {}).get(part),
                )
            )
    if not encoders:
        raise DescriptionError(
            f"No part of {', '.join(parts) or '(none)'} is present in two or more of the {len(descriptions)} "
            "descriptions. Describe the seen tasks, or name other parts."
        )
    return FusionEncoder(tuple(encoders))


def _has(description: Description, part: str) -> bool:
    """Whether the part is present and not empty."""
    value = getattr(description, part)
    return value is not None and len(value.strip() if isinstance(value, str) else value) > 0


def _table(encoder: ConditionEncoder, descriptions: Sequence[Description], features: ImageFeatures | None) -> PartTable:
    if isinstance(encoder, ImageSetEncoder) and features is not None:
        rows = [
            ConditionEmbedding(encoder.encode_features(features.row(index)), True)
            if bool(features.mask[index].any())
            else ConditionEmbedding(torch.zeros(encoder.size), False)
            for index in range(len(features.mask))
        ]
    else:
        rows = [encoder.encode(entry) for entry in descriptions]
    return PartTable(torch.stack([row.values for row in rows]), torch.tensor([row.present for row in rows]))
