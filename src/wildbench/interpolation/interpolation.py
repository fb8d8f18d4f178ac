"""The paper's second question: accuracy between two tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.interpolation.alignment import ALIGNMENTS, connectivity, cosine, principal_angles
from wildbench.study_sections import Interpolation, InterpolationPair, InterpolationPath
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.errors import DataError
from wildpdiff.evaluate.score import TestSet, mean_scores
from wildpdiff.generator import Generator
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.tasks.batch import concatenate
from wildpdiff.tasks.objective import of_many

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
Way = Literal["conditions", "latents", "adapters"]
SimilarityGroup = Literal["high", "middle", "low"]


@dataclass(frozen=True)
class TaskPair:
    """Indices of two seen tasks in the zoo's order, the similarity of their descriptions, and its group."""

    first: int
    second: int
    similarity: float
    group: SimilarityGroup


def description_similarity(generator: Generator, embeddings: Float[Tensor, "t e"]) -> Float[Tensor, "t t"]:
    """Similarity of descriptions by the generator's kernel: 1 for the same description.

    The additive kernel weighs the factors of a description by their relevance for the adapters; it is normalised to
    ``k(a, b) / sqrt(k(a, a) k(b, b))``. Without a kernel mean all numbers weigh alike, with
    the similarity ``exp(-d²)`` and the squared distance in units of its mean.
    """
    if generator.mean is not None and generator.mean.kernel.terms:
        kernel = generator.mean.kernel.kernel_between(embeddings, embeddings)
        scale = kernel.diagonal().sqrt()
        return kernel / scale[:, None] / scale[None]
    squared = torch.cdist(embeddings, embeddings).square()
    return torch.exp(-squared / squared.mean().clamp_min(1e-12))


def gainful_tasks(seen: SeenTasks, least: float = 0.1) -> tuple[int, ...]:
    """Seen tasks whose fine-tuning gains at least ``least`` accuracy on their own training and validation images.

    Test images have no part in the choice.
    """
    chosen = []
    finals, initial = seen.zoo.task_adapters(), seen.zoo.initial
    for index, name in enumerate(seen.zoo.tasks):
        data = seen.data(name)
        batch = concatenate([data.train, data.validation])
        stacked = {key: torch.stack([value, finals[name].tensors[key]]) for key, value in initial.tensors.items()}
        outputs = seen.backbone.predict_many(batch, stacked)
        before, after = of_many(seen.backbone.objective.score, outputs, batch).double().mean(1).tolist()
        if after - before >= least:
            chosen.append(index)
    return tuple(chosen)


def choose_pairs(
    similarity: Float[Tensor, "t t"], eligible: Sequence[int], ends: int, *, middle: int, seed: int
) -> tuple[TaskPair, ...]:
    """The most and the least similar pairs, and random ones of the middle third; no task is in two pairs.

    Args:
        similarity: between tasks.
        eligible: tasks that may be paired.
        ends: number of most and of least similar pairs.
        middle: number of pairs between.
        seed: of the pairs between.

    Raises:
        DataError: too few tasks for so many pairs.
    """
    wanted = 2 * ends + middle
    if len(eligible) < 2 * wanted:
        raise DataError(
            f"{wanted} pairs of different tasks need {2 * wanted} tasks with a gain to keep; there are "
            f"{len(eligible)}. Choose fewer pairs."
        )
    ranked = sorted(
        ((float(similarity[a, b]), a, b) for i, a in enumerate(eligible) for b in eligible[i + 1 :]), reverse=True
    )
    third, half = len(ranked) // 3, len(ranked) / 2
    between = ranked[third : 2 * third]
    numpy_generator(seed, "pairs").shuffle(between)
    # Few tasks may leave no pair of the middle third untouched: then the next nearest to the middle.
    outer = [*range(third), *range(2 * third, len(ranked))]
    between += [ranked[rank] for rank in sorted(outer, key=lambda rank: abs(rank - half))]
    used: set[int] = set()
    pairs: list[TaskPair] = []
    groups: tuple[tuple[SimilarityGroup, int, list[tuple[float, int, int]]], ...] = (
        ("high", ends, ranked),
        ("low", ends, ranked[::-1]),
        ("middle", middle, between),
    )
    for group, most, candidates in groups:
        count = 0
        for value, a, b in candidates:
            if count < most and not {a, b} & used:
                used |= {a, b}
                pairs.append(TaskPair(a, b, value, group))
                count += 1
    return tuple(pairs)


def interpolate(
    generators: Sequence[Generator],
    seen: SeenTasks,
    tests: Mapping[str, TestSet],
    pairs: Sequence[TaskPair],
    *,
    samples: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Interpolation:
    """Accuracy of both tasks along three paths: between conditions, between latents, between raw adapters.

    The ends of the raw path are the fine-tuned adapters; those of the latent path are the same after the first
    generator's autoencoder; those of the conditions are generated.

    Args:
        generators: one a training seed; the path of conditions is the mean over them and over samples.
        seen: the tasks that they were fitted to.
        tests: test images, at least of the tasks in the pairs.
        pairs: of tasks.
        samples: adapters a generator and position; all count.
        seed: of the samples.
        progress: called with (pairs done, in all).
    """
    finals, initial = seen.zoo.task_adapters(), seen.zoo.initial
    names = seen.zoo.tasks
    measured: list[InterpolationPair] = []
    paths: list[InterpolationPath] = []
    for number, pair in enumerate(pairs):
        first, second = names[pair.first], names[pair.second]
        both = (tests[first], tests[second])
        ends = (finals[first], finals[second])
        embeddings = seen.embeddings[[pair.first, pair.second]]
        ways: dict[Way, Float[Tensor, "2 p"]] = {
            "conditions": torch.stack(
                [
                    _scores(seen, both, _between_conditions(entry, embeddings, pair, samples, seed=seed))
                    for entry in generators
                ]
            ).mean(0),
            "latents": _scores(seen, both, _between_latents(generators[0], ends)),
            "adapters": _scores(seen, both, _between_adapters(ends)),
        }
        paths += [
            InterpolationPath(first, second, way, POSITIONS, tuple(table[0].tolist()), tuple(table[1].tolist()))
            for way, table in ways.items()
        ]
        pretrained = [mean_scores(seen.backbone, test, [initial])[0] for test in both]
        finetuned = [mean_scores(seen.backbone, test, [own])[0] for test, own in zip(both, ends, strict=True)]
        alignment = {
            "connectivity": connectivity(seen.backbone, (seen.data(first), seen.data(second)), ends, initial),
            "cosine": cosine(*ends, initial),
            "principal angles": principal_angles(*ends),
        }
        measured.append(
            InterpolationPair(
                first,
                second,
                pair.group,
                1.0 - pair.similarity,
                alignment,
                (pretrained[0], pretrained[1]),
                (finetuned[0], finetuned[1]),
            )
        )
        if progress is not None:
            progress(number + 1, len(pairs))
    return Interpolation(dict(ALIGNMENTS), tuple(measured), tuple(paths))


def _scores(seen: SeenTasks, tests: Sequence[TestSet], adapters: Sequence[Sequence[Adapter]]) -> Float[Tensor, "2 p"]:
    """Accuracy of both tasks at every position, the mean over its samples."""
    flat = [adapter for position in adapters for adapter in position]
    each = torch.tensor([mean_scores(seen.backbone, test, flat) for test in tests], dtype=torch.float64)
    return each.view(len(tests), len(adapters), -1).mean(2)


def _between_adapters(ends: tuple[Adapter, Adapter]) -> list[list[Adapter]]:
    first, second = ends
    return [
        [
            Adapter(
                {name: torch.lerp(value, second.tensors[name], t) for name, value in first.tensors.items()},
                first.config,
            )
        ]
        for t in POSITIONS
    ]


def _between_latents(generator: Generator, ends: tuple[Adapter, Adapter]) -> list[list[Adapter]]:
    vectors = torch.stack([generator.codec.layout.flatten(adapter.tensors) for adapter in ends])
    with torch.no_grad():
        first, second = generator.autoencoder.encode(generator.codec.encode(vectors))
    return _adapters(generator, generator.decode(torch.stack([torch.lerp(first, second, t) for t in POSITIONS])), 1)


def _between_conditions(
    generator: Generator, embeddings: Float[Tensor, "2 e"], pair: TaskPair, samples: int, *, seed: int
) -> list[list[Adapter]]:
    shifts = None if generator.mean is None else generator.mean.seen_shifts()
    between = None if shifts is None else _path(shifts[[pair.first, pair.second]])
    # The same noise at every position: only the condition changes along the path.
    count = samples if generator.stochastic else 1
    vectors = generator.sample_vectors(_path(embeddings), count, sub_seed(seed, "interpolation"), between)
    return _adapters(generator, generator.tensors(vectors.flatten(0, 1)), count)


def _path(ends: Float[Tensor, "2 e"]) -> Float[Tensor, "n e"]:
    """Points at every position between two ends."""
    first, second = ends
    return torch.stack([torch.lerp(first, second, t) for t in POSITIONS])


def _adapters(generator: Generator, tensors: Mapping[str, Tensor], samples: int) -> list[list[Adapter]]:
    count = len(next(iter(tensors.values())))
    adapters = [
        Adapter({name: value[row].clone() for name, value in tensors.items()}, generator.adapter_config)
        for row in range(count)
    ]
    return [adapters[start : start + samples] for start in range(0, len(adapters), samples)]
