"""Fitting the posterior: the distribution of held-out errors under which labels are most probable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.autoencoder.training import flush_denormals
from wildpdiff.conditional_mean.cross_validation import TEMPERATURES
from wildpdiff.conditional_mean.fit import SeenMaterial
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.network import factor_reads
from wildpdiff.conditional_mean.task_images import TaskImages
from wildpdiff.conditional_mean.training import NetworkTraining, folds, train_network
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.posterior.candidate import Candidate, accuracy_by_labels, errors_ahead, worth_choosing
from wildpdiff.posterior.decoder import CodeConfig, CodeNetwork, CodeProblem, ShiftDecoder
from wildpdiff.posterior.density import DENSITIES, CodeDensity, DensityName, fit_density
from wildpdiff.posterior.most_probable import PosteriorConfig, most_probable
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.posterior.relations import spectral_codes, task_relations
from wildpdiff.posterior.score import PosteriorScore
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread

FEWEST_TASKS = 10
"""With fewer seen tasks held-out errors are too few to make a distribution of."""
HIDDEN = 128
TOGETHER = 16


@dataclass(frozen=True)
class PosteriorFitConfig:
    """How the posterior is fitted and chosen.

    Attributes:
        directions: principal directions of the held-out errors.
        tasks: seen tasks whose errors are measured, at most.
        search: of the adapter that explains a task's labels best, given the distribution of errors.
        scales: of the errors that are tried, ascending.
        cost: points of accuracy that one sample may cost where no spread explains labels better than the estimate.
        folds: of the seen tasks, over which distributions are compared.
        samples: a task, in that comparison.
        labels: number of labels whose probability is compared.
        images: a task on which it is measured.
        diffusion: of the codes.
        codes: of the network of description and code.
    """

    directions: int = 32
    tasks: int = 64
    search: PosteriorConfig = field(default_factory=lambda: PosteriorConfig(steps=30, batch=32, learning_rate=0.25))
    scales: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    cost: float = 1.0
    folds: int = 3
    samples: int = 8
    labels: int = 5
    images: int = 48
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(size="tiny", steps=600, batch=64))
    codes: CodeConfig = field(default_factory=CodeConfig)


@dataclass(frozen=True)
class _Seen:
    """The seen tasks whose errors are measured, in rows of their own."""

    material: SeenMaterial
    mean: ConditionalMean
    images: TaskImages
    tasks: Int[Tensor, " s"]
    fold: Int[Tensor, " s"]
    best: Float[Tensor, "s d"]
    config: PosteriorFitConfig
    seed: int

    @property
    def estimates(self) -> Float[Tensor, "s d"]:
        """Normalised, each made without its task."""
        return self.mean.held_out[self.tasks]

    @property
    def own_images(self) -> TaskImages:
        """Of these tasks, in their order."""
        return self.images.of(self.tasks.tolist())

    @property
    def embeddings(self) -> Float[Tensor, "s e"]:
        """Of the descriptions."""
        return self.mean.seen[self.tasks]

    def density(self, name: DensityName, rows: Tensor, codes: Float[Tensor, "r k"]) -> CodeDensity:
        """Of the codes of some rows."""
        sampler, tasks = self.material.sampler, self.tasks[rows]
        return fit_density(
            name,
            self.embeddings[rows],
            codes,
            lambda index, draws: sampler(tasks[index], draws),
            self.config.diffusion,
            sub_seed(self.seed, "posterior", name),
        )


def fit_posterior(
    material: SeenMaterial,
    mean: ConditionalMean,
    images: TaskImages,
    config: PosteriorFitConfig = PosteriorFitConfig(),
    seed: int = 0,
) -> Posterior | None:
    """The posterior whose samples give held-out seen tasks' labels the highest probability together.

    Errors are those of the adapter that explains a task's labels best from the estimate made without it, moving only
    where errors of other tasks lie: chance of the optimiser that does not matter to the task loss is not in them. Where
    tasks that are described alike need unlike adapters beyond chance, a network of description and code is tried too.
    Where no distribution beats the estimate alone, samples spread as far as they may at a small cost.

    Args:
        material: the seen tasks.
        mean: the conditional mean of them.
        images: labelled images of the seen tasks.
        config: how.
        seed: of everything random.

    Returns:
        ``None`` where the tasks are too few, or their adapters are just as estimated.

    Raises:
        TrainingError: a training diverged.
    """
    if len(material.tasks) < FEWEST_TASKS or not bool((mean.adapters != mean.held_out).any()):
        return None
    with flush_denormals(), one_thread():
        seen, directions = _measured_errors(material, mean, images, config, seed)
        estimate = _score(seen, "estimate", "none", 0.0, lambda row, draws: seen.estimates[row].expand(1, -1))
        candidates = _shifts(seen, directions)
        best = max(candidates, key=lambda entry: float(entry.likelihoods.mean()))
        if errors_ahead(best, estimate) > 1.0:
            # Errors are no small spread around the estimate: what descriptions leave out may be coded.
            candidates += _coded(seen)
        return _chosen(seen, estimate, candidates)


def _measured_errors(
    material: SeenMaterial, mean: ConditionalMean, images: TaskImages, config: PosteriorFitConfig, seed: int
) -> tuple[_Seen, Float[Tensor, "k d"]]:
    """The best adapter of each task near its held-out estimate, and the directions of these errors."""
    codec, backbone = material.codec, material.backbone
    order = torch.randperm(len(material.tasks), generator=torch_generator(seed, "posterior", "tasks"))
    tasks = order[: config.tasks].sort().values
    own, estimates = codec.decode(mean.adapters), codec.decode(mean.held_out)
    prior = RefinementPrior.of_errors(codec.layout, own - estimates, "errors of held-out seen tasks", config.directions)

    def search(part: Tensor, _: Tick) -> Tensor:
        features = [images.tasks[int(task)] for task in part]
        offsets = torch.zeros(len(part), len(backbone.classes))
        return most_probable(backbone, estimates[part], prior, features, offsets, config.search, seed)

    best = codec.encode(torch.cat(list(in_parallel(search, torch.split(tasks, TOGETHER)))))
    errors = best - mean.held_out[tasks]
    _, singular, axes = torch.linalg.svd(errors.double() / len(tasks) ** 0.5, full_matrices=False)
    kept = min(config.directions, max(1, int((singular > 1e-6 * singular[0]).sum())))
    # Contiguous, as they are when read again: the order of values in memory decides the last bits of products.
    directions = (singular[:kept, None] * axes[:kept]).float().contiguous()
    fold = folds([material.tasks[int(task)] for task in tasks], min(config.folds, len(tasks)), seed, "posterior")
    return _Seen(material, mean, images, tasks, fold, best, config, seed), directions


def _shifts(seen: _Seen, directions: Float[Tensor, "k d"]) -> list[Candidate]:
    """The estimate plus errors like those of other tasks, by every distribution and scale."""
    # Directions are orthogonal: a code is the projection in units of the standard deviation.
    lengths = directions.square().sum(1).clamp_min(1e-20)
    codes = (seen.best - seen.estimates) @ (directions / lengths[:, None]).T
    own = _densities(seen, dict.fromkeys(_parts(seen), codes))

    def score(job: tuple[DensityName, float], _: Tick) -> Candidate:
        name, scale = job
        decoder, count = ShiftDecoder(directions, scale), seen.config.samples

        def draw(row: int, draws: torch.Generator) -> Tensor:
            embeddings = seen.embeddings[row].expand(count, -1)
            drawn = own[name, int(seen.fold[row])].sample(embeddings, draws)
            return decoder(embeddings, seen.estimates[row].expand(count, -1), drawn)

        found = _score(seen, "shift", name, scale, draw)
        return replace(found, decoder=decoder, codes=codes)

    # The slowest to draw from first, so that the processes end together.
    jobs = [(name, scale) for name in reversed(DENSITIES) for scale in seen.config.scales]
    found = dict(zip(jobs, in_parallel(score, jobs), strict=True))
    return [found[name, scale] for name in DENSITIES for scale in seen.config.scales]


def _parts(seen: _Seen) -> range:
    """Numbers of the folds."""
    return range(int(seen.fold.max()) + 1)


def _densities(seen: _Seen, codes: Mapping[int, Float[Tensor, "s k"]]) -> dict[tuple[DensityName, int], CodeDensity]:
    """Every density without every fold, of the codes that belong to that fold."""

    def fit(job: tuple[DensityName, int], _: Tick) -> CodeDensity:
        name, part = job
        rest = (seen.fold != part).nonzero()[:, 0]
        return seen.density(name, rest, codes[part][rest])

    jobs = [(name, part) for name in reversed(DENSITIES) for part in _parts(seen)]
    return dict(zip(jobs, in_parallel(fit, jobs), strict=True))


def _coded(seen: _Seen) -> list[Candidate]:
    """Networks of description and code, where tasks described alike are unlike beyond chance."""
    material, config = seen.material, seen.config
    relations = task_relations(material.backbone, material.codec, seen.best, seen.embeddings, seen.own_images)
    everyone = torch.arange(len(seen.tasks))

    def train(part: int | None, _: Tick) -> CodeNetwork:
        rest = everyone if part is None else (seen.fold != part).nonzero()[:, 0]
        name = ("codes",) if part is None else ("codes", part)
        return _network(seen, rest, spectral_codes(relations, rest), sub_seed(seen.seed, *name))

    *networks, final = in_parallel(train, [*_parts(seen), None])
    own = _densities(seen, {part: network.codes.detach() for part, network in enumerate(networks)})

    def score(name: DensityName, _: Tick) -> Candidate:
        def draw(row: int, draws: torch.Generator) -> Tensor:
            part = int(seen.fold[row])
            embeddings = seen.embeddings[row].expand(config.samples, -1)
            with torch.no_grad():
                return networks[part](embeddings, own[name, part].sample(embeddings, draws))

        return _score(seen, "network", name, 1.0, draw)

    found = dict(zip(reversed(DENSITIES), in_parallel(score, list(reversed(DENSITIES))), strict=True))
    return [replace(found[name], decoder=final, codes=final.codes.detach().clone()) for name in DENSITIES]


def _network(seen: _Seen, rows: Tensor, start: Float[Tensor, "r q"], seed: int) -> CodeNetwork:
    material, config = seen.material, seen.config
    encoder = material.conditions
    codes = torch.zeros(len(seen.tasks), start.shape[1])
    codes[rows] = start
    problem = CodeProblem(
        material.backbone,
        material.codec,
        seen.own_images,
        lambda index, draws: material.sampler(seen.tasks[index], draws),
        seen.mean.adapters[seen.tasks],
        material.moved,
        factor_reads(encoder.groups, encoder.parts, encoder.size, HIDDEN),
        codes,
        config.codes,
    )
    training = NetworkTraining(steps=config.codes.steps, averaging=0.98)
    return train_network(problem, rows.tolist(), training, seed, "network of description and code")


Draw = Callable[[int, torch.Generator], Float[Tensor, "n d"]]
"""Row of a seen task to normalised adapters that were made without it."""


def _score(seen: _Seen, decoder: str, density: str, scale: float, draw: Draw) -> Candidate:
    """How samples of one distribution do on the seen tasks that it was fitted without."""
    config, codec, backbone = seen.config, seen.material.codec, seen.material.backbone
    draws = torch_generator(seen.seed, "posterior", "samples")
    temperatures = torch.tensor(TEMPERATURES)
    likelihoods, singles, best = [], [], []
    for row, task in enumerate(seen.tasks.tolist()):
        inputs, labels = seen.images.judged(task, config.images)
        logits = backbone.predict_many(inputs, codec.layout.unflatten(codec.decode(draw(row, draws))))
        count = len(logits)
        tempered = (logits[None] / temperatures[:, None, None, None]).log_softmax(-1)
        losses = -tempered.gather(-1, labels.expand(len(temperatures), count, -1)[..., None])[..., 0]
        right = (logits.argmax(-1) == labels).double()
        likelihoods.append(torch.logsumexp(-config.labels * losses.mean(2), 1) - math.log(count))
        singles.append(right.mean())
        best.append(accuracy_by_labels(losses[TEMPERATURES.index(1.0)], right, config.labels, draws))
    accuracies = torch.stack(singles)
    # Every candidate counts at the temperature that is best for it on all tasks together: how sure adapters are is not
    # what is compared.
    table = torch.stack(likelihoods, 1)
    own = table[table.mean(1).argmax()]
    chosen = torch.stack(best)
    one, several = 100 * float(accuracies.mean()), 100 * float(chosen.mean())
    return Candidate(PosteriorScore(decoder, density, scale, float(own.mean()), one, several), own, accuracies, chosen)


def _chosen(seen: _Seen, estimate: Candidate, candidates: list[Candidate]) -> Posterior:
    """The candidate under which labels are most probable; the widest that costs little, if none beats the estimate."""
    best = max(candidates, key=lambda entry: float(entry.likelihoods.mean()))
    limit = seen.config.cost / 100
    if worth_choosing(best, estimate):
        # Within chance of the most probable, the one whose samples are worth most to somebody with a few labels.
        near = [entry for entry in candidates if errors_ahead(best, entry) <= 1.0]
        chosen = max(near, key=lambda entry: entry.score.best_of_8)
        reason = (
            f"Samples explain the labels of held-out tasks better than the estimate alone (log probability of "
            f"{seen.config.labels} labels {chosen.score.likelihood:.2f}, estimate {estimate.score.likelihood:.2f}): "
            "tasks described alike need unlike adapters."
        )
    else:
        cheap = [entry for entry in candidates if entry.score.decoder == "shift"]
        cost = {id(entry): float((estimate.accuracies - entry.accuracies).mean()) for entry in cheap}
        small = [entry for entry in cheap if cost[id(entry)] <= limit] or cheap[:1]
        widest = max(entry.score.scale for entry in small)
        chosen = max(
            (entry for entry in small if entry.score.scale == widest), key=lambda entry: float(entry.likelihoods.mean())
        )
        reason = (
            "No spread explains the labels of held-out tasks better than the estimate alone, so samples spread as far "
            f"as one may at a cost of {seen.config.cost:g} point of accuracy."
        )
    assert chosen.decoder is not None
    assert chosen.codes is not None
    everyone = torch.arange(len(seen.tasks))
    density = seen.density(next(name for name in DENSITIES if name == chosen.score.density), everyone, chosen.codes)
    others = sorted((entry for entry in candidates if entry is not chosen), key=lambda entry: -entry.score.likelihood)
    scores = (chosen.score, *(entry.score for entry in others))
    return Posterior(chosen.decoder, density, estimate.score, scores, reason)
