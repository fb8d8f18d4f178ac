"""A contact sheet of the species of the simulated network."""

from __future__ import annotations

import numpy as np

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.frames import draw_frames
from wildbench.datasets.savanna.locations import ShiftStrengths, draw_location
from wildbench.datasets.savanna.render import render
from wildbench.datasets.savanna.scene import draw_scene
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.contact_sheet import tile
from wildpdiff.tasks.description import Images


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
        frames = draw_frames(location, rng, columns, labels, night=np.full(columns, night))
        rows.append(render(location, scene, frames, image_size))
    return tile(rows, gap)
