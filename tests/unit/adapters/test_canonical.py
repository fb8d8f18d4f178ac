import json

import torch

import toys
from refusals import refused
from wildpdiff.adapters.canonical import aligned, balanced_factors, canonical, factor_pairs
from wildpdiff.adapters.layout import Layout
from wildpdiff.codec.codec import Codec
from wildpdiff.errors import ArtifactError
from wildpdiff.rng import torch_generator

BACKBONE = toys.backbone()


def turned(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Other factors of the same updates."""
    draws, result = torch_generator(seed, "mixing"), dict(tensors)
    for name_a, name_b in factor_pairs(tensors):
        rank = tensors[name_a].shape[0]
        mixing = torch.linalg.qr(torch.randn(rank, rank, generator=draws)).Q * torch.exp(
            torch.randn(rank, generator=draws)
        )
        result[name_a] = torch.einsum("sr,r...->s...", mixing, tensors[name_a])
        result[name_b] = torch.einsum("or...,rs->os...", tensors[name_b], torch.linalg.inv(mixing))
    return result


def stacked(count: int) -> dict[str, torch.Tensor]:
    each = [toys.random_tensors(BACKBONE, seed) for seed in range(count)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def test_canonical_factors_are_balanced_sorted_and_of_fixed_sign() -> None:
    tensors = toys.random_tensors(BACKBONE, 3)
    found = canonical(tensors)
    pairs = list(factor_pairs(tensors))
    assert len(pairs) == len(toys.LORA.target_modules)
    for name_a, name_b in pairs:
        a, b = found[name_a].flatten(1), found[name_b].flatten(1)
        singular = torch.linalg.svdvals(tensors[name_b].flatten(1) @ tensors[name_a].flatten(1))[: len(a)]
        torch.testing.assert_close(b.T @ b, torch.diag(singular), atol=1e-5, rtol=0)
        torch.testing.assert_close(a @ a.T, torch.diag(singular), atol=1e-5, rtol=0)
        assert bool((b.gather(0, b.abs().argmax(0, keepdim=True)) > 0).all())
    assert all(torch.equal(found[name], value) for name, value in tensors.items() if ".lora_" not in name)


def test_many_at_once_are_those_one_by_one() -> None:
    tensors = stacked(4)
    together = canonical(tensors, leading=1)
    reference = {name: value[0] for name, value in together.items()}
    near = aligned(tensors, reference, leading=1)
    for i in range(4):
        one = {name: value[i] for name, value in tensors.items()}
        for name, value in canonical(one).items():
            torch.testing.assert_close(together[name][i], value, atol=1e-6, rtol=0)
        for name, value in aligned(one, reference).items():
            torch.testing.assert_close(near[name][i], value, atol=1e-5, rtol=0)


def test_an_update_of_nothing_stays_nothing() -> None:
    tensors = toys.random_tensors(BACKBONE, 0)
    empty = {name: torch.zeros_like(value) if ".lora_B." in name else value for name, value in tensors.items()}
    for name, value in canonical(empty).items():
        if ".lora_" in name:
            assert not value.any()


def test_balanced_factors_of_a_matrix_are_its_nearest_of_that_rank() -> None:
    matrix = torch.randn(6, 4, generator=torch_generator(0, "matrix"))
    u, singular, vh = torch.linalg.svd(matrix, full_matrices=False)
    for rank in (1, 3, 4):
        found = balanced_factors(matrix, torch.eye(4), rank)
        expected = (u[:, :rank] * singular[:rank]) @ vh[:rank]
        torch.testing.assert_close(found.b @ found.a, expected, atol=1e-5, rtol=0)
    wide = balanced_factors(matrix, torch.eye(4), 7)
    assert wide.b.shape == (6, 7)
    assert wide.a.shape == (7, 4)
    torch.testing.assert_close(wide.b @ wide.a, matrix, atol=1e-5, rtol=0)


def test_aligned_factors_come_nearer_than_canonical_ones() -> None:
    reference = canonical(toys.random_tensors(BACKBONE, 0))
    other = toys.random_tensors(BACKBONE, 1)

    def distance(found: dict[str, torch.Tensor]) -> float:
        return sum(float((found[name] - value).square().sum()) for name, value in reference.items() if ".lora_" in name)

    assert distance(aligned(other, reference)) < distance(canonical(other)) - 1e-3
    # Its own factors, however turned, are nearest to themselves.
    assert distance(aligned(turned(reference, 5), reference)) < 1e-8


def test_a_codec_in_canonical_gauge_knows_updates_alone() -> None:
    tensors = stacked(5)
    layout = Layout.of({name: value[0] for name, value in tensors.items()})
    vectors = layout.flatten_many(tensors)
    codec = Codec.fit(layout, vectors, "tensor", gauge="canonical")
    one = {name: value[0] for name, value in tensors.items()}
    other = layout.flatten(turned(one, 1))[None]
    assert float((other - vectors[:1]).abs().max()) > 0.1
    torch.testing.assert_close(codec.encode(other), codec.encode(vectors[:1]), atol=1e-4, rtol=0)
    decoded = layout.unflatten(codec.decode(codec.encode(vectors[:1]))[0])
    for name_a, name_b in factor_pairs(one):
        update = one[name_b].flatten(1) @ one[name_a].flatten(1)
        torch.testing.assert_close(decoded[name_b].flatten(1) @ decoded[name_a].flatten(1), update, atol=1e-5, rtol=0)


def test_the_gauge_is_stored_and_absent_where_it_is_the_default() -> None:
    tensors = stacked(3)
    layout = Layout.of({name: value[0] for name, value in tensors.items()})
    vectors = layout.flatten_many(tensors)
    plain, turned_codec = Codec.fit(layout, vectors), Codec.fit(layout, vectors, gauge="canonical")
    assert set(plain.config) == {"layout"}
    again = Codec.from_state(turned_codec.state(), json.loads(json.dumps(turned_codec.config)))
    assert again.gauge == "canonical"
    assert torch.equal(again.encode(vectors), turned_codec.encode(vectors))
    assert Codec.from_state(plain.state(), plain.config).gauge == "raw"
    with refused(ArtifactError, "twisted"):
        Codec.from_state(plain.state(), {**plain.config, "gauge": "twisted"})
