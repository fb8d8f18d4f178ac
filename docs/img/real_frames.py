"""Picture of the first page: real camera-trap frames with the names before and after the generated adapter.

python docs/img/real_frames.py RUN DATA [PNG]

RUN is a folder of ``wildbench domain missouri --data DATA``. Of its unseen pairs of known species, ordered by measured
gain, those at three quarters, the middle and one tenth are shown. Frames: Missouri Camera Traps (Zhang et al. 2016),
Community Data License Agreement, permissive, version 1.0.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from frames import COLUMNS, Camera, Name, disagreements, draw
from PIL import Image, ImageDraw

from wildbench.datasets.species_pairs import BETWEEN, PICTURES, Frame, read_frames, species_pairs
from wildbench.domains.missouri import FOLDER, SIZES, open_missouri
from wildbench.run_folder import null_progress
from wildpdiff.errors import WildpdiffError
from wildpdiff.generator import Generator
from wildpdiff.tasks.description import Images
from wildpdiff.threads import one_thread

SHARES = (0.75, 0.5, 0.1)
WIDTH, HEIGHT = 192, 144
"""The frames were 4 : 3 before they were stored as squares."""
BOX = (255, 214, 64)
HEADING = "Real frames, nothing labelled: pairs of species that no task had, before and after the generated adapter"


def pairs(run: Path, data: Path, seed: int = 0) -> list[Camera]:
    """The pairs with what the pretrained and the adapted model predict, ordered by gain.

    Raises:
        WildpdiffError: the run or the data cannot be read.
    """
    with one_thread():  # as the run did: the backbone's bytes depend on it
        opened = open_missouri(data, run, seed, null_progress(""))
    backbone = opened.backbone
    generator = Generator.from_pretrained(run / "generator-0", backbone)
    # The same suite with the numbers of the frames in place of their features.
    numbers = species_pairs(
        data / FOLDER, lambda images: np.arange(len(images), dtype=np.float32)[:, None], replace(SIZES, seed=seed)
    )
    frames = read_frames(data / FOLDER)
    rows_of = {task.name: task.data("test").inputs[:, 0].astype(int).tolist() for task in numbers.unseen}
    found = []
    for task in opened.suite.tasks("unseen"):
        if task.name in opened.knobs["groups"]:  # with a species that is new
            continue
        test, names = task.data("test"), [name.replace("_", " ") for name in task.name.split(BETWEEN)]
        batch = backbone.stem(test.inputs)
        adapter = generator.sample(task.description)[0]
        before, after = (backbone.predict(batch, own).argmax(1).numpy() for own in (None, adapter.tensors))
        labels = np.asarray(test.targets)
        chosen = disagreements(labels, before, after, COLUMNS)
        shown = [
            tuple(Name(names[own[row]], bool(own[row] == labels[row])) for row in chosen) for own in (before, after)
        ]
        pictures = np.stack([_framed(data / FOLDER, frames[rows_of[task.name][row]]) for row in chosen])
        scores = (float((before == labels).mean()), float((after == labels).mean()))
        found.append(Camera(f"{names[0]}\nor {names[1]}", pictures, shown[0], shown[1], scores))
    return sorted(found, key=lambda pair: pair.scores[1] - pair.scores[0])


def _framed(folder: Path, frame: Frame) -> Images:
    """The frame in its own proportions, the box of the animal drawn."""
    with Image.open(folder / PICTURES / frame.file) as picture:
        found = picture.convert("RGB").resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS)
    left, top, width, height = frame.box
    corners = [left * 2 * WIDTH, top * 2 * HEIGHT, (left + width) * 2 * WIDTH, (top + height) * 2 * HEIGHT]
    ImageDraw.Draw(found).rectangle(corners, outline=BOX, width=3)
    return np.asarray(found)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[2]) if len(arguments) > 2 else Path(__file__).with_name("real_frames.png")
    try:
        found = pairs(Path(arguments[0]), Path(arguments[1]))
    except WildpdiffError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    draw([found[round(share * (len(found) - 1))] for share in SHARES], path, heading=HEADING)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
