"""A source's adapters, refined on a few labels of the task: what describing and labelling give together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wildbench.methods.best_of import CANDIDATES
from wildbench.methods.few_labels import few_labels, labelled_task
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.errors import DataError
from wildpdiff.refine.refining import LabelledTask, refine_tasks
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.rng import sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description


class RefinedSource:
    """Gives another source's adapter, refined on ``k`` labels a class of the task that the description names.

    The labels are those that :class:`~wildbench.methods.few_labels.FewLabelsSource` of that seed is fine-tuned on.
    The task's other training images are used without their labels, to estimate its label frequencies; they can be
    left out. A task's adapter is refined at the first request, or with others by :meth:`prepare`, and kept.
    """

    stochastic = False

    def __init__(
        self,
        source: Source,
        points: Starts,
        data: LabelledData,
        labels_per_class: int,
        *,
        config: RefineConfig | None = None,
        unlabelled: bool = True,
        further: Source | None = None,
        seed: int = 0,
    ) -> None:
        """Remember what refining needs; nothing is refined yet.

        Args:
            source: of the adapters that are refined; its first sample is the first start.
            points: how it errs, and what else one may start from.
            data: labelled images of the tasks by name; the training images alone are used.
            labels_per_class: training images of each class, fewer where the task has fewer.
            config: of the refining.
            unlabelled: whether the training images without their labels are used to estimate the classes' frequencies.
            further: of further starts, eight samples a task, for example of the generator's posterior; none by default.
            seed: of the choice of images and of their order.

        Raises:
            DataError: less than one label a class.
        """
        if labels_per_class < 1:
            raise DataError(
                f"{labels_per_class} labels a class were requested; give at least 1, or take the source as it is."
            )
        self._source = source
        self._points = points
        self._data = data
        self._labels_per_class = labels_per_class
        self._config = config
        self._unlabelled = unlabelled
        self._further = further
        self._seed = seed
        self._kept: dict[str, Adapter] = {}

    @property
    def name(self) -> str:
        """For example ``generated, refined on 5 labels a class``."""
        plural = "" if self._labels_per_class == 1 else "s"
        return f"{self._source.name}, refined on {self._labels_per_class} label{plural} a class"

    @property
    def _backbone(self) -> Backbone:
        return self._points.backbone

    def prepare(self, descriptions: Sequence[Description]) -> None:
        """Refine for several descriptions in few passes, which is much faster than one after the other.

        Raises:
            DescriptionError: a description names no task whose labels are at hand, or the source cannot read it.
            TrainingError: a loss is not finite.
        """
        missing = {str(entry.task_id): entry for entry in descriptions if entry.task_id not in self._kept}
        tasks = []
        for description in missing.values():
            known = labelled_task(self._data, description)
            generated = self._source.sample(description, 1, self._seed)[0]
            few = few_labels(known, self._labels_per_class, self._seed)
            unlabelled = known.train if self._unlabelled else None
            further = self._further.sample(description, CANDIDATES, self._seed) if self._further else ()
            points = replace(self._points, candidates=tuple(further))
            tasks.append(LabelledTask(few, points(generated), unlabelled))
        seed = sub_seed(self._seed, "refined")
        found = refine_tasks(self._backbone, tasks, self._config, seed=seed)
        self._kept |= {name: refined.adapter for name, refined in zip(missing, found, strict=True)}

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the task's adapter, refined now unless it was before; raises as :meth:`prepare`."""
        description.require_any(["task_id"])
        self.prepare([description])
        adapter = self._kept[str(description.task_id)]
        provenance = {key: value for key, value in adapter.provenance.items() if key not in ("source", "seed", "task")}
        return repeat_adapter(
            adapter, self.name, description, n=n, seed=seed, labels_per_class=self._labels_per_class, **provenance
        )
