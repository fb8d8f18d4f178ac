"""A folder of frames as the species pairs read it: animals are squares of a colour of their species."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image

from wildbench.datasets.species_pairs import COLUMNS
from wildpdiff.tasks.description import Images

SPECIES = ("Red_Deer", "Wild_Boar", "Roe_Deer", "Ocelot", "Red_Fox", "Agouti", "White-nosed_Coati", "Wood_Mouse")
SIDE = 40


def write_frames(folder: Path, species: tuple[str, ...] = SPECIES, sequences: int = 4, frames: int = 3) -> Path:
    """``index.csv`` and ``images``; the last frame of every sequence has no known box."""
    (folder / "images").mkdir(parents=True)
    draws = np.random.default_rng(3)
    lines = [",".join(COLUMNS)]
    for number, name in enumerate(species):
        colour = np.array([30 * number, 250 - 30 * number, 40 + 60 * (number % 3)])
        for sequence in range(sequences):
            for frame in range(frames):
                picture = draws.integers(90, 120, (SIDE, SIDE, 3))
                picture[10:30, 5:25] = np.clip(colour + draws.normal(0, 12, (20, 20, 3)), 0, 255)
                file = f"S{number}{sequence}_{frame}.png"
                Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / file)
                box = "" if frame == frames - 1 else "0.375 0.5 0.5 0.5|17"
                lines.append(f"{file},S{number}{sequence},{name},{box}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def colours(images: Images) -> Float32[ndarray, "n f"]:
    """Mean and spread of each colour in quarters of an image."""
    quarters = images.astype(np.float32).reshape(len(images), 2, images.shape[1] // 2, 2, images.shape[2] // 2, 3)
    return np.concatenate(
        [quarters.mean((2, 4)).reshape(len(images), -1), quarters.std((2, 4)).reshape(len(images), -1)], 1
    )
