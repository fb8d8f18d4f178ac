"""Methods of the literature, controls and few-label references that are added to a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wildbench.methods.best_of import BestOfSource
from wildbench.methods.camera_traps import FIELD_NAMES, field_candidates
from wildbench.methods.centred import CentredPretrainedSource
from wildbench.methods.checkpoints import (
    CheckpointAverageSource,
    CheckpointNoiseSource,
    GaussianSource,
    pool_statistics,
)
from wildbench.methods.column_merge import ColumnMergeSource
from wildbench.methods.feature_prompt import FeaturePromptSource
from wildbench.methods.few_label_methods import LABELLED_NAMES, labelled_candidates
from wildbench.methods.hypernetwork import HypernetworkSource
from wildbench.methods.linear_ridge import LinearRidgeSource
from wildbench.methods.merge import TopKMergeSource
from wildbench.methods.multitask import MultiTaskSource
from wildbench.methods.pdiff import UnconditionalPDiffSource
from wildbench.methods.prior_correction import PredictedPriorSource, UnlabelledPriorSource
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData, SeenTasks
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.evaluate.methods import Candidate, MethodInputs
from wildpdiff.evaluate.results import SourceInfo
from wildpdiff.source import Source

PDIFF = "pdiff"
"""Setting: the folder of a trained unconditional p-diff, trained there where it is missing."""


OF_CLASSES = (
    "prior from the description",
    "prior by EM on unlabelled images",
    "multi-task adapter with description",
    "feature prompt",
)
"""Methods that change the logits of classes, and are left out where outputs are none."""


class ResearchMethods:
    """Trained networks, corrections of the pretrained model, controls from checkpoints, and sources with labels."""

    names: Sequence[str] = (
        "top-K merge",
        "linear ridge regression",
        "pretrained, centred",
        "prior from the description",
        "prior by EM on unlabelled images",
        "multi-task adapter",
        "multi-task adapter with description",
        "hypernetwork, reconstruction",
        "hypernetwork, task loss",
        "column-wise merge",
        "feature prompt",
        "checkpoint + noise .06",
        "checkpoint + noise .12",
        "checkpoint + relative noise .05",
        "checkpoint + relative noise .15",
        "average of 16 checkpoints",
        "Gaussian per coordinate",
        "unconditional p-diff",
        *FIELD_NAMES,
        *LABELLED_NAMES,
    )

    settings: Sequence[str] = (PDIFF,)

    def check(self, settings: Mapping[str, str]) -> None:
        """The folder of p-diff can be written into."""
        if PDIFF in settings:
            check_output_folder(Path(settings[PDIFF]))

    def candidates(self, inputs: MethodInputs) -> list[Candidate]:
        """Those of the objective; p-diff with the setting ``pdiff``, its folder; sources with labels if there are any.

        p-diff is trained and written into that folder where it is missing, which takes an hour of one core for a few
        thousand checkpoints.
        """
        seen = inputs.seen
        found = _further(seen) + _networks(seen) + _controls(seen)
        found += field_candidates(inputs)
        if not seen.backbone.classes:
            found = [entry for entry in found if entry.name not in OF_CLASSES]
        if PDIFF in inputs.settings:
            found.append(_pdiff(seen, Path(inputs.settings[PDIFF])))
        if inputs.labelled is not None:
            found += labelled_candidates(seen, inputs.generators[0], inputs.labelled, inputs.tasks)
        return found

    def of_samples(
        self, sampled: Source, backbone: Backbone, labelled: LabelledData | None
    ) -> list[tuple[Source, SourceInfo]]:
        """The best of several samples by unlabelled images and by labels, where there are any."""
        if labelled is None or not backbone.classes:
            return []
        by_images, by_labels = (
            BestOfSource(sampled, backbone, labelled, by_labels=by_labels) for by_labels in (False, True)
        )
        notes = ("the one that is most certain of its images", "the one under which 5 labels are most probable")
        return [
            (by_images, SourceInfo(by_images.name, "unlabelled images", None, f"of 8 posterior samples {notes[0]}")),
            (by_labels, SourceInfo(by_labels.name, "labels", None, f"of 8 posterior samples {notes[1]}")),
        ]


METHODS = ResearchMethods()


def _further(seen: SeenTasks) -> list[Candidate]:
    training = (seen.encoder, seen.descriptions, seen.adapters)
    return [
        Candidate(
            "top-K merge",
            "description",
            "softmax-weighted mean of the nearest seen adapters",
            lambda: TopKMergeSource(*training, seen.features),
            trained=True,
        ),
        Candidate(
            "linear ridge regression",
            "description",
            "description to adapter, linear",
            lambda: LinearRidgeSource(*training, seen.features),
            trained=True,
        ),
        Candidate(
            "pretrained, centred",
            "description",
            "pretrained, its classifier centred on the images of the site",
            lambda: CentredPretrainedSource(seen),
            trained=True,
        ),
        Candidate(
            "prior from the description",
            "description",
            "pretrained, its label prior predicted from the description",
            lambda: PredictedPriorSource(seen),
            trained=True,
        ),
        Candidate(
            "prior by EM on unlabelled images",
            "unlabelled images",
            "pretrained, its label prior fitted to the task's unlabelled images",
            lambda: UnlabelledPriorSource(seen),
            trained=True,
            unlabelled=True,
        ),
        Candidate(
            "multi-task adapter",
            "no description",
            "one adapter trained on all seen tasks",
            lambda: MultiTaskSource(seen, False),
            trained=True,
        ),
        Candidate(
            "multi-task adapter with description",
            "description",
            "one adapter whose classifier reads the description",
            lambda: MultiTaskSource(seen, True),
            trained=True,
        ),
    ]


def _networks(seen: SeenTasks) -> list[Candidate]:
    return [
        Candidate(
            "hypernetwork, reconstruction",
            "description",
            "network from description to adapter, trained on adapters",
            lambda: HypernetworkSource(seen, "reconstruction"),
            trained=True,
        ),
        Candidate(
            "hypernetwork, task loss",
            "description",
            "network from description to adapter, trained through the backbone",
            lambda: HypernetworkSource(seen, "task"),
            trained=True,
        ),
        Candidate(
            "column-wise merge",
            "description",
            "seen adapters merged column by column, by a network trained through the backbone",
            lambda: ColumnMergeSource(seen),
            trained=True,
        ),
        Candidate(
            "feature prompt",
            "description",
            "scale and bias of the features, by a network that reads the description's images",
            lambda: FeaturePromptSource(seen),
            trained=True,
        ),
    ]


def _controls(seen: SeenTasks) -> list[Candidate]:
    zoo = seen.zoo
    statistics = pool_statistics(zoo)
    noise = [
        Candidate(
            CheckpointNoiseSource(zoo, scale, relative, statistics).name,
            "checkpoints",
            f"a stored checkpoint plus noise of {scale:g}{' of the spread' if relative else ''}",
            lambda scale=scale, relative=relative: CheckpointNoiseSource(zoo, scale, relative, statistics),  # type: ignore[misc]
        )
        for scale, relative in ((0.06, False), (0.12, False), (0.05, True), (0.15, True))
    ]
    return [
        *noise,
        Candidate(
            "average of 16 checkpoints",
            "checkpoints",
            "mean of 16 random stored checkpoints",
            lambda: CheckpointAverageSource(zoo, 16),
        ),
        Candidate(
            "Gaussian per coordinate",
            "checkpoints",
            "normal draws with the mean and spread of each value",
            lambda: GaussianSource(zoo, statistics),
        ),
    ]


def _pdiff(seen: SeenTasks, folder: Path) -> Candidate:
    """p-diff takes an hour of one core: trained once, it is kept."""

    def make() -> Source:
        if not (folder / "manifest.json").is_file():
            UnconditionalPDiffSource.fit(seen.zoo, seed=seen.seed).save(folder)
        return UnconditionalPDiffSource.load(folder)

    note = "p-diff's autoencoder and diffusion, without a condition"
    return Candidate("unconditional p-diff", "no description", note, make, trained=True)
