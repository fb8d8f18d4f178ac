"""Picture of the first page: sites, their descriptions, and photographs of their cameras.

python docs/img/overview.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from wildbench.datasets.savanna import SavannaConfig, SavannaSuite
from wildpdiff.tasks.contact_sheet import contact_sheet
from wildpdiff.tasks.description import Description, Images

SITES = (5, 7)
SIZE = 96
BACKGROUNDS, PICTURES = 3, 6
GAP = 4
INK, MUTED = "#22303c", "#5c6b78"


def strip(images: Images) -> Images:
    """Images side by side with white gaps, as a contact sheet has them."""
    gap = np.full((images.shape[1], GAP, 3), 255, dtype=np.uint8)
    parts = [part for image in images for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)


def words(description: Description) -> str:
    """The metadata in lines of plain text."""
    known = description.metadata or {}
    latitude, longitude = float(known["latitude"]), float(known["longitude"])
    return (
        f"{abs(latitude):.2f}° {'N' if latitude > 0 else 'S'}  {longitude:.2f}° E\n"
        f"{known['elevation']:.0f} m above the sea\n"
        f"{known['habitat']}, {known['canopy_cover']:.0f} % canopy\n"
        f"camera {known['camera_model']}, {known['camera_height']} m up"
    )


def show(axes: Axes, image: Images) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()


def main() -> None:
    suite = SavannaSuite(SavannaConfig(image_size=SIZE, unseen=max(SITES) + 1, test=40, backgrounds=BACKGROUNDS))
    tasks = [suite.tasks("unseen")[site] for site in SITES]
    widths = [1.7, BACKGROUNDS, 0.75, PICTURES]
    figure, grid = plt.subplots(
        len(tasks), 4, figsize=(sum(widths) + 0.1, len(tasks) * 1.02 + 0.45), width_ratios=widths, squeeze=False
    )
    figure.subplots_adjust(left=0.005, right=0.995, top=0.87, bottom=0.01, wspace=0.03, hspace=0.05)
    titles = ("a new site", "empty frames from it", "", "photographs of its camera")
    for axes, title in zip(grid[0], titles, strict=True):
        figure.text(axes.get_position().x0, 0.905, title, fontsize=9.5, color=INK, weight="bold")
    for row, task in zip(grid, tasks, strict=True):
        row[0].set_axis_off()
        row[0].text(0, 0.5, words(task.description), fontsize=8, color=INK, va="center", linespacing=1.45)
        empty = task.description.backgrounds
        assert empty is not None
        show(row[1], strip(empty))
        row[2].set_axis_off()
        row[2].set(xlim=(0, 1), ylim=(0, 1))
        row[2].annotate("", (0.95, 0.42), (0.05, 0.42), arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1.4})
        row[2].text(0.5, 0.54, "generated\nadapter", fontsize=7.5, color=MUTED, ha="center", va="bottom")
        show(row[3], contact_sheet(suite, [task], columns=PICTURES, gap=GAP))
    figure.savefig(Path(__file__).with_name("overview.png"), dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
