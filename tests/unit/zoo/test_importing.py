"""PEFT folders and descriptions become one zoo in a common layout."""

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import peft_folders
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.canonical import common_spec, squared_updates
from wildpdiff.adapters.spec import AdapterSpec, ModuleSpec
from wildpdiff.cli.folders import adapter_folders
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DataError, DescriptionError
from wildpdiff.tasks.description import MetadataField
from wildpdiff.zoo.importing import TaskDescriptions, import_adapters, import_report
from wildpdiff.zoo.store import Zoo

GOLDEN = Path(__file__).parents[2] / "golden" / "imported-1"
NORMS = [451.904, 867.414, 359.656]
"""Squared norms of the updates of the golden zoo's adapters."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> peft_folders.Folders:
    return peft_folders.write(tmp_path_factory.mktemp("adapters"), 12)


@pytest.fixture(scope="module")
def described(folders: peft_folders.Folders) -> TaskDescriptions:
    return TaskDescriptions.from_csv(folders.table)


@pytest.fixture(scope="module")
def zoo(folders: peft_folders.Folders, described: TaskDescriptions) -> Zoo:
    return import_adapters(folders.paths, described, folders.root / "zoo", per_shard=5)


def test_the_zoo_is_opened_again_with_its_descriptions(zoo: Zoo, folders: peft_folders.Folders) -> None:
    again = Zoo.open(zoo.folder)
    assert (again.tasks, again.hashed, len(again.plan.shards)) == (tuple(folders.descriptors), True, 3)
    read = TaskDescriptions.of_zoo(again)
    assert read.schema.fields == (MetadataField("x", "number"), MetadataField("y", "number"))
    for name, (x, y) in folders.descriptors.items():
        assert read.by_task[name].metadata == {"x": x, "y": y}
    assert all(not value.any() for value in again.initial.tensors.values())
    assert again.task_adapters()[again.tasks[0]].config == again.plan.adapter


def test_the_golden_zoo_is_read() -> None:
    golden = Zoo.open(GOLDEN)
    assert (golden.tasks, golden.imported, golden.hashed) == (("task-000", "task-001", "task-002"), True, True)
    assert (golden.plan.adapter.backbone, golden.plan.adapter.rank) == ("somebody/base", 4)
    read = TaskDescriptions.of_zoo(golden)
    assert read.by_task["task-000"].metadata == pytest.approx({"x": 0.496257, "y": 0.768222}, abs=1e-6)
    assert squared_updates(golden.tensors(range(3))).tolist() == pytest.approx(NORMS, rel=1e-5)


def test_the_same_command_gives_the_same_bytes(
    zoo: Zoo, folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    import_adapters(folders.paths, described, tmp_path / "zoo", per_shard=5)
    for path in zoo.folder.rglob("*.*"):
        assert (tmp_path / "zoo" / path.relative_to(zoo.folder)).read_bytes() == path.read_bytes()


def test_the_zoo_does_not_depend_on_the_factors_that_an_update_came_in(
    zoo: Zoo, folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    draws = torch.Generator().manual_seed(0)
    for path in folders.paths:
        adapter = Adapter.load(path)
        tensors = dict(adapter.tensors)
        for name, entry in adapter.spec.modules.items():
            a, b = (f"base_model.model.{name}.lora_{factor}.weight" for factor in "AB")
            mixing = torch.linalg.qr(torch.randn(entry.rank, entry.rank, generator=draws)).Q * 2.0
            tensors[a], tensors[b] = mixing @ tensors[a], tensors[b] @ torch.linalg.inv(mixing)
        Adapter(tensors, adapter.config).save(tmp_path / path.name)
    again = import_adapters([tmp_path / path.name for path in folders.paths], described, tmp_path / "zoo", per_shard=5)
    found, expected = again.tensors(range(12)), zoo.tensors(range(12))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=0)


def test_modules_that_an_adapter_lacks_are_zero_and_a_smaller_rank_loses_energy(
    zoo: Zoo, folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    report = import_report(zoo)
    tensors = zoo.tensors(range(12))
    second = tensors["base_model.model.block.second.lora_B.weight"].flatten(1)
    for row, name in enumerate(zoo.tasks):
        assert bool(second[row].any()) is (report[name]["modules"] == 2)
        assert report[name]["lost_energy"] < 1e-6
    small = import_report(import_adapters(folders.paths, described, tmp_path / "zoo", rank=2))
    for entry in small.values():
        assert (entry["lost_energy"] > 0.01) is (entry["rank"] > 2)
    path = folders.paths[4]
    adapter = Adapter.load(path)
    singular = [
        torch.linalg.svdvals(2 * adapter.tensors[f"{key}.lora_B.weight"] @ adapter.tensors[f"{key}.lora_A.weight"])
        for key in (f"base_model.model.{name}" for name in adapter.spec.modules)
    ]
    lost = sum(float(own[2:].square().sum()) for own in singular) / sum(float(own.square().sum()) for own in singular)
    assert small[path.name]["lost_energy"] == pytest.approx(lost, rel=1e-4)


def test_altered_descriptions_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "zoo")
    path = tmp_path / "zoo" / "descriptions.json"
    path.write_text(path.read_text().replace('"x"', '"z"'))
    with refused(ArtifactError, path):
        TaskDescriptions.of_zoo(Zoo.open(tmp_path / "zoo"))


def test_adapters_without_description_twice_or_alone_are_refused(
    folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    with refused(DescriptionError, folders.paths[0], "task-000"):
        some = TaskDescriptions(described.schema, {"task-001": described.by_task["task-001"]})
        import_adapters(folders.paths, some, tmp_path / "zoo")
    with refused(DataError, 1):
        import_adapters(folders.paths[:1], described, tmp_path / "zoo")
    with refused(DataError, "task-000", folders.paths[0]):
        import_adapters([folders.paths[0], *folders.paths], described, tmp_path / "zoo")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "mine").write_text("")
    with refused(ArtifactError, tmp_path / "zoo"):
        import_adapters(folders.paths, described, tmp_path / "zoo")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_adapters_of_values_that_are_not_finite_or_all_zero_are_refused_by_folder(
    value: float, folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(folders.paths[1], tmp_path / "task-001"))
    tensors = load_file(bad / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}, bad / "adapter_model.safetensors"
    )
    with refused(ArtifactError, bad):
        import_adapters([folders.paths[0], bad], described, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("names", [("Савана", "大草原"), ("naïve café", "e\u0301te\u0301"), ("été", "سافانا")])
def test_names_in_every_script_and_spelling_of_accents_are_those_of_the_table(
    names: tuple[str, str], folders: peft_folders.Folders, tmp_path: Path
) -> None:
    found = [Path(shutil.copytree(path, tmp_path / name)) for path, name in zip(folders.paths, names, strict=False)]
    table = "".join(f"{unicodedata.normalize('NFC', name)},{number}\n" for number, name in enumerate(names))
    (tmp_path / "tasks.csv").write_text(f"task,höhe\n{table}", encoding="utf-8")
    zoo = import_adapters(found, TaskDescriptions.from_csv(tmp_path / "tasks.csv"), tmp_path / "zoo")
    assert set(zoo.tasks) == {unicodedata.normalize("NFC", name) for name in names}


SPEC = AdapterSpec({"fc": ModuleSpec("linear", 2, 1.0, (4, 3))}, base_model="base")
OTHERS = {
    "base model": (AdapterSpec(SPEC.modules, base_model="other"), ("base", "other")),
    "shape": (AdapterSpec({"fc": ModuleSpec("linear", 2, 1.0, (5, 3))}, base_model="base"), ("fc", (4, 3), (5, 3))),
    "saved": (AdapterSpec(SPEC.modules, {"head.weight": (2, 4)}, base_model="base"), ("head.weight", (2, 4))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_adapters_that_do_not_fit_together_are_refused(name: str) -> None:
    other, values = OTHERS[name]
    with refused(AdapterMismatchError, "one", "two", *values):
        common_spec({"one": SPEC, "two": other})


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("name,x\na,1\n", DataError, ("task",)),
        ("task,x\n", DataError, ("task",)),
        ("task,x\na,1\na,2\n", DataError, ("line 3", "'a'")),
        ("task,x\n,1\n", DataError, ("line 2",)),
        ("task,x\na,1,2\n", DataError, ("line 2",)),
        ("task,x,text\na,,\nb,1,\n", DescriptionError, ("'a'",)),
        ("task,x\na,1\nb,inf\n", DescriptionError, ("'x'", "'inf'")),
        ("task,latitude\na,95\n", DescriptionError, ("latitude", 95)),
    ],
)
def test_tables_that_describe_nothing_are_refused(
    text: str, kind: type[Exception], values: tuple[object, ...], tmp_path: Path
) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    with refused(kind, *values):
        TaskDescriptions.from_csv(path)


@pytest.mark.parametrize(
    "data",
    [
        "Task;x;place\r\na;0,5;wood\r\n\r\nb;1,25;lake\r\n".encode("utf-8-sig"),
        "task\tx\tplace\na\t0.5\twood\nb\t1.25\tlake\n".encode("utf-16"),
        b'"",task,x,place\n1,a,0.5 m,wood\n2,b,1.25 m,lake\n,,,\n',
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "tasks.csv").write_bytes(data)
    read = TaskDescriptions.from_csv(tmp_path / "tasks.csv")
    found = {name: entry.metadata for name, entry in read.by_task.items()}
    assert found == {"a": {"x": 0.5, "place": "wood"}, "b": {"x": 1.25, "place": "lake"}}


def test_what_a_column_holds_is_decided_by_the_adapters_tasks(
    folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    rows = "".join(f"{path.name},{number}.5\n" for number, path in enumerate(folders.paths[:4]))
    (tmp_path / "tasks.csv").write_text(f"task,x\n{rows}other,a word\nanother,a second\n")
    read = TaskDescriptions.from_csv(tmp_path / "tasks.csv")
    assert read.schema.fields[0].kind == "category"
    zoo = import_adapters(folders.paths[:4], read, tmp_path / "zoo")
    again = TaskDescriptions.of_zoo(zoo)
    assert again.schema.fields == (MetadataField("x", "number"),)
    assert again.by_task[folders.paths[3].name].metadata == {"x": 3.5}
    (tmp_path / "odd.csv").write_text("task,x,y\na,1,\nb,2,\nc,3,\nd,4,\ne,high,0\nf,6,\n")
    odd = TaskDescriptions.from_csv(tmp_path / "odd.csv")
    assert odd.schema.fields[0] == MetadataField("x", "number")
    assert "'high'" in odd.remarks[0]
    assert odd.only(["a", "b"]).by_task["b"].metadata == {"x": 2.0}


def test_an_adapter_in_a_folder_of_the_task_s_name_is_that_task_s(
    folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    for path in folders.paths[:3]:
        shutil.copytree(path, tmp_path / path.name / "checkpoint-500")
        (tmp_path / path.name / "checkpoint-500" / "README.md").write_text(f"About {path.name}.")
    found = adapter_folders([tmp_path])
    assert [path.name for path in found] == ["checkpoint-500"] * 3
    names = tuple(path.name for path in folders.paths[:3])
    assert import_adapters(found, described, tmp_path / "out" / "zoo").tasks == names
    cards = TaskDescriptions.from_cards(found)
    assert tuple(cards.by_task) == names
    assert import_adapters(found, cards, tmp_path / "out" / "again").tasks == names


def test_adapters_in_parts_pointers_and_diverged_ones_are_refused(
    folders: peft_folders.Folders, described: TaskDescriptions, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(folders.paths[1], tmp_path / folders.paths[1].name))
    file = bad / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: 1e20 * value for name, value in tensors.items()}, file)
    with refused(ArtifactError, bad, "diverged"):
        import_adapters([folders.paths[0], bad], described, tmp_path / "zoo")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with refused(ArtifactError, file, "git lfs pull"):
        import_adapters([folders.paths[0], bad], described, tmp_path / "zoo")
    file.rename(bad / "adapter_model-00001-of-00002.safetensors")
    with refused(ArtifactError, bad, "adapter_model-00001-of-00002.safetensors"):
        import_adapters([folders.paths[0], bad], described, tmp_path / "zoo")


def test_columns_of_a_table_are_numbers_categories_places_and_text(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text("Task,height,habitat,lat,Text\na,1.5,wood,-2,Hills\nb,NA,,3,N/A\n")
    read = TaskDescriptions.from_csv(path)
    assert read.schema.fields == (
        MetadataField("height", "number"),
        MetadataField("habitat", "category", categories=("wood",)),
        MetadataField("lat", "number", "degrees", geographic="latitude"),
    )
    assert (read.by_task["a"].metadata, read.by_task["a"].text) == (
        {"height": 1.5, "habitat": "wood", "lat": -2.0},
        "Hills",
    )
    assert (read.by_task["b"].metadata, read.by_task["b"].text) == ({"lat": 3.0}, None)


CARD = """---
base_model: somebody/base
license: mit
depth: {depth}
site: {site}
tags: [lora]
---
# Adapter

{text}

- **Developed by:** [More Information Needed]
<!-- a
comment -->
```python
code
```
"""


def test_model_cards_give_metadata_and_text(tmp_path: Path) -> None:
    for name, depth in (("a", 3), ("b", 4.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(CARD.format(depth=depth, site="reef", text=f"Fish of {name}."))
    read = TaskDescriptions.from_cards([tmp_path / "a", tmp_path / "b"])
    assert read.schema.names == ("depth", "site")
    assert (read.by_task["b"].metadata, read.by_task["b"].text) == ({"depth": 4.5, "site": "reef"}, "Fish of b.")


@pytest.mark.parametrize("text", [None, "---\n[\n---\n", "---\n- a\n---\n", "# Only a heading\n"])
def test_model_cards_that_describe_nothing_are_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    with refused(DescriptionError, tmp_path.name):
        TaskDescriptions.from_cards([tmp_path])


def test_adding_adapters_adds_updates_where_factors_are_joined_and_not_where_they_are_added(
    zoo: Zoo, tmp_path: Path
) -> None:
    one, two = (zoo.task_adapters()[name] for name in zoo.tasks[4:6])
    model = peft_folders.opened_by_peft(one.save(tmp_path / "one"))
    model.load_adapter(str(two.save(tmp_path / "two")), "two")
    updates = {}
    for way in ("cat", "svd", "linear"):
        size = {"svd_rank": 8} if way == "svd" else {}
        model.add_weighted_adapter(["default", "two"], [1.0, 1.0], way, combination_type=way, **size)
        layer = model.get_submodule("base_model.model.block.first")
        updates[way] = layer.get_delta_weight(way)
    total = layer.get_delta_weight("default") + layer.get_delta_weight("two")
    torch.testing.assert_close(updates["cat"], total, atol=1e-5, rtol=0)
    assert layer.lora_A["cat"].weight.shape[0] == 2 * layer.lora_A["default"].weight.shape[0]
    u, singular, vh = torch.linalg.svd(total)  # the nearest update of the rank: not exact, but the best of its size
    torch.testing.assert_close(updates["svd"], u[:, :8] * singular[:8] @ vh[:8], atol=1e-4, rtol=0)
    assert float((updates["linear"] - total).norm() / total.norm()) > 0.1
    # PEFT's linear adds the factors: twice the mean adapter's (ours), and so four times its update.
    half = {name: (value + two.tensors[name]) / 2 for name, value in one.tensors.items()}
    a, b = (half[f"base_model.model.block.first.lora_{factor}.weight"] for factor in "AB")
    torch.testing.assert_close(updates["linear"], 4 * b @ a, atol=1e-4, rtol=0)


def test_a_generated_folder_without_provenance_is_an_ordinary_peft_folder(zoo: Zoo, tmp_path: Path) -> None:
    adapter = zoo.task_adapters()[zoo.tasks[5]]
    adapter.save(tmp_path / "a")
    (tmp_path / "a" / "provenance.json").unlink()
    found = Adapter.load(tmp_path / "a")
    assert (found.config, found.distance(adapter)) == (adapter.config, 0.0)
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_bytes())["r"] == 8
