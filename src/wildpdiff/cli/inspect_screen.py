"""One screen of an artifact for ``wildpdiff inspect``: its verdict first, then its main facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildpdiff.cli.terminal import show, show_cross_validation, show_parameter_errors

if TYPE_CHECKING:
    from wildpdiff.conditional_mean.score_table import CrossValidation

MOST_NAMES = 6
"""Entries of a list, or of an object, on its line."""

MOST_ROWS = 24
"""Methods of results.json in the table."""

WIDTH = 110
"""Characters of a fact."""

NO_TRUST = (
    "There is no model of trust: nothing states which generated adapters to use. Check them on labelled examples "
    "(wildpdiff check)."
)
NO_TABLE = "There is no cross-validation: how good adapters for unseen tasks are was not measured on labelled data."


def show_screen(values: Mapping[str, Any], path: Path) -> None:
    """Verdict, facts and table of an artifact, of the values that ``--json`` shows."""
    kind = str(values["kind"])
    if kind == "generator":
        _generator(values, path)
    elif kind == "results":
        _results(values, path)
    else:
        _other(values)
    show("Everything else is shown by --all, and all values by --json.")


def show_verdict(table: CrossValidation | None, trust: Mapping[str, Any] | None) -> None:
    """The sentences on a generator's quality: its cross-validation, then its trust."""
    show(NO_TABLE if table is None else table.verdict)
    show(NO_TRUST if trust is None else _trusted(trust["config"]))


def stored_table(values: Mapping[str, Any], path: Path) -> CrossValidation | None:
    """The cross-validation in a generator's configuration; earlier versions had one metric, and named none."""
    from wildpdiff.conditional_mean.score_table import CrossValidation
    from wildpdiff.records import decode, encode
    from wildpdiff.tasks.metric import ACCURACY

    table = values["config"].get("cross_validation")
    return None if table is None else decode(CrossValidation, {"metric": encode(ACCURACY), **table}, str(path))


def _trusted(config: Mapping[str, Any]) -> str:
    """The calibration of trust where most is known of a task."""
    found = config.get("held_out")
    if not found:
        return "There is a model of trust, which states nothing on its calibration."
    basis = next((name for name in ("examples", "backgrounds") if name in found), next(iter(found)))
    held_out, least = found[basis], [value for own in config["min_trust"].values() for value in own.values()]
    never = " Descriptions were not shown to matter, so none is trusted." if held_out["over_shuffled"][1] <= 0 else ""
    return (
        f"Trust is calibrated on {held_out['tasks']} held-out seen tasks: the mean gain was "
        f"{held_out['random_gain']:+.1f} points, {held_out['helped']:.0%} gained, {held_out['harmed']:.0%} lost more "
        f"than a point. The pretrained model is kept below a trust of {min(least):.2f} to {max(least):.2f}, by what is "
        f"known of a task and how far it lies from the seen ones.{never}"
    )


def parts_read(config: Mapping[str, Any]) -> list[str]:
    """Parts of a description that a generator of this configuration reads."""
    return [entry["config"].get("part", entry["kind"]) for entry in config["conditions"]["encoders"]]


def _generator(values: Mapping[str, Any], path: Path) -> None:
    config, table = values["config"], stored_table(values, path)
    training = config.get("training") or {}
    show_verdict(table, values.get("trust"))
    show("")
    posterior = config.get("posterior") or {}
    _facts(
        {
            "kind": "generator",
            "fingerprint": values["fingerprint"],
            "reads": parts_read(config),
            "seen tasks": training.get("tasks"),
            "zoo": training.get("zoo"),
            "seed": training.get("seed"),
            "adapter": _adapter_words(config["adapter"]),
            "classes": config["adapter"].get("classes"),
            "parameters": values["parameters"],
        }
    )
    if posterior.get("reason"):
        show(f"samples: {posterior['reason']}")
    if table is not None:
        show("")
        show_cross_validation(table, verdict=False)
    elif "leave_one_out" in training:
        errors = training["leave_one_out"]
        names = ("generated", "mean_adapter", "nearest")
        show("")
        show_parameter_errors({name.replace("_", " "): errors[name] for name in names}, errors["tasks"])


def _results(values: Mapping[str, Any], path: Path) -> None:
    from wildpdiff.evaluate.results import read_results
    from wildpdiff.report.findings import findings, main_first
    from wildpdiff.report.sentences import ahead_sentence, headline
    from wildpdiff.report.terminal import plain_table
    from wildpdiff.report.wording import Scores

    results = read_results(path / "results.json" if path.is_dir() else path)
    parts, scores = findings(results), Scores(results.metric)
    if parts:
        main = main_first(parts)[0]
        show(str(headline(main)))
        if ahead := ahead_sentence(main):
            show(ahead)
        show("")
    provenance = values["provenance"]
    kept = {name: provenance.get(name) for name in ("command", "created", "hardware", "package_version")}
    _facts({**{name: value for name, value in values.items() if name not in ("provenance", "accuracy")}, **kept})
    cells: dict[str, dict[str, float]] = {}
    for name, value in values["accuracy"].items():
        split, _, method = name.partition(", ")
        cells.setdefault(method, {})[split] = value
    splits = list(dict.fromkeys(split for own in cells.values() for split in own))
    table = plain_table("", results.metric.heading, *splits)
    for method, own in list(cells.items())[:MOST_ROWS]:
        table.add_row(method, *(scores.number(own[split]) if split in own else "–" for split in splits))
    if cells:
        show(table)
    if len(cells) > MOST_ROWS:
        show(f"… and {len(cells) - MOST_ROWS} more methods.")


def _other(values: Mapping[str, Any]) -> None:
    """An adapter, a zoo, a backbone, or an artifact of another kind."""
    from wildpdiff.report.wording import Scores
    from wildpdiff.tasks.metric import ACCURACY

    provenance = dict(values.get("provenance") or {})
    for sentence in (*_adapter_verdict(provenance), *_zoo_verdict(values)):
        show(sentence)
    inner = {**(values.get("config") or {}), **provenance}
    own = {name: value for name, value in values.items() if name not in ("config", "provenance", "tensors", "files")}
    facts = {**own, **{name: value for name, value in inner.items() if name not in own}}
    if isinstance(score := facts.get("validation_accuracy"), float) and facts["adapter"].get("classes"):
        facts["validation_accuracy"] = Scores(ACCURACY).text(score)
    for name in ("adapter", "lora"):
        if isinstance(facts.get(name), dict):
            facts |= {name: _adapter_words(facts[name]), "classes": facts[name].get("classes", facts.get("classes"))}
    _facts({**facts, "tensors": len(values["tensors"])})


def _adapter_verdict(provenance: dict[str, Any]) -> list[str]:
    """The sentences in a provenance on the quality of the adapter, which are taken out of it."""
    trust, measured = provenance.pop("trust", None), provenance.pop("cross_validation", None)
    found = [str(trust["recommendation"])] if isinstance(trust, dict) and trust.get("recommendation") else []
    scores = measured.get("accuracy") if isinstance(measured, dict) else None
    if isinstance(scores, dict) and {"generated", "pretrained"} <= set(scores):
        name, _, unit = str(measured.get("metric") or "accuracy, %").partition(", ")
        own, others = (
            f"{scores[key]:.{1 if unit == '%' else 3}f} {unit}".strip() for key in ("generated", "pretrained")
        )
        found.append(
            f"On {measured.get('tasks')} seen tasks, each held out, adapters of its generator reach {own} {name} and "
            f"the pretrained model {others}."
        )
    return found


def _zoo_verdict(values: Mapping[str, Any]) -> list[str]:
    """Fine-tuning next to the pretrained model, where a recipe was chosen, and remarks on what beats it."""
    from wildpdiff.records import decode, encode
    from wildpdiff.report.wording import Scores
    from wildpdiff.tasks.metric import ACCURACY, Metric

    recipe = values.get("recipe")
    if not isinstance(recipe, dict):
        return []
    metric = decode(Metric, recipe.get("metric") or encode(ACCURACY), "recipe")
    tuned, pretrained = (Scores(metric).text(recipe[name]) for name in ("accuracy", "pretrained"))
    where = f"On validation examples of {len(recipe['tasks'])} seen tasks"
    first = f"{where}, fine-tuned adapters reach {tuned} {metric.name} and the pretrained model {pretrained}."
    return [first, *map(str, recipe.get("remarks") or ())]


def _adapter_words(config: Mapping[str, Any]) -> str:
    modules = [*config.get("target_modules", ()), *config.get("modules_to_save", ())]
    where = f" of {config['backbone']}" if config.get("backbone") else ""
    return f"rank {config.get('rank')}, alpha {config.get('alpha')}, {len(modules)} modules{where}"


def _facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            show(f"{name.replace('_', ' ')}: {_brief(value)}")


def _brief(value: Any) -> str:
    """A value on a part of a line."""
    if isinstance(value, Mapping):
        text = _few([_entry(key, inner) for key, inner in value.items()])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(entry, dict | list) for entry in value)
        text = f"{len(value)} entries" if nested else _few([_brief(entry) for entry in value])
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _entry(key: str, inner: Any) -> str:
    """An entry of an object: of a list its name alone."""
    if isinstance(inner, Mapping):
        return f"{key} ({_brief(inner)})"
    return key if isinstance(inner, list) else f"{key} {_brief(inner)}"


def _few(words: Sequence[str]) -> str:
    more = len(words) - MOST_NAMES
    return ", ".join(words[:MOST_NAMES]) + (f", … ({more} more)" if more > 0 else "")
