"""Words as a prior of the classifier: each class moves along the features of the description's words.

A backbone of texts has features of the description itself. Less the mean features m of the seen tasks' examples and of
unit length they are e. The logits of features h become ``a (W h + b) + ((h - m) · e) u + v``: a share of the predicted
classifier plus a zero-shot one (Radford et al. 2021), with one slope and one offset a class. ``a``, ``u`` and ``v`` are
fitted to the task loss of predictions for seen tasks that these were made without; that is convex, and the result an
ordinary adapter. Without m the words that any text has would count as likeness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.backbones.many import over_adapters
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.centering import TASKS_AT_ONCE, classifier_of
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditions.shift import embedder
from wildpdiff.tasks.batch import Batch, merge
from wildpdiff.tasks.description import Description

ROUNDS = 60
"""Iterations of the fit of few numbers."""

DECAY = 1e-4
"""Weight of the squared slopes in the fit."""


@dataclass(frozen=True)
class WordReader:
    """Unit features of descriptions' words, less the mean ``center`` of examples; zero where there are no words."""

    center: Float[Tensor, " f"]
    backbone: Backbone
    part: ClassVar[str] = "text"

    @classmethod
    def fit(
        cls,
        descriptions: Sequence[Description],
        backbone: Backbone,
        parts: Sequence[str],
        examples: Callable[[], Sequence[Batch]],
    ) -> WordReader | None:
        """Of the seen tasks and their examples; None where the backbone takes no texts, or too few have words."""
        texts = [str(entry.text) for entry in descriptions if entry.text]
        if "text" not in parts or len(texts) < 2 or not backbone.classes or not _takes_texts(backbone):
            return None
        backbone.image_features(texts[:1])  # shows how long its features are
        embed = embedder(backbone)
        batches = [] if embed is None else examples()
        means = [found.mean(0) for batch in batches if (found := backbone.embedding(batch)) is not None]
        return cls(torch.stack(means).mean(0), backbone) if means else None

    def of(self, descriptions: Sequence[Description]) -> Float[Tensor, "n f"]:
        """One row a description."""
        embed = embedder(self.backbone, len(self.center))
        assert embed is not None
        rows = [embed([str(entry.text)])[0] - self.center if entry.text else torch.zeros_like(self.center)
                for entry in descriptions]  # fmt: skip
        return normalize(torch.stack(rows), dim=1)


def _takes_texts(backbone: Backbone) -> bool:
    return isinstance(backbone.collate, TextCollate)


@dataclass(frozen=True)
class WordAlignment:
    """Alignment of adapters with the words of their description.

    Attributes:
        classifier: names of its weight, "classes f", and its bias in an adapter.
        share: of the predicted classifier, ``a``.
        slopes, offsets: of each class, ``u`` and ``v``.
        seen: features of the words of the seen tasks.
    """

    reader: WordReader
    codec: Codec
    classifier: tuple[str, str]
    share: float
    slopes: Float[Tensor, " c"]
    offsets: Float[Tensor, " c"]
    seen: Float[Tensor, "t f"]

    @classmethod
    def of(cls, reader: WordReader | None, codec: Codec, descriptions: Sequence[Description]) -> WordAlignment | None:
        """An alignment without effect; None where adapters hold no classifier of these features."""
        names = None if reader is None else classifier_of(codec.layout, len(reader.center))
        if reader is None or names is None:
            return None
        none = torch.zeros(dict(codec.layout.entries)[names[0]][0])
        return cls(reader, codec, names, 1.0, none, none, reader.of(descriptions))

    @property
    def strength(self) -> float:
        """Largest slope; 0 without effect."""
        return float(self.slopes.abs().max())

    def without(self, rows: Bool[Tensor, " t"]) -> WordAlignment:
        """The alignment without some of the seen tasks."""
        return replace(self, seen=self.seen[~rows])

    def __call__(self, normalized: Float[Tensor, "n d"], shifts: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Normalised adapters with moved classifiers; those without words stay as they are."""
        weight, bias = self.classifier
        tensors = self.codec.layout.unflatten(self.codec.decode(normalized))
        known = shifts.norm(dim=1).clamp(max=1)
        share = 1 + (self.share - 1) * known
        moved = {
            weight: share[:, None, None] * tensors[weight] + torch.einsum("c,nf->ncf", self.slopes, shifts),
            bias: share[:, None] * tensors[bias]
            + known[:, None] * self.offsets
            - self._base(shifts)[:, None] * self.slopes,
        }
        return self.codec.encode(self.codec.layout.flatten_many({**tensors, **moved}))

    def fitted(
        self, backbone: Backbone, predicted: Float[Tensor, "t d"], images: TaskExamples, evaluation_images: int
    ) -> WordAlignment:
        """The alignment with the lowest task loss on seen tasks.

        Args:
            predicted: normalised adapters of the seen tasks, each predicted without that task.
            evaluation_images: labelled examples of each, of those that no other task is trained on.
        """
        logits, cosines, batches = [], [], []
        outputs = over_adapters(backbone.outputs)
        with torch.no_grad():
            for tasks in torch.split(torch.arange(len(predicted)), TASKS_AT_ONCE):
                batch = images.fixed(tasks, evaluation_images)
                adapters = self.codec.layout.unflatten(self.codec.decode(predicted[tasks]))
                logits.append(outputs(batch, adapters).flatten(0, 1))
                cosines.append(outputs(batch, self._words(adapters, tasks))[..., 0].flatten())
                batches.append(merge(batch))
        before, along = torch.cat(logits), torch.cat(cosines)[:, None]
        targets = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        size = len(self.slopes)
        values = torch.cat([torch.ones(1), torch.zeros(2 * size)]).requires_grad_(True)
        optimizer: Any = torch.optim.LBFGS([values], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            share, slopes, offsets = values[0], values[1 : 1 + size], values[1 + size :]
            found = backbone.objective.loss(share * before + along * slopes + offsets, targets).mean()
            found = found + DECAY * slopes.square().sum()
            torch.autograd.backward(found)
            return found

        optimizer.step(loss)
        fitted = values.detach()
        return replace(
            self, share=float(fitted[0]), slopes=fitted[1 : 1 + size].clone(), offsets=fitted[1 + size :].clone()
        )

    def _words(self, adapters: Mapping[str, Tensor], tasks: Tensor) -> dict[str, Tensor]:
        """The adapters with a classifier whose logits are all ``(h - m) · e``."""
        weight, bias = self.classifier
        words, classes = self.seen[tasks], adapters[weight].shape[1]
        rows, less = words[:, None].expand(-1, classes, -1), -self._base(words)[:, None].expand(-1, classes)
        return {**adapters, weight: rows.contiguous(), bias: less.contiguous()}

    def _base(self, words: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        """``m · e``."""
        return words @ self.reader.center

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore it."""
        return {"part": self.reader.part, "classifier": list(self.classifier), "share": self.share}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Mean features, slopes, offsets and the features of the seen tasks."""
        found = {"shift_center": self.reader.center, "shifts": self.seen}
        return {**found, "word_slopes": self.slopes, "word_offsets": self.offsets}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], codec: Codec, backbone: Backbone
    ) -> WordAlignment:
        """Restored from :attr:`config` and :attr:`tensors`, with the codec and the backbone that it was fitted with."""
        weight, bias = config["classifier"]
        reader = WordReader(tensors["shift_center"], backbone)
        learned = (tensors["word_slopes"], tensors["word_offsets"])
        return cls(reader, codec, (weight, bias), config["share"], *learned, tensors["shifts"])
