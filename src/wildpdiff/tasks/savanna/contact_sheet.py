"""Contact sheets: the world at a glance, one row a location or one row a species."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.savanna import world
from wildpdiff.tasks.savanna.frames import draw_frames
from wildpdiff.tasks.savanna.locations import ShiftStrengths, draw_location
from wildpdiff.tasks.savanna.render import render
from wildpdiff.tasks.savanna.scene import draw_scene
from wildpdiff.tasks.task import Suite, Task

__all__ = ["contact_sheet", "species_sheet"]


def _tile(rows: Sequence[Images], gap: int) -> Images:
    """Rows of equally large images as one picture ``[height, width, 3]`` with white gaps."""
    size, columns = rows[0].shape[1], max(len(row) for row in rows)
    step = size + gap
    sheet = np.full((len(rows) * step - gap, columns * step - gap, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            sheet[i * step : i * step + size, j * step : j * step + size] = image
    return sheet


def contact_sheet(suite: Suite, tasks: Sequence[Task] | None = None, columns: int = 12, gap: int = 1) -> Images:
    """Test images of some tasks, one row a task, as one picture ``uint8 [height, width, 3]``.

    Args:
        suite: any suite of image tasks.
        tasks: the rows; the first eight seen tasks if ``None``.
        columns: images per row.
        gap: white pixels between images.

    Raises:
        DataError: there is no task to show.
    """
    chosen = suite.tasks("seen")[:8] if tasks is None else tasks
    if not chosen:
        raise DataError("There is no task to show; give at least one.")
    return _tile([task.data("test").images[:columns] for task in chosen], gap)


def species_sheet(image_size: int = 80, columns: int = 8, gap: int = 2, night: bool = False) -> Images:
    """Every species, one row each and ``blank`` last, near the camera at one mean location.

    The picture is ``uint8 [height, width, 3]``; the two of a look-alike pair follow each other, with their coats
    at the positive end of the cline.
    """
    location = draw_location(0, "seen", 0, ShiftStrengths(0.0, 0.0, 0.0))
    scene = draw_scene(location, image_size)
    rows = []
    for label in range(len(world.CLASSES)):
        rng = numpy_generator(world.WORLD_SEED, "savanna", "species sheet", label)
        labels = np.full(columns, label, dtype=np.int64)
        frames = draw_frames(location, rng, columns, labels, np.full(columns, night))
        rows.append(render(location, scene, frames, image_size))
    return _tile(rows, gap)
