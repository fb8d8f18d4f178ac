"""The calibrated model of trust: one adapter and what is known of its task to a report; kept beside the generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import read_artifact, write_artifact
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError
from wildpdiff.tasks.description import Description, Images
from wildpdiff.trust.evidence import AdapterSpace, prediction_evidence
from wildpdiff.trust.gain import GainPredictor
from wildpdiff.trust.report import HeldOutSummary, TrustReport, reasons, recommendation
from wildpdiff.trust.space import DescriptionSpace, Novelty

KIND = "trust"
FOLDER = "trust"
"""Where a generator's model of trust lies: in this folder inside the generator's."""

BASES = ("examples", "backgrounds", "description")
"""What a report can rest on beside the description, the most telling first."""


@dataclass(frozen=True, eq=False)
class TrustModel:
    """What held-out seen tasks taught about when a generator's adapters help.

    Attributes:
        backbone: the frozen model.
        space: where the seen descriptions lie.
        adapters: where the seen adapters lie.
        prior: the pretrained model's mean probabilities over the seen tasks.
        predictors: evidence to gain, one for each of :data:`BASES` that could be calibrated.
        min_trust: by basis, thresholds chosen on held-out seen tasks: for descriptions ``near`` them and ``far``.
        held_out: what was measured on them, by basis.
        generator: fingerprint of the generator that it speaks of; empty where it is not known.
        samples: the same for posterior samples in place of estimates; None where there are none.
    """

    backbone: Backbone
    space: DescriptionSpace
    adapters: AdapterSpace
    prior: Float[Tensor, " c"]
    predictors: Mapping[str, GainPredictor]
    min_trust: Mapping[str, Mapping[str, float]]
    held_out: Mapping[str, HeldOutSummary]
    generator: str = field(default="")
    samples: TrustModel | None = None

    def assess(
        self,
        adapters: Adapter | Sequence[Adapter],
        description: Description,
        images: Images | None = None,
        min_trust: float | None = None,
    ) -> TrustReport:
        """How far generated adapters of one task may be relied on; needs no label.

        Args:
            adapters: one sample or several, for the same description; more show how far samples disagree.
            description: that they were generated from.
            images: unlabelled images of the task; by default the description's examples, or else its backgrounds.
            min_trust: the threshold; by default the one that the calibration chose.

        Raises:
            AdapterMismatchError: an adapter is for another backbone.
            DescriptionError: the threshold is no probability.
        """
        samples = [adapters] if isinstance(adapters, Adapter) else list(adapters)
        for adapter in samples:
            self.backbone.check(adapter)
        if self.samples is not None and all(drawn_from_posterior(adapter) for adapter in samples):
            return self.samples.assess(samples, description, images, min_trust)
        if min_trust is not None and not 0 <= min_trust <= 1:
            raise DescriptionError(f"The least trust asked for is {min_trust:g}; it is a probability, give 0 to 1.")
        novelty = self.space.novelty(description, self.backbone.image_features)
        basis, shown = self._basis(description, images)
        stem = self.backbone.stem(shown) if shown is not None else None
        evidence = gather_evidence(self.backbone, self.adapters, self.prior, novelty, samples, stem)
        predicted = self.predictors[basis].predict(evidence)
        kind = "far" if evidence["far"] > 0.5 else "near"
        least = self.min_trust[basis][kind] if min_trust is None else min_trust
        held_out = self.held_out[basis]
        trust = 0.0 if novelty.outside else held_out.most(predicted.probability)
        return TrustReport(
            trust=trust,
            gain=100 * predicted.gain,
            low=100 * predicted.low,
            high=100 * predicted.high,
            min_trust=least,
            basis=basis,
            evidence=evidence,
            reasons=reasons(novelty, self.space, evidence, held_out),
            recommendation=recommendation(trust, least, predicted, novelty.outside),
        )

    def _basis(self, description: Description, images: Images | None) -> tuple[str, Images | None]:
        """The most telling images that there are, and what they are."""
        offered = {"examples": description.examples if images is None else images}
        offered["backgrounds"] = description.backgrounds
        for basis, shown in offered.items():
            if shown is not None and len(shown) and basis in self.predictors:
                return basis, shown
        return "description", None

    def fallback(self, report: TrustReport, description: Description, seed: int) -> Adapter:
        """The pretrained model as an adapter, to be used where a generated one is not to be trusted."""
        tensors = self.adapters.layout.unflatten(self.adapters.initial.clone())
        tensors = {name: value.clone() for name, value in tensors.items()}
        provenance = {"source": "pretrained", "generator": self.generator, "seed": seed, "task": description.task_id}
        return with_trust(Adapter(tensors, self.backbone.adapter_config, provenance), report)

    # Saving ------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> Path:
        """Write ``manifest.json`` and safetensors, atomic; ``GENERATOR/trust`` is where the verbs look for it."""
        folder = Path(folder)
        config: dict[str, Any] = self._config
        tensors = self._tensors
        if self.samples is not None:
            config["samples"] = self.samples._config
            tensors |= {f"samples-{name}": group for name, group in self.samples._tensors.items()}
        write_artifact(folder, KIND, config, tensors)
        return folder

    @property
    def _config(self) -> dict[str, Any]:
        return {
            "adapter": self.backbone.adapter_config.to_json(),
            "space": self.space.config,
            "adapters": self.adapters.config,
            "predictors": {basis: predictor.to_json() for basis, predictor in self.predictors.items()},
            "min_trust": {basis: dict(pair) for basis, pair in self.min_trust.items()},
            "held_out": {basis: summary.to_json() for basis, summary in self.held_out.items()},
            "generator": self.generator,
        }

    @property
    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"space": dict(self.space.tensors), "adapters": {**self.adapters.tensors, "prior": self.prior}}

    @classmethod
    def load(cls, folder: Path | str, backbone: Backbone) -> TrustModel:
        """Read what :meth:`save` wrote.

        Args:
            folder: of the model of trust.
            backbone: that the generator's adapters belong to.

        Raises:
            ArtifactError: missing, truncated, altered, or of another kind.
            AdapterMismatchError: calibrated on another backbone.
        """
        artifact = read_artifact(Path(folder), KIND)
        config = artifact.config
        try:
            adapter = AdapterConfig.from_json(config["adapter"])
            if adapter.backbone_hash != backbone.backbone_hash:
                raise AdapterMismatchError(
                    f"The model of trust in {folder} is for backbone {adapter.backbone!r} with weights "
                    f"{adapter.backbone_hash[:12]}; the one given is {backbone.name!r} with "
                    f"{backbone.backbone_hash[:12]}. Calibrate it again."
                )
            samples = None
            if "samples" in config:
                inner = {name.removeprefix("samples-"): group for name, group in artifact.tensors.items()
                         if name.startswith("samples-")}  # fmt: skip
                samples = _restored(config["samples"], inner, backbone)
            return replace(_restored(config, artifact.tensors, backbone), samples=samples)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"The model of trust in {folder} cannot be restored ({error}).") from error

    @classmethod
    def beside(cls, generator: Path | str, backbone: Backbone, fingerprint: str = "") -> TrustModel:
        """The model of trust of a generator.

        Args:
            generator: its folder.
            backbone: that its adapters belong to.
            fingerprint: of the generator, where it is to be checked.

        Raises:
            ArtifactError: there is none, it cannot be read, or it was calibrated for another generator.
        """
        folder = Path(generator) / FOLDER
        if not folder.is_dir():
            raise ArtifactError(
                f"The generator in {generator} has no model of trust, so nothing can be said of its adapters. "
                "Trust needs 30 seen tasks with labelled images, and a fit without --no-trust; without it, check "
                "adapters on labelled images."
            )
        model = cls.load(folder, backbone)
        if fingerprint and model.generator and fingerprint != model.generator:
            raise ArtifactError(
                f"The model of trust in {folder} is of generator {model.generator[:12]}; the one in {generator} is "
                f"{fingerprint[:12]}. Calibrate it again."
            )
        return model


def drawn_from_posterior(adapter: Adapter) -> bool:
    """Whether an adapter is a sample around an estimate, by its provenance."""
    sampling = adapter.provenance.get("sampling")
    return isinstance(sampling, dict) and sampling.get("draw") == "posterior"


def _restored(config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]], backbone: Backbone) -> TrustModel:
    stored = dict(tensors["adapters"])
    prior = stored.pop("prior")
    return TrustModel(
        backbone=backbone,
        space=DescriptionSpace.from_state(config["space"], tensors["space"]),
        adapters=AdapterSpace.from_state(config["adapters"], stored),
        prior=prior,
        predictors={basis: GainPredictor.from_json(entry) for basis, entry in config["predictors"].items()},
        min_trust=config["min_trust"],
        held_out={basis: HeldOutSummary.from_json(entry) for basis, entry in config["held_out"].items()},
        generator=config["generator"],
    )


def gather_evidence(
    backbone: Backbone,
    space: AdapterSpace,
    prior: Tensor,
    novelty: Novelty,
    adapters: Sequence[Adapter],
    images: Tensor | None,
) -> dict[str, float]:
    """Everything that is known of one task's adapters: description, parameters, and predictions on images.

    Args:
        backbone: the frozen model.
        space: where the seen adapters lie.
        prior: the pretrained model's mean probabilities over the seen tasks.
        novelty: of the description.
        adapters: samples.
        images: unlabelled images behind the stem, or None.
    """
    found = {**novelty.evidence, **space.evidence(adapters)}
    if images is not None:
        found |= prediction_evidence(backbone, images, adapters, prior)
    return found


def with_trust(adapter: Adapter, report: TrustReport) -> Adapter:
    """The same adapter, whose provenance tells the trust in it."""
    return replace(adapter, provenance={**adapter.provenance, "trust": report.provenance})
