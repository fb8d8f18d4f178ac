"""Control: policies for systems whose physics differ, scored by the returns of their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildbench.datasets.control.acrobot import ACROBOT
from wildbench.datasets.control.cartpole import CARTPOLE
from wildbench.datasets.control.contexts import OBSERVATIONS, Contexts, ControlConfig, ControlSuite, control_suite
from wildbench.datasets.control.pendulum import PENDULUM
from wildbench.datasets.control.system import Actions, Floats, Policy, System, repeated, returns
from wildbench.domains.domain import Domain, in_groups
from wildbench.domains.networks import PooledTraining, pooled_examples, trained_once
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark, Predictor
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.lora import branch_parameters
from wildpdiff.evaluate.results import SourceInfo
from wildpdiff.fit import GeneratorConfig
from wildpdiff.tasks.metric import Metric
from wildpdiff.tasks.objective import Classification
from wildpdiff.tasks.task import Task

HIDDEN = 64
LORA = LoraSpec(6, 6.0, ("first", "second"), ("head",))
LAYERS = ("first", "second", "head")
RETURN = Metric("normalised return", "%", 100.0)
"""0 is the mean return of random actions in the context, 1 that of the context's controller, on the same episodes."""
TRAINING = PooledTraining(steps=2000)


class PolicyNetwork(nn.Module):
    """Observations to logits of actions by two hidden layers."""

    scale: Tensor

    def __init__(self, scale: Sequence[float], actions: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.first = nn.Linear(len(scale), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, actions)

    def forward(
        self, observations: Float[Tensor, "n o"], transitions: Float[Tensor, "n t"] | None = None
    ) -> Float[Tensor, "n a"]:
        """Logits. Transitions describe a context and are not read: a policy has its adapter for that."""
        inner = torch.tanh(self.second(torch.tanh(self.first(observations / self.scale))))
        logits: Tensor = self.head(inner)
        return logits


@dataclass(frozen=True, eq=False)
class ReturnScorer:
    """Normalised returns of policies, one an episode."""

    control: ControlSuite
    backbone: Backbone

    @property
    def metric(self) -> Metric:
        """The normalised return."""
        return RETURN

    def __call__(self, task: str, adapters: Sequence[Adapter]) -> Float[Tensor, "a e"]:
        """Normalised returns of each adapter's policy on a task's episodes."""
        layers = self._layers(adapters)
        system, one = self.control.system, self.control.row[task]
        scale, count = np.array(system.scale), len(adapters)

        def policy(states: Floats) -> Actions:
            inner = (system.observe(states) / scale).reshape(count, -1, len(scale))
            for number, (weight, bias) in enumerate(layers):
                inner = (np.tanh(inner) if number else inner) @ weight.swapaxes(1, 2) + bias[:, None]
            return np.asarray(inner.argmax(2).reshape(-1))

        return torch.from_numpy(scored(system, self.control.contexts, one, policy, policies=count))

    def _layers(self, adapters: Sequence[Adapter]) -> list[tuple[Floats, Floats]]:
        """Weights and biases of each layer, stacked over adapters."""
        module, spec = self.backbone.module, self.backbone.spec
        named = [branch_parameters(adapter.tensors, spec) for adapter in adapters]
        found = []
        for layer in LAYERS:
            own = {name: value.double() for name, value in module.get_submodule(layer).named_parameters()}
            weights = []
            for tensors in named:
                weight = tensors.get(f"{layer}.weight", own["weight"]).double()
                if layer in spec.modules:
                    product = tensors[f"{layer}.factor_b"].double() @ tensors[f"{layer}.factor_a"].double()
                    weight = weight + spec.modules[layer].scaling * product
                weights.append(weight.numpy())
            biases = [tensors.get(f"{layer}.bias", own["bias"]).double().numpy() for tensors in named]
            found.append((np.stack(weights), np.stack(biases)))
        return found


def scored(system: System, contexts: Contexts, row: int, policy: Policy, *, policies: int = 1) -> Floats:
    """Normalised returns ``[p, e]`` in one context; of several policies, each has ``e`` consecutive states."""
    starts = np.tile(contexts.starts[row], (policies, 1))
    own = repeated({name: values[row : row + 1] for name, values in contexts.values.items()}, len(starts))
    found = returns(system, starts, own, policy)
    random, controlled = contexts.random[row], contexts.controlled[row]
    normalised: Floats = ((found - random) / (controlled - random)).reshape(policies, -1)
    return normalised


@dataclass(frozen=True, eq=False)
class ControllerOpponent:
    """The controller that is computed from the task's true context, or from the mean of the seen contexts."""

    control: ControlSuite
    own: bool

    @property
    def info(self) -> SourceInfo:
        """A reference: it knows the physics."""
        if self.own:
            return SourceInfo("controller of the context", "reference", None, "computed from the true physics")
        return SourceInfo("controller of the mean context", "no description", None, "of the mean of the seen contexts")

    def outputs(self, task: Task) -> Float[Tensor, " e"]:
        """Normalised returns of its episodes."""
        control, row = self.control, self.control.row[task.name]
        system, contexts = control.system, control.contexts
        rows = np.array([row])
        if not self.own:
            rows = np.array([control.row[seen.name] for seen in control.suite.seen])
        values = {name: np.array([column[rows].mean()]) for name, column in contexts.values.items()}
        gains = contexts.gains[rows] if self.own else system.gains(values)
        known = repeated(values, contexts.starts.shape[1])
        every = np.repeat(gains, contexts.starts.shape[1], axis=0)
        found = scored(system, contexts, row, lambda states: system.law(states, known, every))
        return torch.from_numpy(found[0])


def open_control(
    data: Path,
    folder: Path,
    seed: int,
    tick: Tick,
    *,
    system: System,
    config: ControlConfig,
    training: PooledTraining = TRAINING,
) -> OpenBenchmark:
    """Suite, scorer, and a policy trained on the pretraining contexts together."""
    config = replace(config, seed=seed)
    control = control_suite(system, config)
    suite = control.suite
    module = trained_once(
        lambda: PolicyNetwork(system.scale, system.actions),
        folder / "backbone",
        {"suite": suite.fingerprint},
        lambda: pooled_examples(suite.tasks("pretraining"), OBSERVATIONS),
        training=training,
        seed=seed,
        progress=tick,
    )
    actions = tuple(f"action {number}" for number in range(system.actions))
    backbone = Backbone.of(module, name=f"policy-{system.name}", lora=LORA, objective=Classification(actions))
    opponents: list[Predictor] = [ControllerOpponent(control, own) for own in (False, True)]
    return OpenBenchmark(
        suite,
        backbone,
        knobs={**asdict(config), **in_groups(control.groups)},
        predictors=lambda made: opponents,
        scorer=ReturnScorer(control, backbone),
    )


VARIANTS = {"": ControlConfig(), "-hidden": ControlConfig(hidden=True), "-distractors": ControlConfig(distractors=True)}
REMARKS = (
    "The score is the return of 16 episodes, 0 for random actions and 100 for the controller that is computed from the "
    "true physics. Adapters are found by imitation of that controller; trust is calibrated on the share of its actions "
    "that a policy takes, which needs no episodes.",
)


def _domain(system: System, variant: str, config: ControlConfig) -> Domain:
    about = {
        "": "physics as description",
        "-hidden": "masses hidden, unlabelled transitions",
        "-distractors": "physics and two distractors",
    }
    return Domain(
        name=f"control-{system.name}{variant}",
        title=f"{system.environment} of gymnasium with other physics: {about[variant]}.",
        files=(),
        open=partial(open_control, system=system, config=config),
        generator=GeneratorConfig(parts=("metadata", "examples")),
        remarks=REMARKS,
    )


DOMAINS = {
    domain.name: domain
    for domain in (
        _domain(system, variant, config)
        for system in (CARTPOLE, PENDULUM, ACROBOT)
        for variant, config in VARIANTS.items()
    )
}
