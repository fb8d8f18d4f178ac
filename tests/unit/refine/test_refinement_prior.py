"""The prior's second moments are those of the errors, and its errors are those of a mean fitted without the task."""

from dataclasses import replace

import pytest
import torch

import toys
from refusals import refused
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.fit import FittedGenerator
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.starts import FREE, Starts
from wildpdiff.rng import torch_generator

LAYOUT = Layout((("a", (2, 3)), ("b", (4,))))


def test_the_covariance_is_that_of_the_errors() -> None:
    errors = torch.randn(30, 10, generator=torch_generator(0, "errors"))
    prior = RefinementPrior.of_errors(LAYOUT, errors, "test")
    assert torch.allclose(prior.directions.T @ prior.directions, errors.T @ errors / 30, atol=1e-5)


def test_few_directions_are_the_largest_and_orthogonal() -> None:
    errors = torch.randn(30, 10, generator=torch_generator(0, "errors")) * torch.arange(1.0, 11.0)
    prior = RefinementPrior.of_errors(LAYOUT, errors, "test", directions=3)
    gram = prior.directions @ prior.directions.T
    assert prior.directions.shape == (3, 10)
    assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-3)
    largest = torch.linalg.eigvalsh(errors.T @ errors / 30).flip(0)[:3]
    assert torch.allclose(gram.diagonal(), largest, rtol=1e-4)


def test_directions_without_any_error_are_not_kept() -> None:
    errors = torch.zeros(6, 10)
    errors[:, 2] = torch.arange(6.0)
    assert len(RefinementPrior.of_errors(LAYOUT, errors, "test").directions) == 1


@pytest.mark.parametrize("errors", [torch.zeros(5, 10), torch.zeros(0, 10)])
def test_no_errors_are_refused(errors: torch.Tensor) -> None:
    with refused(DataError):
        RefinementPrior.of_errors(LAYOUT, errors, "test")


def test_starts_of_seen_tasks(toy_backbone: Backbone) -> None:
    """The generated adapter with the prior of what was held out, the mean adapter with that of their spread."""
    layout = Layout.of(toys.random_adapter(toy_backbone, 0).tensors)
    draws = torch_generator(1, "adapters")
    adapters, held_out = (torch.randn(7, layout.size, generator=draws) for _ in range(2))
    points = Starts.of_seen_tasks(toy_backbone, layout, adapters, held_out)
    given = toys.random_adapter(toy_backbone, 3)
    generated, free, mean, pretrained = replace(points, fewest_directions=7)(given)
    assert [point.name for point in (generated, free, mean, pretrained)] == [
        "generated",
        FREE,
        "mean adapter",
        "pretrained",
    ]
    assert free.adapter is generated.adapter is given
    assert [point.name for point in points(given)[:2]] == [FREE, "generated"]  # 7 directions are few
    assert (free.prior, pretrained.prior) == (None, None)
    assert generated.prior is not None
    assert mean.prior is not None
    wrong = adapters - held_out
    assert torch.allclose(generated.prior.directions.T @ generated.prior.directions, wrong.T @ wrong / 7, atol=1e-4)
    around = adapters - adapters.mean(0)
    assert torch.allclose(mean.prior.directions.T @ mean.prior.directions, around.T @ around / 7, atol=1e-4)
    assert torch.allclose(layout.flatten(mean.adapter.tensors), adapters.mean(0), atol=1e-6)


def test_further_candidates_start_under_the_prior(toy_backbone: Backbone) -> None:
    layout = Layout.of(toys.random_adapter(toy_backbone, 0).tensors)
    prior = RefinementPrior.of_errors(layout, torch.randn(4, layout.size, generator=torch_generator(1, "a")), "test")
    samples = [toys.random_adapter(toy_backbone, seed) for seed in (4, 5)]
    points = Starts(toy_backbone, prior, (), samples)(toys.random_adapter(toy_backbone, 3))
    assert [point.name for point in points if point.further] == ["sample 1", "sample 2"]
    assert all(point.prior is prior and point.adapter is samples[i] for i, point in enumerate(points[3:]))
    with refused(AdapterMismatchError, toy_backbone.backbone_hash[:12]):
        Starts(toy_backbone, prior, (), [toys.random_adapter(toys.backbone(1), 0)])(samples[0])


def test_the_prior_of_a_generator_is_that_of_its_errors(toy_fit: FittedGenerator, toy_backbone: Backbone) -> None:
    generator = toy_fit.generator
    assert generator.mean is not None
    points = Starts.of_generator(generator)
    assert points.prior is not None
    decode = generator.codec.decode
    wrong = decode(generator.mean.adapters) - decode(generator.mean.held_out)
    assert float(points.prior.directions.square().sum()) == pytest.approx(float(wrong.square().sum(1).mean()), rel=1e-3)
    with refused(AdapterMismatchError, toy_backbone.backbone_hash[:12]):
        points(toys.random_adapter(toys.backbone(1), 0))


def test_a_generator_without_a_mean_has_no_record(toy_fit: FittedGenerator) -> None:
    with refused(DataError):
        Starts.of_generator(replace(toy_fit.generator, mean=None))


def test_the_pretrained_start_is_the_pretrained_model(toy_backbone: Backbone) -> None:
    points = Starts.without_generator(toy_backbone)(toys.random_adapter(toy_backbone, 0))
    assert [(point.name, point.prior) for point in points] == [("generated", None), ("pretrained", None)]
    features = toy_backbone.stem(toys.random_images(5))
    assert torch.equal(toy_backbone.predict(features, points[1].adapter.tensors), toy_backbone.predict(features))
