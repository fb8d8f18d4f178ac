"""Adapters with a flipped bit, other files beside them, keys that PEFT alone would honour, values out of all range."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import Run, World, refused_run

from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.errors import AdapterMismatchError, ArtifactError

Copy = Callable[[Path], Path]
GOLDEN = Path(__file__).parent.parent / "golden"


def flip(path: Path, index: int, bit: int = 0x40) -> None:
    data = bytearray(path.read_bytes())
    data[index] ^= bit
    path.write_bytes(data)


@pytest.fixture
def adapter(world: World, copy: Copy) -> Path:
    return copy(world.adapter)


def verbs(world: World, adapter: Path, out: Path) -> list[list[str | Path]]:
    """Every verb that reads an adapter."""
    own = ["--backbone", world.backbone]
    labels = out.parent / "labels" / "impala"
    labels.mkdir(parents=True, exist_ok=True)
    for picture in sorted(world.images.iterdir())[:2]:
        (labels / picture.name).write_bytes(picture.read_bytes())
    return [
        ["predict", adapter, world.images, *own, "--out", out],
        ["inspect", adapter],
        ["refine", adapter, "--images", labels.parent, *own, "--out", out],
    ]


@pytest.mark.parametrize(
    ("name", "index"),
    [("adapter_model.safetensors", -1), ("adapter_model.safetensors", -400), ("adapter_config.json", 5)],
)
def test_a_flipped_bit_is_refused_by_every_reader(
    world: World, run: Run, adapter: Path, tmp_path: Path, name: str, index: int
) -> None:
    flip(adapter / name, index, 0x01)
    for words in verbs(world, adapter, tmp_path / "out"):
        refused_run(run(*words), name)
    assert not (tmp_path / "out").exists()


def test_every_single_bit_of_the_last_value_counts(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    for bit in range(32):
        flip(path, -1 - bit // 8, 1 << bit % 8)
        with refused(ArtifactError, "altered"):
            Adapter.load(adapter)
        path.write_bytes(whole)
    Adapter.load(adapter)


def test_the_tensors_of_another_adapter_are_refused(world: World, run: Run, adapter: Path, tmp_path: Path) -> None:
    other = world.run / "adapters" / "unseen-001" / "adapter_model.safetensors"
    (adapter / "adapter_model.safetensors").write_bytes(other.read_bytes())
    for words in verbs(world, adapter, tmp_path / "out"):
        refused_run(run(*words), "altered")


@pytest.mark.parametrize("key", ["task", "seed", "generator"])
def test_an_edited_provenance_is_refused(run: Run, adapter: Path, key: str) -> None:
    path = adapter / "provenance.json"
    data = json.loads(path.read_bytes())
    data["provenance"][key] = "else"
    path.write_text(json.dumps(data))
    refused_run(run("inspect", adapter), "altered", "fingerprint")


@pytest.mark.parametrize("key", ["files", "fingerprint"])
def test_hashes_cannot_be_left_out(run: Run, adapter: Path, key: str) -> None:
    path = adapter / "provenance.json"
    data = json.loads(path.read_bytes())
    del data[key]
    path.write_text(json.dumps(data))
    refused_run(run("inspect", adapter), "altered")


def test_adapters_from_before_the_hashes_are_read_and_inspect_reports_it(run: Run) -> None:
    values = run("inspect", GOLDEN / "adapter-1", "--json").json
    assert values["hashes"].startswith("none")
    assert run("inspect", GOLDEN / "adapter-2", "--json").json["hashes"] == "checked"


HONOURED: list[tuple[str, Any]] = [
    ("alpha_pattern", {"features.8": 64}),
    ("rank_pattern", {"features.8": 2}),
    ("use_rslora", True),
    ("use_dora", True),
    ("bias", "all"),
    ("fan_in_fan_out", True),
    ("layers_to_transform", [1]),
    ("init_lora_weights", "pissa"),
    ("modules_to_save", None),
    ("target_modules", ".*"),
    ("target_modules", ["conv"]),
    ("trainable_token_indices", [0]),
    ("layer_replication", [[0, 1]]),
    ("target_parameters", ["weight"]),
    ("lora_bias", True),
    ("use_qalora", True),
    ("peft_type", "LOHA"),
    ("r", 1),
    ("lora_alpha", 1),
    ("a_key_of_the_future", {"a": 1}),
]


@pytest.mark.parametrize(("key", "value"), HONOURED)
@pytest.mark.parametrize("version", [1, 2])
def test_what_peft_would_honour_is_refused_by_name(adapter: Path, key: str, value: Any, version: int) -> None:
    if version == 1:  # without hashes, which would refuse it anyway
        provenance = json.loads((adapter / "provenance.json").read_bytes())
        kept = {name: provenance[name] for name in ("adapter", "provenance")}
        (adapter / "provenance.json").write_text(json.dumps({"schema_version": 1, **kept}))
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: value}))
    with refused(AdapterMismatchError, key, "PEFT"):
        Adapter.load(adapter)


def test_what_changes_nothing_for_peft_is_read(adapter: Path) -> None:
    provenance = json.loads((adapter / "provenance.json").read_bytes())
    kept = {name: provenance[name] for name in ("adapter", "provenance")}
    (adapter / "provenance.json").write_text(json.dumps({"schema_version": 1, **kept}))
    path = adapter / "adapter_config.json"
    data = json.loads(path.read_bytes())
    idle = {"alpha_pattern": {}, "rank_pattern": {}, "lora_dropout": 0.1, "revision": "main", "layers_pattern": None}
    path.write_text(json.dumps({**data, **idle, "target_modules": data["target_modules"][::-1]}))
    Adapter.load(adapter)


def test_logits_that_are_not_finite_are_refused(world: World, run: Run, tmp_path: Path) -> None:
    loaded = Adapter.load(world.adapter)
    huge = {name: value * 1e30 for name, value in loaded.tensors.items()}
    folder = dataclasses.replace(loaded, tensors=huge).save(tmp_path / "huge")
    out = tmp_path / "out.csv"
    refused_run(run("predict", folder, world.images, "--backbone", world.backbone, "--out", out), "not finite")
    assert not out.exists()


def test_generated_adapters_that_are_not_finite_are_refused(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wildpdiff.codec.codec import Codec

    real = Codec.decode
    monkeypatch.setattr(Codec, "decode", lambda self, vectors: torch.full_like(real(self, vectors), 1e30))
    words = ["generate", world.generator, "--metadata", "elevation=1", "--backbone", world.backbone]
    refused_run(run(*words, "--out", tmp_path / "out"), "not finite")
    assert not (tmp_path / "out").exists()
