import random

import numpy as np
import torch

from wildpdiff.rng import first_by_name, numpy_generator, sub_seed, torch_generator


def test_sub_seeds_are_the_same_on_every_machine() -> None:
    assert sub_seed(0, "zoo") == 1683639680936678346
    assert sub_seed(7, "task", 3) == 3071979909128196871


def test_every_name_and_its_place_counts() -> None:
    seeds = [sub_seed(0, "a", "b"), sub_seed(0, "b", "a"), sub_seed(0, "a"), sub_seed(1, "a", "b"), sub_seed(0)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_differ_by_name() -> None:
    first, again, other = (numpy_generator(3, name).random(4).tolist() for name in ("x", "x", "y"))
    assert first == again != other
    one, same, another = (torch.rand(4, generator=torch_generator(3, name)).tolist() for name in ("x", "x", "y"))
    assert one == same != another


def test_nothing_global_is_seeded() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    numpy_generator(0, "a").random()
    torch.rand(1, generator=torch_generator(0, "a"))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_further_name_displaces_at_most_one() -> None:
    names = [f"task-{number}" for number in range(40)]
    more = first_by_name(names, 10, 0, "x")
    assert more == sorted(more)
    assert len(set(more)) == 10
    turned = first_by_name(names[::-1], 10, 0, "x")
    assert {names[::-1][index] for index in turned} == {names[index] for index in more}
    for count in range(31, 41):
        before, after = (set(first_by_name(names[:n], 10, 0, "x")) for n in (count - 1, count))
        assert len(after - before) <= 1
        assert after - before <= {count - 1}
    assert first_by_name(names[:3], 10, 0) == [0, 1, 2]
    assert first_by_name(names, 10, 0, "x") != first_by_name(names, 10, 1, "x")
