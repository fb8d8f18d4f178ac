"""``wildpdiff inspect``: kind, sizes, hashes and origin of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli.inspect_screen import parts_read, show_screen, show_verdict, stored_table
from wildpdiff.cli.options import JsonOption
from wildpdiff.cli.terminal import print_json, show, show_cross_validation
from wildpdiff.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

CHECKED = "checked"
UNKNOWN = "none (of an earlier version: whether its files were altered is not known)"


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Adapter, generator, backbone, zoo or results.json.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Show everything: every setting, hash and tensor, instead of one screen.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Describe an artifact: how good it is, kind, sizes, hashes and where it comes from. A broken one is refused."""
    values = _values(path)
    if as_json:
        print_json(values)
    elif not everything:
        show_screen(values, path)
    elif values["kind"] == "generator":
        table = stored_table(values, path)
        show_verdict(table, values.get("trust"))
        show("")
        shown = {**values, "config": {key: own for key, own in values["config"].items() if key != "cross_validation"}}
        _show(_narrowed(shown, parts_read(values["config"])))
        if table is not None:
            show("")
            show_cross_validation(table, verdict=False)
    else:
        _show(values)


def _show(values: Mapping[str, Any], indent: int = 0) -> None:
    for key, value in values.items():
        label = " " * indent + (key if indent else key.replace("_", " ")) + ":"
        if isinstance(value, dict) and value:
            show(label)
            _show(value, indent + 2)
        elif isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value):
            show(f"{label} {len(value)} entries (all of them with --json)")
        else:
            show(f"{label} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _narrowed(value: Any, read: Sequence[str]) -> Any:
    """Settings with only those parts of descriptions that a generator reads: they name all that tasks might have."""
    if not isinstance(value, dict):
        return value
    parts = {"parts": [part for part in value["parts"] if part in read]} if "parts" in value else {}
    return {key: _narrowed(own, read) for key, own in value.items()} | parts


def _values(path: Path) -> dict[str, Any]:
    if path.is_file():
        return _results(path)
    if not path.is_dir():
        raise ArtifactError(f"{path} does not exist. Check the path.")
    if (path / "provenance.json").is_file() or (path / "adapter_config.json").is_file():
        return _adapter(path)
    if (path / "plan.json").is_file():
        return _zoo(path)
    if (path / "manifest.json").is_file():
        return _artifact(path)
    if (path / "results.json").is_file():
        return _results(path / "results.json")
    raise ArtifactError(f"{path} holds no adapter, zoo, generator, backbone or results.json. Check the path.")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: "×".join(map(str, value.shape)) or "1" for name, value in tensors.items()}


def _adapter(path: Path) -> dict[str, Any]:
    from wildpdiff.adapters.adapter import Adapter, has_hashes
    from wildpdiff.artifact import tensors_hash

    adapter = Adapter.load(path)
    adapter.check_finite()
    config = adapter.config.to_json()
    return {
        "kind": "adapter",
        "parameters": adapter.size,
        "sha256": tensors_hash(adapter.tensors),
        "hashes": CHECKED if has_hashes(path) else UNKNOWN,
        **config,
        "tensors": _shapes(adapter.tensors),
        "provenance": dict(adapter.provenance),
    }


def _zoo(path: Path) -> dict[str, Any]:
    from wildpdiff.zoo.store import Zoo, read_rows, shard_path

    zoo = Zoo.open(path)
    for number in range(len(zoo.plan.shards)):
        read_rows(shard_path(path, number), [])  # a zoo of an earlier version has no hashes that Zoo.open checks
    plan = zoo.plan.to_json()
    accuracy = [value for value in zoo.column("validation_accuracy") if value is not None]
    return {
        "kind": "zoo",
        "fingerprint": zoo.plan.fingerprint,
        "hashes": CHECKED if zoo.hashed else UNKNOWN,
        "tasks": len(zoo.tasks),
        "checkpoints": len(zoo),
        "shards": len(zoo.plan.shards),
        "parameters": zoo.initial.size,
        "validation_accuracy": sum(accuracy) / len(accuracy) if accuracy else None,
        **{key: plan[key] for key in ("suite", "seed", "finetune", "adapter", "schema_version")},
        **({} if zoo.plan.recipe is None else {"recipe": dict(zoo.plan.recipe)}),
        "tensors": _shapes(zoo.initial.tensors),
    }


def _artifact(path: Path) -> dict[str, Any]:
    from wildpdiff.artifact import read_artifact
    from wildpdiff.disk import read_json
    from wildpdiff.generator import stored_fingerprint
    from wildpdiff.trust.model import FOLDER, KIND

    manifest = read_json(path / "manifest.json")
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    artifact = read_artifact(path, str(kind))
    trust = read_artifact(path / FOLDER, KIND) if (path / FOLDER / "manifest.json").is_file() else None
    if trust is not None and trust.config.get("generator") not in ("", None, stored_fingerprint(artifact)):
        raise ArtifactError(
            f"{path / FOLDER} is of generator {str(trust.config['generator'])[:12]}; the one in {path} is "
            f"{stored_fingerprint(artifact)[:12]}. They do not belong together: fit the generator again."
        )
    tensors = {f"{group}/{name}": value for group, part in artifact.tensors.items() for name, value in part.items()}
    return {
        "kind": artifact.kind,
        "fingerprint": artifact.fingerprint,
        "schema_version": manifest["schema_version"],
        "parameters": sum(value.numel() for value in tensors.values()),
        "files": {name: entry["sha256"] for name, entry in manifest["files"].items()},
        "config": artifact.config,
        "tensors": _shapes(tensors),
        **({} if trust is None else {"trust": {"fingerprint": trust.fingerprint, "config": trust.config}}),
    }


def _results(path: Path) -> dict[str, Any]:
    from wildpdiff.evaluate.results import read_results
    from wildpdiff.records import encode

    results = read_results(path)
    return {
        "kind": "results",
        "suite": results.suite.name,
        "seen_tasks": results.suite.seen,
        "unseen_tasks": results.suite.unseen,
        "backbone": results.backbone.name,
        "rows": len(results.rows),
        "provenance": encode(results.provenance),
        "accuracy": {f"{row.split}, {row.label}": round(row.accuracy, 4) for row in results.summary},
    }
