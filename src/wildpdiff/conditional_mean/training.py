"""Training networks on the seen tasks: how the number of updates is chosen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wildpdiff.autoencoder.training import Progress, check_finite, flush_denormals, is_over, seeded
from wildpdiff.conditional_mean.network_store import NetworkStore
from wildpdiff.errors import TrainingError
from wildpdiff.parallel import in_parallel
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread

FEWEST_TO_HOLD_OUT = 5
"""With fewer tasks than this nothing can be chosen on held-out ones; all updates are made."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained on the seen tasks, by AdamW with averaged weights.

    Attributes:
        steps: most updates; how many are made is chosen on held-out seen tasks.
        tasks: seen tasks an update.
        warmup: updates of linear warm-up, after which the rates stay as they are, so that a run that is stopped early
            is the beginning of a longer one.
        averaging: decay of the moving average of the weights, which is what is kept (Polyak & Juditsky 1992).
        held_out: share of the seen tasks on which the number of updates is chosen.
        look_every: updates between two looks at their loss; the first few are closer together
            (:attr:`evaluation_steps`).
        patience: looks without a lower loss after which the choice is made.
    """

    steps: int = 400
    tasks: int = 16
    warmup: int = 20
    averaging: float = 0.97
    held_out: float = 0.2
    look_every: int = 20
    patience: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1 or self.tasks < 1 or self.look_every < 1:
            raise TrainingError(
                f"A training has {self.steps} updates of {self.tasks} tasks, with a look every {self.look_every}. "
                "Give at least 1 of each."
            )

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """Numbers of updates after which the held-out loss is evaluated.

        0, an eighth, a quarter and a half of ``look_every``, and its multiples. With wide layers and few tasks the best
        network is one of the first; multiples alone would miss it and end the training late.
        """
        early = {self.look_every // part for part in (8, 4, 2)} - {0}
        regular = range(self.look_every, self.steps + 1, self.look_every)
        return (0, *sorted(step for step in early if step <= self.steps), *regular)


@runtime_checkable
class TrainingProblem(Protocol[Network]):
    """A network and its loss on some tasks, for :func:`train_network`."""

    def network(self, tasks: Sequence[int]) -> Network:
        """An untrained network for training on these tasks; may be started from their adapters and no others."""

    def groups(self, network: Network) -> list[dict[str, Any]]:
        """The parameters with their rates, as ``torch.optim.AdamW`` takes them."""

    def loss(self, network: Network, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, ""]:
        """The loss of one update on these tasks, with images or checkpoints of theirs drawn from ``draws``."""


@runtime_checkable
class TaskProblem(TrainingProblem[Network], Protocol[Network]):
    """A network, its loss on some tasks and its loss where it was not trained, for :func:`fit_network`."""

    def held_out_loss(self, network: Network, tasks: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The loss on tasks that the network was not trained on; nothing in it is random."""


@dataclass(frozen=True)
class FittedNetwork(Generic[Network]):
    """A trained network.

    Attributes:
        network: with averaged weights, in evaluation mode, frozen.
        steps: updates made, as chosen on held-out seen tasks.
        losses: of those updates.
        held_out_losses: of the training that chose the number, after its ``evaluation_steps``; empty without any.
    """

    network: Network
    steps: int
    losses: Float[Tensor, " steps"] = field(repr=False)
    held_out_losses: Float[Tensor, " looks"] = field(repr=False)


def fit_network(
    problem: TaskProblem[Network], count: int, config: NetworkTraining, seed: int, what: str
) -> FittedNetwork[Network]:
    """Choose the number of updates on held-out seen tasks, then train on all of them for so many.

    Args:
        problem: network and losses.
        count: number of seen tasks; the problem's tasks are ``0 … count - 1``.
        config: how.
        seed: of everything random; the same seed gives the same bytes for one number of threads.
        what: name of the network, for errors.

    Raises:
        TrainingError: a loss is not finite.
    """
    every = list(range(count))
    steps, looks = config.steps, torch.zeros(0)
    with flush_denormals(), one_thread():
        if count >= FEWEST_TO_HOLD_OUT:
            order = torch.randperm(count, generator=torch_generator(seed, what, "held out"))
            kept = max(1, round(config.held_out * count))
            held = order[:kept].sort().values
            rest = order[kept:].sort().values.tolist()
            trial = _train(problem, rest, config, config.steps, seed, what, _evaluation(problem, held))
            looks = trial.held_out_losses
            steps = config.evaluation_steps[int(looks.argmin())]
        fitted = _train(problem, every, config, steps, seed, what, None)
    return FittedNetwork(fitted.network, steps, fitted.losses, looks)


@dataclass(frozen=True)
class FittedEnsemble(Generic[Network]):
    """Networks of which each was trained without a part of the seen tasks (cross-validated committee).

    Attributes:
        networks: one a part and problem, part by part, with averaged weights from the look at which the loss of that
            part was lowest, frozen.
        fold: for each seen task its part; -1 where nothing was trained without it.
        steps: updates that each network has behind it.
        losses: of all updates, one network after the other.
    """

    networks: tuple[Network, ...]
    fold: Int[Tensor, " t"]
    steps: tuple[int, ...]
    losses: Float[Tensor, " steps"] = field(repr=False)


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
    problem: TrainingProblem[Network], tasks: Sequence[int], config: NetworkTraining, seed: int, what: str
) -> Network:
    """A network trained on some tasks for all updates, with averaged weights, frozen.

    Raises:
        TrainingError: a loss is not finite.
    """
    with flush_denormals(), one_thread():
        return _train(problem, tasks, config, config.steps, seed, what, None).network


def fit_ensemble(
    problems: Sequence[TaskProblem[Network]],
    names: Sequence[str],
    parts: int,
    config: NetworkTraining,
    seed: int,
    what: str,
    trained: int | None = None,
    progress: Progress | None = None,
    store: NetworkStore | None = None,
) -> FittedEnsemble[Network]:
    """Train one network of each kind without each part of the seen tasks; that part says when to stop.

    The mean of the networks is steadier than one, the more so the less alike they err (Krogh & Vedelsby 1995); every
    task counts in most of them, and for every seen task there are some that never saw it: a prediction as for an
    unseen task, at no further cost.

    Args:
        problems: network and losses of each kind; ``config.held_out`` plays no part.
        names: of the seen tasks, by which they are parted.
        parts: how many parts.
        config: how.
        seed: of everything random.
        what: name of the networks, for errors.
        trained: without how many of the parts networks are trained; each of them by default.
        progress: called with (updates done, most updates in all).
        store: keeps every network as it is finished; those that it has are not trained again.

    Raises:
        TrainingError: a loss is not finite.
        ArtifactError: the disk refuses a network.
    """
    fold = folds(names, parts, seed, what)
    trained = parts if trained is None else min(trained, parts)
    jobs = [(part, kind) for part in range(trained) for kind in range(len(problems))]
    total = len(jobs) * config.steps

    def train(job: tuple[int, int], tick: Callable[[float], None]) -> FittedNetwork[Network]:
        part, kind = job
        problem, own = problems[kind], sub_seed(seed, what, part, kind)
        rest, left_out = (fold != part).nonzero()[:, 0].tolist(), (fold == part).nonzero()[:, 0]
        found = None if store is None else _stored(store, problem, rest, own, what, part, kind)
        if found is None:
            evaluate = _evaluation(problem, left_out)
            ahead = _ahead(tick, config)
            with flush_denormals():
                found = _train(problem, rest, config, config.steps, own, what, evaluate, keep_best=True, progress=ahead)
            if store is not None:
                store.save(found.network, found.steps, found.losses, found.held_out_losses, part, kind)
        return found

    advance = None if progress is None else lambda share: progress(round(share * total), total)
    fitted = list(in_parallel(train, jobs, advance))
    return FittedEnsemble(
        tuple(entry.network for entry in fitted),
        torch.where(fold < trained, fold, -1),
        tuple(entry.steps for entry in fitted),
        torch.cat([entry.losses for entry in fitted]),
    )


def _stored(
    store: NetworkStore, problem: TaskProblem[Network], tasks: Sequence[int], seed: int, what: str, *name: int
) -> FittedNetwork[Network] | None:
    """A network that an earlier call has finished."""
    kept = store.load(*name)
    if kept is None:
        return None
    with seeded(sub_seed(seed, what, "weights")):
        network = problem.network(tasks)
    network.load_state_dict(kept.state)
    return FittedNetwork(network.eval().requires_grad_(False), kept.steps, kept.losses, kept.held_out_losses)


def _ahead(tick: Callable[[float], None], config: NetworkTraining) -> Progress:
    """The progress of a training that is most likely stopped early: the share of a guess of its length."""
    expected = min(config.steps, 3 * config.patience * config.look_every)
    return lambda step, _: tick(min(0.95, step / expected))


def _train(
    problem: TrainingProblem[Network],
    tasks: Sequence[int],
    config: NetworkTraining,
    steps: int,
    seed: int,
    what: str,
    evaluate: Callable[[Network], float] | None,
    *,
    keep_best: bool = False,
    progress: Progress | None = None,
) -> FittedNetwork[Network]:
    """Train; with a held-out loss stop once it has not fallen for long, and keep the best network if asked to."""
    draws = torch_generator(seed, what, "batches")
    pool = torch.tensor(tasks)
    evaluated = set(config.evaluation_steps)
    losses: list[float] = []
    with seeded(sub_seed(seed, what, "weights")):
        network = problem.network(tasks).train()
        averaged = copy.deepcopy(network).eval().requires_grad_(False)
        best = copy.deepcopy(averaged)
        looks = [] if evaluate is None else [evaluate(averaged)]
        for loss_at_start in looks:
            check_finite(loss_at_start, 0, what)
        groups = problem.groups(network)
        rates = [float(group["lr"]) for group in groups]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        for step in range(steps):
            picked = pool[torch.randperm(len(pool), generator=draws)[: config.tasks]]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (step + 1) / config.warmup)
            optimizer.zero_grad(set_to_none=True)
            loss = problem.loss(network, picked, draws)
            check_finite(float(loss.detach()), step + 1, what)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            # A young average forgets its start faster than an old one.
            decay = min(config.averaging, (1.0 + step) / (10.0 + step))
            torch._foreach_lerp_(list(averaged.parameters()), [p.detach() for p in network.parameters()], 1.0 - decay)
            if progress is not None:
                progress(step + 1, steps)
            if evaluate is not None and step + 1 in evaluated:
                looks.append(evaluate(averaged))
                check_finite(looks[-1], step + 1, what)
                if keep_best and looks.index(min(looks)) == len(looks) - 1:
                    best.load_state_dict(averaged.state_dict())
                if is_over(looks, config.patience):
                    break
    if keep_best:
        kept = config.evaluation_steps[looks.index(min(looks))]
        return FittedNetwork(best, kept, torch.tensor(losses), torch.tensor(looks))
    return FittedNetwork(averaged, steps, torch.tensor(losses), torch.tensor(looks))


def _evaluation(problem: TaskProblem[Network], tasks: Tensor) -> Callable[[Network], float]:
    """The loss on tasks that a network is trained without."""

    def loss(network: Network) -> float:
        with torch.no_grad():
            return float(problem.held_out_loss(network, tasks))

    return loss
