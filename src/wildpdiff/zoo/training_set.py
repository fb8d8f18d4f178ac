"""The seen tasks: a zoo, the descriptions of its tasks, and their labelled images where these are at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, Inputs, MetadataSchema
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo


@dataclass(frozen=True)
class TrainingSet:
    """Everything that a generator is fitted to.

    Attributes:
        descriptions: by task name, one for every task of the zoo; those of other tasks are not read.
        features: labelled images of a seen task behind the stem, by its name; None without data.
        featurise: features of a description's images; None for those of the backbone.
        with_data: tasks that have labelled images, the first ones of the zoo; None for all.
    """

    zoo: Zoo
    descriptions: Mapping[str, Description]
    schema: MetadataSchema
    backbone: Backbone
    features: Callable[[str], TaskFeatures] | None = None
    featurise: Callable[[Inputs], Tensor] | None = None
    with_data: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        suite: Suite,
        backbone: Backbone,
        zoo: Zoo,
        features: Callable[[str], TaskFeatures] | None = None,
        *,
        featurise: Callable[[Inputs], Tensor] | None = None,
    ) -> TrainingSet:
        """The zoo's tasks as the suite describes them."""
        descriptions = {task.name: task.description for task in suite.tasks("seen")}
        return cls(zoo, descriptions, suite.metadata_schema, backbone, features, featurise)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names, in the zoo's order."""
        return self.zoo.tasks

    @property
    def labelled(self) -> tuple[str, ...]:
        """Tasks with labelled images, the first ones of the zoo."""
        names = () if self.features is None else self.tasks
        return tuple(name for name in names if self.with_data is None or name in self.with_data)

    @property
    def initial(self) -> dict[str, Tensor]:
        """An adapter's tensors that leave the pretrained model as it is; an import alone knows no saved modules."""
        found = dict(self.zoo.initial.tensors)
        if self.zoo.imported and self.backbone.runs:
            own = self.backbone.module.state_dict()
            found |= {name: own[module].float() for name, module in self.backbone.spec.parameters.items()}
        return found

    @property
    def ordered_descriptions(self) -> list[Description]:
        """One a task, in the zoo's order."""
        return [self.descriptions[task] for task in self.tasks]

    def without(self, names: Sequence[str]) -> TrainingSet:
        """The other tasks. Nothing is copied.

        Raises:
            ArtifactError: no task is left.
        """
        return replace(self, zoo=self.zoo.without(names))

    def validate(self) -> None:
        """Check that the parts belong together.

        Raises:
            AdapterMismatchError: the zoo is of another backbone.
            DescriptionError: a task of the zoo has no description.
        """
        if not self.zoo.imported:
            self.backbone.require(self.zoo.plan.adapter, f"The zoo in {self.zoo.folder} is", "Give the zoo's backbone.")
        missing = [task for task in self.tasks if task not in self.descriptions]
        if missing:
            raise DescriptionError(f"Task {missing[0]!r} of the zoo has no description. Give one for every task.")
