"""Picture of the first page: frames of new cameras with the species' names before and after the generated adapter.

python docs/img/frames.py GENERATOR [PNG]

The generator is one of savanna, for example runs/demo/generator-0. The cameras are those of ``overview.py``; of each
the first test frames are shown on which the pretrained and the adapted model differ, each kind of difference once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from wildbench.datasets.savanna import SavannaConfig, SavannaSuite
from wildpdiff.errors import WildpdiffError
from wildpdiff.generator import Generator
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import Labels

SITES = (5, 7)
SIZE = 144
COLUMNS = 6
HEADING = "New cameras, nothing labelled: frames named differently before and after the generated adapter"
INK, MUTED, PAPER = "#22303c", "#5c6b78", "#fcfcfa"
RIGHT, WRONG = "#0072b2", "#b3470a"
"""Blue and vermilion, distinct for the colour-blind too; a mark has the same meaning without colour."""


class Name(NamedTuple):
    """A predicted species, and whether it is the true one."""

    text: str
    right: bool


class Camera(NamedTuple):
    """A camera as it is drawn.

    Attributes:
        title: habitat and place.
        images: ``uint8 [n, h, w, 3]``, all of one size.
        before, after: names of each.
        scores: accuracies on all test frames, before and after.
    """

    title: str
    images: Images
    before: tuple[Name, ...]
    after: tuple[Name, ...]
    scores: tuple[float, float]


def disagreements(labels: Labels, before: Labels, after: Labels, count: int) -> list[int]:
    """Indices of the first frames on which the models differ, of each kind of difference one before a second."""
    kinds = list(zip(labels.tolist(), before.tolist(), after.tolist(), strict=True))
    ranks = [(before[row] == after[row], kinds[:row].count(kinds[row]), row) for row in range(len(labels))]
    return sorted(row for *_, row in sorted(ranks)[:count])


def cameras(generator: Generator, sites: Sequence[int] = SITES) -> list[Camera]:
    """The cameras with what the pretrained and the adapted model predict."""
    backbone, found = generator.backbone, []
    sizes = {"unseen": max(sites) + 1}
    suite = SavannaSuite(SavannaConfig(**sizes, image_size=backbone.image_size))
    large = SavannaSuite(SavannaConfig(**sizes, image_size=SIZE))
    for site in sites:
        task = suite.tasks("unseen")[site]
        data, known = task.data("test"), task.description.metadata or {}
        batch = backbone.stem(data.images)
        adapter = generator.sample(task.description)[0]
        predicted = [backbone.predict(batch, own).argmax(1).numpy() for own in (None, adapter.tensors)]
        rows = disagreements(data.labels, predicted[0], predicted[1], COLUMNS)
        names = [
            tuple(Name(suite.classes[own[row]].replace("_", " "), bool(own[row] == data.labels[row])) for row in rows)
            for own in predicted
        ]
        scores = tuple(float((own == data.labels).mean()) for own in predicted)
        title = f"{known['habitat']}, {known['elevation']:.0f} m"
        images = large.tasks("unseen")[site].data("test").images[rows]
        found.append(Camera(title, images, names[0], names[1], (scores[0], scores[1])))
    return found


def draw(shown: Sequence[Camera], path: Path, *, heading: str = HEADING) -> None:
    """The picture as a PNG."""
    ratio = shown[0].images.shape[1] / shown[0].images.shape[2]
    height, names = 1.29 * ratio, 0.42  # inches of a frame, and of the names below it
    whole = len(shown) * (height + names) + 0.31
    figure = plt.figure(figsize=(9.2, whole), facecolor=PAPER)
    grid = figure.add_gridspec(
        len(shown), COLUMNS + 1, left=0.008, right=0.992, top=1 - 0.31 / whole, bottom=names / whole, wspace=0.05,
        hspace=names / height,
    )  # fmt: skip
    for number, camera in enumerate(shown):
        _legend(figure.add_subplot(grid[number, 0]), camera, ratio)
        for column, image in enumerate(camera.images):
            axes = figure.add_subplot(grid[number, column + 1])
            axes.imshow(image, interpolation="nearest")
            axes.set_axis_off()
            _name(axes, -0.05 / ratio, camera.before[column])
            _name(axes, -0.2 / ratio, camera.after[column])
    figure.text(0.008, 1 - 0.05 / whole, heading, ha="left", va="top", fontsize=11, weight="bold", color=INK)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _legend(axes: Axes, camera: Camera, ratio: float) -> None:
    """The camera, and accuracies on all its test frames, on the lines of the names."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect=ratio)  # as high as the frames
    place = {"transform": axes.transAxes, "ha": "left"}
    axes.text(0, 1.0, camera.title, va="top", fontsize=8.5, color=MUTED, **place)
    axes.text(0, 0.26 / ratio, "right on its frames", va="bottom", fontsize=8.5, color=MUTED, linespacing=1.25, **place)
    axes.text(0, 0.04, f"{100 * camera.scores[0]:.0f} %", va="bottom", fontsize=12, color=MUTED, **place)
    axes.text(0.415, 0.04, "→", va="bottom", fontsize=12, color=MUTED, **place)
    after = f"{100 * camera.scores[1]:.0f} %"
    axes.text(0.57, 0.04, after, va="bottom", fontsize=12, weight="bold", color=RIGHT, **place)
    axes.text(0, -0.05 / ratio, "before", va="top", fontsize=8.5, color=INK, **place)
    axes.text(0, -0.2 / ratio, "after", va="top", fontsize=8.5, color=INK, weight="bold", **place)


def _name(axes: Axes, height: float, name: Name) -> None:
    mark = "✓" if name.right else "✗"
    axes.text(0, height, f"{mark} {name.text}", transform=axes.transAxes, ha="left", va="top", fontsize=8.5,
              color=RIGHT if name.right else WRONG)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).with_name("frames.png")
    try:
        draw(cameras(Generator.from_pretrained(Path(arguments[0]))), path)
    except WildpdiffError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
