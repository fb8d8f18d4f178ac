"""Tasks of plain Python objects and of tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refusals import refused
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tasks.batch import example_keys
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask, tasks_of_table
from wildpdiff.tasks.task import Examples, Suite, Task

TABLE = {
    "camera": ["a"] * 10 + ["b"] * 5,
    "text": [f"line {row}" for row in range(15)],
    "kind": ["x", "y"] * 7 + ["x"],
    "height": [2.0] * 10 + [3.0] * 5,
    "part": ["train"] * 6 + ["validation"] * 2 + ["test"] * 2 + ["train"] * 5,
}


def test_rows_become_tasks_with_what_is_the_same_in_all_of_their_rows_as_metadata() -> None:
    first, second = tasks_of_table(TABLE, task="camera", inputs="text", target="kind", split="part")
    assert (first.name, second.name) == ("a", "b")
    assert first.data("test") == Dataset(["line 8", "line 9"], ["x", "y"])
    assert len(second.data("validation")) == 0
    assert first.description.metadata == {"height": 2.0}
    assert isinstance(first, Task)
    assert isinstance(first.data("train"), Examples)


def test_a_suite_has_the_schema_of_its_tasks_metadata() -> None:
    tasks = tasks_of_table(
        {**TABLE, "habitat": ["wood"] * 10 + ["3"] * 5}, task="camera", inputs="text", target="kind", split="part"
    )
    schema = PlainSuite("lines", tasks).metadata_schema
    assert [(entry.name, entry.kind, entry.categories) for entry in schema.fields] == [
        ("height", "number", ()),
        ("habitat", "category", ("3", "wood")),
    ]


def test_metadata_that_is_endless_is_refused() -> None:
    tasks = tasks_of_table(
        {**TABLE, "height": [2.0] * 10 + [float("inf")] * 5}, task="camera", inputs="text", target="kind"
    )
    with refused(DescriptionError, "height", "inf"):
        PlainSuite("lines", tasks)


def test_splits_are_drawn_by_the_task_s_name_where_no_column_has_them() -> None:
    table = {key: values for key, values in TABLE.items() if key != "part"}
    one, again = (tasks_of_table(table, task="camera", inputs=("text", "height"), target="kind")[0] for _ in range(2))
    assert {part: len(data) for part, data in one.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert one == again
    assert {text for data in one.splits.values() for text in data.inputs["text"]} == set(TABLE["text"][:10])


@pytest.mark.parametrize(("changes", "named"), [({"target": "colour"}, "'colour'"), ({"split": "kind"}, "'x'")])
def test_a_missing_column_and_a_strange_split_are_refused(changes: dict[str, str], named: str) -> None:
    with refused(DataError, named):
        tasks_of_table(TABLE, **{"task": "camera", "inputs": "text", "target": "kind", **changes})


def test_a_suite_s_fingerprint_is_of_examples_targets_and_metadata() -> None:
    def suite(value: float, target: int) -> PlainSuite:
        return PlainSuite("s", [PlainTask("t", {"train": Dataset(np.array([[value]]), [target])})])

    assert isinstance(suite(0.0, 1), Suite)
    assert suite(0.0, 1).fingerprint == suite(0.0, 1).fingerprint
    assert len({suite(0.0, 1).fingerprint, suite(1.0, 1).fingerprint, suite(0.0, 2).fingerprint}) == 3


def test_tasks_of_one_name_and_targets_of_another_number_are_refused() -> None:
    task = PlainTask("t", {})
    with refused(DataError, "'t'"):
        PlainSuite("s", [task], [task])
    with refused(DataError, 2, 1):
        Dataset(["a", "b"], [1])


def test_equal_examples_have_equal_keys_whatever_holds_them() -> None:
    array = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    keys = example_keys(array)
    assert keys == example_keys(torch.tensor(array))
    assert (keys[0] == keys[2], keys[0] == keys[1]) == (True, False)
    texts = example_keys(["a", "b", "a"])
    assert (texts[0] == texts[2], texts[0] == texts[1]) == (True, False)
    both = example_keys({"x": array, "y": np.array([0, 0, 1])})
    assert len(set(both)) == 3
    assert example_keys(None) == ()


def test_numbers_of_numpy_are_metadata_too() -> None:
    table = {**TABLE, "floor": np.repeat([1, 2], [10, 5]), "height": np.repeat(np.float32([2, 3]), [10, 5])}
    tasks = tasks_of_table(table, task="camera", inputs="text", target="kind", split="part")
    assert [task.description.metadata for task in tasks] == [{"height": 2.0, "floor": 1}, {"height": 3.0, "floor": 2}]


def test_columns_and_named_inputs_of_several_lengths_are_refused() -> None:
    with refused(DataError, "kind", 14, 15):
        tasks_of_table({**TABLE, "kind": TABLE["kind"][:-1]}, task="camera", inputs="text", target="kind")
    with refused(DataError, "[1, 2]"):
        Dataset({"ids": [1, 2], "mask": [1]}, [0, 1])


@pytest.mark.parametrize("example", [object(), None, [[1], [1, 2]]])
def test_an_example_that_has_no_bytes_of_its_own_has_no_key(example: object) -> None:
    with refused(DataError):
        example_keys([example])
