"""Intents of CLINC150 (Larson et al. 2019): "is this utterance about …?", each described by the intent's name in words.

A task's positives are utterances of its intent; half of its negatives are of other intents of the same domain, the
others of any. The splits are the published ones. Unseen are intents drawn at random, and all of one domain. Negatives
of tasks that train come from intents that train, those of unseen tasks from all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.domains.domain import Domain, in_groups
from wildbench.domains.sentence_network import kept_network, pretrain, sentence_backbone, sentence_network
from wildbench.domains.sentence_settings import FINETUNE, GENERATOR, joined_data
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.conditions.text import SentenceFeaturiser, packaged_sentences
from wildpdiff.disk import read_json
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import SourceInfo
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import SplitName, Task

UTTERANCE_FILE, DOMAIN_FILE = "clinc150/data_full.json", "clinc150/domains.json"
PUBLISHED: Mapping[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
CLASSES = ("other", "about it")
TOKENS = 16
THRESHOLDS = tuple(step / 100 for step in range(100))


@dataclass(frozen=True)
class Intents:
    """Utterances by split and intent, and the domain of each intent."""

    utterances: Mapping[SplitName, Mapping[str, tuple[str, ...]]]
    domain_of: Mapping[str, str]

    @classmethod
    def read(cls, data: Path) -> Intents:
        """From a local copy of CLINC150; raises :class:`DataError` where a file is of another form."""
        found, domains = read_json(data / UTTERANCE_FILE), read_json(data / DOMAIN_FILE)
        try:
            domain_of = {str(intent): str(name) for name, intents in domains.items() for intent in intents}
            by_split: dict[SplitName, dict[str, list[str]]] = {}
            for split, published in PUBLISHED.items():
                by_split[split] = {intent: [] for intent in domain_of}
                for text, intent in found[published]:
                    by_split[split][intent].append(str(text))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{data / UTTERANCE_FILE} and {data / DOMAIN_FILE} are no copy of CLINC150 ({error!r}): [text, intent] "
                "pairs under train, val and test, and lists of intents by domain. Give the folder with clinc150."
            ) from None
        kept = {split: {name: tuple(texts) for name, texts in own.items()} for split, own in by_split.items()}
        empty = next((name for own in kept.values() for name, texts in own.items() if not texts), None)
        if empty is not None:
            raise DataError(
                f"{data / UTTERANCE_FILE} has no utterance of {empty!r} in one of its splits. Restore the file."
            )
        return cls(kept, domain_of)


@dataclass(frozen=True)
class ClincConfig:
    """Numbers of intents, and of positives (and as many negatives) of each task by split."""

    seed: int = 0
    unseen: int = 20
    pretraining: int = 30
    train: int = 32
    validation: int = 12
    test: int = 24


@dataclass(frozen=True)
class IntentSuite:
    """The tasks, and the group of each unseen task that is held out with its domain."""

    suite: PlainSuite
    groups: Mapping[str, str]


def words(intent: str) -> str:
    """The intent's name as words."""
    return intent.replace("_", " ").strip()


def intent_suite(intents: Intents, config: ClincConfig) -> IntentSuite:
    """Tasks of the intents; raises :class:`DataError` where there are too few."""
    draws = numpy_generator(config.seed, "clinc150")
    domains = sorted(set(intents.domain_of.values()))
    held_out = domains[int(draws.integers(len(domains)))]
    own = [name for name, domain in intents.domain_of.items() if domain == held_out]
    rest = [name for name in intents.domain_of if name not in own]
    drawn = [rest[number] for number in draws.permutation(len(rest))]
    first, second = config.unseen, config.unseen + config.pretraining
    if len(drawn) < second + 2:
        raise DataError(
            f"There are {len(drawn)} intents outside of {held_out!r}; {second} are to be unseen or for pretraining. "
            "Give a whole copy of CLINC150."
        )
    unseen, pretraining, seen = drawn[:first], drawn[first:second], drawn[second:]
    trained = set(seen) | set(pretraining)
    make = partial(_task, intents, config)
    suite = PlainSuite(
        "clinc150",
        [make(name, trained) for name in seen],
        [make(name, intents.domain_of) for name in (*unseen, *own)],
        [make(name, trained) for name in pretraining],
    )
    return IntentSuite(suite, dict.fromkeys(own, f"domain {held_out}"))


def _task(intents: Intents, config: ClincConfig, name: str, others: Iterable[str]) -> PlainTask:
    """One task; negatives are of the ``others``."""
    alike = [other for other in others if other != name and intents.domain_of[other] == intents.domain_of[name]]
    pools = [sorted(alike) or sorted(set(others) - {name}), sorted(set(others) - {name})]
    sizes: dict[SplitName, int] = {"train": config.train, "validation": config.validation, "test": config.test}
    splits = {}
    for split, size in sizes.items():
        utterances, draws = intents.utterances[split], numpy_generator(config.seed, "clinc150", name, split)
        positives = [utterances[name][row] for row in draws.permutation(len(utterances[name]))[:size]]
        negatives: dict[str, None] = {}
        for number in range(50 * len(positives)):  # each once
            if len(negatives) == len(positives):
                break
            pool = pools[number % 2]
            texts = utterances[pool[int(draws.integers(len(pool)))]]
            negatives[texts[int(draws.integers(len(texts)))]] = None
        targets = np.repeat([1, 0], [len(positives), len(negatives)])
        splits[split] = Dataset([*positives, *negatives], targets)
    return PlainTask(name, splits, Description(text=words(name)))


@dataclass(frozen=True)
class ZeroShotSimilarity:
    """Cosine of an utterance and the words of the description, by the sentence encoder, above a threshold.

    Attributes:
        threshold: the one with the highest accuracy on the training examples of seen tasks.
    """

    threshold: float
    featurise: SentenceFeaturiser
    info: SourceInfo

    @classmethod
    def fit(cls, tasks: Sequence[Task], featurise: SentenceFeaturiser = packaged_sentences) -> ZeroShotSimilarity:
        """The threshold of some seen tasks."""
        note = "cosine of utterance and words above a threshold of the seen tasks"
        info = SourceInfo("zero-shot similarity", "description", None, note)
        cosines = torch.stack([similarities(task, "train", featurise) for task in tasks])
        targets = torch.stack([torch.as_tensor(task.data("train").targets) for task in tasks])
        right = [float(((cosines > value) == (targets == 1)).float().mean()) for value in THRESHOLDS]
        return cls(THRESHOLDS[int(np.argmax(right))], featurise, info)

    def outputs(self, task: Task) -> Float[Tensor, "n 2"]:
        """Logits of the test utterances."""
        above = similarities(task, "test", self.featurise) - self.threshold
        return torch.stack([torch.zeros_like(above), above], 1)


def similarities(task: Task, split: SplitName, featurise: SentenceFeaturiser) -> Float[Tensor, " n"]:
    """Cosine of each utterance of a split and the words of the task's description."""
    return featurise(list(task.data(split).inputs)) @ featurise([str(task.description.text)])[0]


THRESHOLD_TASKS = 20
"""Seen tasks that the threshold is fitted to."""


def opened(
    data: Path, folder: Path, seed: int, progress: Tick, *, config: ClincConfig = ClincConfig()
) -> OpenBenchmark:
    """The suite with a backbone whose classifier is trained on all pretraining tasks together."""
    made = intent_suite(Intents.read(data), replace(config, seed=seed))
    network, tokenizer = sentence_network(len(CLASSES))
    pooled = joined_data([task.data("train") for task in made.suite.pretraining])
    collate = TextCollate.of(tokenizer, TOKENS)
    make = partial(pretrain, collate=collate, data=pooled, steps=200, rate=1e-3, head=True, progress=progress)
    kept_network(folder, network, make, {"seed": seed, "suite": made.suite.fingerprint})
    return OpenBenchmark(
        made.suite,
        sentence_backbone(network, tokenizer, CLASSES, TOKENS),
        FINETUNE,
        in_groups(made.groups),
        predictors=lambda run: [ZeroShotSimilarity.fit(made.suite.seen[:THRESHOLD_TASKS])],
    )


DOMAIN = Domain(
    "clinc150",
    "Intents of utterances described in words (CLINC150)",
    (UTTERANCE_FILE, DOMAIN_FILE),
    opened,
    GENERATOR,
    remarks=(
        "Negatives are half of the same domain, half of any; the published splits are kept. The pretrained model is "
        "trained on other intents together and cannot know which one is meant.",
    ),
)
