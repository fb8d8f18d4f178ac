import torch

from refusals import refused
from wildpdiff.conditions.task_id import TaskIdEncoder
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description

SEEN = [Description(task_id=name) for name in ("R10", "B04", "R10", "C01")]


def test_one_hot_in_the_order_given() -> None:
    encoder = TaskIdEncoder.fit(SEEN)
    assert encoder.size == 3
    assert encoder.encode(Description(task_id="B04")).values.tolist() == [0.0, 1.0, 0.0]


def test_missing_id_is_absent_and_zero() -> None:
    embedding = TaskIdEncoder.fit(SEEN).encode(Description(text="a river"))
    assert not embedding.present
    assert torch.equal(embedding.values, torch.zeros(3))


def test_unknown_id_is_refused_with_a_way_out() -> None:
    with refused(DescriptionError, "'Z99'", "R10, B04, C01"):
        TaskIdEncoder.fit(SEEN).encode(Description(task_id="Z99"))


def test_no_ids_cannot_be_fitted() -> None:
    with refused(DescriptionError, "task_id"):
        TaskIdEncoder.fit([Description(text="a river")])
