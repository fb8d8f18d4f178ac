"""Backbones of ``transformers`` by name or folder, and any ``nn.Module``, with PEFT's own LoRA configuration."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wildpdiff.artifact import Artifact
from wildpdiff.backbones.attention import fused_attention, is_plain
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.collate import Collate, ImageCollate, TensorCollate, TextCollate, first_argument
from wildpdiff.backbones.prefix import outputs_of
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.quiet import quiet_loading
from wildpdiff.records import decode, encode
from wildpdiff.tasks.objective import Classification, NextToken, Objective, Regression, objective_of
from wildpdiff.training import seeded

PLAIN, FUSED = "vectorised", "vectorised, fused"
"""Names of attentions of ``transformers``."""

FUNCTION = "function"
"""Architecture of a stored module that a function of the user's gives."""
FUNCTION_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")

LORA_DEFAULTS = {"peft_type": "LORA", "r": 8, "lora_alpha": 8}
"""Of a configuration that is given in parts; as PEFT's own."""


def from_pretrained(
    source: str | Path | nn.Module,
    *,
    lora: Any,
    objective: Objective | None,
    collate: Collate | None,
    name: str | None,
    length: int,
) -> Backbone:
    """A frozen backbone; see :meth:`Backbone.from_pretrained`."""
    module = source if isinstance(source, nn.Module) else _load(str(source), objective)
    config: Any = getattr(module, "config", None)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    _vectorise_attention(module)
    objective = _named(module, objective) if objective else _objective(module)
    collate = collate or _collate(module, None if isinstance(source, nn.Module) else str(source), objective, length)
    label = name or (type(module).__name__ if isinstance(source, nn.Module) else str(source))
    if isinstance(lora, Mapping):
        lora = {**LORA_DEFAULTS, "modules_to_save": _heads(module), **lora}
    spec = lora if isinstance(lora, LoraSpec) else LoraSpec.from_peft(lora, module)
    return Backbone.of(module, name=label, lora=spec, objective=objective, collate=collate)


def _heads(module: nn.Module) -> list[str] | None:
    """Names of a classifier's last module, which is trained whole."""
    return [name for name in ("classifier", "score") if isinstance(getattr(module, name, None), nn.Module)] or None


def _vectorise_attention(module: Any) -> None:
    """Attention that ``vmap`` takes, and a mask that is made even where it is all ones."""
    if not hasattr(module, "set_attn_implementation"):
        return
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import eager_mask

    for name, function in ((PLAIN, _plain_attention), (FUSED, _attention)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(
            name, lambda *given, **named: eager_mask(*given, **{**named, "allow_is_bidirectional_skip": False})
        )
    module.set_attn_implementation(PLAIN)
    if all(part._supports_sdpa for part in module.modules() if isinstance(part, PreTrainedModel)):
        expected = _probed(module)
        module.set_attn_implementation(FUSED)
        found = _probed(module)
        if expected is None or found is None or not torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
            module.set_attn_implementation(PLAIN)


def _probed(module: Any) -> Tensor | None:
    """Outputs for two made-up examples, the second one padded; None for inputs that are neither images nor tokens."""
    config, generator = module.config, torch.Generator().manual_seed(0)
    training = module.training
    try:
        if module.main_input_name == "pixel_values":
            size = config.image_size
            sides = (size, size) if isinstance(size, int) else tuple(size)
            given = {"pixel_values": torch.rand(2, config.num_channels, *sides, generator=generator)}
        elif module.main_input_name == "input_ids":
            tokens = torch.randint(1, config.vocab_size, (2, 8), generator=generator)
            given = {"input_ids": tokens, "attention_mask": torch.tensor([[1] * 8, [1] * 5 + [0] * 3])}
        else:
            return None
        with torch.no_grad():
            found = outputs_of(module.eval()(**given))
        return found if "pixel_values" in given else found[..., :5, :]  # what follows the padding's start is free
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return None
    finally:
        module.train(training)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **named: Any
) -> tuple[Tensor, None]:
    """Attention, "n h t d" to "n t h d", fused where it is plain."""
    named = {"scaling": query.shape[-1] ** -0.5, **named}
    if not is_plain(query, value, named, mask=attention_mask):
        return _plain_attention(module, query, key, value, attention_mask, **named)
    return fused_attention(query, key, value, mask=attention_mask, scale=named["scaling"]).transpose(1, 2), None


def _plain_attention(module: Any, query: Tensor, *given: Any, **named: Any) -> tuple[Tensor, None]:
    """The same by the layer's own matrix products: models differ in caps, sinks and biases."""
    own = (sys.modules[kind.__module__] for kind in type(module).__mro__)
    eager = next(found for part in own if (found := getattr(part, "eager_attention_forward", None)))
    return eager(module, query, *given, **{"scaling": query.shape[-1] ** -0.5, **named})[0], None


def _load(source: str, objective: Objective | None) -> nn.Module:
    """The model of a name, a folder, or ``module:function``."""
    module, _, function = source.partition(":")
    if function and not Path(source).exists():
        return _built(module, function)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source)
        kind = _model_class(config, objective)
        size: dict[str, Any] = (
            {} if objective is None or isinstance(objective, NextToken) else {"num_labels": _outputs(objective)}
        )
        with seeded(0), quiet_loading():  # a head that the folder lacks starts at random
            size |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "dtype": torch.float32}
            model = kind.from_pretrained(source, **size)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{source!r} cannot be read as a model of transformers ({reason}). Give a folder with config.json and "
            "safetensors, a name that is downloaded already, an nn.Module, or module:function."
        ) from None
    if not isinstance(model, nn.Module):
        raise ArtifactError(f"{source!r} is no torch model. Give another.")
    return model


def _built(module: str, function: str) -> nn.Module:
    """The result of a function without arguments."""
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{module}:{function} cannot be imported ({error}). Check both names.") from None
    try:
        made = build()
    except Exception as error:  # of the user's own code
        raise TrainingError(f"{module}:{function} cannot be called without arguments ({error!r}).") from error
    if not isinstance(made, nn.Module):
        raise TrainingError(f"{module}:{function} gives a {type(made).__name__}; an nn.Module is needed.")
    return made


def _outputs(objective: Objective) -> int:
    return objective.size if isinstance(objective, Regression) else len(objective.labels)


def _model_class(config: Any, objective: Objective | None) -> Any:
    """The class that the folder names, or for a model without a head the one with the head that the objective needs."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    stored = (config.architectures or [""])[0]
    if isinstance(objective, NextToken):
        return transformers.AutoModelForCausalLM
    if objective is None or stored.endswith("Classification"):
        return getattr(transformers, stored, transformers.AutoModel)
    if type(config) in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return transformers.AutoModelForImageClassification
    return transformers.AutoModelForSequenceClassification


def _named(module: nn.Module, objective: Objective) -> Objective:
    """The objective, its classes in the order of the model's where both have the same."""
    labels = getattr(getattr(module, "config", None), "id2label", None) or {}
    own = tuple(str(labels[index]) for index in sorted(labels))
    if isinstance(objective, Classification) and set(own) == set(objective.labels):
        return Classification(own)
    return objective


def _objective(module: nn.Module) -> Objective:
    """The objective that a model of ``transformers`` states."""
    config, kind = getattr(module, "config", None), type(module).__name__
    if kind.endswith(("LMHeadModel", "ForCausalLM")):
        return NextToken()
    if config is not None and kind.endswith("Classification"):
        if config.problem_type == "regression" or config.num_labels == 1:
            return Regression(config.num_labels)
        return Classification(tuple(str(config.id2label.get(index, index)) for index in range(config.num_labels)))
    raise TrainingError(f"The objective of a {kind} is not known. Give one: Classification, Regression or NextToken.")


def _collate(module: nn.Module, source: str | None, objective: Objective, length: int) -> Collate:
    """Images for models of pixels, texts where there is a tokenizer, else tensors."""
    argument = first_argument(module)
    if argument == "pixel_values":
        return _image_collate(module, source)
    if argument == "input_ids" and source is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source)
        collate = TextCollate.of(tokenizer, min(length, _positions(module)), isinstance(objective, NextToken))
        config: Any = module.config
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # made up by transformers where files are missing
            raise ArtifactError(f"{source} has no tokenizer. Save the model's own there, or give a collate.")
        if len(tokenizer) > config.vocab_size:
            raise TrainingError(
                f"The tokenizer of {source} has {len(tokenizer)} tokens, and its model {config.vocab_size}. Give the "
                "model's own tokenizer, or a collate."
            )
        if config.pad_token_id is None:  # a classifier of the last token has to know which it is
            config.pad_token_id = tokenizer.convert_tokens_to_ids(collate.special["pad_token"])
        return collate
    return TensorCollate(argument)


def _positions(module: Any) -> int:
    """Most tokens that a model takes; padding may have a position of its own, before which none is used."""
    most = getattr(module.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return sys.maxsize
    tables = (part for name, part in module.named_modules() if name.endswith(".position_embeddings"))
    return most - 1 - next((p for t in tables if (p := getattr(t, "padding_idx", None)) is not None), -1)


def _image_collate(module: nn.Module, source: str | None) -> ImageCollate:
    """Size, mean and standard deviation of the folder's processor; without one a half, and the model's own size."""
    config: Any = module.config
    size: Any = getattr(config, "image_size", None) or getattr(
        getattr(config, "vision_config", None), "image_size", 224
    )
    values: Mapping[str, Any] = {}
    if source is not None:
        from transformers import ImageProcessingMixin

        try:
            values = ImageProcessingMixin.get_image_processor_dict(source)[0]
        except OSError:
            values = {}
        found = values.get("crop_size") or values.get("size") or size
        if isinstance(found, dict):
            found = found.get("height") or found.get("shortest_edge") or size
        size = found
    half, ones = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
    if not values.get("do_normalize", True):
        return ImageCollate("pixel_values", int(size), (0.0, 0.0, 0.0), ones)
    mean, std = (tuple(map(float, values.get(name, half))) for name in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3:
        raise TrainingError(f"The processor of {source} has {len(mean)} colours; three are needed. Give a collate.")
    return ImageCollate("pixel_values", int(size), mean, std)


COLLATES: dict[str, Any] = {"images": ImageCollate, "tensors": TensorCollate, "texts": TextCollate}
"""Collations that are stored, by the name on disk."""


def stored_model(backbone: Backbone) -> dict[str, Any] | None:
    """Plain JSON values that with the weights restore a model of ``transformers``; None for other models."""
    module: Any = backbone.module
    use = _stored_use(backbone)
    if not type(module).__module__.startswith("transformers.") or use is None:
        return None
    return {
        "architecture": "transformers",
        "class": type(module).__name__,
        "model": module.config.to_dict(),
        **use,
    }


def stored_module(backbone: Backbone) -> dict[str, Any] | None:
    """Plain JSON values that with the weights and the function that it is named by restore a module; else None."""
    use = _stored_use(backbone)
    return {"architecture": FUNCTION, **use} if FUNCTION_NAME.fullmatch(backbone.name) and use is not None else None


def _stored_use(backbone: Backbone) -> dict[str, Any] | None:
    """Objective and collation as plain JSON values; None where the collation is of another kind than the known."""
    kind = next((name for name, known in COLLATES.items() if type(backbone.collate) is known), None)
    collate = {key: value for key, value in encode(backbone.collate).items() if key != "framing"}  # kept for all kinds
    return None if kind is None else {"objective": encode(backbone.objective), "collate": {"kind": kind, **collate}}


def restored_model(artifact: Artifact, lora: LoraSpec) -> Backbone:
    """The backbone of :func:`stored_model`."""
    import transformers

    config = artifact.config
    kind = getattr(transformers, str(config["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ArtifactError(f"{artifact.folder} holds a {config['class']}, unknown to this version of transformers.")
    made: Any = kind
    with torch.device("cpu"), seeded(0):
        module = made(made.config_class.from_dict(dict(config["model"])))
    return _restored_use(artifact, module, lora)


def restored_module(artifact: Artifact, lora: LoraSpec, function: str) -> Backbone:
    """The backbone of :func:`stored_module`.

    Raises:
        ArtifactError: it is that of another function, which cannot be imported, or gives another module.
    """
    if artifact.config["name"] != function:
        raise ArtifactError(f"{artifact.folder} is that of {artifact.config['name']}, and {function} is given.")
    return _restored_use(artifact, _built(*function.split(":")), lora)


def _restored_use(artifact: Artifact, module: nn.Module, lora: LoraSpec) -> Backbone:
    config = artifact.config
    _vectorise_attention(module)
    try:
        module.load_state_dict(artifact.tensors["weights"])
    except RuntimeError as error:
        raise ArtifactError(
            f"The weights in {artifact.folder} are those of another {config['name']} ({error})."
        ) from None
    stored = dict(config["collate"])
    kind_of_collate = COLLATES[stored.pop("kind")]
    framing = {"framing": "square"} if kind_of_collate is ImageCollate else {}
    collate = decode(kind_of_collate, {**stored, **framing}, f"{artifact.folder}: collate")
    objective = objective_of(config["objective"], artifact.folder)
    return Backbone.of(module, name=config["name"], lora=lora, objective=objective, collate=collate)
