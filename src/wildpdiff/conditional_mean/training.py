"""Training of networks on the seen tasks: the number of updates chosen on held-out tasks, ensembles over folds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wildpdiff.artifact import read_safetensors, safetensors_bytes, tensors_hash
from wildpdiff.disk import content_hash, json_bytes, write_file
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.parallel import in_parallel
from wildpdiff.registry import package_version
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread
from wildpdiff.training import (
    ParameterAverage,
    Progress,
    check_finite,
    flush_denormals,
    is_over,
    seeded,
    train,
    warmup_constant,
)

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class NetworkTraining:
    """Training of a network on the seen tasks, by AdamW with averaged weights.

    Attributes:
        steps: most updates; the number is chosen on held-out seen tasks.
        warmup: updates of linear warm-up, after which the rates are constant.
        averaging: decay of the moving average of the weights, which is the result.
        held_out: share of the seen tasks on which the number of updates is chosen.
        evaluate_every: updates between two evaluations of their loss; the first few are closer together
            (:attr:`evaluation_steps`).
        patience: evaluations without a lower loss after which the choice is made.
    """

    steps: int = 400
    tasks: int = 16
    warmup: int = 20
    averaging: float = 0.97
    held_out: float = 0.2
    evaluate_every: int = 20
    patience: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1 or self.tasks < 1 or self.evaluate_every < 1:
            raise TrainingError(
                f"A training has {self.steps} updates of {self.tasks} tasks, with an evaluation every "
                f"{self.evaluate_every}. Give at least 1 of each."
            )

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """Numbers of updates after which the held-out loss is evaluated.

        0, an eighth, a quarter and a half of ``evaluate_every``, and its multiples. With wide layers and few tasks the
        best network is one of the first; multiples alone would miss it and end the training late.
        """
        early = {self.evaluate_every // part for part in (8, 4, 2)} - {0}
        regular = range(self.evaluate_every, self.steps + 1, self.evaluate_every)
        return (0, *sorted(step for step in early if step <= self.steps), *regular)


@runtime_checkable
class TrainingProblem(Protocol[Network]):
    """A network and its loss on some tasks."""

    def network(self, tasks: Sequence[int]) -> Network:
        """An untrained network for these tasks; may be started from their adapters and no others."""

    def groups(self, network: Network) -> list[dict[str, Any]]:
        """The parameters with their rates, as ``torch.optim.AdamW`` takes them."""

    def loss(self, network: Network, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, ""]:
        """The loss of one update on these tasks, with images or checkpoints of theirs drawn from ``draws``."""


@runtime_checkable
class TaskProblem(TrainingProblem[Network], Protocol[Network]):
    """A network, its loss on some tasks and its loss on tasks that it was not trained on."""

    def held_out_loss(self, network: Network, tasks: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The loss on tasks that the network was not trained on; nothing in it is random."""


@dataclass(frozen=True)
class FittedNetwork(Generic[Network]):
    """A trained network.

    Attributes:
        network: with averaged weights, in evaluation mode, frozen.
        held_out_losses: after each of the ``evaluation_steps``; empty without any.
    """

    network: Network
    steps: int
    losses: Float[Tensor, " steps"] = field(repr=False)
    held_out_losses: Float[Tensor, " evaluations"] = field(repr=False)


@dataclass(frozen=True)
class FittedEnsemble(Generic[Network]):
    """Networks of which each was trained without a part of the seen tasks (cross-validated committee).

    Attributes:
        networks: one a part and problem, part by part, with averaged weights from the evaluation at which the loss of
            that part was lowest, frozen.
        fold: for each seen task its part; -1 where nothing was trained without it.
    """

    networks: tuple[Network, ...]
    fold: Int[Tensor, " t"]
    steps: tuple[int, ...]
    losses: Float[Tensor, " steps"] = field(repr=False)


@dataclass(frozen=True)
class NetworkStore:
    """Trained networks in a folder, so that a fit that was killed loses only the one in training.

    File names are hashes of everything that decides the weights, so that one folder may hold networks of several fits.
    A file appears whole or not at all.

    Attributes:
        key: hash of everything that decides all networks of one fit.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> NetworkStore:
        """The store of the fit that these tensors and plain JSON values decide, at these versions of the packages."""
        versions = {"wildpdiff": package_version() or "unknown", "torch": str(torch.__version__)}
        return cls(folder, content_hash(json_bytes({**settings, **versions}) + tensors_hash(tensors).encode()))

    def load(self, network: Network, *name: int) -> FittedNetwork[Network] | None:
        """The stored weights in a network of their shapes; None where they are missing or not as they were written."""
        try:
            tensors = read_safetensors(self._path(name))
            if not torch.equal(tensors.pop("sha256"), self._check(name, tensors)):
                return None
            steps, losses, held_out = (tensors.pop(key) for key in ("steps", "losses", "held_out_losses"))
            network.load_state_dict({key.removeprefix("network."): value for key, value in tensors.items()})
        except (ArtifactError, KeyError, RuntimeError):
            return None
        return FittedNetwork(network.eval().requires_grad_(False), int(steps), losses, held_out)

    def save(self, fitted: FittedNetwork[Network], *name: int) -> None:
        """Write a trained network; raises :class:`ArtifactError` where the disk refuses."""
        tensors = {f"network.{key}": value for key, value in fitted.network.state_dict().items()}
        tensors |= {"steps": torch.tensor(fitted.steps), "losses": fitted.losses}
        tensors["held_out_losses"] = fitted.held_out_losses
        write_file(self._path(name), safetensors_bytes({**tensors, "sha256": self._check(name, tensors)}))

    def _check(self, name: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
        digest = content_hash(json_bytes([self.key, *name]) + tensors_hash(tensors).encode())
        return torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)

    def _path(self, name: tuple[int, ...]) -> Path:
        return self.folder / f"network-{content_hash(json_bytes([self.key, *name]))[:32]}.safetensors"


def folds(names: Sequence[str], parts: int, seed: int, what: str) -> Int[Tensor, " t"]:
    """A part, 0 to ``parts - 1``, for each task, by a hash of its name: further tasks change nobody's.

    Where the tasks are so few that hashes would leave a part with less than half of its share, the tasks are dealt out
    in the order of their hashes.
    """
    hashes = [sub_seed(seed, what, "fold", name) for name in names]
    fold = torch.tensor([value % parts for value in hashes])
    if int(torch.bincount(fold, minlength=parts).min()) < len(names) / parts / 2:
        order = sorted(range(len(names)), key=lambda row: hashes[row])
        fold[torch.tensor(order)] = torch.arange(len(names)) % parts
    return fold


def train_network(
    problem: TrainingProblem[Network], tasks: Sequence[int], config: NetworkTraining, *, seed: int, what: str
) -> Network:
    """A network trained on some tasks for all updates, with averaged weights, frozen.

    Raises:
        TrainingError: a loss is not finite.
    """
    with flush_denormals(), one_thread():
        return TaskTraining(problem, tasks, config, seed, what).run(config.steps).network


def fit_ensemble(
    problems: Sequence[TaskProblem[Network]],
    fold: Int[Tensor, " t"],
    config: NetworkTraining,
    *,
    seed: int,
    what: str,
    progress: Progress | None = None,
    store: NetworkStore | None = None,
    starts: Sequence[Network] = (),
) -> FittedEnsemble[Network]:
    """One network of each kind without each part of the seen tasks; the loss on that part ends the training.

    The mean of the networks is steadier than one, the more so the less alike they err (Krogh & Vedelsby 1995); every
    task counts in most of them, and for every seen task there are some that were trained without it: a prediction as
    for an unseen task, at no further cost.

    Args:
        fold: the part of each task (:func:`folds`); -1 for tasks that every network is trained on.
        config: of the training; ``held_out`` is not read.
        store: of finished networks; those that it has are not trained again.
        starts: the networks of an ensemble of some of these tasks, which are trained further.

    Raises:
        TrainingError: a loss is not finite.
        ArtifactError: the disk refuses a network.
    """
    jobs = [(part, kind) for part in range(int(fold.max()) + 1) for kind in range(len(problems))]
    total = len(jobs) * config.steps

    def fit(job: tuple[int, int], tick: Callable[[float], None]) -> FittedNetwork[Network]:
        part, kind = job
        problem, own = problems[kind], sub_seed(seed, what, part, kind)
        rest, left_out = (fold != part).nonzero()[:, 0].tolist(), (fold == part).nonzero()[:, 0]
        first = starts[jobs.index(job)] if starts else None
        training = TaskTraining(problem, rest, config, own, what, evaluation_of(problem, left_out), first)
        found = None if store is None else store.load(training.network(), *job)
        if found is None:
            # A training is most likely stopped early: progress is the share of a guess of its length.
            expected = min(config.steps, 3 * config.patience * config.evaluate_every)
            with flush_denormals():
                found = training.run(config.steps, lambda step, _: tick(min(0.95, step / expected)))
            if store is not None:
                store.save(found, *job)
        return found

    advance = None if progress is None else lambda share: progress(round(share * total), total)
    fitted = list(in_parallel(fit, jobs, advance))
    return FittedEnsemble(
        tuple(entry.network for entry in fitted),
        fold,
        tuple(entry.steps for entry in fitted),
        torch.cat([entry.losses for entry in fitted]),
    )


@dataclass(frozen=True)
class TaskTraining(Generic[Network]):
    """Training of one network; with an evaluation it ends early, and the result is that of the lowest held-out loss.

    Attributes:
        start: a network that is trained further; by default it is the problem's.
    """

    problem: TrainingProblem[Network]
    tasks: Sequence[int]
    config: NetworkTraining
    seed: int
    what: str
    evaluate: Callable[[Network], float] | None = None
    start: Network | None = None

    def network(self) -> Network:
        """The network before the training."""
        with seeded(sub_seed(self.seed, self.what, "weights")):
            return self._first()

    def _first(self) -> Network:
        if self.start is None:
            return self.problem.network(self.tasks)
        return copy.deepcopy(self.start).requires_grad_(True)

    def run(self, steps: int, progress: Progress | None = None) -> FittedNetwork[Network]:
        """The trained network."""
        config, problem = self.config, self.problem
        draws = torch_generator(self.seed, self.what, "batches")
        pool, evaluated = torch.tensor(list(self.tasks)), set(config.evaluation_steps)
        with seeded(sub_seed(self.seed, self.what, "weights")):
            network = self._first().train()
            average = ParameterAverage(network, config.averaging)
            best = copy.deepcopy(average.module)
            held_out = [] if self.evaluate is None else [self.evaluate(best)]
            for first in held_out:
                check_finite(first, 0, self.what)
            optimizer = torch.optim.AdamW(problem.groups(network), betas=(0.9, 0.99))

            def objective() -> Tensor:
                picked = pool[torch.randperm(len(pool), generator=draws)[: config.tasks]]
                return problem.loss(network, picked, draws)

            def after(step: int) -> bool:
                average.update(step)
                if self.evaluate is None or step not in evaluated:
                    return False
                held_out.append(self.evaluate(average.module))
                check_finite(held_out[-1], step, self.what)
                if held_out.index(min(held_out)) == len(held_out) - 1:
                    best.load_state_dict(average.module.state_dict())
                return is_over(held_out, config.patience)

            schedule = warmup_constant(optimizer, config.warmup)
            losses = train(
                optimizer, objective, steps, name=self.what, schedule=schedule, after=after, progress=progress
            )
        if self.evaluate is None:
            return FittedNetwork(average.module, steps, losses, torch.zeros(0))
        chosen = config.evaluation_steps[held_out.index(min(held_out))]
        return FittedNetwork(best, chosen, losses, torch.tensor(held_out))


def evaluation_of(problem: TaskProblem[Network], tasks: Tensor) -> Callable[[Network], float]:
    """The loss on tasks that a network is trained without."""

    def loss(network: Network) -> float:
        with torch.no_grad():
            return float(problem.held_out_loss(network, tasks))

    return loss
