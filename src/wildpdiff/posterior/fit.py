"""Fitting the posterior: the distribution of held-out errors under which labels are most probable.

An adapter that serves one task and fails another with nearly the same description shows that they differ in something
that is not described. Cross losses between tasks described alike, adapter of one on images of the other, make a signed
graph; its leading eigenvectors are the initial codes of the tasks (spectral clustering; von Luxburg 2007, "A tutorial
on spectral clustering").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.network import factor_reads
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import NetworkTraining, folds, train_network
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.posterior.decoder import CodeConfig, CodeNetwork, CodeProblem, Decoder, ShiftDecoder
from wildpdiff.posterior.density import DENSITIES, CodeDensity, DensityName, fit_density
from wildpdiff.posterior.maximum_a_posteriori import MapConfig, maximum_a_posteriori
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.posterior.score import PosteriorScore
from wildpdiff.rng import first_by_name, sub_seed, torch_generator
from wildpdiff.tasks.objective import of_many
from wildpdiff.threads import one_thread
from wildpdiff.training import flush_denormals

FEWEST_TASKS = 10
"""With fewer seen tasks there are too few held-out errors for a distribution."""
HIDDEN = 128
TOGETHER = 16
CHOICES = 4
"""Draws of a few labels over which the score of the best of several samples is averaged."""
MOST_LOSS = 6.0
"""Cross losses are clipped here."""
IMAGES = 32
"""Examples a task for cross losses."""
TaskRelations = Float[Tensor, "t t"]
"""Signed and symmetric; 0 between tasks described unlike, positive where adapters serve each other's tasks well."""


@dataclass(frozen=True)
class PosteriorFitConfig:
    """Fit and choice of the posterior.

    Attributes:
        directions: principal directions of the held-out errors.
        tasks: seen tasks whose errors are measured, at most.
        search: of the most probable adapter of a task given its labels and the distribution of errors.
        scales: of the errors that are tried, ascending.
        cost: points of accuracy, or hundredths of another metric, that one sample may cost where no spread gives labels
            a higher probability.
        samples: a task, in that comparison.
        labels: number of labels whose probability is compared.
        images: number of examples a task, in that comparison.
    """

    directions: int = 32
    tasks: int = 64
    search: MapConfig = field(default_factory=lambda: MapConfig(steps=30, batch=32, learning_rate=0.25))
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
    """The seen tasks whose errors are measured, one a row."""

    encoded: EncodedTasks
    mean: ConditionalMean
    images: TaskExamples
    tasks: Int[Tensor, " s"]
    fold: Int[Tensor, " s"]
    best: Float[Tensor, "s d"]
    config: PosteriorFitConfig
    seed: int

    @property
    def estimates(self) -> Float[Tensor, "s d"]:
        """Normalised, each predicted without its task."""
        return self.mean.held_out[self.tasks]

    @property
    def own_images(self) -> TaskExamples:
        """Images of these tasks, in their order."""
        return self.images.of(self.tasks.tolist())

    @property
    def embeddings(self) -> Float[Tensor, "s e"]:
        """Embeddings of the descriptions."""
        return self.mean.seen[self.tasks]

    def density(self, name: DensityName, rows: Tensor, codes: Float[Tensor, "r k"]) -> CodeDensity:
        """Density of the codes of some rows."""
        sampler, tasks = self.encoded.sampler, self.tasks[rows]
        return fit_density(
            name,
            self.embeddings[rows],
            codes,
            sampler=lambda index, draws: sampler(tasks[index], draws),
            config=self.config.diffusion,
            seed=sub_seed(self.seed, "posterior", name),
        )


def fit_posterior(
    encoded: EncodedTasks,
    mean: ConditionalMean,
    images: TaskExamples,
    *,
    config: PosteriorFitConfig = PosteriorFitConfig(),
    seed: int = 0,
) -> Posterior | None:
    """The posterior under which the labels of held-out seen tasks are most probable together.

    Errors are those of each task's most probable adapter around the estimate made without it, along the errors of other
    tasks alone: noise of the optimiser that does not matter to the task loss is not in them. Where tasks that are
    described alike need unlike adapters beyond chance, a network of description and code is tried too. Where no
    distribution beats the estimate alone, samples spread as far as they may at a small cost in accuracy. ``None`` where
    the tasks are too few, or their adapters are just as estimated.

    Raises:
        TrainingError: a training diverged.
    """
    if len(encoded.labelled) < FEWEST_TASKS or not bool((mean.adapters != mean.held_out).any()):
        return None
    with flush_denormals(), one_thread():
        seen, directions = _measured_errors(encoded, mean, images, config, seed=seed)
        estimate = _score(seen, "estimate", "none", 0.0, draw=lambda row, draws: seen.estimates[row].expand(1, -1))
        candidates = _shifts(seen, directions)
        best = max(candidates, key=lambda entry: float(entry.likelihoods.mean()))
        if errors_ahead(best, estimate) > 1.0:
            # Errors are more than a small spread around the estimate: tasks differ in something not described.
            candidates += _coded(seen)
        return _chosen(seen, estimate, candidates)


def _measured_errors(
    encoded: EncodedTasks, mean: ConditionalMean, images: TaskExamples, config: PosteriorFitConfig, *, seed: int
) -> tuple[_Seen, Float[Tensor, "k d"]]:
    """The best adapter of each task near its held-out estimate, and the directions of these errors."""
    codec, backbone = encoded.codec, encoded.backbone
    tasks = torch.tensor(first_by_name(encoded.labelled, config.tasks, seed, "posterior", "tasks"))
    own, estimates = codec.decode(mean.adapters), codec.decode(mean.held_out)
    prior = RefinementPrior.of_errors(codec.layout, own - estimates, "errors of held-out seen tasks", config.directions)

    def search(part: Tensor, _: Tick) -> Tensor:
        features = [images.tasks[int(task)] for task in part]
        offsets = torch.zeros(len(part))
        return maximum_a_posteriori(
            backbone, estimates[part], prior, features, offsets=offsets, config=config.search, seed=seed
        )

    best = codec.encode(torch.cat(list(in_parallel(search, torch.split(tasks, TOGETHER)))))
    errors = best - mean.held_out[tasks]
    _, singular, axes = torch.linalg.svd(errors.double() / len(tasks) ** 0.5, full_matrices=False)
    kept = min(config.directions, max(1, int((singular > 1e-6 * singular[0]).sum())))
    # Contiguous, as they are when read again: the order of values in memory decides the last bits of products.
    directions = (singular[:kept, None] * axes[:kept]).float().contiguous()
    fold = folds([encoded.tasks[int(task)] for task in tasks], min(config.folds, len(tasks)), seed, "posterior")
    return _Seen(encoded, mean, images, tasks, fold, best, config, seed), directions


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
            return decoder(seen.estimates[row].expand(count, -1), drawn)

        found = _score(seen, "shift", name, scale, draw=draw)
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
    encoded, config = seen.encoded, seen.config
    relations = task_relations(encoded, seen.best, seen.embeddings, seen.own_images)
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

        return _score(seen, "network", name, 1.0, draw=draw)

    found = dict(zip(reversed(DENSITIES), in_parallel(score, list(reversed(DENSITIES))), strict=True))
    return [replace(found[name], decoder=final, codes=final.codes.detach().clone()) for name in DENSITIES]


def _network(seen: _Seen, rows: Tensor, start: Float[Tensor, "r q"], seed: int) -> CodeNetwork:
    encoded, config = seen.encoded, seen.config
    encoder = encoded.conditions
    codes = torch.zeros(len(seen.tasks), start.shape[1])
    codes[rows] = start
    reads = factor_reads(encoder.groups, encoder.parts, encoder.size, HIDDEN)
    adapters = seen.mean.adapters[seen.tasks]
    problem = CodeProblem(encoded, seen.own_images, seen.tasks, adapters, reads, codes, config.codes)
    training = NetworkTraining(steps=config.codes.steps, averaging=0.98)
    return train_network(problem, rows.tolist(), training, seed=seed, what="network of description and code")


Draw = Callable[[int, torch.Generator], Float[Tensor, "n d"]]
"""Row of a seen task to normalised adapters that were predicted without it."""


def _score(seen: _Seen, decoder: str, density: str, scale: float, *, draw: Draw) -> Candidate:
    """Scores of samples of one distribution on the seen tasks that it was fitted without."""
    config, codec, backbone = seen.config, seen.encoded.codec, seen.encoded.backbone
    draws = torch_generator(seen.seed, "posterior", "samples")
    objective = backbone.objective
    likelihoods, singles, best = [], [], []
    for row, task in enumerate(seen.tasks.tolist()):
        batch = seen.images.evaluation(task, config.images)
        outputs = backbone.predict_many(batch, codec.layout.unflatten(codec.decode(draw(row, draws))))
        likely = of_many(objective.likelihood_losses, outputs, batch).transpose(0, 1)
        score = objective.metric.sign * of_many(objective.score, outputs, batch).double()
        likelihoods.append(torch.logsumexp(-config.labels * likely.mean(2), 1) - math.log(len(outputs)))
        singles.append(score.mean())
        losses = of_many(objective.loss, outputs, batch)
        best.append(score_by_labels(losses, score, config.labels, draws))
    scores = torch.stack(singles)
    # Every candidate is compared at the temperature that is best for it on all tasks together, whatever its confidence.
    table = torch.stack(likelihoods, 1)
    own = table[table.mean(1).argmax()]
    chosen = torch.stack(best)
    unit = objective.metric.sign * objective.metric.scale
    one, several = unit * float(scores.mean()), unit * float(chosen.mean())
    return Candidate(PosteriorScore(decoder, density, scale, float(own.mean()), one, several), own, scores, chosen)


def _chosen(seen: _Seen, estimate: Candidate, candidates: list[Candidate]) -> Posterior:
    """The candidate under which labels are most probable; the widest of small cost, if none beats the estimate."""
    best = max(candidates, key=lambda entry: float(entry.likelihoods.mean()))
    metric = seen.encoded.backbone.objective.metric
    span = float(estimate.scores.abs().mean()) if metric.span is None else metric.span
    limit = seen.config.cost / 100 * span
    if worth_choosing(best, estimate):
        # Within chance of the most probable, the one with the best score of samples chosen by a few labels.
        near = [entry for entry in candidates if errors_ahead(best, entry) <= 1.0]
        chosen = max(near, key=lambda entry: float(entry.best_of_8.mean()))
        reason = (
            f"Samples explain the labels of held-out tasks better than the estimate alone (log probability of "
            f"{seen.config.labels} labels {chosen.score.likelihood:.2f}, estimate {estimate.score.likelihood:.2f}): "
            "tasks described alike need unlike adapters."
        )
    else:
        cheap = [entry for entry in candidates if entry.score.decoder == "shift"]
        cost = {id(entry): float((estimate.scores - entry.scores).mean()) for entry in cheap}
        small = [entry for entry in cheap if cost[id(entry)] <= limit] or cheap[:1]
        widest = max(entry.score.scale for entry in small)
        chosen = max(
            (entry for entry in small if entry.score.scale == widest), key=lambda entry: float(entry.likelihoods.mean())
        )
        reason = (
            "No spread explains the labels of held-out tasks better than the estimate alone, so samples spread as far "
            f"as one may at a cost of {seen.config.cost:g} point of {metric.name}."
        )
    assert chosen.decoder is not None
    assert chosen.codes is not None
    everyone = torch.arange(len(seen.tasks))
    density = seen.density(next(name for name in DENSITIES if name == chosen.score.density), everyone, chosen.codes)
    others = sorted((entry for entry in candidates if entry is not chosen), key=lambda entry: -entry.score.likelihood)
    scores = (chosen.score, *(entry.score for entry in others))
    return Posterior(chosen.decoder, density, estimate.score, scores, reason)


@dataclass(frozen=True)
class Candidate:
    """A distribution of adapters with its scores on the seen tasks that it was fitted without.

    Attributes:
        score: means over tasks.
        likelihoods: by task, log probability of a few labels, at the temperature that is best for all tasks together.
        scores: by task, of one sample; the higher the better.
        best_of_8: by task, score of the sample chosen by a few labels.
        decoder: codes to adapters; None for the estimate alone.
    """

    score: PosteriorScore
    likelihoods: Float[Tensor, " s"]
    scores: Float[Tensor, " s"]
    best_of_8: Float[Tensor, " s"]
    decoder: Decoder | None = None
    codes: Float[Tensor, "s k"] | None = None


def score_by_labels(losses: Tensor, scores: Tensor, labels: int, draws: torch.Generator) -> Float[Tensor, ""]:
    """Score on the other examples of the sample chosen by a few labelled ones; mean over draws of these.

    At most half of the examples are used for the choice; of a single one, the mean over samples.
    """
    count = losses.shape[1]
    if count < 2:
        return scores.mean()
    found = []
    for _ in range(CHOICES):
        order = torch.randperm(count, generator=draws)
        few, rest = order[: min(labels, count // 2)], order[min(labels, count // 2) :]
        found.append(scores[losses[:, few].mean(1).argmin()][rest].mean())
    return torch.stack(found).mean()


def errors_ahead(candidate: Candidate, other: Candidate) -> float:
    """Difference of the mean log probability of labels, in standard errors over tasks."""
    return _errors_above_zero(candidate.likelihoods - other.likelihoods)


def _errors_above_zero(gains: Float[Tensor, " s"]) -> float:
    """The mean of some tasks' gains in units of its standard error."""
    gains = gains.double()
    return float(gains.mean() / (gains.std() / len(gains) ** 0.5).clamp_min(1e-12))


def worth_choosing(candidate: Candidate, estimate: Candidate) -> bool:
    """Whether samples predict held-out tasks better than the estimate.

    By the probability of labels, or by the score of samples chosen by a few labels: a few tasks whose labels are
    very improbable make the mean probability uncertain, and scores have no such tails.
    """
    ahead = errors_ahead(candidate, estimate)
    return ahead > 2.0 or (ahead > 1.0 and _errors_above_zero(candidate.best_of_8 - estimate.best_of_8) > 2.0)


def task_relations(
    encoded: EncodedTasks, vectors: Float[Tensor, "t d"], embeddings: Float[Tensor, "t e"], images: TaskExamples
) -> TaskRelations:
    """Relations of seen tasks, each with the quarter of them (4 to 12) that is described most alike.

    ``vectors`` are normalised adapters of the tasks themselves, ``embeddings`` those of their descriptions.
    """
    codec, count = encoded.codec, len(vectors)
    neighbours = min(count - 1, max(4, min(12, count // 4)))
    distances = torch.cdist(embeddings, embeddings).fill_diagonal_(torch.inf)
    near = distances.argsort(1)[:, :neighbours]
    losses = torch.zeros(count, neighbours)
    with torch.no_grad():
        for task in range(count):
            batch = images.evaluation(task, IMAGES)
            outputs = encoded.backbone.predict_many(batch, codec.layout.unflatten(codec.decode(vectors[near[task]])))
            each = of_many(encoded.backbone.objective.loss, outputs, batch)
            losses[task] = each.mean(1).clamp_max(MOST_LOSS)
    signed = torch.zeros(count, count).scatter_(1, near, torch.tanh(losses.median() - losses))
    return (signed + signed.T) / 2


def spectral_codes(relations: TaskRelations, tasks: Int[Tensor, " s"], dimensions: int = 1) -> Float[Tensor, "s q"]:
    """Codes of unit mean square of some tasks; relations of the others are not read."""
    _, vectors = torch.linalg.eigh(relations[tasks][:, tasks])
    codes = vectors[:, -dimensions:].flip(1)
    # The sign of an eigenvector is arbitrary: the largest entry is made positive.
    signs = codes.gather(0, codes.abs().argmax(0, keepdim=True)).sign()
    scaled: Tensor = codes * signs * len(tasks) ** 0.5
    return scaled
