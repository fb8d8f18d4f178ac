"""The reference that shows what LoRA is good for: only the classifier fine-tuned on the task's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wildbench.methods.renamed import RenamedSource
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import FinetunedSource
from wildpdiff.errors import TrainingError
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

CLASSIFIER_ALONE = "fine-tuned, classifier alone"
TOGETHER = 20
"""Tasks that are fine-tuned in one pass."""


def classifier_alone(
    backbone: Backbone, tasks: Sequence[TaskFeatures], initial: Adapter, *, config: FinetuneConfig, seed: int
) -> RenamedSource:
    """A source of adapters whose LoRA factors are the initial ones, without effect, next to a fine-tuned classifier.

    Args:
        backbone: the frozen model.
        tasks: labelled images of every task that will be evaluated.
        initial: the zoo's shared start.
        config: the recipe of the zoo; its last step counts.
        seed: of the order of images.

    Raises:
        TrainingError: the adapters have nothing but LoRA factors, or a loss is not finite.
    """
    bare = backbone.with_lora(replace(backbone.lora, target_modules=()))
    start = {name: value for name, value in initial.tensors.items() if ".lora_" not in name}
    if not start:
        raise TrainingError(f"The adapters of backbone {backbone.name!r} have no classifier besides LoRA's factors.")
    short = replace(config, checkpoints=1)
    adapters = {}
    for first in range(0, len(tasks), TOGETHER):
        group = tasks[first : first + TOGETHER]
        run = finetune(bare, group, start, config=short, seed=seed)
        for number, name in enumerate(run.names):
            own = {key: value[number, -1].clone() for key, value in run.tensors.items()}
            adapters[name] = Adapter({**initial.tensors, **own}, initial.config)
    return RenamedSource(FinetunedSource(adapters), CLASSIFIER_ALONE)
