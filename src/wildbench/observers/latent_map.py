"""Map of fine-tuned and generated adapters: latents on the seen tasks' principal components.

A latent is drawn as the normalised adapter that it decodes to. The latents' own axes are uninformative: an
autoencoder that whitens gives every direction the same variance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.sections import LatentMap, LatentPoint
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Scored
from wildpdiff.generator import Generator


class LatentMapObserver:
    """Map of one generator, the first: latents of different generators have different axes."""

    section = "latent_map"

    def __init__(self, generator: Generator, seen: Mapping[str, Adapter], unseen: Mapping[str, Adapter]) -> None:
        """Fit the map.

        Args:
            generator: of the samples and of the latents.
            seen: fine-tuned adapters of the seen tasks by name; all of them decide the axes.
            unseen: fine-tuned adapters of further tasks by name, where there are any.

        Raises:
            DataError: there are fewer than two seen tasks, or their latents are all equal.
        """
        if len(seen) < 2:
            raise DataError(f"A map of latents needs at least two seen tasks, found {len(seen)}.")
        self._generator = generator
        self._finetuned = {**unseen, **seen}
        latents = torch.stack([self._decoded(adapter) for adapter in seen.values()])
        self._centre = latents.mean(0)
        _, singular, axes = torch.linalg.svd(latents - self._centre, full_matrices=False)
        variance = singular.square()
        if float(variance.sum()) == 0:
            raise DataError("The fine-tuned adapters of all seen tasks are equal, so there is no map of them.")
        # Two tasks differ along one axis; the other is then drawn as zeros.
        plane = torch.zeros(2, latents.shape[1], dtype=torch.float64)
        plane[: min(2, len(axes))] = axes[:2]
        # A principal axis has no sign of its own; the largest coordinate is made positive.
        largest = plane.gather(1, plane.abs().argmax(1, keepdim=True))
        self._axes = plane * torch.where(largest < 0, -1.0, 1.0)
        shares = torch.cat([variance / variance.sum(), torch.zeros(1, dtype=torch.float64)])
        self._explained = (float(shares[0]), float(shares[1]))
        self._points: list[LatentPoint] = []

    def observe(self, scored: Scored) -> None:
        """Add a task's fine-tuned adapter and the mean of the generated ones for its own description."""
        method = scored.method
        if method.source is not self._generator or method.condition != "own" or method.unlabelled:
            return
        task = scored.test.task
        made = torch.stack([self._decoded(adapter) for adapter in scored.adapters]).mean(0)
        if task in self._finetuned:
            tuned = self._project(self._decoded(self._finetuned[task]))
            self._points.append(LatentPoint(scored.split, "fine-tuned", task, *tuned))
        self._points.append(LatentPoint(scored.split, "generated", task, *self._project(made)))

    def result(self) -> LatentMap:
        """The map of all observed tasks."""
        return LatentMap(self._explained, tuple(self._points))

    def _decoded(self, adapter: Adapter) -> Float[Tensor, " d"]:
        codec, autoencoder = self._generator.codec, self._generator.autoencoder
        vector = codec.layout.flatten(adapter.tensors)[None]
        with torch.no_grad():
            return autoencoder.decode(autoencoder.encode(codec.encode(vector)))[0].double()

    def _project(self, decoded: Float[Tensor, " d"]) -> list[float]:
        point: list[float] = (self._axes @ (decoded - self._centre)).tolist()
        return point
