"""Heart beats: patients of the MIT-BIH arrhythmia database, by age, sex, drugs and unlabelled beats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildbench.datasets.heartbeats import BEATS, CLASSES, PATIENTS, RHYTHM, SAMPLES, HeartbeatsConfig, heartbeats
from wildbench.domains.domain import Domain
from wildbench.domains.networks import PooledTraining, pooled_examples, trained_once
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.pooled_scores import macro_f1
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.fit import GeneratorConfig
from wildpdiff.tasks.objective import Classification

LORA = LoraSpec(4, 4.0, ("rhythm", "mix", "narrow"), ("classifier",))
GAIN, NOISE = 0.15, 0.03
"""Augmentation: standard deviations of a factor of the voltage (in logarithms) and of an added noise, in mV."""


class BeatNetwork(nn.Module):
    """Three strided convolutions of the window, joined by the rhythm, two linear layers and a classifier."""

    def __init__(self, width: int = 32, embedding: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 16, 7, stride=2, padding=3)
        self.conv2 = nn.Conv1d(16, width, 5, stride=2, padding=2)
        self.conv3 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.rhythm = nn.Linear(RHYTHM, 24)
        self.mix = nn.Linear(width * SAMPLES // 8 + 24, 64)
        self.narrow = nn.Linear(64, embedding)
        self.classifier = nn.Linear(embedding, len(CLASSES))

    def forward(self, beats: Float[Tensor, "n s"]) -> Float[Tensor, "n c"]:
        """Windows and rhythms to logits."""
        maps = torch.relu(self.conv1(beats[:, None, :SAMPLES]))
        maps = torch.relu(self.conv3(torch.relu(self.conv2(maps)))).flatten(1)
        joined = torch.cat([maps, torch.relu(self.rhythm(beats[:, SAMPLES:]))], 1)
        logits: Tensor = self.classifier(torch.relu(self.narrow(torch.relu(self.mix(joined)))))
        return logits


def _augmented(beats: Float[Tensor, "n s"], draws: torch.Generator) -> Float[Tensor, "n s"]:
    """Another gain of the electrode, and noise; the rhythm as it is."""
    window = beats[:, :SAMPLES]
    gain = torch.exp(GAIN * torch.randn(len(beats), 1, generator=draws))
    noise = NOISE * torch.randn(window.shape, generator=draws)
    return torch.cat([window * gain + noise, beats[:, SAMPLES:]], 1)


TRAINING = PooledTraining(steps=1000, augment=_augmented)


def open_mitbih(
    data: Path,
    folder: Path,
    seed: int,
    tick: Tick,
    *,
    config: HeartbeatsConfig | None = None,
    training: PooledTraining = TRAINING,
) -> OpenBenchmark:
    """Suite and backbone; the backbone is trained on the pretraining patients of DS1."""
    config = config or HeartbeatsConfig(seed)
    suite = heartbeats(data, config)
    module = trained_once(
        BeatNetwork,
        folder / "backbone",
        {"suite": suite.fingerprint},
        lambda: pooled_examples(suite.tasks("pretraining")),
        training=training,
        seed=seed,
        progress=tick,
    )
    backbone = Backbone.of(module, name="beat-network", lora=LORA, objective=Classification(CLASSES))
    return OpenBenchmark(suite, backbone, knobs=asdict(config))


DOMAIN = Domain(
    name="mitbih",
    title="Heart beats by patient: AAMI classes of the MIT-BIH arrhythmia database, published inter-patient split.",
    files=(BEATS, PATIENTS),
    open=open_mitbih,
    generator=GeneratorConfig(parts=("metadata", "examples")),
    pooled=(
        macro_f1(),
        *(macro_f1((label,), f"F1 of {CLASSES[label]}") for label in (1, 2)),
    ),
    remarks=(
        "Seven patients of DS1 train the backbone, the others are the seen tasks. Record 201 is left out, because "
        "it is of the man of record 202. The test of an unseen patient is minutes 7.5 to 30 of the record. "
        "Fine-tuning learns from the labels of the first five.",
        "Trust is calibrated on 30 seen tasks or more. There are fewer patients, so no adapter is trusted here: "
        "with trust the pretrained model is kept.",
        "Published inter-patient results on all of DS2, as recalled and not checked against the papers, F1 of S "
        "and of V: de Chazal et al. (2004) 51 and 80, Llamedo and Martínez (2011) 52 and 84, Mondéjar-Guerra et "
        "al. (2019) 61 and 94. They train on all of DS1, with two leads or with rhythm in units of the whole "
        "record.",
    ),
)
