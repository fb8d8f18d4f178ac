"""Modules that a LoRA adapter changes: kind, rank and scaling, from PEFT's configuration and the tensors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from wildpdiff.errors import AdapterMismatchError

Kind = Literal["linear", "conv2d", "conv1d", "embedding"]
"""Kinds of module; ``conv1d`` is the transposed linear layer of ``transformers`` (GPT-2)."""

PEFT_PREFIX = "base_model.model."
"""Prefix of every tensor name in ``adapter_model.safetensors``."""

RESOLVED = {
    *("peft_type", "base_model_name_or_path", "task_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias"),
    *("fan_in_fan_out", "modules_to_save", "init_lora_weights"),
}
"""Keys of PEFT's configuration that an :class:`AdapterSpec` is made from."""

WITHOUT_EFFECT = {
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "lora_dropout"),
    *("megatron_core", "qalora_group_size", "runtime_config", "loftq_config", "eva_config", "corda_config"),
    "lora_ga_config",
}
"""Keys that do not change the logits of an adapter that is loaded for use."""

INITIALISATIONS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of ``init_lora_weights`` that leave the base model's weights as they are."""

FACTORS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}
"""Names of the A factor of a module to those of its B factor, without the module's own name."""

HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Modules that PEFT's own model classes save whole, by type of task."""


LARGEST_RANK = 2**14
"""No module has a wider update."""


@dataclass(frozen=True)
class ModuleSpec:
    """Low-rank update of one module.

    Attributes:
        kind: of the module.
        rank: r of the factors.
        scaling: factor before ``B @ A``.
        shape: of the update: ``(out, in)`` for ``linear`` and ``conv1d``, ``(out, in, height, width)`` for ``conv2d``,
            ``(rows, features)`` for ``embedding``.
        has_bias: whether the adapter replaces the module's bias.
    """

    kind: Kind
    rank: int
    scaling: float
    shape: tuple[int, ...]
    has_bias: bool = False

    @property
    def factors(self) -> dict[str, tuple[int, ...]]:
        """PEFT's names of the A and the B factor, without the module's own name, and their shapes."""
        if self.kind == "embedding":
            rows, features = self.shape
            return {"lora_embedding_A": (self.rank, rows), "lora_embedding_B": (features, self.rank)}
        ones = (1,) * (len(self.shape) - 2)
        return {"lora_A.weight": (self.rank, *self.shape[1:]), "lora_B.weight": (self.shape[0], self.rank, *ones)}


@dataclass(frozen=True)
class AdapterSpec:
    """All modules that an adapter changes.

    Attributes:
        modules: by full name, those with low-rank factors.
        saved: names of the parameters that are replaced whole (in PEFT's file, without its prefix) and their shapes.
        modules_to_save: full names of the modules that are replaced whole.
        bias: which biases are replaced: ``none``, ``all`` or ``lora_only``.
        base_model: name of the base model; empty where it is not known.
        task_type: PEFT's type of task, for its own model classes.
    """

    modules: Mapping[str, ModuleSpec]
    saved: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    base_model: str = ""
    task_type: str | None = None

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdapterSpec:
        """The spec of an adapter on disk.

        Args:
            config: content of ``adapter_config.json``.
            tensors: content of ``adapter_model.safetensors``, see :func:`plain_names`.

        Raises:
            AdapterMismatchError: a setting or tensor that is not supported, or tensors of another rank than stated.
        """
        check_supported(config)
        factors = _factors(tensors)
        saved = {
            name.removeprefix(PEFT_PREFIX): tuple(value.shape)
            for name, value in sorted(tensors.items())
            if name not in factors
        }
        modules = {}
        for name in sorted(factors):
            module, own = _split_factor(name.removeprefix(PEFT_PREFIX))
            if own not in FACTORS:
                continue
            a = tuple(tensors[name].shape)
            b = tuple(tensors[f"{PEFT_PREFIX}{module}.{FACTORS[own]}"].shape)
            rank, scaling = _rank_and_scaling(config, module)
            if a[0] != rank or b[1] != rank:
                raise AdapterMismatchError(
                    f"Module {module!r} has factors of shapes {a} and {b}, and the configuration states rank {rank}. "
                    "Copy both files of the adapter again; convolutions with groups are not supported."
                )
            kind: Kind = "conv1d" if config.get("fan_in_fan_out") else "linear"
            shape = (b[0], *a[1:])
            if own == "lora_embedding_A":
                kind, shape = "embedding", (a[1], b[0])
            elif len(a) == 4:
                kind = "conv2d"
            elif len(a) != 2:
                raise AdapterMismatchError(
                    f"Module {module!r} has an A factor of shape {a}; Linear, Conv2d, Conv1D of transformers and "
                    "Embedding are supported. Leave other modules out of target_modules."
                )
            modules[module] = ModuleSpec(kind, rank, scaling, shape, f"{module}.base_layer.bias" in saved)
        if not modules and not saved:
            raise AdapterMismatchError("The adapter has no tensors. Copy or train it again.")
        return cls(
            modules,
            saved,
            _saved_modules(config.get("modules_to_save") or (), saved),
            str(config.get("bias") or "none"),
            str(config.get("base_model_name_or_path") or ""),
            _text(config.get("task_type")),
        )

    @classmethod
    def from_peft(cls, config: Any, module: nn.Module) -> AdapterSpec:
        """The spec of new adapters on a module; target modules resolved as by PEFT.

        Args:
            config: a ``peft.LoraConfig``, or the content of its file.
            module: the base model.

        Raises:
            AdapterMismatchError: a setting or module that is not supported, or no module is a target.
        """
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

        settings = dict(config) if isinstance(config, Mapping) else config.to_dict()
        check_supported(settings)
        targets = settings.get("target_modules")
        if targets is None:  # PEFT's own, for the models that it knows
            model = getattr(getattr(module, "config", None), "model_type", None)
            targets = settings["target_modules"] = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model)
        if targets is None:
            raise AdapterMismatchError("target_modules is None. Name the modules that get factors, or 'all-linear'.")
        names = dict(module.named_modules())
        wanted = (*(settings.get("modules_to_save") or ()), *HEADS.get(_text(settings.get("task_type")) or "", ()))
        if isinstance(targets, str) and targets.lower() == "all-linear":
            settings["target_modules"] = _all_linear(module, _text(settings.get("task_type")))
        keys = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
        given = {key: settings[key] for key in keys if settings.get(key) is not None}
        selection = LoraConfig(**given, modules_to_save=list(wanted) or None)
        found = [name for name in names if check_target_module_exists(selection, name)]
        if not found:
            ends = dict.fromkeys(name.rpartition(".")[2] for name, part in names.items() if isinstance(part, nn.Linear))
            some = f"its linear layers are named {', '.join([*ends][:12])}" if ends else "it has no linear layers"
            raise AdapterMismatchError(f"target_modules {targets!r} names no module; {some}. Name others.")
        whole = tuple(name for name in names if wanted and name.endswith(wanted))
        ranks = {name: _rank_and_scaling(settings, name) for name in found}
        spec = cls.on(module, ranks, whole, str(settings.get("bias") or "none"))
        return replace(
            spec,
            base_model=str(settings.get("base_model_name_or_path") or ""),
            task_type=_text(settings.get("task_type")),
        )

    @classmethod
    def on(
        cls,
        module: nn.Module,
        ranks: Mapping[str, tuple[int, float]],
        modules_to_save: Collection[str] = (),
        bias: str = "none",
    ) -> AdapterSpec:
        """The spec of adapters on named modules.

        Args:
            module: the base model.
            ranks: rank and scaling by full name of a target.
            modules_to_save: full names of modules that are replaced whole.
            bias: ``none``, ``all`` or ``lora_only``.

        Raises:
            AdapterMismatchError: a named module does not exist, or is of a kind that cannot take factors.
        """
        known = dict(module.named_modules())
        for name in (*ranks, *modules_to_save):
            if name not in known:
                raise AdapterMismatchError(f"The backbone has no module {name!r}, see its named_modules().")
        modules, saved = {}, {}
        for name, (rank, scaling) in ranks.items():
            target = known[name]
            biased = bias != "none" and getattr(target, "bias", None) is not None
            modules[name] = ModuleSpec(kind_of(name, target), rank, scaling, _update_shape(target), biased)
            if biased:
                saved[f"{name}.base_layer.bias"] = tuple(target.bias.shape)
        for name in modules_to_save:
            saved |= {f"{name}.{own}": tuple(value.shape) for own, value in known[name].state_dict().items()}
        if bias == "all":
            inside = tuple(f"{name}." for name in (*modules_to_save, *ranks))
            saved |= {
                name: tuple(value.shape)
                for name, value in module.named_parameters()
                if f".{name}".endswith(".bias") and not name.startswith(inside)
            }
        return cls(modules, saved, tuple(modules_to_save), bias)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors in ``adapter_model.safetensors``."""
        factors = {
            f"{PEFT_PREFIX}{name}.{own}": shape
            for name, entry in self.modules.items()
            for own, shape in entry.factors.items()
        }
        return factors | {f"{PEFT_PREFIX}{name}": shape for name, shape in self.saved.items()}

    @property
    def parameters(self) -> dict[str, str]:
        """Names in PEFT's file of the parameters that are replaced whole, and their names in the base model."""
        return {f"{PEFT_PREFIX}{name}": name.replace(".base_layer.", ".") for name in self.saved}

    def to_peft(self) -> dict[str, Any]:
        """The content of an ``adapter_config.json`` that PEFT reads to the same adapter."""
        ranks = {name: entry.rank for name, entry in self.modules.items()}
        alphas = {name: float(f"{entry.scaling * entry.rank:.12g}") for name, entry in self.modules.items()}
        rank, alpha = _most_common(ranks, 8), _most_common(alphas, 8.0)
        config = peft_config(
            self.base_model, rank, alpha, target_modules=tuple(self.modules), modules_to_save=self.modules_to_save
        )
        patterns = {"rank_pattern": _pattern(ranks, rank), "alpha_pattern": _pattern(alphas, alpha)}
        # PEFT takes a listed name also as the end of longer ones, which is an accident only for names without a dot.
        if not all("." in name for name in self.modules):
            config["target_modules"] = "|".join(re.escape(name) for name in self.modules)
        return {
            **config,
            "task_type": self.task_type,
            "bias": self.bias,
            "fan_in_fan_out": any(entry.kind == "conv1d" for entry in self.modules.values()),
            **{key: value for key, value in patterns.items() if value},
        }


def peft_config(
    base_model: str, rank: int, alpha: float, *, target_modules: tuple[str, ...], modules_to_save: tuple[str, ...]
) -> dict[str, Any]:
    """The content of ``adapter_config.json`` for one rank and alpha."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model or None,
        "task_type": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "target_modules": list(target_modules),
        "modules_to_save": list(modules_to_save) or None,
    }


def check_supported(config: Mapping[str, Any]) -> None:
    """Raise :class:`AdapterMismatchError` by name where a setting of PEFT's configuration is not supported."""
    kind = _text(config.get("peft_type"))
    if kind != "LORA":
        raise AdapterMismatchError(f"peft_type is {kind!r}; LORA is supported. Train the adapter as LoRA.")
    _check_kinds(config)
    start = config.get("init_lora_weights", True)
    if start not in INITIALISATIONS:
        raise AdapterMismatchError(
            f"init_lora_weights is {start!r}, which changes the base model's weights. Convert the adapter with PEFT's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    for key in sorted(set(config) - RESOLVED - WITHOUT_EFFECT):
        if config[key]:
            raise AdapterMismatchError(f"{key} is {config[key]!r}, which is not supported. Train without it.")


def _check_kinds(config: Mapping[str, Any]) -> None:
    """Refuse names that are no names, and expressions that are none."""
    expressions: list[str] = []
    for key in ("rank_pattern", "alpha_pattern"):
        found = config.get(key) or {}
        if not isinstance(found, dict):
            raise AdapterMismatchError(f"{key} is {found!r}. Give an object of module names and numbers.")
        expressions += found
    kinds = {"modules_to_save": str, "layers_pattern": str, "layers_to_transform": int}
    for key, kind in {**kinds, "target_modules": str, "exclude_modules": str}.items():
        value = config.get(key)
        if key in ("target_modules", "exclude_modules") and isinstance(value, str):
            expressions.append(value)
            continue
        entries = (value,) if isinstance(value, kind) and key != "modules_to_save" else value or ()
        if not isinstance(entries, list | tuple | set) or not all(isinstance(entry, kind) for entry in entries):
            needed = "layer numbers" if kind is int else "module names"
            raise AdapterMismatchError(f"{key} is {value!r}. Give a list of {needed}.")
    for text in expressions:
        try:
            re.compile(text)
        except re.error as error:
            raise AdapterMismatchError(f"{text!r} is no regular expression ({error}). Correct it.") from None


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under one name each: with ``bias="all"`` PEFT writes the biases of saved modules three times."""
    found = {
        name: value for name, value in tensors.items() if not re.search(r"\.(original_module|modules_to_save)\.", name)
    }
    for name, value in tensors.items():
        plain, adapter = (re.sub(rf"\.modules_to_save\.({own})?", ".", name) for own in (r"default\.", r"[^.]+\."))
        if plain != name and adapter not in found:  # of nested modules PEFT leaves the adapter's name in
            found.setdefault(plain, value)
    return found


def kind_of(name: str, module: nn.Module) -> Kind:
    """Kind of a target module; raises :class:`AdapterMismatchError` where it cannot take factors."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Conv2d) and module.groups == 1 and _is_plain(module):
        return "conv2d"
    if isinstance(module, nn.Embedding) and module.max_norm is None:
        return "embedding"
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return "conv1d"
    raise AdapterMismatchError(
        f"Module {name!r} is a {type(module).__name__}({module.extra_repr()}); LoRA goes into Linear, Conv1D of "
        "transformers, Embedding without a largest norm, and Conv2d without groups, dilation and changes of its weight "
        "or input."
    )


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether a convolution adds nothing to that which PEFT's A factor computes: its kernel, stride and padding."""
    if type(module).forward is nn.Conv2d.forward:
        return module.dilation == (1, 1) or module.kernel_size == (1, 1)
    shape = (1, module.in_channels, *(2 * size + 4 for size in module.kernel_size))
    given = module.weight.new_ones(shape).flatten().cumsum(0).cos().view(shape)
    with torch.no_grad():
        wanted = conv2d(given, module.weight, module.bias, module.stride, module.padding)
        found = module(given)
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def _update_shape(module: nn.Module) -> tuple[int, ...]:
    shape = tuple(module.weight.shape)  # type: ignore[arg-type]
    return shape[::-1] if type(module).__name__ == "Conv1D" else shape


def _split_factor(name: str) -> tuple[str, str]:
    """Module and factor of a tensor name; an empty module where the name is not that of a factor."""
    for own in (*FACTORS, *FACTORS.values()):
        if name.endswith(f".{own}"):
            return name.removesuffix(f".{own}"), own
    return "", name


def _factors(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of all factors, each A with its B; other tensors of LoRA variants are refused."""
    found = set()
    for name in tensors:
        if not name.startswith(PEFT_PREFIX):
            raise AdapterMismatchError(f"Tensor {name!r} does not begin with {PEFT_PREFIX!r}. Save it by PEFT.")
        module, own = _split_factor(name.removeprefix(PEFT_PREFIX))
        if module and ".base_layer" not in module:
            partner = {**FACTORS, **{b: a for a, b in FACTORS.items()}}[own]
            if f"{PEFT_PREFIX}{module}.{partner}" not in tensors:
                raise AdapterMismatchError(f"Module {module!r} has {own} and no {partner}. Copy the adapter again.")
            found.add(name)
        elif re.search(r"\.lora_|\.token_adapter", name):
            raise AdapterMismatchError(f"Tensor {name!r} is of an unsupported variant of LoRA. Train plain LoRA.")
    return found


def _rank_and_scaling(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Rank and scaling of one module, its patterns resolved as PEFT does (``get_pattern_key``)."""
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    for key, value in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            rank = value
            break
    for key, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            alpha = value
            break
    whole = isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank <= LARGEST_RANK
    if not whole or not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < abs(alpha) < 1e30:
        raise AdapterMismatchError(
            f"Module {module!r} has r {rank!r} and lora_alpha {alpha!r}. Give a rank from 1 to {LARGEST_RANK}, and an "
            "alpha that is not 0."
        )
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _saved_modules(named: Collection[str], saved: Mapping[str, Any]) -> tuple[str, ...]:
    """Full names of the modules that are saved whole, from their last parts and the tensors' names."""
    found: dict[str, None] = {}
    for own in named:
        for name in saved:
            match = re.match(rf"(.*?{re.escape(own)})\.", name)  # PEFT compares ends of names, not parts
            if match:
                found[match[1]] = None
    return tuple(found)


def _all_linear(module: nn.Module, task_type: str | None) -> list[str]:
    """Names of all linear layers but the output layer, as PEFT's ``all-linear``."""
    output = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    if output is None and task_type == "SEQ_CLS" and hasattr(module, "get_output_embeddings"):
        output = next((getattr(module, name) for name in ("score", "classifier") if hasattr(module, name)), None)
    return [
        name
        for name, part in module.named_modules()
        if (isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D") and part is not output
    ]


def _most_common(values: Mapping[str, Any], default: Any) -> Any:
    return Counter(values.values()).most_common(1)[0][0] if values else default


def _pattern(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """PEFT's pattern of values other than the default; with ``^`` a name does not match the end of longer ones."""
    return {f"^{re.escape(name)}": value for name, value in values.items() if value != default}


def _text(value: Any) -> str | None:
    """Plain text of an enumeration's member."""
    return None if value is None else str(getattr(value, "value", value))
