"""Test images of the tasks with the largest and the smallest gain, with the predictions of two models."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from jaxtyping import Int
from torch import Tensor

from wildbench.sections import Picture
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.tasks.description import Images


@dataclass
class _Predictions:
    """Predictions on one task: all accuracies of the generator, and single predictions of its first sample only."""

    labels: Int[Tensor, " n"]
    predicted: dict[str, Int[Tensor, " n"]] = field(default_factory=dict)
    accuracies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether both models are there."""
        return {PRETRAINED, GENERATED} <= set(self.predicted)

    @property
    def gain(self) -> float:
        """Mean accuracy of all generated adapters minus the pretrained model's."""
        return fmean(self.accuracies[GENERATED]) - fmean(self.accuracies[PRETRAINED])


class PictureObserver:
    """Predictions of the pretrained model and of the first generated adapter; images are fetched at the end.

    Tasks are ranked by the mean over all samples and seeds, own descriptions only, on unseen tasks where there are any.
    """

    section = "pictures"

    def __init__(
        self, classes: Sequence[str], images: Callable[[str], Images], *, tasks: int = 3, each: int = 6
    ) -> None:
        """Empty.

        Args:
            classes: names of the classes, in the order of the logits.
            images: a task's test images by its name, in the order of its test set.
            tasks: number of best and of worst tasks; none is both.
            each: at most so many images of each task.
        """
        self._classes = tuple(classes)
        self._images = images
        self._tasks, self._each = tasks, each
        self._found: dict[str, dict[str, _Predictions]] = {}

    def observe(self, scored: Scored) -> None:
        """Keep the predictions of the two models on a task."""
        method, test = scored.method, scored.test
        name = method.source.name
        if not (name == PRETRAINED or (name == GENERATED and method.condition == "own" and not method.unlabelled)):
            return
        predicted = scored.outputs.argmax(-1)
        entry = self._found.setdefault(scored.split, {}).setdefault(test.task, _Predictions(test.labels))
        entry.predicted.setdefault(name, predicted[0])
        entry.accuracies.setdefault(name, []).extend((predicted == test.labels).double().mean(1).tolist())

    def result(self) -> tuple[Picture, ...]:
        """The pictures: best tasks first, each with images on which the two models differ before the others."""
        split = "unseen" if "unseen" in self._found else next(iter(self._found), "")
        both = {task: entry for task, entry in self._found.get(split, {}).items() if entry.whole}
        ranked = sorted(both, key=lambda task: -both[task].gain)
        best = ranked[: min(self._tasks, (len(ranked) + 1) // 2)]
        worst = ranked[len(best) :][::-1][: self._tasks]
        chosen = [(task, True) for task in best] + [(task, False) for task in worst]
        return tuple(picture for task, good in chosen for picture in self._pictures(split, task, both[task], good))

    def _pictures(self, split: str, task: str, entry: _Predictions, good: bool) -> list[Picture]:
        pretrained, generated = entry.predicted[PRETRAINED], entry.predicted[GENERATED]
        differ = (pretrained != generated).tolist()
        # A stable sort: among images of one kind the order of the test set decides, not a model's accuracy.
        order = sorted(range(len(differ)), key=lambda image: not differ[image])[: self._each]
        images = self._images(task)
        name = self._classes
        return [
            Picture(
                split,
                task,
                "best" if good else "worst",
                label=name[int(entry.labels[image])],
                pretrained=name[int(pretrained[image])],
                generated=name[int(generated[image])],
                png=_png(images[image]),
            )
            for image in sorted(order)
        ]


def _png(pixels: Images) -> str:
    """One image ``uint8 [h, w, 3]`` as base64 PNG, pixel by pixel."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
