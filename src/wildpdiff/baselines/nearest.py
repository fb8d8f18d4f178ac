"""Retrieval: the adapter of the seen task whose description is nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.distances import SeenDistances
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.tasks.description import Description


class NearestTaskSource:
    """Gives the adapter of the nearest seen task: every generator must beat looking it up.

    The distance is the mean, over the parts that both descriptions have, of the squared distance in that part
    divided by its mean over seen pairs, so that no part counts more because its embedding is longer.
    """

    name = "nearest task"
    stochastic = False

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
    ) -> None:
        """Remember the seen tasks.

        Args:
            encoder: fitted on the seen tasks.
            descriptions: of the seen tasks.
            adapters: one a description.
            features: image features of ``descriptions`` by part, where they are already known.

        Raises:
            DataError: not one adapter a description.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        self._task_ids = [entry.task_id for entry in descriptions]
        self._distances = SeenDistances.of(encoder, descriptions, features)

    def nearest(self, description: Description) -> int:
        """Index of the nearest seen task.

        Raises:
            DescriptionError: no readable part is present, or no seen task shares one with the description.
        """
        return int(self._distances.overall(self._encoder.encode_parts(description)).argmin())

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the nearest task's adapter; raises as :meth:`nearest`."""
        index = self.nearest(description)
        adapter = self._seen.adapter(self._seen.vectors[index])
        return repeat_adapter(adapter, self.name, description, n, seed, nearest_task=self._task_ids[index])
