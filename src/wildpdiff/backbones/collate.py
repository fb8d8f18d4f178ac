"""Collation: examples as a user has them to the named tensors that a model takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from wildpdiff.errors import DataError, TrainingError
from wildpdiff.tasks.framing import Framing
from wildpdiff.tasks.objective import IGNORED, TARGETS

WHOLE, MULTIPLE = 0.99, 8
"""Share of some texts that a fitted number of tokens, a multiple of so many, holds whole."""


@runtime_checkable
class Collate(Protocol):
    """Examples to a batch of model inputs; where targets follow from the examples, with these too."""

    def __call__(self, examples: Any) -> dict[str, Tensor]:
        """Inputs ``[n, …]`` under the names of the model's arguments; raises :class:`DataError` on bad examples."""


@dataclass(frozen=True)
class ImageCollate:
    """Images of one size to normalised pixels.

    Attributes:
        argument: of the model.
        image_size: height and width in pixels.
        mean: per-channel mean that is subtracted, of values in [0, 1].
        std: per-channel standard deviation that is divided by.
        framing: the part of a picture that an image is, for whoever reads pictures for this model.
    """

    argument: str
    image_size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    framing: Framing = "square"

    def __call__(self, examples: Any) -> dict[str, Tensor]:
        """``uint8 [n, h, w, 3]`` to ``[n, 3, h, w]``."""
        images = np.asarray(examples)
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError(f"Images are {images.dtype} of shape {images.shape}; uint8 [n, h, w, 3] is needed.")
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise DataError(
                f"Images are {images.shape[2]}×{images.shape[1]} pixels; the backbone takes "
                f"{self.image_size}×{self.image_size}. Resize them."
            )
        values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255.0)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return {self.argument: ((values - mean) / std).contiguous()}


@dataclass(frozen=True)
class TensorCollate:
    """Tensors, arrays or lists of numbers as they are; numbers with a point become single precision.

    Attributes:
        argument: of the model; examples that are named tensors keep their names.
    """

    argument: str

    def __call__(self, examples: Any) -> dict[str, Tensor]:
        """One tensor ``[n, …]``, or several of the same length."""
        given = examples if isinstance(examples, Mapping) else {self.argument: examples}
        try:
            found = {
                name: values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
                for name, values in given.items()
            }
        except (TypeError, ValueError) as error:
            raise DataError(f"Examples are no tensors of one shape ({error}). Give arrays, or a collate.") from None
        return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def first_argument(module: nn.Module) -> str:
    """Name of the first argument of a module's ``forward``.

    Raises:
        TrainingError: it has none with a name.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    first = next(iter(inspect.signature(module.forward).parameters.values()), None)
    if first is None or first.kind not in named:
        raise TrainingError(f"The forward of {type(module).__name__} names no argument. Give a collate that names it.")
    return first.name


@dataclass(frozen=True)
class TextCollate:
    """Texts to tokens of one length.

    Attributes:
        tokenizer: the file ``tokenizer.json`` of a fast tokenizer, as text.
        special: its special tokens by name, the one that pads among them.
        length: tokens of every text, padded or cut at the end.
        arguments: of the model.
        as_targets: whether the tokens are the targets too, as for language models.
    """

    tokenizer: str = field(repr=False)
    special: dict[str, str]
    length: int
    arguments: tuple[str, ...]
    as_targets: bool = False

    @classmethod
    def of(cls, tokenizer: Any, length: int, as_targets: bool = False) -> TextCollate:
        """Of a fast tokenizer of ``transformers``.

        Raises:
            TrainingError: the tokenizer is a slow one, or has no token to pad with.
        """
        if not tokenizer.is_fast:
            raise TrainingError(f"{type(tokenizer).__name__} is a slow tokenizer. Give a collate that calls it.")
        special = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        special.setdefault("pad_token", special.get("eos_token", ""))
        if not special["pad_token"]:
            raise TrainingError(f"The {type(tokenizer).__name__} has no token to pad with. Set its pad_token.")
        arguments = tuple(name for name in tokenizer.model_input_names if name != "token_type_ids")
        most = min(length, int(tokenizer.model_max_length))
        return cls(tokenizer.backend_tokenizer.to_str(), special, most, arguments, as_targets)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(self.tokenizer), **self.special)

    def fitted(self, texts: Sequence[str]) -> TextCollate:
        """The same for no more tokens than :data:`WHOLE` of some texts need: shorter inputs take less time."""
        needed = sorted(len(found) for found in self._tokenizer(list(texts))["input_ids"])
        most = needed[int(WHOLE * (len(needed) - 1))] if needed else self.length
        return replace(self, length=min(self.length, -(-most // MULTIPLE) * MULTIPLE))

    def __call__(self, examples: Any) -> dict[str, Tensor]:
        """Token indices and mask ``[n, length]``."""
        if isinstance(examples, str) or not all(isinstance(text, str) for text in examples):
            raise DataError("Examples are no texts. Give a list of texts.")
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        found = dict(self._tokenizer(list(examples), **settings))
        batch = {name: found[name] for name in self.arguments}
        if self.as_targets:
            batch[TARGETS] = found["input_ids"].masked_fill(found["attention_mask"] == 0, IGNORED)
        return batch
