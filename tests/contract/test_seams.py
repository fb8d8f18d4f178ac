"""Tables that every suite, encoder, autoencoder, denoiser and sampler passes, for any problem, device and dtype."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from problems import POINTS, PROBLEMS, SCHEMA
from wildpdiff.adapters.layout import Layout
from wildpdiff.artifact import read_safetensors, safetensors_bytes
from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.fit import AUTOENCODERS, AutoencoderConfig, fit_autoencoder, restore_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.codec.codec import Codec
from wildpdiff.conditions.base import ConditionEncoder, Featuriser
from wildpdiff.conditions.images import ImageSetEncoder
from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.conditions.task_id import TaskIdEncoder
from wildpdiff.conditions.text import TextEncoder
from wildpdiff.diffusion.denoiser import Denoiser, DenoiserNetwork, guided
from wildpdiff.diffusion.networks import NETWORKS, build_denoiser, restore_denoiser
from wildpdiff.diffusion.samplers import SAMPLERS, Sampler, standard_noise
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import batch_size
from wildpdiff.tasks.dataset import PlainSuite, example_keys
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.tasks.task import GROUPS, SPLITS, Examples, Suite, Task

KINDS = ("image classification", "vector regression", "text classification")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
PLACES = [("cpu", torch.float32), ("cpu", torch.float64), ("meta", torch.float32)]
PLACES += [pytest.param("cuda", dtype, marks=CUDA) for dtype in (torch.float32, torch.float64)]  # type: ignore[misc]
"""Device and type. ``meta`` has shapes alone: tensors of two devices that meet are found without a GPU."""

problems = pytest.mark.parametrize("problem", KINDS)
places = pytest.mark.parametrize(("device", "dtype"), PLACES)


@cache
def backbone(problem: str) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PROBLEMS[problem].backbone()


# Suites


def table(folder: Path, more: int = 0) -> Path:
    """A table of grey pictures: three cameras, each with two classes."""
    lines = ["path,label,task,level"]
    for camera in range(3):
        for number in range(20 + more):
            name = f"{camera}-{number}.png"
            Image.new("RGB", (12, 12), (12 * number % 256, 80 * camera, number)).save(folder / name)
            lines.append(f"{name},{('dark', 'bright')[number % 2]},camera-{camera},{camera}")
    (folder / "pictures.csv").write_text("\n".join(lines))
    return folder / "pictures.csv"


def plain(problem: str) -> Callable[[Path, bool], Suite]:
    def make(folder: Path, other: bool) -> PlainSuite:
        return PROBLEMS[problem].suite(POINTS[: 3 + other])

    return make


SUITES: dict[str, Callable[[Path, bool], Suite]] = {
    **{problem: plain(problem) for problem in KINDS},
    "simulated": lambda folder, other: load_suite(
        "savanna", seed=int(other), image_size=24, pretraining=1, seen=2, unseen=1, train=4, validation=2, test=2
    ),
    "table": lambda folder, other: load_suite(table(folder, more=4 * other), image_size=8),
}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_the_same_at_any_time_and_its_fingerprint_that_of_its_data(name: str, tmp_path: Path) -> None:
    one, two = (SUITES[name](tmp_path, False) for _ in range(2))
    assert isinstance(one, Suite)
    names = [task.name for group in GROUPS for task in one.tasks(group)]
    assert len(names) == len(set(names)) > 1
    fields = {field.name for field in one.metadata_schema.fields}
    for group in GROUPS:
        for task, same in zip(one.tasks(group), two.tasks(group), strict=True):
            assert isinstance(task, Task)
            assert task.name == same.name
            assert set(task.description.metadata or {}) <= fields
            for split in SPLITS:
                data = task.data(split)
                assert isinstance(data, Examples)
                assert len(data) == len(data.targets) == len(example_keys(data.inputs)) > 0
                for part in ("inputs", "targets"):
                    assert example_keys(getattr(data, part)) == example_keys(getattr(same.data(split), part))
    assert one.fingerprint == two.fingerprint != SUITES[name](tmp_path, True).fingerprint


@problems
def test_examples_become_a_batch_of_the_model(problem: str) -> None:
    model, task = backbone(problem), PROBLEMS[problem].task(0.5)
    batch = model.batch(task.data("test"))
    assert batch_size(batch) == len(task.data("test"))
    outputs = model.predict(batch)
    assert outputs.dtype == torch.float32
    assert (
        model.objective.loss(outputs, batch).shape
        == model.objective.score(outputs, batch).shape
        == batch[TARGETS].shape[:1]
    )


# Encoders


def sentences(texts: Sequence[str]) -> Tensor:
    """Counts of letters, in place of a model."""
    return torch.tensor([[text.count(letter) for letter in "aeiou"] for text in texts]).float()


def describe(problem: str, row: int) -> Description:
    """Every part; images where the problem has some."""
    task = PROBLEMS[problem].task(POINTS[row])
    pictures = {"image classification": {"examples": np.asarray(task.data("train").inputs)}}.get(problem, {})
    text = f"A {'very ' * (row % 3)}dark site {'a' * row} at {row} metres."
    return replace(task.description, text=text, task_id=task.name, **pictures)


def mean_colours(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float().mean((1, 2)) / 255


ENCODERS: dict[str, Callable[[Sequence[Description]], ConditionEncoder]] = {
    "metadata": lambda seen: MetadataEncoder.fit(seen, SCHEMA),
    "examples": lambda seen: ImageSetEncoder.fit(seen, "examples", mean_colours, components=3),
    "text": lambda seen: TextEncoder.fit(seen, components=3, featurise=sentences),
    "task_id": TaskIdEncoder.fit,
}
FEATURISERS: dict[str, Featuriser] = {"examples": mean_colours}


@problems
@pytest.mark.parametrize("part", ENCODERS)
def test_an_encoder_gives_numbers_of_one_length_and_its_state_is_all_of_it(
    part: str, problem: str, tmp_path: Path
) -> None:
    seen = [describe(problem, row) for row in range(6)]
    if getattr(seen[0], part) is None:
        pytest.skip("the problem has no such part")
    encoder = ENCODERS[part](seen)
    assert isinstance(encoder, ConditionEncoder)
    assert encoder.part == part
    assert {column for group in encoder.groups for column in group} <= set(range(encoder.size))
    (tmp_path / "state").write_bytes(safetensors_bytes(encoder.tensors))
    config, tensors = json.loads(json.dumps(encoder.config)), read_safetensors(tmp_path / "state")
    again = type(encoder).from_state(config, tensors, FEATURISERS.get(part))
    again = replace(again, featurise=sentences) if isinstance(again, TextEncoder) else again
    for entry in seen:
        found, same = encoder.encode(entry), again.encode(entry)
        assert found.present
        assert found.values.shape == (encoder.size,)
        assert found.values.dtype == torch.float32
        assert torch.isfinite(found.values).all()
        assert torch.equal(found.values, same.values)
    assert len({encoder.encode(entry).values.numpy().tobytes() for entry in seen}) > 1
    for nothing in (replace(seen[0], **{part: None}), Description()):
        missing = encoder.encode(nothing)
        assert not missing.present
        assert not missing.values.any()


# Autoencoders


@cache
def adapter_vectors(problem: str) -> Tensor:
    """Normalised random adapters of the problem's model, within eight directions."""
    shapes = backbone(problem).shapes
    layout = Layout(tuple(sorted((name, tuple(shape)) for name, shape in shapes.items())))
    draws = torch_generator(0, problem)
    vectors = torch.randn(24, 8, generator=draws) @ torch.randn(8, layout.size, generator=draws)
    return Codec.fit(layout, vectors).encode(vectors)


@cache
def autoencoder(kind: str, problem: str) -> Autoencoder:
    config = AutoencoderConfig(latent_size=8, hidden=8, steps=3, batch=8)
    return fit_autoencoder(kind, adapter_vectors(problem), config, seed=0).model  # type: ignore[arg-type]


@problems
@places
@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_an_autoencoder_codes_each_vector_alone(kind: str, problem: str, device: str, dtype: torch.dtype) -> None:
    fitted = autoencoder(kind, problem)
    model = restore_autoencoder(json.loads(json.dumps(fitted.config)), fitted.state_dict()).to(device, dtype)
    x = adapter_vectors(problem).to(device, dtype, copy=True).requires_grad_()
    z = model.encode(x)
    decoded = model.decode(z)
    (slope,) = torch.autograd.grad(decoded.square().sum(), x)
    assert z.shape == (len(x), model.latent_size)
    assert decoded.shape == slope.shape == x.shape
    assert {value.device.type for value in (z, decoded)} == {device}
    assert {value.dtype for value in (z, decoded)} == {dtype}
    if device != "meta":
        torch.testing.assert_close(model.encode(x[3:5]), z[3:5])
        torch.testing.assert_close(model.decode(z[3:5]), decoded[3:5])
        torch.testing.assert_close(
            fitted.decode(fitted.encode(adapter_vectors(problem))).to(decoded), decoded, atol=1e-3, rtol=1e-3
        )
        assert bool((decoded - x).square().mean() < x.square().mean() / 2)
        assert bool(slope.any())


# Denoisers and samplers


def network(name: str, problem: str) -> DenoiserNetwork:
    """A small network for the latents of the problem, with weights of its own, not zero anywhere."""
    latents = autoencoder("pca", problem).latent_size
    model = build_denoiser({"network": name, "latent_size": latents, "condition_size": 3, "size": "tiny"})
    draws = torch_generator(0, "weights")
    for value in model.state_dict().values():
        value.copy_(0.2 * torch.randn(value.shape, generator=draws))
    return model.eval()


def inputs(problem: str, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Latents as noisy as they get, and conditions."""
    size = autoencoder("pca", problem).latent_size
    noise, cond = standard_noise(torch_generator(1), 5, size), torch.randn(5, 3, generator=torch_generator(2))
    return noise.to(device, dtype), cond.to(device, dtype)


@problems
@places
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_denoiser_predicts_each_row_alone(
    name: str, guidance: float, problem: str, device: str, dtype: torch.dtype
) -> None:
    first = network(name, problem)
    model = restore_denoiser(json.loads(json.dumps(first.config)), first.state_dict()).to(device, dtype)
    denoise = guided(model, guidance, torch.zeros(3))
    assert isinstance(denoise, Denoiser)
    z, cond = inputs(problem, device, dtype)
    t = torch.linspace(0, 999, 5, device=device, dtype=dtype)
    found = denoise(z, t, cond)
    assert found.shape == z.shape
    assert (found.device.type, found.dtype) == (device, dtype)
    if device != "meta":
        torch.testing.assert_close(denoise(z[1:3], t[1:3], cond[1:3]), found[1:3], atol=1e-5, rtol=1e-4)
        for other in (denoise(z.flip(0), t, cond), denoise(z, t.flip(0), cond), denoise(z, t, cond.flip(0))):
            assert not torch.allclose(other, found, atol=1e-4)


@problems
@places
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_stays_on_its_device_and_follows_its_seed(
    name: str, problem: str, device: str, dtype: torch.dtype
) -> None:
    sampler, model = SAMPLERS[name], network("residual", problem).to(device, dtype)
    assert isinstance(sampler, Sampler)
    noise, cond = inputs(problem, device, dtype)
    for prediction in ("epsilon", "sample", "velocity"):
        schedule = Schedule("linear", prediction)  # type: ignore[arg-type]
        one, two = (sampler(model, schedule, noise, cond, 4, torch_generator(3)) for _ in range(2))
        assert one.shape == noise.shape
        assert (one.device.type, one.dtype) == (device, dtype)
        if device != "meta":
            assert torch.equal(one, two)
            assert torch.isfinite(one).all()
            few = sampler(model, schedule, noise[:2], cond[:2], 4, torch_generator(3))
            torch.testing.assert_close(few, one[:2], atol=1e-4, rtol=1e-3)


@problems
@places
def test_a_schedule_s_algebra_stays_on_its_device(problem: str, device: str, dtype: torch.dtype) -> None:
    noise, _ = inputs(problem, device, dtype)
    t = torch.linspace(0, 999, len(noise), device=device, dtype=dtype)
    for prediction in ("epsilon", "sample", "velocity"):
        schedule = Schedule("cosine", prediction)  # type: ignore[arg-type]
        z_t = schedule.q_sample(noise, t, noise.flip(0))
        target = schedule.target(noise, t, noise.flip(0))
        for found in (z_t, target, schedule.sample_of(target, z_t, t), schedule.epsilon_of(target, z_t, t)):
            assert (found.device.type, found.dtype) == (device, dtype)
