from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wildpdiff.conditional_mean.kernel import KernelMean, fit_kernel_mean
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema(
    (
        MetadataField("latitude", "number", geographic="latitude"),
        MetadataField("longitude", "number", geographic="longitude"),
        MetadataField("height", "number"),
        MetadataField("noise", "number"),
    )
)


def described(count: int, seed: int) -> list[Description]:
    draws = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 4, generator=draws)
    return [Description(metadata=dict(zip(SCHEMA.names, row.tolist(), strict=True))) for row in rows]


def truth(descriptions: list[Description]) -> Tensor:
    """An additive function of the site and the height; the fourth field has no effect."""
    rows = torch.tensor([[float(v) for v in (d.metadata or {}).values()] for d in descriptions])
    site, height = torch.sin(3 * rows[:, 0] + 2 * rows[:, 1]), rows[:, 2].square()
    return torch.stack([site + height, site - 2 * height, torch.ones(len(rows))], dim=1)


def embedded(encoder: FusionEncoder, descriptions: list[Description]) -> Tensor:
    return torch.stack([encoder.encode(entry).values for entry in descriptions])


def fitted(count: int = 60, seed: int = 0) -> tuple[FusionEncoder, KernelMean, list[Description]]:
    seen = described(count, seed)
    encoder = fit_fusion(seen, SCHEMA, lambda images: torch.zeros(len(images), 1), ("metadata",))
    return encoder, fit_kernel_mean(encoder, embedded(encoder, seen), truth(seen)), seen


def with_own(mean: KernelMean, query: Tensor) -> Tensor:
    """The regression, and near a seen task that task's own targets."""
    return mean.predict(query) + mean.anchor_weights(query) @ (mean.targets - mean.predict(mean.seen))


def test_it_predicts_unseen_descriptions_and_reads_only_what_tells() -> None:
    encoder, mean, seen = fitted()
    new = described(40, 1)
    error = (with_own(mean, embedded(encoder, new)) - truth(new)).square().mean()
    spread = (truth(new) - truth(seen).mean(0)).square().mean()
    assert error < 0.2 * spread
    assert mean.relative_error < 0.5
    noise = encoder.groups[-1][1]
    assert sum(term.weight for term in mean.terms if term.columns == noise) <= 0.25
    assert any(term.columns == encoder.groups[0][1] for term in mean.terms)


def test_at_seen_tasks_it_gives_their_own_latents_and_the_smooth_part_does_not() -> None:
    encoder, _, seen = fitted()
    noisy = truth(seen) + 0.5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(3))
    mean = fit_kernel_mean(encoder, embedded(encoder, seen), noisy)
    own = embedded(encoder, seen)
    assert torch.allclose(with_own(mean, own), noisy, atol=0.02)
    assert (mean.predict(own) - truth(seen)).square().mean() < (mean.predict(own) - noisy).square().mean()


def test_nothing_known_gives_the_constant_and_masks_number_the_parts() -> None:
    encoder, mean, _ = fitted()
    null = encoder.null[None]
    assert torch.allclose(mean.predict(null)[0], mean.constant)
    assert not mean.anchor_weights(null).any()
    assert mean.presence_masks(null).tolist() == [0]
    assert mean.presence_masks(mean.seen[:2]).tolist() == [1, 1]
    assert torch.equal(mean.masked_embeddings(1), mean.seen)
    assert torch.equal(mean.masked_embeddings(0), null.expand(60, -1))
    assert torch.allclose(mean.predict(mean.masked_embeddings(0)), mean.constant.expand(60, -1))


def test_leaving_one_out_is_fitting_without_it() -> None:
    encoder, mean, seen = fitted(20)
    embeddings = embedded(encoder, seen)
    kernel = mean.kernel_between(embeddings, mean.seen).double()
    for left in (0, 7):
        rest = [row for row in range(20) if row != left]
        inverse = torch.linalg.inv(kernel[rest][:, rest] + mean.ridge * torch.eye(19, dtype=torch.float64))
        targets = truth(seen)[rest].double()
        constant = inverse.sum(0) @ targets / inverse.sum()
        expected = constant + kernel[left, rest] @ (inverse @ (targets - constant))
        assert torch.allclose(mean.leave_one_out()[left], expected.float(), atol=1e-4)
    nothing = mean.leave_one_out(0)
    assert torch.allclose(nothing[3], truth(seen)[[row for row in range(20) if row != 3]].mean(0), atol=1e-4)


def test_descriptions_that_tell_nothing_leave_the_mean_of_the_tasks() -> None:
    seen = described(30, 4)
    encoder = fit_fusion(seen, SCHEMA, lambda images: torch.zeros(len(images), 1), ("metadata",))
    constant = torch.ones(30, 2) * torch.tensor([1.0, -2.0])
    mean = fit_kernel_mean(encoder, embedded(encoder, seen), constant)
    assert mean.terms == ()
    assert torch.allclose(mean.predict(embedded(encoder, described(3, 5))), constant[:3], atol=1e-5)


def test_it_is_restored_to_the_same_bytes() -> None:
    encoder, mean, _ = fitted()
    again = KernelMean.from_state(mean.config, mean.tensors, mean.sizes)
    query = embedded(encoder, described(5, 6))
    assert torch.equal(again.predict(query), mean.predict(query))
    assert torch.equal(again.anchor_weights(query), mean.anchor_weights(query))


def test_few_tasks_give_the_constant() -> None:
    encoder, mean, seen = fitted(count=3)
    assert mean.terms == ()
    assert torch.allclose(
        mean.predict(embedded(encoder, described(2, 7))), truth(seen).mean(0).expand(2, -1), atol=1e-5
    )


def test_held_out_predictions_are_those_without_the_task_also_where_parts_are_missing() -> None:
    texts = [
        replace(entry, text=None if row % 3 == 0 else ("desert at night", "green forest by a river")[row % 2])
        for row, entry in enumerate(described(20, 8))
    ]
    encoder = fit_fusion(texts, SCHEMA, lambda images: torch.zeros(len(images), 1), ("metadata", "text"))
    own = embedded(encoder, texts)
    assert own[:, -1].unique().tolist() == [0.0, 1.0]
    offsets = torch.tensor([2.0 * (row % 2) for row in range(20)])[:, None]
    targets = truth(texts) + torch.where(own[:, -1:] > 0.5, offsets, 1.0)
    mean = fit_kernel_mean(encoder, own, targets)
    assert {term.part for term in mean.terms} == {"metadata", "text"}
    found = mean.held_out()
    for row in range(20):
        left = mean.without(torch.arange(20) == row)
        torch.testing.assert_close(found[row], left.predict(own[row : row + 1])[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, mean.leave_one_out(), atol=1e-2)
    whole = fitted(20)[1]
    assert torch.equal(whole.held_out(), whole.leave_one_out())
