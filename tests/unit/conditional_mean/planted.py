"""A small problem with a known solution: labels are drawn by adapters that are a smooth function of two numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import toys
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.choice import Estimators
from wildpdiff.conditional_mean.correction import Basis, EnsembleMember, HypernetworkEnsemble
from wildpdiff.conditional_mean.kernel import fit_kernel_mean
from wildpdiff.conditional_mean.network import DescriptionNetwork
from wildpdiff.conditional_mean.simple import fit_simple_estimators
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import folds
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.zoo.features import TaskFeatures

SCHEMA = MetadataSchema((MetadataField("x", "number"), MetadataField("y", "number")))
IMAGES = 60
CLASSIFIER = ("base_model.model.classifier.weight", "base_model.model.classifier.bias")


@dataclass(frozen=True)
class Planted:
    """The seen tasks and the truth of them.

    Attributes:
        backbone: the toy one.
        codec: of the true adapters.
        encoder: of the descriptions.
        embeddings: of the seen tasks.
        true: normalised adapters that draw the labels.
        start: normalised adapter without a classifier: every answer is a guess.
        images: labelled; half of each task's are validation images.
    """

    backbone: Backbone
    codec: Codec
    encoder: FusionEncoder
    embeddings: Tensor
    true: Tensor
    start: Tensor
    images: TaskExamples

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.names

    def estimators(
        self, networks: dict[Basis, Tensor] | None = None, parts: int = 4, own: Tensor | None = None
    ) -> Estimators:
        """Fitted to the tasks' own adapters, the true ones by default, with planted predictions of networks."""
        targets = self.true if own is None else own
        kernel = fit_kernel_mean(self.encoder, self.embeddings, targets)
        simple = fit_simple_estimators(self.encoder.sizes, self.start, self.embeddings, targets)
        count = len(targets)
        if networks is None:
            correction = HypernetworkEnsemble((), {}, torch.full((count,), -1), torch.zeros(0))
        else:
            size = self.embeddings.shape[1]
            network = DescriptionNetwork(
                torch.zeros(1, self.codec.size), torch.ones(self.codec.size) > 0, torch.ones(2, size) > 0
            )
            members = tuple(EnsembleMember(network, basis, part) for part in range(parts) for basis in networks)
            fold = folds(self.names, parts, 0, "planted")
            correction = HypernetworkEnsemble(members, networks, fold, torch.zeros(0))
        return Estimators(kernel, simple, correction)

    def relabelled(self, tasks: Tensor, seed: int) -> TaskExamples:
        """The same images, those of some tasks with their labels permuted."""
        draws = torch.Generator().manual_seed(seed)
        found = []
        for number, task in enumerate(self.images.tasks):
            order = torch.randperm(task.train_size, generator=draws)
            late = torch.randperm(task.validation_size, generator=draws)
            changed = toys.relabelled(task, task.train["targets"][order], task.validation["targets"][late])
            found.append(changed if bool(tasks[number]) else task)
        return TaskExamples(tuple(found), self.images.seed)


def planted(backbone: Backbone, count: int, seed: int = 0) -> Planted:
    """So many tasks at random points."""
    draws = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(count, 2, generator=draws) - 1
    described = [Description(metadata=dict(zip(SCHEMA.names, row.tolist(), strict=True))) for row in points]
    encoder = fit_fusion(described, SCHEMA, lambda images: torch.zeros(len(images), 1), ("metadata",))
    inputs = 4 * torch.randn(count, IMAGES, 4, 1, 1, generator=draws).expand(-1, -1, -1, 4, 4)
    backbone.stem(toys.random_images(1))  # from here on the backbone knows the maps that it keeps
    embedding = backbone.embedding({toys.KEPT: inputs.flatten(0, 1)})
    assert embedding is not None
    center = embedding.mean(0)
    axes = 25 * torch.randn(2, len(toys.CLASSES), 5, generator=draws)
    weights = torch.einsum("tp,pcf->tcf", points, axes)
    layout = Layout.of({name: torch.zeros(shape) for name, shape in backbone.shapes.items()})
    raw = []
    for weight in weights:
        own = {name: torch.zeros(shape) for name, shape in backbone.shapes.items()}
        own |= {CLASSIFIER[0]: weight, CLASSIFIER[1]: -weight @ center}
        raw.append(layout.flatten(own))
    codec = Codec.fit(layout, torch.stack([*raw, *(-torch.stack(raw))]), "tensor")
    true = codec.encode(torch.stack(raw))
    tensors = layout.unflatten(codec.decode(true))
    features = []
    for row in range(count):
        logits = backbone.outputs({toys.KEPT: inputs[row]}, {name: value[row] for name, value in tensors.items()})
        labels = torch.multinomial(logits.softmax(1), 1, generator=draws)[:, 0]
        half = IMAGES // 2
        features.append(
            TaskFeatures(
                f"task-{row}",
                toys.batch(inputs[row, :half], labels[:half]),
                toys.batch(inputs[row, half:], labels[half:]),
            )
        )
    start = codec.encode(torch.zeros(1, layout.size))[0]
    embeddings = torch.stack([encoder.encode(entry).values for entry in described])
    return Planted(backbone, codec, encoder, embeddings, true, start, TaskExamples(tuple(features), 0))
