import copy
import dataclasses
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.errors import AdapterMismatchError, ArtifactError, SchemaVersionError

GOLDEN_1, GOLDEN_2 = (Path(__file__).parents[2] / "golden" / f"adapter-{version}" for version in (1, 2))
"""Version 1 had no hashes."""
SITES = {
    "linear": LoraSpec(2, 3.0, ("body",)),
    "convolution 3x3": LoraSpec(2, 3.0, ("conv3",)),
    "convolution 1x1": LoraSpec(2, 3.0, ("conv1",)),
    "all and the classifier": toys.LORA,
    "classifier only as LoRA": LoraSpec(1, 1.0, ("classifier",)),
}


def golden_adapter() -> Adapter:
    config = AdapterConfig("toy", "0123456789abcdef" * 4, ("blank", "größer"), 1, 2.0, ("body",), ("classifier",))
    names = ("body.lora_A.weight", "body.lora_B.weight", "classifier.weight", "classifier.bias")
    values = (torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5], [0.25]]), torch.eye(2), torch.tensor([-1.0, 3.0]))
    tensors = {PEFT_PREFIX + name: value for name, value in zip(names, values, strict=True)}
    provenance = {"source": "generated", "seed": 7, "task": "unseen-003", "description": {"metadata": {"level": 1.5}}}
    return Adapter(tensors, config, provenance)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return toys.backbone()


def test_loaded_is_what_was_saved_and_saved_again_it_has_the_same_bytes(backbone: Backbone, tmp_path: Path) -> None:
    adapter = toys.random_adapter(backbone, 0)
    loaded = Adapter.load(adapter.save(tmp_path / "first"))
    assert loaded.config == adapter.config
    assert loaded.provenance == adapter.provenance
    assert loaded.distance(adapter) == 0.0
    loaded.save(tmp_path / "second")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert first == second
    assert set(first) == {"adapter_config.json", "adapter_model.safetensors", "provenance.json", "README.md"}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "provenance.json"])
def test_the_bytes_of_schema_version_2_stay(tmp_path: Path, name: str) -> None:
    golden_adapter().save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / name).read_bytes() == (GOLDEN_2 / name).read_bytes()


@pytest.mark.parametrize("golden", [GOLDEN_1, GOLDEN_2])
def test_the_golden_folders_are_still_read(golden: Path) -> None:
    loaded = Adapter.load(golden)
    assert loaded.config == golden_adapter().config
    assert loaded.provenance == golden_adapter().provenance
    assert loaded.distance(golden_adapter()) == 0.0


def test_every_schema_version_has_golden_bytes() -> None:
    for version, golden in enumerate((GOLDEN_1, GOLDEN_2), 1):
        assert json.loads((golden / "provenance.json").read_bytes())["schema_version"] == version


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_adapters_of_any_precision_are_used_in_single(backbone: Backbone, tmp_path: Path, kind: torch.dtype) -> None:
    adapter = toys.random_adapter(backbone, 0)
    stored = dataclasses.replace(adapter, tensors={name: value.to(kind) for name, value in adapter.tensors.items()})
    loaded = Adapter.load(stored.save(tmp_path / "stored"))
    assert {value.dtype for value in loaded.tensors.values()} == {torch.float32}
    features = backbone.stem(toys.random_images(4))
    assert torch.allclose(
        backbone.predict(features, loaded.tensors), backbone.predict(features, adapter.tensors), atol=0.1
    )


@pytest.mark.parametrize("site", SITES)
def test_peft_opens_the_folder_and_gives_the_same_logits(site: str, tmp_path: Path) -> None:
    from peft import PeftModel

    backbone = toys.backbone(lora=SITES[site])
    adapter = toys.random_adapter(backbone, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(copy.deepcopy(backbone.module), str(adapter.save(tmp_path / "adapter")))
    # PEFT warns where the file lacks a tensor, has one too many, or its configuration has an unknown key.
    assert [str(entry.message) for entry in caught if "peft" in entry.filename] == []
    images = toys.random_images(12)
    with torch.no_grad():
        theirs = model.eval()(backbone.collate(images)["inputs"])
    features = backbone.stem(images)
    ours = backbone.predict(features, adapter.tensors)
    assert float((ours - theirs).abs().max()) <= 1e-5
    assert float((ours - backbone.predict(features)).abs().max()) > 1e-2


def test_peft_knows_every_key_of_the_configuration(tmp_path: Path) -> None:
    from peft import LoraConfig

    golden_adapter().save(tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = LoraConfig.from_pretrained(str(tmp_path / "adapter"))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    assert set(written) <= {entry.name for entry in dataclasses.fields(LoraConfig)}
    assert (config.r, config.lora_alpha, config.modules_to_save) == (1, 2.0, ["classifier"])


def changed(adapter: Adapter, change: str) -> Adapter:
    tensors: dict[str, Tensor] = dict(adapter.tensors)
    name = f"{PEFT_PREFIX}body.lora_A.weight"
    if change == "missing":
        del tensors[name]
    elif change == "unknown":
        tensors[f"{PEFT_PREFIX}tail.weight"] = torch.zeros(2)
    elif change == "shape":
        tensors[name] = tensors[name][:1]
    return dataclasses.replace(adapter, tensors=tensors)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("missing", ("body.lora_A.weight", "missing", (2, 6))),
        ("unknown", ("tail.weight", (2,), "no such tensor")),
        ("shape", ("body.lora_A.weight", (1, 6), (2, 6))),
    ],
)
def test_other_tensors_are_refused(backbone: Backbone, change: str, values: tuple[object, ...]) -> None:
    backbone.check(toys.random_adapter(backbone, 0))
    with refused(AdapterMismatchError, "toy", *values):
        backbone.check(changed(toys.random_adapter(backbone, 0), change))


def test_an_adapter_of_other_weights_is_refused(backbone: Backbone) -> None:
    other = toys.backbone(seed=1)
    with refused(AdapterMismatchError, other.backbone_hash[:12], backbone.backbone_hash[:12]):
        backbone.check(toys.random_adapter(other, 0))


def test_an_adapter_of_other_classes_is_refused(backbone: Backbone) -> None:
    adapter = toys.random_adapter(backbone, 0)
    for classes in (backbone.classes[::-1], backbone.classes[:2]):
        with refused(AdapterMismatchError, "toy", ", ".join(classes), ", ".join(backbone.classes)):
            backbone.check(dataclasses.replace(adapter, config=dataclasses.replace(adapter.config, classes=classes)))


def test_distance_is_euclidean_over_all_tensors(backbone: Backbone) -> None:
    one, two = toys.random_adapter(backbone, 0), toys.random_adapter(backbone, 1)
    flat = [torch.cat([value.flatten() for value in entry.tensors.values()]) for entry in (one, two)]
    assert one.distance(two) == pytest.approx(float((flat[0] - flat[1]).norm()), rel=1e-5)
    assert one.size == len(flat[0])


def test_distance_between_unlike_adapters_is_refused(backbone: Backbone) -> None:
    adapter = toys.random_adapter(backbone, 0)
    with refused(AdapterMismatchError):
        adapter.distance(changed(adapter, "shape"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(backbone: Backbone, value: float) -> None:
    adapter = toys.random_adapter(backbone, 0)
    adapter.check_finite()
    adapter.tensors[f"{PEFT_PREFIX}classifier.bias"][1] = value
    with refused(ArtifactError, "classifier.bias"):
        adapter.check_finite()


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with refused(ArtifactError, tmp_path, "adapter_config.json"):
        Adapter.load(tmp_path)


def edited(folder: Path, **changes: object) -> Path:
    path = golden_adapter().save(folder) / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    return folder


def test_a_newer_provenance_is_refused(tmp_path: Path) -> None:
    with refused(SchemaVersionError, tmp_path, "version 3"):
        Adapter.load(edited(tmp_path / "a", schema_version=3))


@pytest.mark.parametrize("value", [{}, {"backbone": "toy"}, {"unknown": 1}, 3])
def test_a_provenance_without_a_whole_configuration_is_refused(tmp_path: Path, value: object) -> None:
    with refused(ArtifactError, "provenance.json"):
        Adapter.load(edited(tmp_path / "a", adapter=value))


def test_a_provenance_that_is_no_object_is_refused(tmp_path: Path) -> None:
    folder = golden_adapter().save(tmp_path / "a")
    (folder / "provenance.json").write_text("[]")
    with refused(ArtifactError, "provenance.json"):
        Adapter.load(folder)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    folder = golden_adapter().save(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with refused(ArtifactError, path):
        Adapter.load(folder)


@pytest.mark.parametrize("changes", [{"lora_alpha": 64.0}, {"r": 4}])
def test_a_folder_that_peft_reads_otherwise_is_refused(tmp_path: Path, changes: dict[str, float]) -> None:
    folder = golden_adapter().save(tmp_path / "a")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    with refused(AdapterMismatchError, path, *next(iter(changes.items()))):
        Adapter.load(folder)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = golden_adapter().save(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with refused(ArtifactError, folder / "adapter_model.safetensors"):
        Adapter.load(folder)


def test_the_configuration_survives_json() -> None:
    config = golden_adapter().config
    assert AdapterConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.scaling == 2.0


@pytest.mark.parametrize(
    ("provenance", "sentence"), [({}, "not trained on labels"), ({"labels": 12}, "on 12 labelled")]
)
def test_the_model_card_says_whether_labels_were_used(
    backbone: Backbone, tmp_path: Path, provenance: dict[str, int], sentence: str
) -> None:
    adapter = dataclasses.replace(toys.random_adapter(backbone, 0), provenance=provenance)
    assert sentence in (adapter.save(tmp_path / "card") / "README.md").read_text()


def test_the_code_on_the_model_card_runs_and_gives_the_same_logits(tmp_path: Path) -> None:
    backbone = load_backbone("savanna-cnn")
    adapter = toys.random_adapter(backbone, 3, 0.1)
    card = (adapter.save(tmp_path / "adapter") / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    size = backbone.image_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    names: dict[str, Any] = {"examples": images}
    exec(code.replace("THIS_FOLDER", str(tmp_path / "adapter")), names)
    assert torch.allclose(names["logits"], backbone.predict(backbone.stem(images), adapter.tensors), atol=1e-5)
