"""The generator: descriptions to adapters, the best estimate of each or samples of what the description leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import Artifact, read_artifact, tensors_hash, write_artifact
from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.fit import restore_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import ARCHITECTURES, BUNDLED, is_bundled, load_backbone, save_backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.conditions.base import Featuriser
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.diffusion.denoiser import DenoiserNetwork
from wildpdiff.diffusion.guidance import guided
from wildpdiff.diffusion.networks import restore_denoiser
from wildpdiff.diffusion.samplers import SAMPLERS, standard_noise
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.disk import content_hash, json_bytes, written_in_place
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description, description_provenance

KIND = "generator"
BACKBONE_FOLDER = "backbone"


@dataclass(frozen=True, eq=False)
class Generator:
    """Generates the adapters of tasks from their descriptions. A :class:`~wildpdiff.source.Source`.

    Attributes:
        backbone: the frozen model that the adapters belong to.
        codec: adapter tensors to normalised vectors.
        autoencoder: normalised vectors to latents.
        conditions: descriptions to embeddings.
        mean: the conditional mean, whose value is the estimate; ``None`` where a diffusion over latents carries the
            condition.
        posterior: distribution of adapters around the estimate; ``None`` where seen tasks are too few to know it.
        denoiser, schedule: of the diffusion over latents; ``None`` with a conditional mean.
        sampling: what is drawn and how.
        training: plain JSON values about its making: configuration, seed, zoo.
        cross_validation: how good estimates were on held-out seen tasks; ``None`` where these had no images.
    """

    backbone: Backbone
    codec: Codec
    autoencoder: Autoencoder
    conditions: FusionEncoder
    mean: ConditionalMean | None
    posterior: Posterior | None
    denoiser: DenoiserNetwork | None
    schedule: Schedule | None
    sampling: Sampling
    training: Mapping[str, Any]
    cross_validation: CrossValidation | None = None

    @property
    def name(self) -> str:
        """``generated``, or ``one sample`` where samples around an estimate are drawn."""
        return "one sample" if self.mean is not None and self.sampling.draw == "posterior" else "generated"

    @property
    def stochastic(self) -> bool:
        """Whether samples of one description differ."""
        return self.mean is None or (self.posterior is not None and self.sampling.draw == "posterior")

    @property
    def adapter_config(self) -> AdapterConfig:
        """Where the generated adapters attach."""
        return self.backbone.adapter_config

    def with_sampling(self, **changes: Any) -> Generator:
        """The same generator with other sampling, for example ``steps=50``."""
        return replace(self, sampling=replace(self.sampling, **changes))

    # Sampling ----------------------------------------------------------------------------------------------------

    def sample_vectors(
        self, embeddings: Float[Tensor, "m e"], n: int, seed: int, shifts: Float[Tensor, "m f"] | None = None
    ) -> Float[Tensor, "m n d"]:
        """Normalised adapter vectors, ``n`` for each condition embedding, from the same noise for each.

        Args:
            embeddings: of descriptions.
            n: vectors for each.
            seed: of the noise.
            shifts: feature shifts of the descriptions' images (``ConditionalMean.shifts``).
        """
        found = []
        with torch.inference_mode():
            estimates = None if self.mean is None else self.mean(embeddings, shifts)
            for row in range(len(embeddings)):
                draws = torch_generator(seed, "sample")
                own = embeddings[row].expand(n, -1)
                if estimates is None:
                    found.append(self._from_latents(own, draws))
                elif self.posterior is None or not self.stochastic:
                    found.append(estimates[row].expand(n, -1))
                else:
                    found.append(self.posterior.sample(own, estimates[row].expand(n, -1), draws))
        return torch.stack(found).clone()

    def _from_latents(self, embeddings: Float[Tensor, "n e"], draws: torch.Generator) -> Float[Tensor, "n d"]:
        """Condition to latent to vector (the paper's section on inference)."""
        if self.denoiser is None or self.schedule is None:
            raise ArtifactError("The generator has neither a conditional mean nor a diffusion. Fit it again.")
        denoise = guided(self.denoiser, self.sampling.guidance, self.conditions.null)
        noise = standard_noise(draws, len(embeddings), self.autoencoder.latent_size) * self.sampling.temperature
        sampler, steps = SAMPLERS[self.sampling.sampler], self.sampling.steps
        return self.autoencoder.decode(sampler(denoise, self.schedule, noise, embeddings, steps, draws))

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
        """``n`` adapters for each description. The noise of a sample depends on the seed and its number alone.

        Raises:
            DescriptionError: a description is empty, or has an unknown key; an unknown category is left out.
        """
        if n < 1:
            raise DescriptionError(f"{n} adapters were asked for; at least 1 is needed.")
        embeddings = torch.stack([self.conditions.encode(entry).values for entry in descriptions])
        shifts = None if self.mean is None else self.mean.shifts(descriptions)
        tensors = self.tensors(self.sample_vectors(embeddings, n, seed, shifts).flatten(0, 1))
        config, fingerprint = self.adapter_config, self.fingerprint
        checked = self._checked
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
                            **checked,
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

        By default all are the estimate. ``with_sampling(draw="posterior")`` gives samples that differ.

        Raises:
            DescriptionError: the description is empty, or has an unknown key; an unknown category is left out.
        """
        return self.sample_many([description], n, seed)[0]

    @property
    def _checked(self) -> dict[str, Any]:
        """What provenance keeps of the cross-validation."""
        table = self.cross_validation
        if table is None:
            return {name: self.training[name] for name in ("leave_one_out",) if name in self.training}
        return {
            "made_of": table.composition,
            "cross_validation": {
                "tasks": table.tasks,
                "accuracy": {row.method: round(row.accuracy, 2) for row in table.rows},
                "few_tasks": table.few,
            },
        }

    # Saving ------------------------------------------------------------------------------------------------------

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        parts: dict[str, dict[str, Tensor]] = {}
        if self.mean is not None:
            parts["mean"] = self.mean.tensors
        if self.posterior is not None:
            parts["posterior"] = self.posterior.tensors
        if self.denoiser is not None:
            parts["denoiser"] = dict(self.denoiser.state_dict())
        return {
            **parts,
            "codec": self.codec.state(),
            "autoencoder": dict(self.autoencoder.state_dict()),
            "conditions": self.conditions.tensors,
        }

    @property
    def _config(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter_config.to_json(),
            "codec": self.codec.config,
            "autoencoder": self.autoencoder.config,
            "conditions": self.conditions.config,
            "denoiser": None if self.denoiser is None else self.denoiser.config,
            "schedule": None if self.schedule is None else self.schedule.config,
            "mean": None if self.mean is None else self.mean.config,
            "posterior": None if self.posterior is None else self.posterior.config,
            "cross_validation": None if self.cross_validation is None else self.cross_validation.to_json(),
            "sampling": dict(self.sampling.__dict__),
            "training": dict(self.training),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration and weights: what provenance files name."""
        return _fingerprint(self._config, self._tensors)

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
    return _fingerprint(config, artifact.tensors)


def _fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The same whether estimates or samples are drawn: a choice of each call."""
    sampling = {name: value for name, value in config["sampling"].items() if name != "draw"}
    weights = {f"{part}.{name}": value for part, group in tensors.items() for name, value in group.items()}
    return content_hash(json_bytes({**config, "sampling": sampling}) + tensors_hash(weights).encode())


def _restore(artifact: Artifact, backbone: Backbone | None, featurise: Featuriser | None) -> Generator:
    config, tensors = artifact.config, artifact.tensors
    if "posterior" not in config:
        raise ArtifactError(
            f"The generator in {artifact.folder} was fitted by an earlier version, whose conditional mean was made "
            "otherwise. Fit it again; its zoo can stay."
        )
    adapter = AdapterConfig.from_json(config["adapter"])
    if backbone is None:
        beside = artifact.folder / BACKBONE_FOLDER if config.get("backbone_inside") else None
        if config.get("backbone"):
            beside = artifact.folder.absolute().parent / str(config["backbone"])
        if beside is None and adapter.backbone_hash and adapter.backbone not in BUNDLED:
            raise ArtifactError(
                f"The generator in {artifact.folder} is for a backbone of your own, {adapter.backbone!r}, which "
                "was not saved with it. Pass that Backbone to from_pretrained."
            )
        backbone = load_backbone(beside or adapter.backbone) if adapter.backbone_hash else Backbone.named(adapter)
    if backbone.backbone_hash != adapter.backbone_hash:
        raise AdapterMismatchError(
            f"The generator makes adapters for {adapter.backbone!r} with weights {adapter.backbone_hash[:12]}; "
            f"the backbone given is {backbone.name!r} with {backbone.backbone_hash[:12]}. Give the right one."
        )
    reads = featurise or backbone.image_features
    if backbone.runs:
        backbone = backbone.with_lora(
            replace(
                backbone.lora,
                rank=adapter.rank,
                alpha=adapter.alpha,
                target_modules=adapter.target_modules,
                modules_to_save=adapter.modules_to_save,
                peft=adapter.peft,
            )
        )
    codec = Codec.from_state(tensors["codec"], config["codec"])
    conditions = FusionEncoder.from_state(config["conditions"], tensors["conditions"], reads)
    mean = None
    if config["mean"] is not None:
        mean = ConditionalMean.from_state(config["mean"], tensors["mean"], conditions.sizes, codec, backbone)
    posterior, denoiser, schedule, table = (
        config[name] for name in ("posterior", "denoiser", "schedule", "cross_validation")
    )
    return Generator(
        backbone=backbone,
        codec=codec,
        autoencoder=restore_autoencoder(config["autoencoder"], tensors["autoencoder"]),
        conditions=conditions,
        mean=mean,
        posterior=None if posterior is None else Posterior.from_state(posterior, tensors["posterior"]),
        denoiser=None if denoiser is None else restore_denoiser(denoiser, tensors["denoiser"]).requires_grad_(False),
        schedule=None if schedule is None else Schedule(**schedule),
        sampling=Sampling(**config["sampling"]),
        training=config["training"],
        cross_validation=None if table is None else CrossValidation.from_json(table),
    )
