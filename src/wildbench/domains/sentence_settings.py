"""Settings of the domains of texts, chosen on held-out seen tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.zoo.steps import FinetuneConfig

FINETUNE = FinetuneConfig(steps=120, batch=16, learning_rate=0.005, warmup=12, checkpoints=4, interval=4)

GENERATOR = GeneratorConfig(
    parts=("text",),
    components=32,
    task_loss=TaskLossConfig(steps=240, tasks=8, images=12, folds=3, evaluate_every=20, patience=4),
)


def joined_data(parts: Sequence[Dataset]) -> Dataset:
    """Texts of several tasks together."""
    return Dataset([text for part in parts for text in part.inputs], np.concatenate([part.targets for part in parts]))
