"""The generator: codec, autoencoder, latent diffusion and conditions in one; ``sample(description)`` gives adapters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import Artifact, content_hash, json_bytes, read_artifact, tensors_hash, write_artifact
from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.fit import restore_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import ARCHITECTURES, BUNDLED, is_bundled, load_backbone, save_backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditions.base import Featuriser
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.diffusion.denoiser import DenoiserNetwork
from wildpdiff.diffusion.guidance import guided
from wildpdiff.diffusion.networks import restore_denoiser
from wildpdiff.diffusion.samplers import SAMPLERS, standard_noise
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.disk import written_in_place
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description

__all__ = ["Generator", "Sampling", "description_provenance", "stored_fingerprint"]

KIND = "generator"
BACKBONE_FOLDER = "backbone"


@dataclass(frozen=True)
class Sampling:
    """How latents are sampled.

    Attributes:
        sampler: a name in :data:`wildpdiff.diffusion.samplers.SAMPLERS`.
        steps: sampler steps.
        guidance: scale of classifier-free guidance; 1 is the conditional model unchanged.
        temperature: standard deviation of the start noise; below 1 samples gather around the mode.
    """

    sampler: str = "dpm_solver_2m"
    steps: int = 20
    guidance: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise DescriptionError(f"There is no sampler {self.sampler!r}; choose one of {', '.join(SAMPLERS)}.")
        if self.steps < 1:
            raise DescriptionError(f"{self.steps} sampler steps were asked for; at least 1 is needed.")


@dataclass(frozen=True, eq=False)
class Generator:
    """Generates the adapters of tasks from their descriptions. A :class:`~wildpdiff.source.Source`.

    Attributes:
        backbone: the frozen model that the adapters belong to.
        codec: adapter tensors to normalised vectors.
        autoencoder: normalised vectors to latents.
        conditions: descriptions to embeddings.
        denoiser: the trained network with averaged weights.
        schedule: of the diffusion.
        mean: what the diffusion is centred on; ``None`` where the denoiser alone carries the condition.
        spread: scale of the latents around the mean.
        sampling: sampler, steps and guidance.
        training: plain JSON values about its making: configuration, seed, zoo.
    """

    backbone: Backbone
    codec: Codec
    autoencoder: Autoencoder
    conditions: FusionEncoder
    denoiser: DenoiserNetwork
    schedule: Schedule
    mean: ConditionalMean | None
    spread: float
    sampling: Sampling
    training: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``generated``."""
        return "generated"

    @property
    def stochastic(self) -> bool:
        """Samples of one description differ."""
        return True

    @property
    def adapter_config(self) -> AdapterConfig:
        """Where the generated adapters attach."""
        return self.backbone.adapter_config

    def with_sampling(self, **changes: Any) -> Generator:
        """The same generator with other sampling, for example ``steps=50``."""
        return replace(self, sampling=replace(self.sampling, **changes))

    # Sampling ----------------------------------------------------------------------------------------------------

    def sample_vectors(
        self,
        embeddings: Float[Tensor, "n e"],
        noise: Float[Tensor, "n l"],
        generator: torch.Generator,
        shifts: Float[Tensor, "n f"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """Normalised adapter vectors from condition embeddings, start noise, and what the mean is centred on.

        The paper's way (section on inference) is condition to latent to vector. Around a conditional mean ``m`` it is
        ``decode(encode(m) + s z) + m - decode(encode(m))``: the autoencoder carries what varies, and what it would
        lose of the mean is given back.
        """
        denoise = guided(self.denoiser, self.sampling.guidance, self.conditions.null)
        sampler = SAMPLERS[self.sampling.sampler]
        start = noise * self.sampling.temperature
        with torch.inference_mode():
            around = sampler(denoise, self.schedule, start, embeddings, self.sampling.steps, generator)
            if self.mean is None:
                return self.autoencoder.decode(around)
            mean = self.mean(embeddings, shifts)
            latents = self.autoencoder.encode(mean)
            return self.autoencoder.decode(latents + self.spread * around) + mean - self.autoencoder.decode(latents)

    def decode(self, latents: Float[Tensor, "n l"]) -> dict[str, Tensor]:
        """Latents to adapter tensors stacked on a leading axis."""
        with torch.inference_mode():
            return self.tensors(self.autoencoder.decode(latents))

    def tensors(self, vectors: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        """Normalised vectors to adapter tensors stacked on a leading axis."""
        with torch.inference_mode():
            raw = self.codec.decode(vectors)
        return {name: value.clone() for name, value in self.codec.layout.unflatten(raw).items()}

    def sample_many(self, descriptions: Sequence[Description], n: int, seed: int) -> list[list[Adapter]]:
        """``n`` adapters for each description, all in one batch. The noise of a sample depends on the seed and n alone.

        Raises:
            DescriptionError: a description is empty, or has an unknown key; an unknown category is left out.
        """
        if n < 1:
            raise DescriptionError(f"{n} adapters were asked for; at least 1 is needed.")
        embeddings = torch.stack([self.conditions.encode(entry).values for entry in descriptions])
        draws = torch_generator(seed, "sample")
        noise = standard_noise(draws, n, self.autoencoder.latent_size).repeat(len(descriptions), 1)
        shifts = None if self.mean is None else self.mean.shifts(descriptions)
        shifts = None if shifts is None else shifts.repeat_interleave(n, 0)
        tensors = self.tensors(self.sample_vectors(embeddings.repeat_interleave(n, 0), noise, draws, shifts))
        config, fingerprint = self.adapter_config, self.fingerprint
        result = []
        for row, description in enumerate(descriptions):
            told = description_provenance(description)
            unknown = self.conditions.unknown(description)
            result.append(
                [
                    Adapter(
                        {name: value[row * n + sample].clone() for name, value in tensors.items()},
                        config,
                        {
                            "source": self.name,
                            "generator": fingerprint,
                            "seed": seed,
                            "sample": sample,
                            "task": description.task_id,
                            "sampling": dict(self.sampling.__dict__),
                            "description": told,
                            **({"unknown": list(unknown)} if unknown else {}),
                        },
                    )
                    for sample in range(n)
                ]
            )
        return result

    def sample(self, description: Description, n: int = 1, seed: int = 0) -> list[Adapter]:
        """``n`` adapters for one description; the same seed and ``n`` give the same bytes.

        Raises:
            DescriptionError: the description is empty, or has an unknown key; an unknown category is left out.
        """
        return self.sample_many([description], n, seed)[0]

    # Saving ------------------------------------------------------------------------------------------------------

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        mean = {} if self.mean is None else {"mean": self.mean.tensors}
        return {
            **mean,
            "codec": self.codec.state(),
            "autoencoder": dict(self.autoencoder.state_dict()),
            "conditions": self.conditions.tensors,
            "denoiser": dict(self.denoiser.state_dict()),
        }

    @property
    def _config(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter_config.to_json(),
            "codec": self.codec.config,
            "autoencoder": self.autoencoder.config,
            "conditions": self.conditions.config,
            "denoiser": self.denoiser.config,
            "schedule": self.schedule.config,
            "mean": None if self.mean is None else self.mean.config,
            "spread": self.spread,
            "sampling": dict(self.sampling.__dict__),
            "training": dict(self.training),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration and weights: what provenance files name."""
        weights = {f"{part}.{name}": value for part, group in self._tensors.items() for name, value in group.items()}
        return content_hash(json_bytes(self._config) + tensors_hash(weights).encode())

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the generator; atomic. Returns the folder.

        A backbone that the package does not bundle is written beside it, where its weights alone can rebuild it, or
        inside, where the folder is a mount point or the working folder; a module of your own is to be given to
        :meth:`from_pretrained` again.
        """
        folder = Path(folder)
        own = type(self.backbone.module).__name__ in ARCHITECTURES and not is_bundled(self.backbone)
        inside = own and written_in_place(folder)
        extra: dict[str, Any] = {"backbone_inside": True} if inside else {}
        if own and not inside:
            beside = folder.absolute().with_name(f"{folder.absolute().name}-{BACKBONE_FOLDER}")
            save_backbone(self.backbone, beside)
            extra = {"backbone": beside.name}
        write_artifact(folder, KIND, {**self._config, **extra}, self._tensors)
        if inside:  # after the generator, which takes the place of all that was in the folder
            save_backbone(self.backbone, folder / BACKBONE_FOLDER)
        return folder

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, backbone: Backbone | None = None, featurise: Featuriser | None = None
    ) -> Generator:
        """Read a generator; no PEFT and no training code is imported.

        Args:
            folder: written by :meth:`save_pretrained`.
            backbone: needed only for a module of your own that cannot be rebuilt from its weights.
            featurise: what its condition reads images by, needed only where that is not the backbone (CLIP).

        Raises:
            DescriptionError: the condition reads images by another featuriser.
            ArtifactError: missing, truncated, altered, or of another kind.
            SchemaVersionError: written by a newer version of the package.
            AdapterMismatchError: the backbone's weights differ from those that the generator was fitted for.
        """
        artifact = read_artifact(Path(folder), KIND)
        try:
            return _restore(artifact, backbone, featurise)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"The generator in {folder} cannot be restored ({error}). Fit it again.") from error


def stored_fingerprint(artifact: Artifact) -> str:
    """The :attr:`Generator.fingerprint` of a generator on disk, which needs no backbone to be restored."""
    config = {name: value for name, value in artifact.config.items() if name not in ("backbone", "backbone_inside")}
    weights = {f"{part}.{name}": value for part, group in artifact.tensors.items() for name, value in group.items()}
    return content_hash(json_bytes(config) + tensors_hash(weights).encode())


def _restore(artifact: Artifact, backbone: Backbone | None, featurise: Featuriser | None) -> Generator:
    config, tensors = artifact.config, artifact.tensors
    if config["mean"] is not None and not isinstance(config["mean"].get("members"), list):
        raise ArtifactError(
            f"The generator in {artifact.folder} was fitted by an earlier version, whose conditional mean was made "
            "otherwise. Fit it again; its zoo can stay."
        )
    adapter = AdapterConfig.from_json(config["adapter"])
    if backbone is None:
        beside = artifact.folder / BACKBONE_FOLDER if config.get("backbone_inside") else None
        if config.get("backbone"):
            beside = artifact.folder.absolute().parent / str(config["backbone"])
        if beside is None and adapter.backbone not in BUNDLED:
            raise ArtifactError(
                f"The generator in {artifact.folder} is for a backbone of your own, {adapter.backbone!r}, which "
                "was not saved with it. Pass that Backbone to from_pretrained."
            )
        backbone = load_backbone(beside or adapter.backbone)
    if backbone.backbone_hash != adapter.backbone_hash:
        raise AdapterMismatchError(
            f"The generator makes adapters for {adapter.backbone!r} with weights {adapter.backbone_hash[:12]}; "
            f"the backbone given is {backbone.name!r} with {backbone.backbone_hash[:12]}. Give the right one."
        )
    reads = featurise or backbone.image_features
    backbone = backbone.with_lora(
        replace(
            backbone.lora,
            rank=adapter.rank,
            alpha=adapter.alpha,
            target_modules=adapter.target_modules,
            modules_to_save=adapter.modules_to_save,
        )
    )
    codec = Codec.from_state(tensors["codec"], config["codec"])
    conditions = FusionEncoder.from_state(config["conditions"], tensors["conditions"], reads)
    mean = None
    if config["mean"] is not None:
        mean = ConditionalMean.from_state(config["mean"], tensors["mean"], conditions.sizes, codec, backbone)
    return Generator(
        backbone=backbone,
        codec=codec,
        autoencoder=restore_autoencoder(config["autoencoder"], tensors["autoencoder"]),
        conditions=conditions,
        denoiser=restore_denoiser(config["denoiser"], tensors["denoiser"]).requires_grad_(False),
        schedule=Schedule(**config["schedule"]),
        mean=mean,
        spread=config["spread"],
        sampling=Sampling(**config["sampling"]),
        training=config["training"],
    )


def description_provenance(description: Description) -> dict[str, Any]:
    """What an adapter's provenance says of the description: values as they are, images by number and hash."""
    told: dict[str, Any] = {}
    if description.metadata is not None:
        told["metadata"] = dict(description.metadata)
    for part in ("backgrounds", "examples"):
        images = getattr(description, part)
        if images is not None:
            told[part] = {"images": len(images), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
    if description.text is not None:
        told["text"] = description.text
    if description.task_id is not None:
        told["task_id"] = description.task_id
    return told
