from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildbench.observers.latent_map import LatentMapObserver
from wildbench.sections import LatentMap
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.fit import FittedGenerator
from wildpdiff.generator import Generator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.store import Zoo

SUITE = toys.ToySuite()


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> dict[str, Adapter]:
    folder: Path = tmp_path_factory.mktemp("unseen") / "zoo"
    tasks = SUITE.tasks("unseen")[:2]
    return build_zoo(folder, toy_backbone, tasks, SUITE.fingerprint, config=toys.FINETUNE).task_adapters()


def decoded(generator: Generator, adapter: Adapter) -> np.ndarray:
    vector = generator.codec.layout.flatten(adapter.tensors)[None]
    with torch.no_grad():
        latent = generator.autoencoder.encode(generator.codec.encode(vector))
        found: np.ndarray = generator.autoencoder.decode(latent)[0].double().numpy()
    return found


def test_a_whitened_latent_does_not_hide_which_directions_matter(drawn: LatentMap) -> None:
    first, second = drawn.explained
    assert first > 1.5 * second
    assert first + second > 0.7  # five tasks that differ in one number


@pytest.fixture(scope="module")
def drawn(toy_fit: FittedGenerator, toy_backbone: Backbone, toy_zoo: Zoo, unseen: dict[str, Adapter]) -> LatentMap:
    generator = toy_fit.generator
    observer = LatentMapObserver(generator, toy_zoo.task_adapters(), unseen)
    tests = {
        "seen": [test_set(toy_backbone, task) for task in SUITE.tasks("seen")[1:3]],
        "unseen": [test_set(toy_backbone, task) for task in SUITE.tasks("unseen")],
    }
    other = generator.with_sampling(steps=2)
    methods = [Method(generator, "own", 0), Method(generator, "shuffled", 0), Method(other, "own", 1)]
    evaluate("toy", tests, toy_backbone, methods, samples=3, seed=5, observers=[observer])
    return observer.result()


def test_the_observed_tasks_are_drawn_once(drawn: LatentMap) -> None:
    assert [(point.split, point.kind, point.task) for point in drawn.points] == [
        ("seen", "fine-tuned", "seen-1"),
        ("seen", "generated", "seen-1"),
        ("seen", "fine-tuned", "seen-2"),
        ("seen", "generated", "seen-2"),
        ("unseen", "fine-tuned", "unseen-0"),
        ("unseen", "generated", "unseen-0"),
        ("unseen", "fine-tuned", "unseen-1"),
        ("unseen", "generated", "unseen-1"),
        ("unseen", "generated", "unseen-2"),
    ]


def test_the_axes_are_the_principal_components_of_all_seen_tasks(
    drawn: LatentMap, toy_fit: FittedGenerator, toy_zoo: Zoo
) -> None:
    generator = toy_fit.generator
    finals = toy_zoo.task_adapters()
    latents = np.array([decoded(generator, adapter) for adapter in finals.values()])
    values, vectors = np.linalg.eigh(np.cov(latents.T))
    assert drawn.explained == pytest.approx(tuple(values[::-1][:2] / values.sum()))
    by_place = {(point.kind, point.task): (point.x, point.y) for point in drawn.points}
    for task in ("seen-1", "seen-2"):
        expected = vectors[:, ::-1][:, :2].T @ (decoded(generator, finals[task]) - latents.mean(0))
        assert np.abs(by_place["fine-tuned", task]) == pytest.approx(np.abs(expected), abs=1e-5)


def test_a_generated_point_is_the_mean_of_the_samples(
    toy_fit: FittedGenerator, toy_backbone: Backbone, toy_zoo: Zoo
) -> None:
    generator = toy_fit.generator
    finals = toy_zoo.task_adapters()
    task = test_set(toy_backbone, SUITE.tasks("seen")[0])

    kept: list[Adapter] = []

    class Keeper:
        def observe(self, scored) -> None:  # type: ignore[no-untyped-def]
            kept.extend(scored.adapters)

    observer = LatentMapObserver(generator, finals, {})
    evaluate("toy", {"seen": [task]}, toy_backbone, [Method(generator)], samples=3, observers=[observer, Keeper()])
    tuned, made = observer.result().points
    latents = np.array([decoded(generator, adapter) for adapter in finals.values()])
    mean = np.mean([decoded(generator, adapter) for adapter in kept], axis=0) - latents.mean(0)
    _, vectors = np.linalg.eigh(np.cov(latents.T))
    assert np.abs([made.x, made.y]) == pytest.approx(np.abs(vectors[:, ::-1][:, :2].T @ mean), abs=1e-5)
    assert (tuned.kind, made.kind) == ("fine-tuned", "generated")


def test_two_tasks_differ_along_one_axis(toy_fit: FittedGenerator, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    two = dict(list(toy_zoo.task_adapters().items())[:2])
    observer = LatentMapObserver(toy_fit.generator, two, {})
    task = test_set(toy_backbone, SUITE.tasks("seen")[0])
    evaluate("toy", {"seen": [task]}, toy_backbone, [Method(toy_fit.generator)], samples=1, observers=[observer])
    found = observer.result()
    assert found.explained == pytest.approx((1.0, 0.0))
    assert found.points[0].x != 0.0


def test_a_map_needs_tasks_that_differ(toy_fit: FittedGenerator, toy_zoo: Zoo) -> None:
    adapter = toy_zoo.task_adapters()["seen-0"]
    with refused(DataError, 1):
        LatentMapObserver(toy_fit.generator, {"seen-0": adapter}, {})
    with refused(DataError):
        LatentMapObserver(toy_fit.generator, {"a": adapter, "b": adapter}, {})
