"""Domains of control: returns of policies, references at 0 and 1, and a run of seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_domain import FINETUNE, TINY

from wildbench.datasets.control.cartpole import CARTPOLE
from wildbench.datasets.control.contexts import OBSERVATIONS, ControlConfig
from wildbench.datasets.control.pendulum import PENDULUM
from wildbench.datasets.control.system import repeated, returns
from wildbench.domains.control import DOMAINS, TRAINING, ControllerOpponent, ReturnScorer, open_control
from wildbench.domains.run import domain_config, run_domain
from wildbench.studies.measuring import OpenBenchmark
from wildpdiff.adapters.adapter import Adapter

SMALL = ControlConfig(
    pretraining=3, seen=8, unseen=2, outside=2, far=2, train=60, validation=20, test=30, episodes=3, hidden=True
)
SHORT = replace(PENDULUM, steps=50)
QUICK = replace(TRAINING, steps=60)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenBenchmark:
    folder = tmp_path_factory.mktemp("control")
    return open_control(folder, folder, 0, lambda done, of: None, system=SHORT, config=SMALL, training=QUICK)


def _moved(opened: OpenBenchmark, seed: int) -> Adapter:
    initial = opened.backbone.initial_adapter(0)
    draws = torch.Generator().manual_seed(seed)
    return replace(initial, tensors={
        name: value + 0.3 * torch.randn(value.shape, generator=draws) for name, value in initial.tensors.items()
    })  # fmt: skip


def test_the_scorer_runs_the_policy_of_backbone_and_adapter(opened: OpenBenchmark) -> None:
    """Against a slow twin that asks the backbone for every action."""
    scorer = opened.scorer
    assert isinstance(scorer, ReturnScorer)
    contexts, task = scorer.control.contexts, opened.suite.tasks("unseen")[1].name
    row = scorer.control.row[task]
    context = repeated({name: values[row] for name, values in contexts.values.items()}, 3)
    adapters = [_moved(opened, seed) for seed in range(2)]
    found = scorer(task, adapters)
    for number, adapter in enumerate(adapters):

        def policy(states: np.ndarray, adapter: Adapter = adapter) -> np.ndarray:
            batch = opened.backbone.stem({OBSERVATIONS: SHORT.observe(states).astype(np.float32)})
            return opened.backbone.predict(batch, adapter.tensors).argmax(1).numpy()

        slow = returns(SHORT, contexts.starts[row], context, policy)
        wanted = (slow - contexts.random[row]) / (contexts.controlled[row] - contexts.random[row])
        np.testing.assert_allclose(found[number].numpy(), wanted, atol=0.02)
    assert found.shape == (2, 3)
    assert not torch.equal(found[0], found[1])


def test_the_controller_scores_one(opened: OpenBenchmark) -> None:
    assert isinstance(opened.scorer, ReturnScorer)
    for task in opened.suite.tasks("unseen"):
        own, mean = (ControllerOpponent(opened.scorer.control, known).outputs(task) for known in (True, False))
        assert float(own.mean()) == pytest.approx(1.0)
        assert float(mean.mean()) != pytest.approx(1.0)


def test_every_system_has_three_domains() -> None:
    assert len(DOMAINS) == 9
    assert all(domain.name == name for name, domain in DOMAINS.items())


def test_a_domain_runs_with_groups_and_references(tmp_path: Path) -> None:
    def quick(*given: object) -> OpenBenchmark:
        made = partial(open_control, system=replace(CARTPOLE, steps=50), config=SMALL, training=QUICK)(*given)  # type: ignore[arg-type]
        return replace(made, finetune=FINETUNE)

    domain = DOMAINS["control-cartpole-hidden"]
    tiny = replace(domain, open=quick, generator=replace(TINY.generator, parts=domain.generator.parts), seen_tasks=2)
    table = run_domain(tiny, tmp_path, tmp_path / "out", domain_config(tiny, trained=False), command="c")
    assert table.groups == {"seen": 2, "unseen": 2, "outside the range": 2, "far outside": 2}
    assert table.metric.name == "normalised return"
    assert table.cell("controller of the context", "unseen").score.value == pytest.approx(1.0)
    assert np.isfinite(table.cell("generated", "outside the range").score.value)
