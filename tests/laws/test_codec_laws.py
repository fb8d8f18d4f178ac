from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wildpdiff.adapters.layout import Layout
from wildpdiff.codec.codec import Codec

shapes = st.dictionaries(
    st.text("abc.XYZ_", min_size=1, max_size=8),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    min_size=1,
    max_size=5,
)


@given(shapes=shapes, n=st.integers(1, 5), seed=st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_unflatten_undoes_flatten_exactly(shapes: dict[str, tuple[int, ...]], n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stacked = {name: torch.randn(n, *shape, generator=generator) for name, shape in shapes.items()}
    layout = Layout.of({name: tensor[0] for name, tensor in stacked.items()})
    vectors = layout.flatten_many(stacked)
    assert vectors.shape == (n, layout.size)
    for name, tensor in layout.unflatten(vectors).items():
        assert torch.equal(tensor, stacked[name])
    one = {name: tensor[0] for name, tensor in stacked.items()}
    assert torch.equal(layout.flatten(one), vectors[0])
    assert Layout.from_json(layout.to_json()) == layout


@given(
    n=st.integers(1, 6),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    mode=st.sampled_from(["coordinate", "tensor"]),
    constant=st.booleans(),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=60, deadline=None)
def test_decode_undoes_encode(n: int, scale: float, mode: str, constant: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = scale * torch.randn(n, 12, generator=generator)
    if constant:
        vectors[:, ::3] = 0.1 * scale
    layout = Layout((("a", (2, 3)), ("b", (6,))))
    codec = Codec.fit(layout, vectors, mode)
    normalized = codec.encode(vectors)
    assert bool(torch.isfinite(normalized).all())
    torch.testing.assert_close(codec.decode(normalized), vectors, rtol=1e-5, atol=3e-6 * scale)
