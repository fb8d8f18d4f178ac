"""The generator: descriptions to adapters, the best estimate of each or samples of its posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import Artifact, read_artifact, tensors_hash, write_artifact
from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.fit import restore_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import BUNDLED, is_bundled, load_backbone, save_backbone, stored_kind
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.score_table import PRETRAINED, CrossValidation
from wildpdiff.conditions.base import Featuriser
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.diffusion.denoiser import DenoiserNetwork, guided
from wildpdiff.diffusion.networks import restore_denoiser
from wildpdiff.diffusion.samplers import SAMPLERS, standard_noise
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.disk import content_hash, json_bytes, written_in_place
from wildpdiff.errors import ArtifactError, DescriptionError
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.records import decode, encode
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description, description_provenance
from wildpdiff.tasks.metric import ACCURACY

if TYPE_CHECKING:
    import wildpdiff
    from wildpdiff.zoo.training_set import TrainingSet  # reading a generator needs no pyarrow

KIND = "generator"
BACKBONE_FOLDER = "backbone"
SAME = 1e-6
"""Largest difference, by rounding, of the values of two normalised vectors that are the same adapter."""


@dataclass(frozen=True, eq=False)
class Generator:
    """Generates the adapters of tasks from their descriptions. A :class:`~wildpdiff.source.Source`.

    Attributes:
        mean: the conditional mean, whose value is the estimate; ``None`` where a diffusion over latents carries the
            condition.
        posterior: distribution of adapters around the estimate; ``None`` with too few seen tasks.
        denoiser, schedule: of the diffusion over latents; ``None`` with a conditional mean.
        training: plain JSON values about its fit: configuration, seed, zoo.
        cross_validation: scores of estimates on held-out seen tasks; ``None`` where these had no images.
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
        """Configuration of the generated adapters."""
        return self.backbone.adapter_config

    def with_sampling(self, **changes: Any) -> Generator:
        """The same generator with other sampling, for example ``steps=50``."""
        return replace(self, sampling=replace(self.sampling, **changes))

    def sample_vectors(
        self, embeddings: Float[Tensor, "m e"], n: int, seed: int, shifts: Float[Tensor, "m f"] | None = None
    ) -> Float[Tensor, "m n d"]:
        """Normalised adapter vectors, ``n`` for each embedding of a description, from the same noise for each.

        ``shifts`` are the feature shifts of the descriptions' images (``ConditionalMean.shifts``).
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
            raise DescriptionError(f"{n} adapters cannot be sampled; at least 1 is needed.")
        embeddings = torch.stack([self.conditions.encode(entry).values for entry in descriptions])
        shifts = None if self.mean is None else self.mean.shifts(descriptions)
        vectors = self.sample_vectors(embeddings, n, seed, shifts).flatten(0, 1)
        tensors = self.tensors(vectors)
        result = []
        for row, description in enumerate(descriptions):
            unknown = self.conditions.unknown(description)
            provenance = {
                "generator": self.fingerprint,
                "seed": seed,
                "task": description.task_id,
                "sampling": encode(self.sampling),
                **self._checked,
                "description": description_provenance(description),
                **({"unknown": list(unknown)} if unknown else {}),
            }
            samples = []
            for i in range(n):
                own = {name: value[row * n + i].clone() for name, value in tensors.items()}
                source = self._source(vectors[row * n + i])
                samples.append(Adapter(own, self.adapter_config, {"source": source, **provenance, "sample": i}))
            result.append(samples)
        return result

    def _source(self, vector: Float[Tensor, " d"]) -> str:
        """Whose adapter a vector is: ``pretrained`` where a blend of the pretrained model alone changes nothing."""
        start = None if self.mean is None else self.mean.simple.start
        same = start is not None and torch.allclose(vector, start, rtol=0.0, atol=SAME)
        return PRETRAINED if same else self.name

    def sample(self, description: Description, n: int = 1, seed: int = 0) -> list[Adapter]:
        """``n`` adapters for one description; the same seed and ``n`` give the same bytes.

        By default all are the estimate. ``with_sampling(draw="posterior")`` gives samples that differ.

        Raises:
            DescriptionError: the description is empty, or has an unknown key; an unknown category is left out.
        """
        return self.sample_many([description], n, seed)[0]

    def update(self, training_set: TrainingSet) -> wildpdiff.UpdatedGenerator:
        """This generator trained further on a zoo that has grown, see :func:`wildpdiff.growth.update_generator`."""
        import wildpdiff as names  # loads modules above this one

        return names.update_generator(self, training_set)

    @property
    def _checked(self) -> dict[str, Any]:
        """Provenance of the cross-validation."""
        table = self.cross_validation
        if table is None:
            return {name: self.training[name] for name in ("leave_one_out",) if name in self.training}
        accuracy = {row.method: round(row.accuracy, 2) for row in table.rows}
        checked = {"tasks": table.tasks, "accuracy": accuracy, "few_tasks": table.few}
        checked |= {} if table.metric == ACCURACY else {"metric": table.metric.heading}
        return {"made_of": table.composition, "cross_validation": checked}

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        return {
            **({} if self.mean is None else {"mean": self.mean.tensors}),
            **({} if self.posterior is None else {"posterior": self.posterior.tensors}),
            **({} if self.denoiser is None else {"denoiser": dict(self.denoiser.state_dict())}),
            "codec": self.codec.state(),
            "autoencoder": dict(self.autoencoder.state_dict()),
            "conditions": self.conditions.tensors,
        }

    @property
    def _config(self) -> dict[str, Any]:
        names = ("codec", "autoencoder", "conditions", "denoiser", "schedule", "mean", "posterior")
        parts = {name: getattr(self, name) for name in names}
        return {
            **{name: None if part is None else part.config for name, part in parts.items()},
            "adapter": self.adapter_config.to_json(),
            "cross_validation": encode(self.cross_validation),
            "sampling": encode(self.sampling),
            "training": dict(self.training),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration and weights, as in provenance files."""
        return _fingerprint(self._config, self._tensors)

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the generator; atomic. Returns the folder.

        A backbone that the package does not bundle is written beside it, where its weights alone can rebuild it, or
        inside, where the folder is a mount point or the working folder; a module of your own is to be given to
        :meth:`from_pretrained` again.
        """
        folder = Path(folder)
        own = stored_kind(self.backbone) is not None and not is_bundled(self.backbone)
        inside = own and written_in_place(folder)
        extra: dict[str, Any] = {"backbone_inside": True} if inside else {}
        if own and not inside:
            sibling = folder.absolute().with_name(f"{folder.absolute().name}-{BACKBONE_FOLDER}")
            save_backbone(self.backbone, sibling)
            extra = {"backbone": sibling.name}
        write_artifact(folder, KIND, {**self._config, **extra}, self._tensors)
        if inside:  # after the generator, which replaces everything in the folder
            save_backbone(self.backbone, folder / BACKBONE_FOLDER)
        return folder

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, backbone: Backbone | None = None, featurise: Featuriser | None = None
    ) -> Generator:
        """Read a generator; no PEFT and no training code is imported.

        Args:
            backbone: needed only for a module of your own that cannot be rebuilt from its weights.
            featurise: features of images, needed only where they are not the backbone's (CLIP).

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
            f"The generator in {artifact.folder} was fitted by an earlier version, with another conditional mean. Fit "
            "it again; its zoo can stay."
        )
    backbone = _backbone_of(artifact, backbone)
    codec = Codec.from_state(tensors["codec"], config["codec"])
    reads = featurise or backbone.image_features
    conditions = FusionEncoder.from_state(config["conditions"], tensors["conditions"], reads)
    mean, posterior, denoiser, schedule, table = (
        config[name] for name in ("mean", "posterior", "denoiser", "schedule", "cross_validation")
    )
    return Generator(
        backbone=backbone,
        codec=codec,
        autoencoder=restore_autoencoder(config["autoencoder"], tensors["autoencoder"]),
        conditions=conditions,
        mean=mean
        and ConditionalMean.from_state(mean, tensors["mean"], conditions.sizes, codec=codec, backbone=backbone),
        posterior=posterior and Posterior.from_state(posterior, tensors["posterior"]),
        denoiser=denoiser and restore_denoiser(denoiser, tensors["denoiser"]).requires_grad_(False),
        schedule=schedule and Schedule(**schedule),
        sampling=decode(Sampling, config["sampling"], "sampling"),
        training=config["training"],
        cross_validation=table and decode(CrossValidation, {"metric": encode(ACCURACY), **table}, "cross_validation"),
    )


def _backbone_of(artifact: Artifact, backbone: Backbone | None) -> Backbone:
    """The given or else the stored backbone, with the generator's LoRA."""
    config, adapter = artifact.config, AdapterConfig.from_json(artifact.config["adapter"])
    if backbone is None:
        stored = artifact.folder / BACKBONE_FOLDER if config.get("backbone_inside") else None
        if config.get("backbone"):
            stored = artifact.folder.absolute().parent / str(config["backbone"])
        if stored is None and adapter.backbone_hash and adapter.backbone not in BUNDLED:
            raise ArtifactError(
                f"The generator in {artifact.folder} is for a backbone of your own, {adapter.backbone!r}, which "
                "was not saved with it. Pass that Backbone to from_pretrained, or --backbone on the command line."
            )
        backbone = load_backbone(stored or adapter.backbone) if adapter.backbone_hash else Backbone.named(adapter)
    backbone.require(adapter, f"The generator in {artifact.folder} is", "Give its backbone.")
    names = ("rank", "alpha", "target_modules", "modules_to_save", "peft")
    if not backbone.runs:
        return backbone
    return backbone.with_lora(replace(backbone.lora, **{name: getattr(adapter, name) for name in names}))
