"""The chain on toys, from zoo to results, as files and numbers that are compared between cores and between commits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.results import provenance
from wildpdiff.fit import fit_generator
from wildpdiff.records import encode
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.training_set import TrainingSet

LEVELS = tuple(60.0 + 4 * number for number in range(30))
SECTIONS = ("rows", "memorisation", "trust", "spread", "calibration")


def chain(folder: Path, backbone: Backbone, cores: int) -> dict[str, bytes]:
    """Zoo, generator, trust and results, as bytes by file or section."""
    torch.set_num_threads(cores)
    suite = toys.ToySuite(seen=LEVELS)
    seen, unseen = suite.tasks("seen"), suite.tasks("unseen")
    features = FeatureCache(backbone, seen, 8)
    zoo = build_zoo(
        folder / "zoo", backbone, seen, suite.fingerprint, config=toys.FINETUNE, per_shard=5, features=features
    )
    reference = build_zoo(folder / "reference", backbone, unseen, suite.fingerprint, config=toys.FINETUNE, per_shard=5)
    config = toys.posterior_config()
    training_set = TrainingSet.of(suite, backbone, zoo, features)
    generator = fit_generator(training_set, config).generator
    generator.save_pretrained(folder / "generator")
    calibration = CalibrationConfig(group_folds=1, samples=1)
    trust = calibrate_generator(generator, training_set, config, calibration=calibration)
    trust.save(folder / "generator" / "trust")
    made = provenance("test", 0)
    comparison = Comparison(suite, backbone, zoo, reference, (generator,), {}, features, seen_tasks=3, trust=(trust,))
    results = compare_sources(comparison, made=made, samples=2)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}
    for name in SECTIONS:
        value = results.sections[name] if name in results.sections else getattr(results, name)
        found[name] = json.dumps(encode(value)).encode()
    return found


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number inside parsed JSON with the path that leads to it; times are left out."""
    if isinstance(value, dict):
        for name, entry in value.items():
            if "seconds" not in name:
                yield from numbers(entry, f"{key}.{name}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from numbers(entry, f"{key}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, float(value)
