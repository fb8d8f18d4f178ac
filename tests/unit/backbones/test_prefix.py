"""The prefix of any model: found by hooks, computed once, replayed to the same outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.lora import run_adapted, with_branches
from wildpdiff.backbones.prefix import KEY, Prefix, compute_prefix, find_prefix, install, outputs_of, replay
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.objective import Classification


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.third, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden = self.first(pixel_values).relu()
        hidden = hidden + self.second(hidden).relu()
        return self.head(self.third(hidden).relu().mean((2, 3)))


class Skipping(Chain):
    """The input is read once more behind the adapted module."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(pixel_values) + pixel_values.mean((2, 3))


class Choosing(Chain):
    """The output hangs on the prefix by an operation that passes on no gradient."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        brightest = self.first(pixel_values).mean((2, 3)).argmax(1)
        return self.head(self.third(torch.ones(len(pixel_values), 4, 3, 3)).mean((2, 3))) + brightest[:, None]


@dataclass(frozen=True)
class Case:
    """A model, inputs of it, the adapted modules, and what of the prefix is to be kept."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    adapted: Callable[[str], bool]
    live: tuple[str, ...]


def pixels(size: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"pixel_values": torch.randn(5, 3, size, size)}


def tokens() -> dict[str, Tensor]:
    mask = torch.ones(5, 7, dtype=torch.int64)
    mask[0, 4:] = 0
    return {"input_ids": torch.randint(1, 50, (5, 7)), "attention_mask": mask}


def hugging_face(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(**settings)
        kind = "ForImageClassification" if name in ("ViT", "ResNet") else "ForSequenceClassification"
        made: nn.Module = getattr(transformers, f"{name}{kind}")(config)
        return made

    return make


VIT = hugging_face(
    "ViT", hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
)
RESNET = hugging_face("ResNet", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
DISTILBERT = hugging_face("DistilBert", vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
GPT2 = hugging_face("GPT2", vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16, pad_token_id=0)

CASES = {
    "convolutions": Case(Chain, pixels(6), lambda name: name == "third", ("first", "second")),
    "first module": Case(Chain, pixels(6), lambda name: name == "first", ()),
    "head only": Case(Chain, pixels(6), lambda name: name == "head", ("third",)),
    "input read twice": Case(Skipping, pixels(6), lambda name: name == "third", ("first", "second")),
    "ViT": Case(VIT, pixels(8), lambda name: "layers.2." in name or "layer.2." in name, ()),
    "ResNet": Case(RESNET, pixels(16), lambda name: "stages.1" in name and "convolution" in name, ()),
    "DistilBERT": Case(DISTILBERT, tokens, lambda name: "layer.1." in name and "lin" in name, ()),
    "GPT-2": Case(GPT2, tokens, lambda name: "h.1." in name, ()),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_replayed_outputs_are_those_of_the_whole_model(case: Case) -> None:
    torch.manual_seed(0)
    model = case.model().eval().requires_grad_(False)
    adapted = [name for name, _ in model.named_modules() if case.adapted(name)]
    assert adapted
    prefix = find_prefix(model, case.inputs(), adapted)
    if case.live:
        assert prefix.live == case.live
    if case is CASES["first module"]:
        assert prefix.live == ()
        assert prefix.dead == ()
    else:
        assert prefix.live
    inputs = case.inputs()
    expected = outputs_of(model(**inputs))
    batch = compute_prefix(model, prefix, inputs)
    install(model, [*prefix.live, *(name for name, _ in prefix.dead)])
    torch.testing.assert_close(replay(model, prefix, batch), expected, rtol=1e-5, atol=1e-6)
    assert ("pixel_values" in batch) == (case in (CASES["first module"], CASES["input read twice"]))


def test_the_prefix_is_not_computed_again() -> None:
    model = Chain().eval()
    prefix = find_prefix(model, pixels(6)(), ["third"])
    calls: list[str] = []
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    batch = compute_prefix(model, prefix, pixels(6)())
    assert calls == ["first", "second"], "and the rest is not run for it"
    install(model, prefix.live)
    calls.clear()
    replay(model, prefix, batch)
    assert calls == ["third", "head", ""]


def test_an_output_whose_reading_no_gradient_shows_gives_no_prefix() -> None:
    torch.manual_seed(0)
    model = Choosing().eval()
    assert find_prefix(model, pixels(6)(), ["third"]) == Prefix()


def test_outputs_replay_under_vmap_and_gradients_reach_the_adapted_module() -> None:
    torch.manual_seed(0)
    model = Chain().eval().requires_grad_(False)
    prefix = find_prefix(model, pixels(6)(), ["third"])
    tasks = [pixels(6)() for _ in range(3)]
    expected = torch.stack([model(**inputs) for inputs in tasks])
    batches = [compute_prefix(model, prefix, inputs) for inputs in tasks]
    stacked = {name: torch.stack([batch[name] for batch in batches]) for name in batches[0]}
    install(model, prefix.live)
    weights = model.get_submodule("third").weight.expand(3, -1, -1, -1, -1)

    def loss(weight: Tensor, batch: Batch) -> Tensor:
        def call(**inputs: Tensor) -> Tensor:
            return torch.func.functional_call(model, {"third.weight": weight}, (), inputs)  # type: ignore[no-any-return]

        return replay(model, prefix, batch, call).sum()

    found = torch.func.vmap(lambda weight, batch: loss(weight, batch))(weights, stacked)
    torch.testing.assert_close(found, expected.sum((1, 2)))
    gradients = torch.func.vmap(torch.func.grad(loss))(weights, stacked)
    assert gradients.shape == weights.shape
    assert bool((gradients != 0).any())
    assert all(name.startswith(KEY) for name in stacked)


class MeanOfTokens(nn.Module):
    """Every token is read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.inner(self.embed(input_ids)).relu().mean(1))


@pytest.mark.parametrize(
    ("make", "targets", "layers"),
    [
        (DISTILBERT, ["q_lin", "v_lin"], {"out_lin", "lin1", "lin2"}),
        (DISTILBERT, "all-linear", {"out_lin", "lin1", "lin2"}),
        (GPT2, ["c_attn"], set()),
        (MeanOfTokens, ["inner"], set()),
    ],
    ids=["DistilBERT", "DistilBERT, all layers", "GPT-2", "mean"],
)
def test_a_classifier_of_the_first_token_computes_no_other_in_its_last_layer(
    make: Callable[[], nn.Module], targets: Any, layers: set[str]
) -> None:
    """GPT-2 reads the last token, which in texts of one word, padded to seven, is the first."""
    torch.manual_seed(0)
    model = make()
    config = getattr(model, "config", None)
    objective = Classification(tuple("abc"[: config.num_labels if config else 3]))
    backbone = Backbone.from_pretrained(model, lora={"r": 2, "target_modules": targets}, objective=objective)
    words = torch.zeros(5, 7, dtype=torch.int64)
    words[:, 0] = torch.arange(1, 6)
    inputs = {"input_ids": words} if make is not DISTILBERT else tokens()
    batch = backbone.stem(inputs)
    (first,) = {prefix.first for prefix in backbone.prefixes.values()}
    assert {name.rpartition(".")[2] for name in first} == layers
    assert all(".1." in name for name in first)
    adapter = {name: 0.1 * torch.randn(shape) for name, shape in backbone.spec.shapes.items()}
    leaves = {name: value.clone().requires_grad_(True) for name, value in adapter.items()}
    whole = with_branches(backbone.module, backbone.spec)
    other = {name: value.clone().requires_grad_(True) for name, value in adapter.items()}
    outputs = (backbone.outputs(batch, leaves), outputs_of(run_adapted(whole, backbone.spec, other, **inputs)))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for found in outputs:
        torch.autograd.backward(found.square().sum())
    for name in adapter:
        torch.testing.assert_close(leaves[name].grad, other[name].grad, rtol=1e-3, atol=1e-5)
