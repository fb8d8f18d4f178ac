"""Posteriors of a problem whose tasks need two answers, and of one whose descriptions determine everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from two_answers import COUNT, KINDS, TASKS, TwoAnswers, config

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.network import factor_reads
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import NetworkTraining, train_network
from wildpdiff.fit import FittedGenerator, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.posterior import fit as posterior_fit
from wildpdiff.posterior.decoder import CodeProblem
from wildpdiff.posterior.fit import Candidate, PosteriorFitConfig, fit_posterior, spectral_codes, task_relations
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.training_set import TrainingSet

UNSEEN = Description(metadata={"level": 110.5})


@dataclass(frozen=True)
class World:
    """``choice`` are the arguments of the choice of the generator's posterior: its seen tasks, estimate, candidates."""

    generator: Generator
    encoded: EncodedTasks
    images: TaskExamples
    choice: tuple[Any, Candidate, list[Candidate]]

    @property
    def posterior(self) -> Posterior:
        assert self.generator.posterior is not None
        return self.generator.posterior

    @property
    def own(self) -> Tensor:
        return self.encoded.of_tasks()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> World:
    folder = tmp_path_factory.mktemp("two-answers") / "zoo"
    zoo = build_zoo(folder, toy_backbone, TASKS, "two-answers", config=toys.FINETUNE, per_shard=COUNT)
    features = FeatureCache(toy_backbone, TASKS, 8)
    described = {task.name: task.description for task in TASKS}
    training_set = TrainingSet(zoo, described, toys.SCHEMA, toy_backbone, features)
    choices: list[tuple[Any, Candidate, list[Candidate]]] = []

    def choose(*given: Any) -> Posterior:
        choices.append(given)
        return chosen(*given)

    chosen = posterior_fit._chosen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior_fit, "_chosen", choose)
        generator = fit_generator(training_set, config()).generator
    encoded = EncodedTasks.of(training_set, config())
    return World(generator, encoded, TaskExamples(tuple(features(task.name) for task in TASKS), 0), choices[0])


def agreement(signs: Tensor) -> float:
    """Share of the tasks that a code's sign puts on the right side, whichever side that is."""
    kinds = torch.tensor(KINDS)
    share = float(((signs > 0) == kinds).double().mean())
    return max(share, 1 - share)


def accuracies(backbone: Backbone, tensors: dict[str, Tensor], level: float = 110.5) -> tuple[Tensor, Tensor]:
    """Of each of some adapters, on a task of the first kind and on one of the second."""
    found = []
    for second in (False, True):
        data = TwoAnswers("unseen", level, second, {"test": 120}).data("test")
        logits = backbone.predict_many(backbone.stem(data.images), tensors)
        found.append((logits.argmax(2) == torch.from_numpy(data.labels)).double().mean(1))
    return found[0], found[1]


def test_the_sign_of_the_first_code_separates_kinds_that_descriptions_do_not(world: World) -> None:
    relations = task_relations(world.encoded, world.own, world.encoded.embeddings, world.images)
    assert torch.equal(relations, relations.T)
    assert bool((relations.diagonal() == 0).all())
    codes = spectral_codes(relations, torch.arange(COUNT))
    assert agreement(codes[:, 0]) > 0.9
    assert float(codes.square().mean()) == pytest.approx(1.0, abs=1e-4)
    # Tasks that are left out are not read: their relations may be anything.
    kept = torch.arange(4, COUNT)
    spoilt = relations.clone()
    spoilt[:4] = spoilt[:, :4] = 99.0
    assert torch.equal(spectral_codes(relations, kept), spectral_codes(spoilt, kept))


def test_a_network_of_description_and_code_learns_both_answers(world: World) -> None:
    encoded, encoder = world.encoded, world.encoded.conditions
    relations = task_relations(encoded, world.own, encoded.embeddings, world.images)
    codes = spectral_codes(relations, torch.arange(COUNT))
    reads = factor_reads(encoder.groups, encoder.parts, encoder.size, 16)
    problem = CodeProblem(encoded, world.images, torch.arange(COUNT), world.own, reads, codes, config().posterior.codes)
    network = train_network(
        problem, list(range(COUNT)), NetworkTraining(steps=120, averaging=0.98), seed=0, what="a test"
    )
    assert agreement(network.codes[:, 0]) > 0.9
    embedding = encoder.encode(UNSEEN).values.expand(COUNT, -1)
    first, second = accuracies(
        encoded.backbone, encoded.codec.layout.unflatten(encoded.codec.decode(network(embedding, network.codes)))
    )
    own = torch.where(torch.tensor(KINDS), second, first)
    other = torch.where(torch.tensor(KINDS), first, second)
    assert float(own.mean()) > float(other.mean()) + 0.3
    again = type(network).restore(dict(network.state_dict()))
    assert torch.equal(again(embedding, network.codes), network(embedding, network.codes))
    assert bool((network(embedding, network.codes)[:, ~encoded.moved] == 0).all())


def test_where_two_answers_are_needed_samples_explain_labels_better_than_the_estimate(world: World) -> None:
    chosen, estimate = world.posterior.scores[0], world.posterior.estimate
    assert chosen.likelihood > estimate.likelihood + 0.5
    assert chosen.best_of_8 > estimate.best_of_8 + 10
    assert {score.decoder for score in world.posterior.scores} == {"shift", "network"}
    assert estimate.best_of_8 == pytest.approx(estimate.one_sample, abs=3), "of one adapter nothing can be chosen"


def test_a_posterior_with_a_network_is_saved_and_restored_to_the_same_samples(world: World, tmp_path: Path) -> None:
    seen, estimate, candidates = world.choice
    networks = [entry for entry in candidates if entry.score.decoder == "network"]
    found = posterior_fit._chosen(seen, estimate, networks)
    assert found.scores[0].decoder == "network"
    generator = replace(world.generator, posterior=found).with_sampling(draw="posterior")
    again = Generator.from_pretrained(generator.save_pretrained(tmp_path / "generator"), generator.backbone)
    for left, right in zip(generator.sample(UNSEEN, 4, 0), again.sample(UNSEEN, 4, 0), strict=True):
        assert left.distance(right) == 0.0


def test_samples_of_an_unseen_task_fall_on_both_answers(world: World, toy_backbone: Backbone) -> None:
    adapters = world.generator.with_sampling(draw="posterior").sample(UNSEEN, 24, seed=0)
    tensors = {name: torch.stack([entry.tensors[name] for entry in adapters]) for name in adapters[0].tensors}
    first, second = accuracies(toy_backbone, tensors)
    assert int((first > second + 0.2).sum()) >= 3
    assert int((second > first + 0.2).sum()) >= 3
    estimate = world.generator.sample(UNSEEN, 1, seed=0)[0].tensors
    alone = [float(entry[0]) for entry in accuracies(toy_backbone, {name: v[None] for name, v in estimate.items()})]
    assert float(first.max()) + float(second.max()) > sum(alone) + 0.3


def test_where_descriptions_determine_everything_a_sample_costs_little(
    toy_posterior_fit: FittedGenerator, toy_backbone: Backbone
) -> None:
    generator = toy_posterior_fit.generator
    assert generator.posterior is not None
    chosen, estimate = generator.posterior.scores[0], generator.posterior.estimate
    assert estimate.one_sample > 55, "three classes"
    assert chosen.one_sample > estimate.one_sample - PosteriorFitConfig().cost - 1e-6
    described = Description(metadata={"level": 110.5})
    adapters = generator.with_sampling(draw="posterior").sample(described, 16, seed=0)
    tensors = {name: torch.stack([entry.tensors[name] for entry in adapters]) for name in adapters[0].tensors}
    (alone,) = generator.sample(described, 1, seed=0)
    first, _ = accuracies(toy_backbone, tensors)
    before, _ = accuracies(toy_backbone, {name: value[None] for name, value in alone.tensors.items()})
    assert float(first.mean()) > float(before.mean()) - 0.05
    assert len({entry.tensors["base_model.model.classifier.bias"].numpy().tobytes() for entry in adapters}) > 1


def test_few_tasks_and_exact_estimates_have_no_posterior(world: World) -> None:
    mean = world.generator.mean
    assert mean is not None
    few = replace(world.encoded, tasks=world.encoded.tasks[:9])
    assert fit_posterior(few, mean, world.images, config=config().posterior) is None
    exact = replace(mean, held_out=mean.adapters.clone())
    assert fit_posterior(world.encoded, exact, world.images, config=config().posterior) is None


def test_it_is_restored_to_the_same_samples_and_a_function_of_the_seed(world: World) -> None:
    posterior, mean = world.posterior, world.generator.mean
    assert mean is not None
    again = Posterior.from_state(posterior.config, {name: value.clone() for name, value in posterior.tensors.items()})
    embeddings = world.generator.conditions.encode(UNSEEN).values.expand(5, -1)
    estimates = mean(embeddings)

    def drawn(source: Posterior, seed: int) -> Tensor:
        return source.sample(embeddings, estimates, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(again, 3), drawn(posterior, 3))
    assert not torch.equal(drawn(again, 3), drawn(posterior, 4))
    assert again.config == posterior.config
    assert again.summary.chosen.likelihood == posterior.scores[0].likelihood


def test_without_some_tasks_only_their_codes_are_gone(world: World) -> None:
    mean, posterior = world.generator.mean, world.posterior
    assert mean is not None
    kept = posterior.of_tasks(mean.seen[5:])
    assert torch.equal(kept.density.embeddings, posterior.density.embeddings[5:])
    assert torch.equal(kept.density.codes, posterior.density.codes[5:])
