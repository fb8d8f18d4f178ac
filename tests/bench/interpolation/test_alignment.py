import pytest
import torch
from torch import Tensor

import toys
from toys import backbone, random_adapter
from wildbench.interpolation.alignment import connectivity, cosine, midpoint, principal_angles
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.zoo.features import TaskFeatures


def changed(adapter: Adapter, change: dict[str, Tensor]) -> Adapter:
    return Adapter({**adapter.tensors, **change}, adapter.config)


def test_the_cosine_is_between_the_moves_and_not_the_adapters() -> None:
    of = backbone()
    initial, moved = random_adapter(of, 0), random_adapter(of, 1)
    further = {
        name: initial.tensors[name] + 2 * (value - initial.tensors[name]) for name, value in moved.tensors.items()
    }
    back = {name: initial.tensors[name] - (value - initial.tensors[name]) for name, value in moved.tensors.items()}
    assert cosine(moved, changed(moved, further), initial) == pytest.approx(1, abs=1e-5)
    assert cosine(moved, changed(moved, back), initial) == pytest.approx(-1, abs=1e-5)


def test_principal_angles_see_column_spaces_alone() -> None:
    of = backbone()
    first = random_adapter(of, 0)
    names = [name for name in first.tensors if ".lora_B." in name]
    mixing = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])
    mixed = {name: torch.tensordot(first.tensors[name], mixing, dims=([1], [0])) for name in names}
    mixed = {name: value.movedim(-1, 1).reshape(first.tensors[name].shape) for name, value in mixed.items()}
    assert principal_angles(first, changed(first, mixed)) == pytest.approx(1, abs=1e-5)
    apart = {}
    for name in names:
        basis = torch.linalg.qr(
            torch.cat([first.tensors[name].flatten(1), torch.randn(len(first.tensors[name]), 2)], 1)
        ).Q
        apart[name] = basis[:, 2:4].reshape(first.tensors[name].shape)
    assert principal_angles(first, changed(first, apart)) == pytest.approx(0, abs=1e-5)


def test_the_midpoint_is_the_mean_of_both() -> None:
    of = backbone()
    first, second = random_adapter(of, 0), random_adapter(of, 1)
    for name, value in midpoint(first, second).tensors.items():
        torch.testing.assert_close(value, (first.tensors[name] + second.tensors[name]) / 2)


def test_connectivity_is_one_between_equals_and_zero_where_the_middle_is_the_start() -> None:
    of = backbone()
    initial = random_adapter(of, 0)
    (bias,) = (name for name in initial.tensors if name.endswith("classifier.bias"))
    own = changed(initial, {bias: initial.tensors[bias] + torch.tensor([100.0, 0.0, 0.0])})
    opposite = changed(own, {name: 2 * initial.tensors[name] - value for name, value in own.tensors.items()})
    inputs = of.stem(toys.random_images(1))[toys.KEPT].new_empty(64, 4, 4, 4)
    inputs.normal_(generator=torch.Generator().manual_seed(0))
    tasks = []
    for adapter in (own, opposite):
        # Labels that the adapter itself gives: it is right on all of them, and the start on few.
        labels = of.predict({toys.KEPT: inputs}, adapter.tensors).argmax(1)
        tasks.append(TaskFeatures("t", toys.batch(inputs[:48], labels[:48]), toys.batch(inputs[48:], labels[48:])))
    assert connectivity(of, (tasks[0], tasks[0]), (own, own), initial) == pytest.approx(1)
    assert connectivity(of, (tasks[0], tasks[1]), (own, opposite), initial) == pytest.approx(0, abs=1e-6)
