"""Evolution strategies: search an adapter with few labels of the task and without gradients (CMA-ES)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.methods.few_labels import few_labels, labelled_task
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.codec.codec import Codec
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import of_many
from wildpdiff.zoo.features import TaskFeatures

Space = Literal["latent", "raw"]
Objective = Callable[[Tensor], Tensor]
_PHRASES: Mapping[Space, str] = {"latent": "in the latent space", "raw": "on raw LoRA"}


@dataclass(frozen=True)
class EvolutionConfig:
    """The budget of one task's search.

    Attributes:
        generations: times a population is drawn and scored.
        population: adapters a generation; ``generations * population`` evaluations in all.
        step: standard deviation of the first population, in units of the spread of the seen tasks.
    """

    generations: int = 60
    population: int = 24
    step: float = 0.3

    def __post_init__(self) -> None:
        if self.generations < 1 or self.population < 4 or not self.step > 0:
            raise TrainingError(
                f"CMA-ES is to run {self.generations} generations of {self.population} with step {self.step:g}; "
                "it needs at least 1 generation of 4, and a positive step."
            )

    @property
    def evaluations(self) -> int:
        """Adapters scored for one task."""
        return self.generations * self.population


DEFAULTS: Mapping[Space, EvolutionConfig] = {
    "latent": EvolutionConfig(generations=30, step=0.1),
    "raw": EvolutionConfig(generations=120, step=0.3),
}
"""The budget of each space where none is given: 720 evaluations, about a second of one core with 5 labels a class, and
2,880, about three and a half. On seen tasks a longer search of the latents only overfitted the few labels."""


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The space in which adapters are searched.

    Attributes:
        name: ``latent`` or ``raw``.
        start: the point where the search starts.
        scale: spread of the seen tasks in each coordinate, or the like; positive.
        tensors: points to adapter tensors stacked on a leading axis.
        diagonal: adapt variances alone and no covariances, which many coordinates need (Ros & Hansen 2008).
    """

    name: Space
    start: Float[Tensor, " p"]
    scale: Float[Tensor, " p"]
    tensors: Callable[[Tensor], dict[str, Tensor]]
    diagonal: bool


def latent_space(codec: Codec, autoencoder: Autoencoder, seen: SeenAdapters) -> SearchSpace:
    """The latents of a generator's autoencoder, from the mean of the seen tasks' latents and with their spread.

    Raises:
        AdapterMismatchError: the adapters are not of the codec's layout.
    """
    with torch.no_grad():
        latents = autoencoder.encode(codec.encode(seen.vectors))
    spread = latents.std(0, correction=0)
    # A coordinate in which all seen tasks agree is searched in too, but hardly.
    scale = spread.clamp_min(1e-3 * float(spread.max()) + 1e-12)

    def tensors(points: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return codec.layout.unflatten(codec.decode(autoencoder.decode(points)))

    return SearchSpace("latent", latents.mean(0), scale, tensors, False)


def raw_space(initial: Adapter, seen: SeenAdapters) -> SearchSpace:
    """The adapter's own values without LoRA's A, from the initialisation; one spread a tensor.

    The spread is the root mean square of how far the seen adapters are from the initialisation, over all values of a
    tensor. LoRA's A stays as it is, as it does in fine-tuning: with A and B both free, many points are one model.

    Raises:
        DataError: the seen adapters do not differ from the initialisation in any tensor but LoRA's A.
    """
    layout = seen.layout
    start = layout.flatten(initial.tensors)
    scales = []
    for name, part in zip(layout.names, torch.split(seen.vectors - start, list(layout.sizes), dim=1), strict=True):
        spread = 0.0 if ".lora_A." in name else float(part.double().square().mean().sqrt())
        scales.append(torch.full((part.shape[1],), spread))
    scale = torch.cat(scales)
    free = scale > 0
    if not bool(free.any()):
        raise DataError("The seen adapters are all at the initialisation; there is no spread to search in.")

    def tensors(points: Tensor) -> dict[str, Tensor]:
        vectors = start.repeat(len(points), 1)
        vectors[:, free] = points
        return layout.unflatten(vectors)

    return SearchSpace("raw", start[free], scale[free], tensors, True)


@dataclass(frozen=True)
class Evolved:
    """The end of a search.

    Attributes:
        point: the mean of the last distribution.
        best: the objective at the start, then the lowest of each generation.
    """

    point: Float[Tensor, " p"]
    best: Float[Tensor, " g"]


def evolve(space: SearchSpace, objective: Objective, config: EvolutionConfig, draws: np.random.Generator) -> Evolved:
    """Minimise by CMA-ES (Hansen 2016, "The CMA evolution strategy: a tutorial", 1604.00772; package ``cma``).

    Args:
        space: start and scale of the search.
        objective: points "n p" to values "n"; called once a generation.
        config: the budget; the search never stops before it is spent.
        draws: gives the normal numbers.

    Raises:
        TrainingError: package ``cma`` is not installed, or a value is not finite.
    """
    try:
        import cma
    except ImportError:
        raise TrainingError(
            'Evolution strategies need the package cma, which is not installed. Install it: pip install "wildpdiff'
            '[evolution]".'
        ) from None

    def normal(rows: int, columns: int) -> npt.NDArray[np.float64]:
        return draws.standard_normal((rows, columns))

    options: dict[str, Any] = {
        "popsize": config.population,
        "CMA_diagonal": space.diagonal,
        "randn": normal,
        # With a seed of its own the package would seed NumPy globally.
        "seed": math.nan,
        "verbose": -9,
        "verb_disp": 0,
        "verb_log": 0,
    }
    strategy = cma.CMAEvolutionStrategy(np.zeros(len(space.start)), config.step, options)
    best = [float(objective(space.start[None])[0])]
    for generation in range(config.generations):
        population = strategy.ask()
        points = space.start + space.scale * torch.from_numpy(np.stack(population)).float()
        values = objective(points).double().numpy()
        if not bool(np.isfinite(values).all()):
            raise TrainingError(f"CMA-ES met a loss that is not finite in generation {generation + 1}; lower its step.")
        strategy.tell(population, values.tolist())
        best.append(float(values.min()))
    point = space.start + space.scale * torch.from_numpy(np.asarray(strategy.mean)).float()
    return Evolved(point, torch.tensor(best))


class EvolutionSource:
    """Gives the adapter that CMA-ES finds for a few labels of the task that the description names.

    What is minimised is the cross-entropy on ``k`` labels a class, the same images that
    :class:`~wildbench.methods.few_labels.FewLabelsSource` of that seed is fine-tuned on; a generation's adapters are
    scored in one pass. The answer is the mean of the last distribution, which is less fitted to the few labels than
    the best point met. A task is searched at the first request, and its adapter kept.
    """

    stochastic = False

    def __init__(
        self,
        space: SearchSpace,
        data: LabelledData,
        backbone: Backbone,
        *,
        labels_per_class: int,
        config: EvolutionConfig | None = None,
        seed: int = 0,
    ) -> None:
        """Remember what the search needs; nothing is searched yet.

        Args:
            space: of :func:`latent_space` or :func:`raw_space`.
            data: labelled images of the tasks by name; the training images alone are used.
            backbone: the frozen model.
            labels_per_class: training images of each class, fewer where the task has fewer.
            config: the budget; by default the space's own.
            seed: of the choice of images and of the search.

        Raises:
            DataError: less than one label a class.
        """
        if labels_per_class < 1:
            raise DataError(f"{labels_per_class} labels a class were requested; CMA-ES needs at least 1.")
        self._space = space
        self._data = data
        self._backbone = backbone
        self._labels_per_class = labels_per_class
        self._config = config or DEFAULTS[space.name]
        self._seed = seed
        self._kept: dict[str, Adapter] = {}

    @property
    def name(self) -> str:
        """For example ``CMA-ES in the latent space, 5 labels a class``."""
        plural = "" if self._labels_per_class == 1 else "s"
        return f"CMA-ES {_PHRASES[self._space.name]}, {self._labels_per_class} label{plural} a class"

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the task's adapter, searched now unless it was before.

        Raises:
            DescriptionError: the description names no task, or one whose labels are not at hand.
            TrainingError: package ``cma`` is not installed, or a loss is not finite.
        """
        task = labelled_task(self._data, description)
        if task.name not in self._kept:
            self._kept[task.name] = self._search(few_labels(task, self._labels_per_class, self._seed))
        adapter = self._kept[task.name]
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, **dict(adapter.provenance))

    def _search(self, task: TaskFeatures) -> Adapter:
        draws = numpy_generator(self._seed, "evolution", self._space.name, task.name)
        found = evolve(self._space, lambda points: self.losses(task, points), self._config, draws)
        tensors = {name: value[0].clone() for name, value in self._space.tensors(found.point[None]).items()}
        provenance = {
            "labels": task.train_size,
            "labels_per_class": self._labels_per_class,
            "evaluations": self._config.evaluations,
        }
        return Adapter(tensors, self._backbone.adapter_config, provenance)

    def losses(self, task: TaskFeatures, points: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """Mean loss of each point's adapter on the task's training examples."""
        outputs = self._backbone.predict_many(task.train, self._space.tensors(points))
        return of_many(self._backbone.objective.loss, outputs, task.train).mean(1)
