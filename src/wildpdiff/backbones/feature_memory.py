"""Features of image sets that were computed before, so that the frozen network sees no set of images twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from jaxtyping import Float
from torch import Tensor

from wildpdiff.tasks.description import Images

MOST_BYTES = 128 * 2**20
"""Kept by default: the descriptions of a few thousand small tasks."""


class FeatureMemory:
    """Keeps the features of whole image sets by the SHA-1 of their pixels; the longest unused make room.

    Every source of an evaluation and every fit asks for the features of the same descriptions. May be shared by
    threads.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep at most ``most_bytes`` of features; 0 keeps nothing."""
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[tuple[int, ...], str, bytes], Tensor] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, images: Images, compute: Callable[[Images], Tensor]) -> Float[Tensor, "n f"]:
        """The features of a set of images, computed by ``compute`` unless they are known. The caller owns the result.

        Args:
            images: ``uint8 [n, h, w, 3]``.
            compute: images to features; always the same function for one memory.
        """
        # A key and not a signature: whoever can plant colliding images can as well plant the images.
        digest = hashlib.sha1(images.tobytes(), usedforsecurity=False).digest()
        key = (images.shape, str(images.dtype), digest)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].clone()
        features = compute(images)
        with self._lock:
            if key not in self._kept and _size(features) <= self._most:
                self._kept[key] = features.clone()
                self._bytes += _size(features)
            while self._bytes > self._most:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= _size(oldest)
        return features


def _size(values: Tensor) -> int:
    return values.numel() * values.element_size()
