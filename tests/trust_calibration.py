"""Calibration of trust in any source, from folds to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.trust.calibrate import fit_trust, hold_out_folds
from wildpdiff.trust.folds import Fold, calibration_folds
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig, SeenTasks
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

FitWithout = Callable[[Fold], Source]


def calibrate(
    zoo: Zoo,
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    backbone: Backbone,
    features: Callable[[str], TaskFeatures],
    fit_without: FitWithout,
    *,
    folds: Sequence[Fold] | None = None,
    config: CalibrationConfig = CalibrationConfig(),
    seed: int = 0,
    generator: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> TrustModel:
    """Trust in sources that are fitted without the tasks of each fold."""
    unnamed = {name: replace(descriptions[name], task_id=None) for name in zoo.tasks}
    if folds is None:
        folds = calibration_folds(
            zoo.tasks,
            unnamed,
            schema,
            backbone.image_features,
            random=config.random_folds,
            groups=config.group_folds,
            seed=seed,
        )
    seen = SeenTasks.of(TrainingSet(zoo, unnamed, schema, backbone, features), ("metadata", "backgrounds"), config)
    (rows,) = hold_out_folds(seen, folds, lambda fold, _: (fit_without(fold),), seed=seed, progress=progress)
    return fit_trust(seen, rows, generator)
