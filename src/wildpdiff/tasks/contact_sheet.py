"""Contact sheets: test images of tasks as one picture, one row a task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import ImageSuite, ImageTask


def tile(rows: Sequence[Images], gap: int) -> Images:
    """Rows of equally large images as one picture ``[height, width, 3]`` with white gaps."""
    size, columns = rows[0].shape[1], max(len(row) for row in rows)
    step = size + gap
    sheet = np.full((len(rows) * step - gap, columns * step - gap, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            sheet[i * step : i * step + size, j * step : j * step + size] = image
    return sheet


def contact_sheet(
    suite: ImageSuite, tasks: Sequence[ImageTask] | None = None, columns: int = 12, gap: int = 1
) -> Images:
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
    return tile([task.data("test").images[:columns] for task in chosen], gap)
