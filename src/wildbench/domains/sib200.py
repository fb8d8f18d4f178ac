"""Languages of SIB-200 (Adelani et al. 2024): topics of sentences, described by script and unlabelled sentences.

All languages have the same sentences, so the published splits hold for all of them: a sentence of the test split is
trained on in no language. Unseen are languages drawn at random, and all languages of a few scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wildbench.domains.domain import Domain, in_groups
from wildbench.domains.sentence_network import kept_network, pretrain, sentence_backbone, sentence_network
from wildbench.domains.sentence_settings import GENERATOR, joined_data
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import SPLITS, SplitName
from wildpdiff.zoo.steps import FinetuneConfig

FILE = "sib200.parquet"
COLUMNS = ("language", "script", "split", "topic", "sentence", "text")
SCRIPT = re.compile(r"[A-Z][a-z]{3}")
"""Of ISO 15924; rows with another are left out."""

ENGLISH = "eng_Latn"
TOKENS = 24
FINETUNE = FinetuneConfig(steps=160, batch=32, learning_rate=0.01, warmup=12, checkpoints=4, interval=4)
"""Chosen on four seen languages: accuracy .37 against .28 of the pretrained model; 96 sentences gain nothing."""


@dataclass(frozen=True)
class SibConfig:
    """Numbers of languages and of sentences.

    Attributes:
        seen, unseen: languages drawn at random, at most.
        pretraining: languages of the pretrained model, English first.
        scripts: that are held out whole, of those with two or more languages but few.
        most_of_script: languages of a held-out script that are tasks, and in all for it to be held out.
        train, validation, test: sentences of a language by split, at most.
        examples: unlabelled sentences of a description.
        labelled: whether targets are topics; else they follow from the sentences.
        name: of the suite.
    """

    seed: int = 0
    seen: int = 36
    unseen: int = 12
    pretraining: int = 4
    scripts: int = 3
    most_of_script: int = 12
    train: int = 400
    validation: int = 40
    test: int = 64
    examples: int = 32
    labelled: bool = True
    name: str = "sib200"


@dataclass(frozen=True)
class Language:
    """Sentences and topics of one language by split."""

    script: str
    texts: Mapping[SplitName, Sequence[str]]
    topics: Mapping[SplitName, Sequence[str]]


def read_languages(path: Path) -> dict[str, Language]:
    """Languages by name, ``eng_Latn`` for example, from a local copy of SIB-200.

    Raises:
        DataError: the file is no Parquet table with its columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=list(COLUMNS)).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path} is no copy of SIB-200 ({error}): a Parquet file with the columns {', '.join(COLUMNS)}."
        ) from None
    found: dict[str, Any] = {}
    for language, script, split, topic, text in zip(
        *(table[name] for name in COLUMNS if name != "sentence"), strict=True
    ):
        if split in SPLITS and SCRIPT.fullmatch(str(script)) and text and topic:
            own = found.setdefault(f"{language}_{script}", (str(script), {name: ([], []) for name in SPLITS}))
            own[1][split][0].append(str(text))
            own[1][split][1].append(str(topic))
    return {
        name: Language(script, *({split: tuple(own[split][part]) for split in SPLITS} for part in (0, 1)))
        for name, (script, own) in sorted(found.items())
        if all(own[split][0] for split in SPLITS)
    }


@dataclass(frozen=True)
class LanguageSuite:
    """The tasks, the topics, and the group of each unseen task that is held out with its script."""

    suite: PlainSuite
    topics: tuple[str, ...]
    groups: Mapping[str, str]


def language_suite(languages: Mapping[str, Language], config: SibConfig) -> LanguageSuite:
    """Tasks of the languages; raises :class:`DataError` where there are too few."""
    draws = numpy_generator(config.seed, "sib200")
    topics = tuple(sorted({topic for one in languages.values() for own in one.topics.values() for topic in own}))
    by_script: dict[str, list[str]] = {}
    for name, one in languages.items():
        by_script.setdefault(one.script, []).append(name)
    small = [script for script, names in sorted(by_script.items()) if 2 <= len(names) <= config.most_of_script]
    held_out = [small[number] for number in sorted(draws.permutation(len(small))[: config.scripts])]
    groups = {name: f"script {script}" for script in held_out for name in by_script[script]}
    rest = [name for name in languages if name not in groups and name != ENGLISH]
    drawn = [*([ENGLISH] if ENGLISH in languages else []), *(rest[number] for number in draws.permutation(len(rest)))]
    first, second = config.pretraining, config.pretraining + config.unseen
    if len(drawn) < second + 2 or len(topics) < 2:
        raise DataError(
            f"There are {len(drawn)} languages outside of the held-out scripts and {len(topics)} topics; {second} "
            "languages are unseen or for pretraining. Give a whole copy of SIB-200."
        )
    make = partial(_task, languages, topics, config)
    suite = PlainSuite(
        config.name,
        [make(name) for name in drawn[second : second + config.seen]],
        [make(name) for name in (*drawn[first:second], *groups)],
        [make(name) for name in drawn[:first]],
    )
    return LanguageSuite(suite, topics, groups)


def _task(languages: Mapping[str, Language], topics: Sequence[str], config: SibConfig, name: str) -> PlainTask:
    one, draws = languages[name], numpy_generator(config.seed, "sib200", name)
    sizes: dict[SplitName, int] = {"train": config.train, "validation": config.validation, "test": config.test}
    splits = {}
    for split, size in sizes.items():
        rows = draws.permutation(len(one.texts[split]))[:size]
        targets = np.array([topics.index(one.topics[split][row]) for row in rows])
        splits[split] = Dataset([one.texts[split][row] for row in rows], targets if config.labelled else None)
    unlabelled = [one.texts["train"][row] for row in draws.permutation(len(one.texts["train"]))[: config.examples]]
    return PlainTask(name, splits, Description(metadata={"script": one.script}, examples=unlabelled))


def opened(data: Path, folder: Path, seed: int, progress: Tick, *, config: SibConfig = SibConfig()) -> OpenBenchmark:
    """The suite with a backbone that knows the topics from English and a few languages more."""
    made = language_suite(read_languages(data / FILE), replace(config, seed=seed))
    network, tokenizer = sentence_network(len(made.topics))
    pooled = joined_data([task.data("train") for task in made.suite.pretraining])
    collate = TextCollate.of(tokenizer, TOKENS)
    make = partial(pretrain, collate=collate, data=pooled, steps=200, rate=3e-4, progress=progress)
    kept_network(folder, network, make, {"seed": seed, "suite": made.suite.fingerprint})
    backbone = sentence_backbone(network, tokenizer, made.topics, TOKENS)
    return OpenBenchmark(made.suite, backbone, FINETUNE, in_groups(made.groups))


DOMAIN = Domain(
    "sib200",
    "Topics of sentences in many languages (SIB-200)",
    (FILE,),
    opened,
    replace(GENERATOR, parts=("metadata", "examples"), components=16),
    remarks=(
        "The encoder's words are English: of most other scripts it reads single letters or an unknown token. A "
        "language is described by its script and 32 unlabelled sentences; test sentences are trained on in no "
        "language.",
    ),
)
