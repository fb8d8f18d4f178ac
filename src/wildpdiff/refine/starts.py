"""Where refining may start: at the generated adapter, or where that is no good, at one that is not worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapter import PEFT_PREFIX, Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.layout import Layout
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.generator import Generator
from wildpdiff.refine.prior import RefinementPrior

__all__ = ["StartName", "StartingPoint", "StartingPoints", "pretrained_adapter"]

StartName = Literal["generated", "mean adapter", "pretrained"]


@dataclass(frozen=True)
class StartingPoint:
    """One adapter to start from.

    Attributes:
        name: what it is.
        adapter: the tensors.
        prior: how a task's best adapter lies around it; where there is none, all values move freely.
    """

    name: StartName
    adapter: Adapter
    prior: RefinementPrior | None


@dataclass(frozen=True)
class StartingPoints:
    """What may stand in for a generated adapter, computed once for all tasks.

    Attributes:
        backbone: the frozen model.
        prior: of the generated adapters' errors.
        others: the mean adapter, where the seen tasks are known.
    """

    backbone: Backbone
    prior: RefinementPrior | None
    others: Sequence[StartingPoint]

    @classmethod
    def of_generator(cls, generator: Generator) -> StartingPoints:
        """From what a generator's conditional mean says of each seen task as if that task were unseen.

        Raises:
            DataError: the generator has no conditional mean, so that nothing is known of its errors.
        """
        mean = generator.mean
        if mean is None:
            raise DataError(
                "The generator has no conditional mean and so no record of how far it errs. Fit one with a kernel "
                "mean, or refine without a generator."
            )
        codec = generator.codec
        return cls.of_seen_tasks(
            generator.backbone, codec.layout, codec.decode(mean.adapters), codec.decode(mean.held_out)
        )

    @classmethod
    def of_seen_tasks(
        cls, backbone: Backbone, layout: Layout, adapters: Float[Tensor, "t d"], held_out: Float[Tensor, "t d"]
    ) -> StartingPoints:
        """Priors from the seen tasks' flat adapters, and their mean adapter.

        The pretrained model is no start beside them: on seen tasks the mean adapter with its prior gets further with
        1 and with 5 labels a class, and taking both into the choice loses by choosing.

        Args:
            backbone: the frozen model.
            layout: names and shapes behind the columns.
            adapters: of the seen tasks.
            held_out: what is predicted of each of them without its labels.

        Raises:
            DataError: the adapters are all the same, or all as predicted.
        """
        errors = RefinementPrior.of_errors(layout, adapters - held_out, "errors of held-out seen tasks")
        centre = adapters.mean(0)
        spread = RefinementPrior.of_errors(layout, adapters - centre, "spread of the seen tasks")
        mean = Adapter(layout.unflatten(centre), backbone.adapter_config, {"source": "mean adapter"})
        return cls(backbone, errors, (StartingPoint("mean adapter", mean, spread),))

    @classmethod
    def without_generator(cls, backbone: Backbone) -> StartingPoints:
        """The pretrained model alone, and no prior."""
        return cls(backbone, None, ())

    def __call__(self, generated: Adapter) -> tuple[StartingPoint, ...]:
        """The generated adapter first, then what else one may start from.

        Raises:
            AdapterMismatchError: the adapter is of another backbone, or not of the generator's LoRA setting.
        """
        self.backbone.check(generated)
        if self.prior is not None:
            try:
                self.prior.layout.check(generated.tensors)
            except AdapterMismatchError as error:
                raise AdapterMismatchError(f"The adapter is not of this generator's kind: {error}") from None
        first = StartingPoint("generated", generated, self.prior)
        if self.prior is not None or self.others:
            return (first, *self.others)
        return (first, StartingPoint("pretrained", pretrained_adapter(self.backbone, generated), None))


def pretrained_adapter(backbone: Backbone, like: Adapter) -> Adapter:
    """The adapter that changes nothing: LoRA's A as in another adapter, B zero, saved modules as pretrained.

    Raises:
        AdapterMismatchError: the other adapter is of another backbone.
    """
    backbone.check(like)
    pretrained = dict(backbone.module.named_parameters())
    tensors = {}
    for name, value in like.tensors.items():
        if name.endswith(".lora_A.weight"):
            tensors[name] = value.clone()
        elif name.endswith(".lora_B.weight"):
            tensors[name] = torch.zeros_like(value)
        else:
            tensors[name] = pretrained[name.removeprefix(PEFT_PREFIX)].detach().clone()
    return Adapter(tensors, like.config, {"source": "pretrained"})
