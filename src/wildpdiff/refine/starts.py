"""Starts of a refinement: the generated adapter, fallbacks, and the prior of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.generator import Generator
from wildpdiff.posterior.prior import RefinementPrior

FEWEST_DIRECTIONS = 20
"""Directions of a prior below which moving freely is preferred. Measured with 5 directions, where moving freely is
better, and with 39 and 49, where it is worse; not between."""

FREE = "generated, without prior"
"""Name of the start at the generated adapter from which all values move freely."""


@dataclass(frozen=True)
class Start:
    """One adapter to start from.

    Attributes:
        prior: distribution of a task's best adapter around it; where there is none, all values move freely.
        further: one of several alike, of which only those with the most probable labels are cross-validated.
    """

    name: str
    adapter: Adapter
    prior: RefinementPrior | None
    further: bool = False


@dataclass(frozen=True)
class Starts:
    """Starts next to a generated adapter, computed once for all tasks.

    Attributes:
        prior: of the generated adapters' errors.
        others: the mean adapter, where the seen tasks are known.
        candidates: further adapters of the task at hand, such as samples of the generator; each starts under the
            prior. Set for one task by ``dataclasses.replace``.
        fewest_directions: of a prior that is preferred to moving freely.
    """

    backbone: Backbone
    prior: RefinementPrior | None
    others: Sequence[Start]
    candidates: Sequence[Adapter] = ()
    fewest_directions: int = FEWEST_DIRECTIONS

    @classmethod
    def of_generator(cls, generator: Generator) -> Starts:
        """From a generator's held-out estimates of the seen tasks.

        Raises:
            DataError: the generator has no conditional mean, so that nothing is known of its errors.
        """
        mean = generator.mean
        if mean is None:
            raise DataError("The generator has no conditional mean, and so no record of its errors. Refine without it.")
        codec = generator.codec
        return cls.of_seen_tasks(
            generator.backbone, codec.layout, codec.decode(mean.adapters), codec.decode(mean.held_out)
        )

    @classmethod
    def of_seen_tasks(
        cls, backbone: Backbone, layout: Layout, adapters: Float[Tensor, "t d"], held_out: Float[Tensor, "t d"]
    ) -> Starts:
        """Priors from the seen tasks' flat adapters, and their mean adapter.

        Args:
            adapters: of the seen tasks.
            held_out: predictions for each of them without its labels.

        Raises:
            DataError: the adapters are all the same, or all as predicted.
        """
        errors = RefinementPrior.of_errors(layout, adapters - held_out, "errors of held-out seen tasks")
        centre = adapters.mean(0)
        spread = RefinementPrior.of_errors(layout, adapters - centre, "spread of the seen tasks")
        mean = Adapter(layout.unflatten(centre), backbone.adapter_config, {"source": "mean adapter"})
        return cls(backbone, errors, (Start("mean adapter", mean, spread),))

    @classmethod
    def without_generator(cls, backbone: Backbone) -> Starts:
        """The pretrained model alone, without a prior."""
        return cls(backbone, None, ())

    def __call__(self, generated: Adapter) -> tuple[Start, ...]:
        """Generated adapter, generated adapter without prior, mean adapter, pretrained model, further candidates.

        Where the prior has few directions the second comes first: refining prefers the first start. Without a prior
        both are the same, and the mean adapter is left out where the seen tasks are unknown.

        Raises:
            AdapterMismatchError: an adapter is of another backbone, or not of the generator's LoRA setting.
        """
        for adapter in (generated, *self.candidates):
            self.backbone.check(adapter)
            if self.prior is not None:
                try:
                    self.prior.layout.check(adapter.tensors)
                except AdapterMismatchError as error:
                    raise AdapterMismatchError(f"The adapter is not of this generator's kind: {error}") from None
        own = [Start("generated", generated, self.prior)]
        if self.prior is not None:
            few = len(self.prior.directions) < self.fewest_directions
            own.insert(0 if few else 1, Start(FREE, generated, None))
        like = self.others[0].adapter if self.others else generated  # of a bad adapter, A too may be bad
        pretrained = Start("pretrained", pretrained_adapter(self.backbone, like), None)
        further = [
            Start(f"sample {number}", adapter, self.prior, further=True)
            for number, adapter in enumerate(self.candidates, start=1)
        ]
        return (*own, *self.others, pretrained, *further)


def pretrained_adapter(backbone: Backbone, like: Adapter) -> Adapter:
    """The adapter that changes nothing: LoRA's A as in another adapter, B zero, saved modules as pretrained.

    Raises:
        AdapterMismatchError: the other adapter is of another backbone.
    """
    backbone.check(like)
    pretrained = dict(backbone.module.named_parameters())
    tensors = {}
    for name, value in like.tensors.items():
        if name.endswith((".lora_A.weight", ".lora_embedding_A")):
            tensors[name] = value.clone()
        elif name.endswith((".lora_B.weight", ".lora_embedding_B")):
            tensors[name] = torch.zeros_like(value)
        else:
            tensors[name] = pretrained[name.removeprefix(PEFT_PREFIX)].detach().clone()
    return Adapter(tensors, like.config, {"source": "pretrained"})
