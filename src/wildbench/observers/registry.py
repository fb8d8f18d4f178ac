"""Observers that this package adds to a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wildbench.observers.calibration import CalibrationObserver
from wildbench.observers.condition_distance import ConditionDistances
from wildbench.observers.latent_map import LatentMapObserver
from wildbench.observers.novelty import NoveltyObserver
from wildbench.observers.pictures import PictureObserver
from wildbench.observers.spread import SpreadObserver
from wildbench.observers.trust_assessment import TrustObserver
from wildpdiff.evaluate.comparison import ObserverInputs
from wildpdiff.evaluate.run import SectionObserver
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.features import features_of

NOVELTY_TASKS = 15
"""Tasks of each split whose adapters are compared with every stored checkpoint."""


def observers(inputs: ObserverInputs) -> Sequence[SectionObserver]:
    """Spread, distances of descriptions, and what else can be measured.

    Calibration and novelty (which compares errors) are of classes, pictures of images. Trust needs its model and scored
    unseen tasks; novelty and the map of latents need two tasks or more.
    """
    comparison, finetuned = inputs.comparison, inputs.finetuned
    backbone, zoo = comparison.backbone, comparison.zoo
    found: list[SectionObserver] = [CalibrationObserver()] if backbone.classes else []
    found.append(SpreadObserver(zoo.initial))
    if backbone.image_size and backbone.classes:
        found.append(PictureObserver(backbone.classes, _test_images(comparison.suite)))
    found.append(ConditionDistances(inputs.seen, inputs.tests))
    if comparison.trust and "unseen" in inputs.tests:
        found.append(TrustObserver(comparison, features_of(inputs.seen.data, zoo.tasks)))
    if len(zoo.tasks) > 1:  # one run alone has no other to be compared with
        if backbone.classes:
            novelty = NoveltyObserver(backbone, zoo, finetuned=finetuned, most_tasks=NOVELTY_TASKS)
            novelty.prepare(inputs.tests)
            found.append(novelty)
        found.append(LatentMapObserver(comparison.generators[0], zoo.task_adapters(), finetuned))
    return found


def _test_images(suite: Suite) -> Callable[[str], Images]:
    by_name = {task.name: task for group in ("seen", "unseen") for task in suite.tasks(group)}
    return lambda name: by_name[name].data("test").inputs
