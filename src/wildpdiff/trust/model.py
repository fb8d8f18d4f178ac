"""Calibrated model of trust: a report for each adapter, saved in the generator's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import read_artifact, write_artifact
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, DescriptionError
from wildpdiff.records import decode, encode
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, Inputs
from wildpdiff.trust.evidence import AdapterSpace, Spaces
from wildpdiff.trust.gain import GainPredictor
from wildpdiff.trust.report import HeldOutSummary, TrustReport, reasons, recommendation
from wildpdiff.trust.space import DescriptionSpace

KIND = "trust"
FOLDER = "trust"
"""Folder of a generator's model of trust inside the generator's."""

BASES = ("examples", "backgrounds", "description")
"""Available evidence, strongest first."""

SAMPLES = "samples-"
"""Prefix of the tensor groups of the model for posterior samples."""


@dataclass(frozen=True, eq=False)
class TrustModel:
    """Prediction, from label-free evidence, of the gain with a generator's adapters; calibrated on held-out seen tasks.

    Attributes:
        predictors: evidence to gain, one for each of :data:`BASES` that could be calibrated.
        min_trust: by basis, thresholds for descriptions ``near`` the seen ones and ``far`` from them.
        held_out: summary of the held-out gains, by basis.
        generator: fingerprint of the generator; empty where it is not known.
        samples: the same for posterior samples in place of estimates; None where there are none.
    """

    backbone: Backbone
    spaces: Spaces
    predictors: Mapping[str, GainPredictor]
    min_trust: Mapping[str, Mapping[str, float]]
    held_out: Mapping[str, HeldOutSummary]
    generator: str = ""
    samples: TrustModel | None = None

    def assess(
        self,
        adapters: Adapter | Sequence[Adapter],
        description: Description,
        images: Inputs | None = None,
        min_trust: float | None = None,
    ) -> TrustReport:
        """Report on generated adapters of one task, without labels.

        Args:
            adapters: one sample or several, for the same description; several show their disagreement.
            images: unlabelled images of the task; by default the description's examples, or else its backgrounds.
            min_trust: the threshold; by default the calibrated one.

        Raises:
            AdapterMismatchError: an adapter is for another backbone.
            DescriptionError: the threshold is no probability.
        """
        samples = [adapters] if isinstance(adapters, Adapter) else list(adapters)
        for adapter in samples:
            self.backbone.check(adapter)
        if self.samples is not None and all(_drawn_from_posterior(adapter) for adapter in samples):
            return self.samples.assess(samples, description, images, min_trust)
        if min_trust is not None and not 0 <= min_trust <= 1:
            raise DescriptionError(f"The threshold of trust is {min_trust:g}; it is a probability, give 0 to 1.")
        novelty = self.spaces.descriptions.novelty(description, self.backbone.image_features)
        basis, chosen = self._basis(description, images)
        stem = self.backbone.stem(chosen) if chosen is not None else None
        evidence = self.spaces.evidence(self.backbone, novelty, samples, stem)
        predicted = self.predictors[basis].predict(evidence)
        held_out = self.held_out[basis]
        calibrated = self.min_trust[basis]["far" if evidence["far"] > 0.5 else "near"]
        least = calibrated if min_trust is None else min_trust
        trust = predicted.probability if held_out.descriptions_matter and not novelty.outside else 0.0
        return TrustReport(
            trust=trust,
            gain=100 * predicted.gain,
            low=100 * predicted.low,
            high=100 * predicted.high,
            min_trust=least,
            basis=basis,
            evidence=evidence,
            reasons=reasons(novelty, self.spaces.descriptions, evidence, held_out),
            recommendation=recommendation(trust, least, predicted, novelty.outside),
        )

    def _basis(self, description: Description, images: Inputs | None) -> tuple[str, Inputs | None]:
        """The strongest evidence that is calibrated, and its images."""
        examples = description.examples if images is None else images
        for basis, offered in (("examples", examples), ("backgrounds", description.backgrounds)):
            if offered is not None and count(offered) and basis in self.predictors:
                return basis, offered
        return "description", None

    def fallback(self, report: TrustReport, description: Description, seed: int) -> Adapter:
        """The pretrained model as an adapter, in place of a generated one that is not trusted."""
        space = self.spaces.adapters
        tensors = space.layout.unflatten(space.initial.clone())
        provenance = {"source": "pretrained", "generator": self.generator, "seed": seed, "task": description.task_id}
        copies = {name: value.clone() for name, value in tensors.items()}
        return Adapter(copies, self.backbone.adapter_config, {**provenance, "trust": report.provenance})

    def delivered(self, adapter: Adapter, description: Description, report: TrustReport) -> Adapter:
        """The adapter with its trust in the provenance, or the pretrained model's where trust is too low."""
        if report.use_generated:
            return replace(adapter, provenance={**adapter.provenance, "trust": report.provenance})
        return self.fallback(report, description, int(adapter.provenance["seed"]))

    def save(self, folder: Path | str) -> Path:
        """Write ``manifest.json`` and safetensors, atomically; verbs read it from ``GENERATOR/trust``."""
        config, tensors = self._state()
        if self.samples is not None:
            config["samples"], groups = self.samples._state()
            tensors |= {SAMPLES + name: group for name, group in groups.items()}
        write_artifact(Path(folder), KIND, config, tensors)
        return Path(folder)

    def _state(self) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        config = {
            "adapter": self.backbone.adapter_config.to_json(),
            "space": self.spaces.descriptions.config,
            "adapters": self.spaces.adapters.config,
            "predictors": encode(self.predictors),
            "min_trust": encode(self.min_trust),
            "held_out": encode(self.held_out),
            "generator": self.generator,
        }
        adapters = {**self.spaces.adapters.tensors, "prior": self.spaces.prior}
        return config, {"space": self.spaces.descriptions.tensors, "adapters": adapters}

    @classmethod
    def load(cls, folder: Path | str, backbone: Backbone) -> TrustModel:
        """The saved model of trust.

        Raises:
            ArtifactError: missing, truncated, altered, or of another kind.
            AdapterMismatchError: calibrated on another backbone.
        """
        artifact = read_artifact(Path(folder), KIND)
        try:
            adapter = AdapterConfig.from_json(artifact.config["adapter"])
            backbone.require(adapter, f"The model of trust in {folder} is", "Calibrate it again.")
            model = _restored(artifact.config, artifact.tensors, backbone, str(folder))
            if "samples" not in artifact.config:
                return model
            groups = {name.removeprefix(SAMPLES): group for name, group in artifact.tensors.items()
                      if name.startswith(SAMPLES)}  # fmt: skip
            return replace(model, samples=_restored(artifact.config["samples"], groups, backbone, str(folder)))
        except (KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"The model of trust in {folder} cannot be restored ({error}).") from error

    @classmethod
    def of_generator(cls, generator: Path | str, backbone: Backbone, fingerprint: str = "") -> TrustModel:
        """The model of trust in a generator's folder.

        Args:
            fingerprint: of the generator, where it is to be checked.

        Raises:
            ArtifactError: there is none, it cannot be read, or it was calibrated for another generator.
        """
        folder = Path(generator) / FOLDER
        if not folder.is_dir():
            raise ArtifactError(
                f"The generator in {generator} has no model of trust, so nothing is known of its adapters. "
                "Trust needs 30 seen tasks with labelled examples, and a fit without --no-trust; without it, check "
                "adapters on labelled examples."
            )
        model = cls.load(folder, backbone)
        if fingerprint and model.generator and fingerprint != model.generator:
            raise ArtifactError(
                f"The model of trust in {folder} is of generator {model.generator[:12]}; the one in {generator} is "
                f"{fingerprint[:12]}. Calibrate it again."
            )
        return model


def _drawn_from_posterior(adapter: Adapter) -> bool:
    sampling = adapter.provenance.get("sampling")
    return isinstance(sampling, dict) and sampling.get("draw") == "posterior"


def _restored(
    config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]], backbone: Backbone, where: str
) -> TrustModel:
    adapters = dict(tensors["adapters"])
    prior = adapters.pop("prior")
    predictors = {basis: {"noise": 0.0, **entry} for basis, entry in config["predictors"].items()}
    descriptions = DescriptionSpace.from_state(config["space"], tensors["space"])
    return TrustModel(
        backbone,
        Spaces(descriptions, AdapterSpace.from_state(config["adapters"], adapters), prior),
        predictors=decode(dict[str, GainPredictor], predictors, f"{where}: predictors"),
        min_trust=decode(dict[str, dict[str, float]], config["min_trust"], f"{where}: min_trust"),
        held_out=decode(dict[str, HeldOutSummary], config["held_out"], f"{where}: held_out"),
        generator=config["generator"],
    )
