"""Unconditional p-diff: its published architecture and schedule, and that it learns at a small size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from refusals import refused
from wildbench.methods.pdiff import PDiff, UnconditionalPDiffSource, fit_pdiff
from wildbench.methods.pdiff_networks import PDiffConfig, PDiffDenoiser, convolutional_autoencoder
from wildpdiff.adapters.layout import Layout
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError, TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.store import Zoo

TINY = PDiffConfig(latent_size=8, channels=(4, 8, 4), autoencoder_steps=4, denoiser_steps=4, batch=6, times=5, pool=6)
LAYOUT = Layout((("a", (5, 4)), ("b", (3,)), ("still", (7,))))


def checkpoints(n: int = 12) -> Tensor:
    """Two clusters, of which tensor ``b`` is far larger than ``a``; ``still`` is the same in all."""
    draws = torch_generator(0, "checkpoints")
    vectors = torch.randn(n, LAYOUT.size, generator=draws) * 0.1 + torch.arange(n)[:, None] % 2
    vectors[:, 20:23] = 40.0 + 10.0 * vectors[:, 20:23]
    vectors[:, 23:] = torch.randn(7, generator=draws)
    return vectors


@pytest.fixture(scope="module")
def model() -> PDiff:
    return fit_pdiff(checkpoints(), LAYOUT, TINY)


def shapes(module: nn.Module, kind: type[nn.Conv1d] | type[nn.ConvTranspose1d]) -> list[tuple[int, int, int, int]]:
    found = [entry for entry in module.modules() if isinstance(entry, kind)]
    return [(entry.in_channels, entry.out_channels, entry.kernel_size[0], entry.stride[0]) for entry in found]


def test_the_denoiser_is_the_published_one() -> None:
    denoiser = PDiffDenoiser(128)
    widths = [1, 64, 128, 256, 512, 256, 128, 64, 1]
    assert shapes(denoiser, nn.Conv1d) == [(widths[i], widths[i + 1], 7, 1) for i in range(8)]
    assert sum(isinstance(entry, nn.BatchNorm1d) for entry in denoiser.modules()) == 7
    assert denoiser(torch.zeros(3, 128), torch.zeros(3), torch.zeros(3, 0)).shape == (3, 128)


def test_the_autoencoder_is_the_published_one() -> None:
    autoencoder = convolutional_autoencoder(2048, 128)
    widths = [1, 64, 128, 256, 256, 32]
    assert shapes(autoencoder.encoder, nn.Conv1d) == [(widths[i], widths[i + 1], 7, 2) for i in range(5)]
    widths = [32, 256, 256, 128, 64, 64]
    assert shapes(autoencoder.decoder, nn.ConvTranspose1d) == [(widths[i], widths[i + 1], 7, 2) for i in range(5)]
    assert shapes(autoencoder.decoder, nn.Conv1d) == [(64, 1, 7, 1)]


def test_it_has_about_as_many_parameters_as_published() -> None:
    networks = convolutional_autoencoder(2048, 128), PDiffDenoiser(128)
    count = sum(value.numel() for network in networks for value in network.parameters())
    assert count == pytest.approx(4.66e6, rel=0.015)


def test_the_settings_are_the_published_ones() -> None:
    config = PDiffConfig()
    assert (config.latent_size, config.batch, config.times) == (128, 50, 1000)
    assert (config.autoencoder_steps, config.autoencoder_rate) == (500, 2e-5)
    assert (config.denoiser_steps, config.denoiser_rate) == (1000, 1e-4)
    assert (config.input_noise, config.latent_noise) == (0.001, 0.1)
    assert PDiffConfig.from_json(config.to_json()) == config


def test_sampling_goes_through_every_time_of_the_linear_schedule() -> None:
    schedule = Schedule("linear", "epsilon", 1000)
    assert schedule.times(1000).tolist() == [*range(999, -1, -1), -1]
    betas = 1 - schedule.alphas_cumprod[1:] / schedule.alphas_cumprod[:-1]
    assert float(1 - schedule.alphas_cumprod[0]) == pytest.approx(1e-4)
    assert float(betas[-1]) == pytest.approx(0.02)
    torch.testing.assert_close(betas.diff(), betas.diff()[:1].expand(998), rtol=1e-6, atol=1e-9)


def test_time_and_skips_reach_the_output() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = PDiffDenoiser(8, (4, 8, 4)).eval()
    z = torch.randn(2, 8, generator=torch_generator(0, "z"))
    cond = torch.zeros(2, 0)
    base = denoiser(z, torch.tensor([3.0, 3.0]), cond)
    assert not torch.allclose(base, denoiser(z, torch.tensor([900.0, 3.0]), cond))
    nn.init.zeros_(denoiser.convolutions[1].weight)
    nn.init.zeros_(denoiser.convolutions[2].weight)
    t = torch.tensor([3.0, 3.0])
    # With the middle switched off, what is left of the input comes through the skip alone.
    assert not torch.allclose(denoiser(z, t, cond), denoiser(z + 1.0, t, cond))


@pytest.mark.parametrize("channels", [(), (4, 8), (4, 8, 6)])
def test_channels_without_partners_for_the_skips_are_refused(channels: tuple[int, ...]) -> None:
    with refused(TrainingError):
        PDiffDenoiser(8, channels)


def test_rows_do_not_depend_on_each_other_when_sampling(model: PDiff) -> None:
    z = torch.randn(3, 8, generator=torch_generator(0, "z"))
    t = torch.tensor([0.0, 2.0, 4.0])
    together = model.denoiser(z, t, z[:, :0])
    torch.testing.assert_close(together[:1], model.denoiser(z[:1], t[:1], z[:1, :0]))
    torch.testing.assert_close(model.decode(z)[:1], model.decode(z[:1]))


def test_normalised_by_one_mean_and_deviation_a_tensor(model: PDiff) -> None:
    vectors = checkpoints()
    assert model.moving.tolist() == [True] * 23 + [False] * 7
    assert len(model.mean.unique()) == len(model.scale.unique()) == 2
    assert float(model.mean[0]) == pytest.approx(float(vectors[:, :20].mean()), rel=1e-4)
    assert float(model.scale[-1]) == pytest.approx(float(vectors[:, 20:23].std(correction=0)), rel=1e-4)


def test_untrained_tensors_are_kept(model: PDiff) -> None:
    decoded = model.decode(model.sample_latents(3, seed=0))
    assert torch.equal(decoded[:, 23:], checkpoints()[:3, 23:])
    assert decoded.isfinite().all()


def test_the_autoencoder_fits_one_vector() -> None:
    vector = checkpoints(1)
    config = replace(TINY, autoencoder_steps=100, autoencoder_rate=4e-3, denoiser_steps=1, batch=2)
    fitted = fit_pdiff(vector, LAYOUT, config)
    assert bool(fitted.moving.all())
    assert float((fitted.decode(fitted.encode(vector)) - vector).square().mean()) < 0.02 * float(vector.var())


def test_training_lowers_both_losses_and_samples_come_near_the_checkpoints() -> None:
    losses: dict[str, list[float]] = {}
    config = replace(
        TINY, autoencoder_steps=80, autoencoder_rate=3e-3, denoiser_steps=150, denoiser_rate=8e-3, batch=12,
        channels=(8, 16, 32, 16, 8), times=100,
    )  # fmt: skip
    vectors = checkpoints()
    fitted = fit_pdiff(
        vectors,
        LAYOUT,
        config,
        seed=0,
        progress=lambda what, done, steps, loss: losses.setdefault(what, []).append(loss),
    )
    assert {what: len(values) for what, values in losses.items()} == {"autoencoder": 80, "denoiser": 150}
    for values in losses.values():
        assert sum(values[-10:]) < 0.5 * sum(values[:10])
    drawn = fitted.decode(fitted.sample_latents(32, seed=1))
    far = torch.cdist(drawn[:, :20], vectors[:, :20]).min(1).values.median()
    between = (vectors[0, :20] - vectors[1, :20]).norm()
    assert float(far) < 0.4 * float(between)


def test_the_learning_rate_falls_along_half_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> None:
        rates.append(self.param_groups[0]["lr"])
        real(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    fit_pdiff(checkpoints(), LAYOUT, TINY)
    expected = [rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * i / 4))) for rate in (2e-5, 1e-4) for i in range(4)]
    assert rates == pytest.approx([float(rate) for rate in expected])


def test_seeds_decide_the_training(model: PDiff) -> None:
    same, other = fit_pdiff(checkpoints(), LAYOUT, TINY, seed=0), fit_pdiff(checkpoints(), LAYOUT, TINY, seed=1)
    assert torch.equal(model.encode(checkpoints()), same.encode(checkpoints()))
    assert not torch.allclose(model.encode(checkpoints()), other.encode(checkpoints()))


def test_what_cannot_be_trained_on_is_refused() -> None:
    with refused(TrainingError):
        fit_pdiff(checkpoints()[:0], LAYOUT, TINY)
    with refused(TrainingError, 3):
        fit_pdiff(checkpoints()[:1].repeat(3, 1), LAYOUT, TINY)
    with refused(AdapterMismatchError, 29, 30):
        fit_pdiff(checkpoints()[:, 1:], LAYOUT, TINY)
    with refused(TrainingError, "p-diff autoencoder", 1):
        fit_pdiff(checkpoints() * torch.inf, LAYOUT, TINY)


def test_a_source_of_a_zoo_draws_from_its_pool(toy_zoo: Zoo, tmp_path: Path) -> None:
    source = UnconditionalPDiffSource.fit(toy_zoo, TINY, seed=3)
    description = Description(task_id="unseen-1")
    adapters = source.sample(description, 6, seed=1)
    rows = [adapter.provenance["pool_index"] for adapter in adapters]
    assert sorted(rows) == list(range(6))
    for adapter, row in zip(adapters, rows, strict=True):
        assert torch.equal(source.model.layout.flatten(adapter.tensors), source.pool[row])
    with refused(DescriptionError, 7, 6):
        source.sample(description, 7, seed=0)
    again = UnconditionalPDiffSource.load(source.save(tmp_path / "p-diff"))
    assert [dict(adapter.provenance) for adapter in again.sample(description, 6, seed=1)] == [
        dict(adapter.provenance) for adapter in adapters
    ]
    assert all(
        one.distance(two) == 0.0 for one, two in zip(again.sample(description, 6, seed=1), adapters, strict=True)
    )
    assert torch.equal(again.model.sample_latents(2, seed=9), source.model.sample_latents(2, seed=9))
    assert torch.equal(again.model.decode(torch.ones(1, 8)), source.model.decode(torch.ones(1, 8)))


def test_one_task_alone_can_be_learned(toy_zoo: Zoo) -> None:
    source = UnconditionalPDiffSource.fit(toy_zoo.only([toy_zoo.tasks[1]]), TINY)
    assert source.sample(Description(), 1, seed=0)[0].size == toy_zoo.initial.size


def test_another_artifact_is_refused(tmp_path: Path) -> None:
    with refused(ArtifactError, tmp_path):
        UnconditionalPDiffSource.load(tmp_path)
