"""Image features of a local CLIP model in place of the backbone's: the condition of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.image_features import FeatureMemory
from wildpdiff.conditions.pretrained import load_local
from wildpdiff.disk import read_json
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.tasks.description import Images

BATCH = 64
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Preprocessing that CLIP was trained with; a folder's ``preprocessor_config.json`` wins over it."""


class ClipFeaturiser:
    """Image embeddings of CLIP (Radford et al. 2021), of unit length, from a local folder.

    A :class:`~wildpdiff.conditions.base.BlockFeaturiser`: give it to ``fit_fusion`` in place of the backbone's
    ``image_features``, and again when the condition is restored. The embedding is projected to the space that
    images share with words where the model has that projection.

    Attributes:
        identity: ``clip:`` and the start of the SHA-256 of the weights.
        blocks: one block, the embedding.
        factors: none: an embedding is one thing.
    """

    factors: tuple[str, ...] = ()

    def __init__(self, folder: Path | str) -> None:
        """Load the image half of a CLIP model; nothing is fetched.

        Args:
            folder: as transformers saves one, with ``config.json`` and ``model.safetensors``.

        Raises:
            ArtifactError: transformers is not installed, or the folder holds no CLIP model.
        """
        folder = Path(folder)
        found = _load(folder)
        self._vision: nn.Module = getattr(found, "vision_model", found)
        self._projection: nn.Module | None = getattr(found, "visual_projection", None)
        config = getattr(found.config, "vision_config", found.config)
        self._size = int(config.image_size)
        preprocessor = folder / "preprocessor_config.json"
        scaling: dict[str, Any] = read_json(preprocessor) if preprocessor.is_file() else {}
        self._mean = np.array(scaling.get("image_mean", MEAN), dtype=np.float32)
        self._std = np.array(scaling.get("image_std", STD), dtype=np.float32)
        halves = {"vision": self._vision} | ({} if self._projection is None else {"projection": self._projection})
        weights = {f"{half}.{name}": v for half, module in halves.items() for name, v in module.state_dict().items()}
        width = int(config.hidden_size if self._projection is None else found.config.projection_dim)
        self.identity = f"clip:{tensors_hash(weights)[:16]}"
        self.blocks = {"clip": width}
        self._memory = FeatureMemory()

    def __call__(self, images: Images) -> Float[Tensor, "n f"]:
        """Embeddings of ``uint8 [n, h, w, 3]`` of any size; raises :class:`DataError` on another layout."""
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError(f"Images are {images.dtype} of shape {images.shape}; uint8 [n, h, w, 3] is needed.")
        if not len(images):
            raise DataError("There are no images. Give at least one.")
        return self._memory(images, self._compute)

    def _compute(self, images: Images) -> Tensor:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                batch = np.stack([self._preprocess(image) for image in images[start : start + BATCH]])
                inputs = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
                embedding = self._vision(pixel_values=inputs).pooler_output
                parts.append(embedding if self._projection is None else self._projection(embedding))
            result = nn.functional.normalize(torch.cat(parts), dim=1)
        return result.clone()

    def _preprocess(self, image: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Bicubic resizing to the model's size along the shorter edge, center crop, normalised channels."""
        height, width = image.shape[:2]
        factor = self._size / min(height, width)
        sizes = (max(self._size, round(width * factor)), max(self._size, round(height * factor)))
        resized = Image.fromarray(image).resize(sizes, Image.Resampling.BICUBIC)
        left, top = (sizes[0] - self._size) // 2, (sizes[1] - self._size) // 2
        cut = np.asarray(resized.crop((left, top, left + self._size, top + self._size)), dtype=np.float32)
        return np.asarray((cut / np.float32(255.0) - self._mean) / self._std, dtype=np.float32)


def _load(folder: Path) -> Any:
    """The CLIP model in a folder, whole or its image half."""
    try:
        from transformers import CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection
    except ImportError:
        raise ArtifactError("CLIP features need transformers and pillow: pip install transformers pillow.") from None
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder} holds no CLIP model: config.json is missing. Give a local folder of one.")
    config = read_json(folder / "config.json")
    kinds = {"clip": CLIPModel, "clip_vision_model": CLIPVisionModel}
    kind = kinds.get(config.get("model_type", ""))
    if kind is None:
        raise ArtifactError(f"{folder} holds a model of type {config.get('model_type')!r}; a CLIP model is needed.")
    if "CLIPVisionModelWithProjection" in (config.get("architectures") or ()):
        kind = CLIPVisionModelWithProjection
    try:
        return load_local(kind, folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"The CLIP model in {folder} cannot be loaded ({reason}). Copy it again.") from None
