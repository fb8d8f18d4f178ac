"""Modules with buffers, operations in place and operations that cannot be vectorised: to adapters that PEFT reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn

from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import gradients_over_adapters, over_adapters
from wildpdiff.backbones.prefix import outputs_of
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainTask
from wildpdiff.tasks.objective import Regression
from wildpdiff.zoo.features import task_features
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

FINETUNE = FinetuneConfig(steps=4, batch=4, learning_rate=0.05, warmup=1, checkpoints=1, interval=1)


class Network(nn.Module):
    """A module before those that are adapted, and a head with statistics and whole numbers that is saved whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.active = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(inplace=True)
        self.body = nn.Linear(8, 8)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2))
        self.head.register_buffer("order", torch.tensor([1, 0]))
        for part in (self.norm, self.head[0]):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)

    def hidden(self, inputs: Tensor) -> Tensor:
        return self.active(self.norm(self.first(inputs)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(self.hidden(inputs)))[:, self.head.order]


class ChangesOutputs(Network):
    def hidden(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden.mul_(2)
        return self.active(self.norm(hidden))


class ChangesInputs(Network):
    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs.mul_(0.5))


class Shared(Network):
    """One head by two names, of which PEFT replaces the first alone, and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.head

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        hidden = self.body(self.hidden(inputs))
        return {"logits": self.head(hidden) - 2 * self.again(hidden)}


class AsksForValues(Network):
    def hidden(self, inputs: Tensor) -> Tensor:
        return super().hidden(inputs) if inputs[0, 0] in inputs else inputs

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs + 1.0 if bool(outputs.isnan().any()) else outputs


class Square(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        context.save_for_backward(value)
        return value.square()

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        return 2 * slopes[0] * context.saved_tensors[0]


class OwnGradient(Network):
    def forward(self, inputs: Tensor) -> Tensor:
        return Square.apply(super().forward(inputs))


class Hooked(Network):
    """A layer whose output a hook doubles, and which has a forward of its own: PEFT adds its branch to both."""

    def __init__(self) -> None:
        super().__init__()
        forward = self.body.forward
        self.body.register_forward_hook(lambda _, __, output: 2 * output)
        self.body.register_forward_pre_hook(lambda _, given: (given[0] + 1,))
        self.body.forward = lambda inputs: forward(inputs) - 1  # type: ignore[method-assign]


def made(kind: type[Network]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def backbone_of(kind: type[Network]) -> Backbone:
    lora = LoraConfig(r=2, target_modules=["body"], modules_to_save=["head"])
    return Backbone.from_pretrained(made(kind), lora=lora, objective=Regression(2), name="any")


def dataset(name: str) -> Dataset:
    draws = numpy_generator(0, name)
    inputs = draws.normal(size=(6, 3)).astype(np.float32)
    return Dataset(inputs, inputs[:, :2] + draws.normal(size=2).astype(np.float32))


@pytest.mark.parametrize("kind", [Network, ChangesOutputs, ChangesInputs, Shared, AsksForValues, OwnGradient, Hooked])
def test_from_fine_tuning_to_peft(kind: type[Network], tmp_path: Path) -> None:
    backbone = backbone_of(kind)
    given = dataset("test").inputs
    inputs = given.copy()
    tasks = [PlainTask(name, {"train": dataset(name), "validation": dataset(f"{name} 2")}) for name in "ab"]
    features = [task_features(backbone, task) for task in tasks]
    initial = backbone.initial_adapter(0)
    run = finetune(backbone, features, initial.tensors, config=FINETUNE, seed=0)
    batch = backbone.stem(inputs)
    each = {name: value[:, -1] for name, value in run.tensors.items()}
    together = backbone.predict_many(batch, each)
    for row, task in enumerate(tasks):
        adapter = Adapter({name: value[row] for name, value in each.items()}, backbone.adapter_config)
        model = PeftModel.from_pretrained(made(kind), str(adapter.save(tmp_path / task.name))).eval()
        with torch.no_grad():
            theirs = outputs_of(model(torch.from_numpy(given.copy())))
        for ours in (together[row], backbone.predict(batch, adapter.tensors)):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(theirs, backbone.predict(batch), atol=1e-3)
        for name in backbone.buffers:
            assert torch.equal(adapter.tensors[name], initial.tensors[name]), "no training moves running statistics"
    assert sorted(name.rpartition(".")[2] for name in backbone.buffers) == [
        *("num_batches_tracked", "order", "running_mean", "running_var"),
    ]
    assert np.array_equal(inputs, given), "the user's own examples stay as they are"


def test_a_model_whose_outputs_change_from_run_to_run_is_refused() -> None:
    class Noisy(Network):
        def hidden(self, inputs: Tensor) -> Tensor:
            return super().hidden(inputs + torch.randn_like(inputs))

    with refused(TrainingError, "any"):
        backbone_of(Noisy).stem(dataset("test").inputs)


def test_what_peft_cannot_attach_and_outputs_without_a_tensor_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    module.add_module("out", nn.Linear(2, 2))  # PEFT takes the end of "lora_dropout" for it
    lora = LoraConfig(r=1, target_modules=["0"], modules_to_save=["out"])
    with refused(TrainingError, "modules_to_save"):
        Backbone.from_pretrained(module, lora=lora, objective=Regression(2)).initial_adapter(0)

    class Nothing(Network):
        def forward(self, inputs: Tensor) -> dict[str, Any]:  # type: ignore[override]
            return {"loss": None}

    with refused(DataError, "any", "dict"):
        backbone_of(Nothing).stem(dataset("test").inputs)


def test_a_model_without_gradient_is_refused() -> None:
    class Rounded(Network):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).detach()

    loss = gradients_over_adapters(lambda tensors: made(Rounded)(tensors["inputs"]).sum())
    with refused(TrainingError, "grad"):
        loss({"inputs": torch.zeros(2, 4, 3)})


def test_what_cannot_be_vectorised_runs_in_a_loop_and_own_errors_are_raised() -> None:
    def function(tensors: dict[str, Tensor], shared: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scale = float(tensors["x"].sum())
        return scale * shared, {"y": tensors["x"] * 2}

    stacked = {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    total, named = over_adapters(function, shared=(1,))(stacked, torch.ones(3))
    assert total.tolist() == [[3.0] * 3, [7.0] * 3]
    assert torch.equal(named["y"], 2 * stacked["x"])

    def wrong(value: Tensor) -> Tensor:
        return value @ torch.ones(7)

    with refused(RuntimeError, "size"):
        over_adapters(wrong)(stacked["x"])


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), 1),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), 1),
        (None, 1),  # of the processor's memory, as torch raises it
        (RuntimeError("the batch is too small"), 2),
    ],
)
def test_a_lack_of_memory_is_raised_and_nothing_but_vmap_itself_makes_a_loop(
    fault: RuntimeError | None, calls: int
) -> None:
    seen: list[bool] = []

    def function(value: Tensor) -> Tensor:
        seen.append(torch._C._functorch.is_batchedtensor(value))
        if len(seen) <= calls and fault is not None:
            raise fault
        return value.new_empty(10**15) if len(seen) <= calls else 2 * value

    many, values = over_adapters(function), torch.ones(3, 2)
    with pytest.raises(RuntimeError) as raised:
        many(values)
    assert fault is None or raised.value is fault
    assert seen == [True, False][:calls]
    assert torch.equal(many(values), 2 * values)
    assert seen[calls:] == [True], "still vectorised"
