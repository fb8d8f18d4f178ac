import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import SCHEMA_VERSION, read_artifact, safetensors_bytes, write_artifact
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.mean import Blend
from wildpdiff.conditional_mean.score_table import PRETRAINED
from wildpdiff.conditional_mean.simple import MEAN
from wildpdiff.disk import json_bytes
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError, SchemaVersionError
from wildpdiff.fit import FittedGenerator
from wildpdiff.generator import Generator, stored_fingerprint
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, description_provenance

DESCRIPTION = toys.ToySuite().tasks("unseen")[0].description


KINDS = ("estimate", "posterior", "latents")


@pytest.fixture(scope="module")
def estimator(toy_fit: FittedGenerator) -> Generator:
    """Of five tasks: gives estimates, and has no posterior."""
    return toy_fit.generator


@pytest.fixture(scope="module")
def latents(toy_latents_fit: FittedGenerator) -> Generator:
    """Without a conditional mean: samples latents."""
    return toy_latents_fit.generator


@pytest.fixture(scope="module")
def posterior(toy_posterior_fit: FittedGenerator) -> Generator:
    """Gives estimates, and posterior samples where these are chosen."""
    return toy_posterior_fit.generator


@pytest.fixture(scope="module", params=KINDS)
def generator(request: pytest.FixtureRequest, toy_fit: FittedGenerator) -> Generator:
    if request.param == "latents":
        fitted: FittedGenerator = request.getfixturevalue("toy_latents_fit")
        return fitted.generator
    if request.param == "posterior":
        fitted = request.getfixturevalue("toy_posterior_fit")
        return fitted.generator.with_sampling(draw="posterior")
    return toy_fit.generator


@pytest.fixture(scope="module", params=KINDS[1:])
def sampled(request: pytest.FixtureRequest, posterior: Generator, latents: Generator) -> Generator:
    """What draws samples that differ."""
    return posterior.with_sampling(draw="posterior") if request.param == "posterior" else latents


@pytest.fixture
def folder(generator: Generator, tmp_path: Path) -> Path:
    return generator.save_pretrained(tmp_path / "generator")


def stored(adapters: list[Adapter]) -> list[bytes]:
    return [safetensors_bytes(adapter.tensors) + json_bytes(dict(adapter.provenance)) for adapter in adapters]


def test_it_is_a_source_whose_adapters_fit_the_backbone(generator: Generator, toy_backbone: Backbone) -> None:
    assert isinstance(generator, Source)
    for adapter in generator.sample(DESCRIPTION, 2, seed=0):
        toy_backbone.check(adapter)
        adapter.check_finite()


def test_the_same_seed_gives_the_same_bytes(generator: Generator) -> None:
    first, again = (generator.sample(DESCRIPTION, 3, seed=4) for _ in range(2))
    assert stored(first) == stored(again)


def test_another_seed_gives_other_samples_and_those_of_one_call_differ(sampled: Generator) -> None:
    assert sampled.stochastic
    first, other = (sampled.sample(DESCRIPTION, 8, seed=seed) for seed in (4, 5))
    assert {safetensors_bytes(entry.tensors) for entry in first} != {safetensors_bytes(e.tensors) for e in other}
    assert max(first[0].distance(entry) for entry in first[1:]) > 1e-3


def test_the_estimate_is_one_whatever_the_seed_and_samples_lie_around_it(posterior: Generator) -> None:
    assert not posterior.stochastic
    (estimate,), many = posterior.sample(DESCRIPTION, 1, seed=4), posterior.sample(DESCRIPTION, 3, seed=5)
    assert {safetensors_bytes(entry.tensors) for entry in many} == {safetensors_bytes(estimate.tensors)}
    samples = posterior.with_sampling(draw="posterior").sample(DESCRIPTION, 8, seed=4)
    assert min(estimate.distance(entry) for entry in samples) > 0
    other = posterior.sample(replace(DESCRIPTION, metadata={"level": 170.0}, backgrounds=None), 1, seed=4)[0]
    assert sum(estimate.distance(entry) < other.distance(entry) for entry in samples) > 4


def test_what_is_drawn_is_named(posterior: Generator, estimator: Generator, latents: Generator) -> None:
    chosen = posterior.with_sampling(draw="posterior")
    assert (posterior.name, chosen.name, latents.name) == ("generated", "one sample", "generated")
    (adapter,) = chosen.sample(DESCRIPTION, 1, seed=0)
    assert adapter.provenance["source"] == "one sample"
    assert adapter.provenance["sampling"]["draw"] == "posterior"
    assert estimator.posterior is None
    assert not estimator.with_sampling(draw="posterior").stochastic
    assert latents.stochastic


def test_an_adapter_that_changes_nothing_is_the_pretrained_models(estimator: Generator, toy_backbone: Backbone) -> None:
    mean = estimator.mean
    assert mean is not None
    blends = [Blend((name,), (1.0,)) for name in (PRETRAINED, MEAN)]
    makers = [replace(estimator, mean=replace(mean, blend=blend, centering=None, anchor=0.0)) for blend in blends]
    (unchanged,), (mean_adapter,) = (maker.sample(DESCRIPTION, 1, seed=0) for maker in makers)
    assert (unchanged.provenance["source"], mean_adapter.provenance["source"]) == ("pretrained", "generated")
    anchored = replace(estimator, mean=replace(mean, blend=blends[0], centering=None, anchor=1.0))
    seen = toys.ToySuite().tasks("seen")[0].description
    sources = [anchored.sample(one, 1, seed=0)[0].provenance["source"] for one in (seen, DESCRIPTION)]
    assert sources == ["generated", "pretrained"]
    batch = toy_backbone.batch(toys.ToySuite().tasks("unseen")[0].data("test"))
    torch.testing.assert_close(toy_backbone.predict(batch, unchanged.tensors), toy_backbone.predict(batch))


def test_only_what_a_generator_is_made_of_is_there(posterior: Generator, latents: Generator) -> None:
    assert (posterior.denoiser, posterior.schedule) == (None, None)
    assert posterior.mean is not None
    assert (latents.mean, latents.posterior, latents.cross_validation) == (None, None, None)
    assert latents.denoiser is not None


def test_another_description_gives_another_adapter_from_the_same_noise(generator: Generator) -> None:
    low, high = (replace(DESCRIPTION, metadata={"level": level}, backgrounds=None) for level in (60.0, 180.0))
    assert generator.sample(low, 1, seed=0)[0].distance(generator.sample(high, 1, seed=0)[0]) > 1e-3


@pytest.mark.parametrize("sampler", ["dpm_solver_2m", "ddim"])
def test_the_first_samples_do_not_depend_on_how_many_follow(sampled: Generator, sampler: str) -> None:
    chosen = sampled.with_sampling(sampler=sampler)
    few, many = chosen.sample(DESCRIPTION, 2, seed=3), chosen.sample(DESCRIPTION, 40, seed=3)
    assert all(one.distance(two) < 1e-4 for one, two in zip(few, many, strict=False))


def test_descriptions_in_one_batch_are_as_one_by_one(generator: Generator) -> None:
    descriptions = [task.description for task in toys.ToySuite().tasks("unseen")]
    together = generator.sample_many(descriptions, 2, seed=1)
    for description, batch in zip(descriptions, together, strict=True):
        alone = generator.sample(description, 2, seed=1)
        assert all(one.distance(two) < 1e-4 for one, two in zip(batch, alone, strict=True))
        assert [entry.provenance for entry in batch] == [entry.provenance for entry in alone]


def test_saved_and_loaded_it_gives_the_same_bytes(generator: Generator, folder: Path, toy_backbone: Backbone) -> None:
    loaded = Generator.from_pretrained(folder, toy_backbone)
    assert loaded.fingerprint == generator.fingerprint
    assert stored(loaded.sample(DESCRIPTION, 2, seed=9)) == stored(generator.sample(DESCRIPTION, 2, seed=9))
    assert loaded.training == json.loads(json.dumps(generator.training))


def test_saved_again_it_has_the_same_bytes(folder: Path, toy_backbone: Backbone) -> None:
    again = Generator.from_pretrained(folder, toy_backbone).save_pretrained(folder.with_name("again"))
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


SAMPLING = {"draw": "estimate", "sampler": "dpm_solver_2m", "steps": 6, "guidance": 1.0, "temperature": 1.0}


def test_provenance_is_complete(estimator: Generator) -> None:
    task = toys.ToySuite().tasks("seen")[1]
    adapter = estimator.sample(task.description, 2, seed=6)[1]
    provenance = dict(adapter.provenance)
    assert provenance == {
        "source": "generated",
        "generator": estimator.fingerprint,
        "seed": 6,
        "sample": 1,
        "task": "seen-1",
        "sampling": SAMPLING,
        "description": description_provenance(task.description),
    }
    assert json.loads(json.dumps(provenance)) == provenance


def test_provenance_has_the_cross_validation(posterior: Generator, tmp_path: Path) -> None:
    table = posterior.cross_validation
    assert table is not None
    (adapter,) = posterior.sample(DESCRIPTION, 1, seed=6)
    provenance = adapter.provenance
    assert provenance["made_of"] == table.composition
    assert provenance["cross_validation"]["tasks"] == len(toys.MORE_LEVELS)
    assert provenance["cross_validation"]["few_tasks"] is True
    assert provenance["cross_validation"]["accuracy"]["generated"] == round(table.delivered.accuracy, 2)
    assert json.loads(json.dumps(dict(provenance))) == dict(provenance)
    loaded = Generator.from_pretrained(posterior.save_pretrained(tmp_path / "g"), posterior.backbone)
    assert loaded.cross_validation == table


def test_provenance_of_images_is_number_and_hash_and_never_pixels() -> None:
    images = toys.random_images(3)
    provenance = description_provenance(Description(backgrounds=images, text="a river", metadata={"level": 3.0}))
    assert provenance["metadata"] == {"level": 3.0}
    assert provenance["text"] == "a river"
    assert set(provenance["backgrounds"]) == {"images", "sha256"}
    assert provenance["backgrounds"]["images"] == 3
    other = description_provenance(Description(backgrounds=images[::-1]))
    assert other["backgrounds"]["sha256"] != provenance["backgrounds"]["sha256"]


def test_the_fingerprint_depends_on_weights_and_sampling_and_not_on_what_is_drawn(generator: Generator) -> None:
    assert generator.with_sampling(steps=7).fingerprint != generator.fingerprint
    assert len({generator.with_sampling(draw=draw).fingerprint for draw in ("estimate", "posterior")}) == 1
    moved = replace(generator, codec=replace(generator.codec, mean=generator.codec.mean + 1e-3))
    assert moved.fingerprint != generator.fingerprint


def test_the_fingerprint_is_that_of_what_lies_on_disk(generator: Generator, folder: Path) -> None:
    assert stored_fingerprint(read_artifact(folder, "generator")) == generator.fingerprint


def test_temperature_zero_and_more_guidance_change_what_is_sampled(latents: Generator) -> None:
    cold = latents.with_sampling(temperature=0.0).sample(DESCRIPTION, 2, seed=0)
    assert cold[0].distance(cold[1]) < 1e-5
    guided = latents.with_sampling(guidance=3.0).sample(DESCRIPTION, 1, seed=0)[0]
    assert guided.distance(latents.sample(DESCRIPTION, 1, seed=0)[0]) > 1e-4


@pytest.mark.parametrize(
    "part", [Description(metadata={"level": 100.0}), Description(backgrounds=toys.random_images(3))]
)
def test_a_missing_part_is_no_obstacle(generator: Generator, toy_backbone: Backbone, part: Description) -> None:
    toy_backbone.check(generator.sample(part, 1, seed=0)[0])


@pytest.mark.parametrize(
    ("description", "values"),
    [
        (Description(), ("nothing", "metadata", "backgrounds")),
        (Description(text="a river"), ("text", "metadata", "backgrounds")),
        (Description(metadata={}), ("metadata",)),
        (Description(metadata={"altitude": 3.0}), ("altitude", "level")),
        (Description(metadata={"level": "high"}), ("level", "high")),
    ],
)
def test_a_description_without_information_is_refused(
    generator: Generator, description: Description, values: tuple[str, ...]
) -> None:
    with refused(DescriptionError, *values):
        generator.sample(description, 1, seed=0)


@pytest.mark.parametrize("n", [0, -1])
def test_no_samples_are_refused(generator: Generator, n: int) -> None:
    with refused(DescriptionError, n):
        generator.sample(DESCRIPTION, n, seed=0)


@pytest.mark.parametrize("changes", [{"sampler": "magic"}, {"steps": 0}])
def test_sampling_that_does_not_exist_is_refused(changes: dict) -> None:
    with refused(DescriptionError, *changes.values()):
        Sampling(**changes)


def test_another_backbone_is_refused(folder: Path) -> None:
    other = toys.backbone(seed=1)
    with refused(AdapterMismatchError, "toy", other.backbone_hash[:12]):
        Generator.from_pretrained(folder, other)


def test_a_backbone_of_ones_own_is_needed(folder: Path) -> None:
    with refused(ArtifactError, folder, "toy"):
        Generator.from_pretrained(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["generator"]


def test_a_backbone_with_another_lora_is_adapted(folder: Path, toy_backbone: Backbone) -> None:
    other = toy_backbone.with_lora(replace(toys.LORA, rank=1))
    toy_backbone.check(Generator.from_pretrained(folder, other).sample(DESCRIPTION, 1, seed=0)[0])


def test_a_newer_schema_is_refused(folder: Path, toy_backbone: Backbone) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": SCHEMA_VERSION + 1}))
    with refused(SchemaVersionError, SCHEMA_VERSION + 1):
        Generator.from_pretrained(folder, toy_backbone)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("posterior", name) for name in ("codec", "autoencoder", "conditions", "mean", "posterior")),
        ("latents", "denoiser"),
    ],
)
def test_a_truncated_file_is_named(
    posterior: Generator, latents: Generator, toy_backbone: Backbone, tmp_path: Path, kind: str, name: str
) -> None:
    folder = (posterior if kind == "posterior" else latents).save_pretrained(tmp_path / "generator")
    path = folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with refused(ArtifactError, f"{name}.safetensors", path.stat().st_size):
        Generator.from_pretrained(folder, toy_backbone)


def test_one_of_an_earlier_version_is_to_be_fitted_again(
    estimator: Generator, toy_backbone: Backbone, tmp_path: Path
) -> None:
    folder = estimator.save_pretrained(tmp_path / "generator")
    artifact = read_artifact(folder, "generator")
    config = {name: value for name, value in artifact.config.items() if name != "posterior"}
    write_artifact(tmp_path / "old", "generator", config, {name: dict(own) for name, own in artifact.tensors.items()})
    with refused(ArtifactError, tmp_path / "old"):
        Generator.from_pretrained(tmp_path / "old", toy_backbone)


def test_a_missing_generator_is_refused(tmp_path: Path) -> None:
    with refused(ArtifactError, tmp_path / "nowhere"):
        Generator.from_pretrained(tmp_path / "nowhere")


def test_a_save_that_fails_leaves_the_old_generator(
    generator: Generator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with refused(ArtifactError, "disk is full"):
        generator.with_sampling(steps=3).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_path_of_generating_imports_no_training_library(generator: Generator, folder: Path) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(toys.__file__).parent)!r})
        import toys
        from wildpdiff.generator import Generator
        from wildpdiff.tasks.description import Description
        generator = Generator.from_pretrained({str(folder)!r}, toys.backbone())
        generator.sample(Description(metadata={{"level": 100.0}}), 1, 0)[0].save({str(folder.with_name("out"))!r})
        heavy = "peft transformers sklearn pyarrow matplotlib scipy pandas diffusers accelerate ray".split()
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert Adapter.load(folder.with_name("out")).provenance["source"] == generator.name


def test_sampling_leaves_the_global_generator_alone(generator: Generator) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    generator.sample(DESCRIPTION, 1, seed=0)
    assert torch.rand(2).tolist() == expected
