"""Distances of a flat adapter to the stored checkpoints: the nearest one, their mean, their averages, their span.

Distances are between the values themselves. Where LoRA's A is frozen at the shared initialisation (the default of
``FinetuneConfig``) two adapters of one effect have one B, so there is nothing to align. Where A is trained too, B·A
leaves a free choice of basis; all runs start from one initialisation and stay near its basis, no alignment is done,
and a distance is then an upper bound on the aligned one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import DataError
from wildpdiff.zoo.store import Zoo

ROUNDING = 1e-10
"""Directions with less than this share of the largest variance are rounding."""


@dataclass(frozen=True)
class Located:
    """Distances of a flat adapter to the checkpoints.

    Attributes:
        row: of the nearest checkpoint in the zoo.
        distance: L2 distance to it.
        products: inner products of the adapter, minus the centre, with the runs.
        square: squared length of the adapter minus the centre.
    """

    row: int
    distance: float
    products: Float[Tensor, " t"]
    square: float


class CheckpointGeometry:
    """The checkpoints of a zoo as points, in float64 where differences of near points count.

    Attributes:
        layout: names and shapes behind the vectors.
        vectors: one checkpoint a row, float32 as stored.
        tasks: names of the runs.
        rows: the rows of each run, in order of steps.
        centre: mean of all checkpoints.
        runs: each run's mean checkpoint minus the centre.
        gram: inner products of ``runs``.
        parameters: number of values that differ between any two checkpoints.
    """

    layout: Layout
    vectors: Float[Tensor, "n d"]
    tasks: tuple[str, ...]
    rows: dict[str, list[int]]
    centre: Float[Tensor, " d"]
    runs: Float[Tensor, "t d"]
    gram: Float[Tensor, "t t"]
    parameters: int

    def __init__(self, zoo: Zoo) -> None:
        """Read every checkpoint.

        Raises:
            DataError: the zoo has fewer than two runs, so that there is no checkpoint of another run.
        """
        if len(zoo.tasks) < 2:
            raise DataError("Novelty needs checkpoints of at least two tasks. Measure it on a zoo of more tasks.")
        self.layout = Layout.of(zoo.initial.tensors)
        self.vectors = self.layout.flatten_many(zoo.tensors(range(len(zoo))))
        self.tasks = zoo.tasks
        self.rows = {task: [] for task in zoo.tasks}
        for row, task in enumerate(zoo.column("task")):
            self.rows[task].append(row)
        means = torch.stack([self.vectors[self.rows[task]].mean(0, dtype=torch.float64) for task in self.tasks])
        counts = torch.tensor([len(self.rows[task]) for task in self.tasks], dtype=torch.float64)
        self.centre = counts @ means / counts.sum()
        self.runs = means - self.centre
        self.gram = self.runs @ self.runs.T
        deviations = [self._deviations(number) for number in range(len(self.tasks))]
        self._radii = torch.stack([entry.max() for entry in deviations])
        # A pair of k draws differs by 2k/(k−1) times their mean squared deviation from their own mean.
        pairs = [2 * float(entry.square().sum()) / (len(entry) - 1) for entry in deviations if len(entry) > 1]
        self.within_run = math.sqrt(sum(pairs) / len(pairs)) if pairs else 0.0
        self.parameters = int((self.vectors != self.vectors[:1]).any(0).sum())
        values, basis = torch.linalg.eigh(self.gram)
        kept = values > ROUNDING * values[-1]
        self._whitener = basis[:, kept] / values[kept].sqrt()

    @property
    def directions(self) -> int:
        """Number of directions in which the runs differ."""
        return int(self._whitener.shape[1])

    def _deviations(self, run: int) -> Float[Tensor, " k"]:
        points = self.vectors[self.rows[self.tasks[run]]].double()
        return torch.sqrt((points - self.centre - self.runs[run]).square().sum(1))

    def locate(self, vector: Float[Tensor, " d"], without: str | None = None) -> Located:
        """Distances of an adapter; the nearest checkpoint is found exactly.

        No checkpoint of a run is nearer than the run's mean less the run's radius (triangle inequality), so only the
        runs that this does not rule out are searched, by differences in float64: the expanded square
        ``|x|² − 2xy + |y|²`` would lose the small distances of a copy to cancellation.

        Args:
            vector: the flat adapter.
            without: name of a run to leave out.
        """
        point = vector.double()
        centred = point - self.centre
        products, square = self.runs @ centred, float(centred.square().sum())
        lengths = self.gram.diagonal() + square
        # The expanded square will do for a bound, with more than its rounding taken off.
        to_means = (lengths * (1 - 1e-12) - 2 * products).clamp_min(0).sqrt()
        bounds = to_means - self._radii * (1 + 1e-9)
        row, distance = -1, math.inf
        for run in bounds.argsort().tolist():
            if float(bounds[run]) > distance:
                break
            if self.tasks[run] == without:
                continue
            rows = self.rows[self.tasks[run]]
            distances = torch.sqrt((self.vectors[rows].double() - point).square().sum(1))
            nearest = int(distances.argmin())
            if float(distances[nearest]) < distance:
                row, distance = rows[nearest], float(distances[nearest])
        return Located(row, distance, products, square)

    def span_distances(self, products: Float[Tensor, "n t"], squares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Distance of points to the nearest weighted sum of runs, weights adding up to 1.

        Args:
            products: inner products of the points, minus the centre, with ``runs``.
            squares: squared length of the points, minus the centre.
        """
        inside = (products @ self._whitener).square().sum(1)
        return torch.sqrt((squares - inside).clamp_min(0))


def nearest_average_distances(
    products: Float[Tensor, "n t"],
    squares: Float[Tensor, " n"],
    gram: Float[Tensor, "t t"],
    *,
    tolerance: float,
    steps: int = 2000,
) -> Float[Tensor, " n"]:
    """Distance of points to the runs' convex hull: to the nearest average with weights from 0 that add up to 1.

    Minimises ``|x − Σ aⱼ rⱼ|²`` by projected gradient steps with momentum (Beck and Teboulle 2009, FISTA) that starts
    anew where it overshoots. A point is done when the duality gap of Frank and Wolfe (1956), ``a·∇ − minⱼ ∇ⱼ``, which
    bounds how far the squared distance is from the least one, is below ``tolerance²``.

    Args:
        products: inner products of the points with the runs.
        squares: squared lengths of the points.
        gram: inner products of the runs.
        tolerance: largest error of the distance.
        steps: at most this many.
    """
    count = gram.shape[0]
    step = 1.0 / max(float(torch.linalg.eigvalsh(gram)[-1]), torch.finfo(torch.float64).tiny)
    best = torch.full(products.shape, 1.0 / count, dtype=torch.float64)
    active = torch.arange(len(products))
    weights, ahead, momentum = best.clone(), best.clone(), torch.ones(len(products), 1, dtype=torch.float64)
    for number in range(steps):
        target = products[active]
        moved = _onto_simplex(ahead - step * (ahead @ gram - target))
        # Momentum that points uphill is thrown away (O'Donoghue and Candès 2015, gradient restart).
        uphill = ((ahead - moved) * (moved - weights)).sum(1, keepdim=True) > 0
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        push = torch.where(uphill, 0.0, (momentum - 1) / following)
        ahead, weights, momentum = moved + push * (moved - weights), moved, torch.where(uphill, 1.0, following)
        if number % 20 == 19:
            gradient = weights @ gram - target
            gap = 2 * ((weights * gradient).sum(1) - gradient.min(1).values)
            best[active] = weights
            left = gap > tolerance**2
            active, weights, ahead, momentum = active[left], weights[left], ahead[left], momentum[left]
            if not len(active):
                break
    best[active] = weights
    distances = squares - 2 * (best * products).sum(1) + ((best @ gram) * best).sum(1)
    return distances.clamp_min(0).sqrt()


def _onto_simplex(values: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """The nearest weights from 0 that add up to 1 (Held, Wolfe and Crowder 1974)."""
    falling = values.sort(1, descending=True).values
    excess = falling.cumsum(1) - 1
    ranks = torch.arange(1, values.shape[1] + 1)
    last = (falling * ranks > excess).sum(1, keepdim=True)
    return (values - excess.gather(1, last - 1) / last).clamp_min(0)
