"""Without labels: the task's own images choose among several candidate adapters, or average them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError, DescriptionError
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, Images

__all__ = ["RULES", "Rule", "SelectedSource", "Selection", "average", "select", "select_by_features"]

Rule = Literal["entropy", "agreement", "prior", "average"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        adapter: the chosen candidate, or the average of all.
        rule: by which it was chosen.
        place: the candidate's number; ``None`` for an average.
        scores: of the candidates, the best the largest; all zero for an average.
    """

    adapter: Adapter
    rule: Rule
    place: int | None
    scores: Float[Tensor, " a"]


def select(
    candidates: Sequence[Adapter],
    backbone: Backbone,
    images: Images,
    rule: Rule,
    frequencies: Float[Tensor, " c"] | None = None,
) -> Selection:
    """Choose one candidate by unlabelled images of its task, ``uint8 [n, h, w, 3]``; see :func:`select_by_features`."""
    return select_by_features(candidates, backbone, backbone.stem(images), rule, frequencies)


def select_by_features(
    candidates: Sequence[Adapter],
    backbone: Backbone,
    features: Tensor,
    rule: Rule,
    frequencies: Float[Tensor, " c"] | None = None,
) -> Selection:
    """Choose one candidate by unlabelled images of its task.

    - ``entropy``: the most certain model, by mean entropy of its predictions (Wang et al. 2021 minimise it).
    - ``agreement``: the model nearest to what all together predict: the largest mean log-probability under the mean
      of the candidates' probabilities (Lakshminarayanan et al. 2017 for the mean as a prediction).
    - ``prior``: the model whose predicted class frequencies are nearest to those given, by Kullback-Leibler divergence.
    - ``average``: no choice; the mean of all candidates' tensors (Wortsman et al. 2022, a uniform soup).

    Args:
        candidates: of one backbone and LoRA setting: samples of a generator, or of several sources.
        backbone: the frozen model.
        features: the images behind the stem, ``[n, …]``; at least one.
        rule: see above.
        frequencies: of the classes; for ``prior`` alone, where it is needed.

    Raises:
        DataError: no candidate, no image, an unknown rule, or frequencies missing, negative or of another length.
        AdapterMismatchError: a candidate is of another backbone.
    """
    if not candidates:
        raise DataError("There are no candidates to choose among. Give at least one adapter.")
    if rule not in RULES:
        raise DataError(f"There is no rule {rule!r}; choose one of {', '.join(RULES)}.")
    if not len(features):
        raise DataError("There are no images to choose by. Give at least one of the task.")
    for candidate in candidates:
        backbone.check(candidate)
    if rule == "average":
        return Selection(average(candidates), rule, None, torch.zeros(len(candidates)))
    stacked = {name: torch.stack([entry.tensors[name] for entry in candidates]) for name in candidates[0].tensors}
    logs = backbone.predict_many(features, stacked).double().log_softmax(-1)
    scores = _SCORES[rule](logs, _checked(frequencies, rule, len(backbone.classes))).float()
    place = int(scores.argmax())
    return Selection(candidates[place], rule, place, scores)


def average(adapters: Sequence[Adapter]) -> Adapter:
    """The mean of several adapters' tensors, with what they come from in its provenance.

    Raises:
        DataError: there are none.
        AdapterMismatchError: they are not of one backbone and LoRA setting.
    """
    if not adapters:
        raise DataError("There are no adapters to average. Give at least one.")
    first = adapters[0]
    if any(adapter.config != first.config for adapter in adapters):
        raise AdapterMismatchError("The adapters are of several backbones or LoRA settings; only like ones average.")
    tensors = {
        name: torch.stack([adapter.tensors[name].double() for adapter in adapters]).mean(0).float()
        for name in first.tensors
    }
    told = {"averaged": len(adapters), "task": first.provenance.get("task")}
    return Adapter(tensors, first.config, told)


def _checked(frequencies: Tensor | None, rule: Rule, classes: int) -> Tensor:
    if frequencies is None:
        if rule == "prior":
            raise DataError("The rule 'prior' compares with class frequencies. Give them, or choose another rule.")
        return torch.full((classes,), 1.0 / classes, dtype=torch.float64)
    if frequencies.shape != (classes,) or bool((frequencies < 0).any()) or not float(frequencies.sum()) > 0:
        raise DataError(
            f"The class frequencies are {tuple(frequencies.shape)} numbers; give {classes}, none negative, not all 0."
        )
    return frequencies.double() / frequencies.double().sum()


def _certainty(logs: Tensor, frequencies: Tensor) -> Tensor:
    return (logs.exp() * logs).sum(-1).mean(1)


def _agreement(logs: Tensor, frequencies: Tensor) -> Tensor:
    return (logs.exp().mean(0) * logs).sum(-1).mean(1)


def _nearness(logs: Tensor, frequencies: Tensor) -> Tensor:
    predicted = logs.exp().mean(1).clamp_min(1e-12)
    wanted = frequencies.clamp_min(1e-12)
    return -(wanted * (wanted.log() - predicted.log())).sum(-1)


_SCORES: Mapping[Rule, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": _certainty,
    "agreement": _agreement,
    "prior": _nearness,
}


class SelectedSource:
    """Chooses, or averages, among samples of one or several sources by the description's unlabelled images.

    The images are the description's ``examples``. It takes one adapter of each source that is not random and
    ``samples`` of each that is.
    """

    stochastic = False

    def __init__(
        self,
        sources: Sequence[Source],
        backbone: Backbone,
        rule: Rule,
        *,
        samples: int = 4,
        frequencies: Callable[[Description], Tensor] | None = None,
    ) -> None:
        """Wrap sources.

        Args:
            sources: that give the candidates; at least one.
            backbone: the frozen model.
            rule: see :func:`select_by_features`.
            samples: candidates of each random source.
            frequencies: class frequencies of a description, which the rule ``prior`` needs.

        Raises:
            DataError: no source, no sample, or ``prior`` without frequencies.
        """
        if not sources or samples < 1:
            raise DataError(f"{len(sources)} sources and {samples} samples of each were given; give at least one.")
        if rule == "prior" and frequencies is None:
            raise DataError("The rule 'prior' compares with class frequencies. Give a function that tells them.")
        self._sources = tuple(sources)
        self._backbone = backbone
        self._rule: Rule = rule
        self._samples = samples
        self._frequencies = frequencies

    @property
    def name(self) -> str:
        """For example ``generated, selected by entropy``."""
        names = " or ".join(dict.fromkeys(source.name for source in self._sources))
        return f"{names}, averaged" if self._rule == "average" else f"{names}, selected by {self._rule}"

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the selected adapter.

        Raises:
            DescriptionError: there are no unlabelled images, or a source cannot read the description.
        """
        candidates: list[Adapter] = []
        for source in self._sources:
            candidates += source.sample(description, self._samples if source.stochastic else 1, seed)
        if self._rule == "average":
            chosen, place = average(candidates), None
        else:
            if description.examples is None or not len(description.examples):
                raise DescriptionError("There are no images of the task to select by. Give examples, without labels.")
            wanted = None if self._frequencies is None else self._frequencies(description)
            found = select(candidates, self._backbone, description.examples, self._rule, wanted)
            chosen, place = found.adapter, found.place
        told = {
            "source": self.name,
            "seed": seed,
            "task": description.task_id,
            "candidates": len(candidates),
            "candidate": place,
            "selected_from": dict(chosen.provenance),
        }
        return [Adapter({k: v.clone() for k, v in chosen.tensors.items()}, chosen.config, dict(told)) for _ in range(n)]
