"""Every stage that uses several cores gives the bytes that one core gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.comparison import Comparison, compare_sources
from wildpdiff.evaluate.decoding import encode
from wildpdiff.evaluate.provenance import provenance
from wildpdiff.fit import fit_generator
from wildpdiff.parallel import workers
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

LEVELS = tuple(60.0 + 4 * number for number in range(30))


@pytest.fixture
def cores() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def chain(folder: Path, backbone: Backbone, cores: int) -> dict[str, bytes]:
    """Zoo, generator, trust and results, as bytes."""
    torch.set_num_threads(cores)
    suite = toys.ToySuite(seen=LEVELS)
    seen, unseen = suite.tasks("seen"), suite.tasks("unseen")
    features = FeatureCache(backbone, seen, 8)
    zoo = build_zoo(folder / "zoo", backbone, seen, suite.fingerprint, toys.FINETUNE, per_shard=5, features=features)
    reference = build_zoo(folder / "reference", backbone, unseen, suite.fingerprint, toys.FINETUNE, per_shard=5)
    told = {task.name: task.description for task in seen}
    config = toys.posterior_config()
    generator = fit_generator(zoo, told, toys.SCHEMA, backbone, config, features=features).generator
    generator.save_pretrained(folder / "generator")
    trust = calibrate_generator(
        generator, zoo, told, toys.SCHEMA, config, features, calibration=CalibrationConfig(group_folds=1, samples=1)
    )
    trust.save(folder / "trust")
    made = provenance("test", 0)
    comparison = Comparison(suite, backbone, zoo, reference, (generator,), {}, features, seen_tasks=3, trust=(trust,))
    results = compare_sources(comparison, made=made, samples=2)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}
    for name in ("rows", "memorisation", "trust", "spread", "calibration"):
        found[name] = json.dumps(encode(getattr(results, name))).encode()
    return found


@pytest.mark.usefixtures("cores")
def test_a_run_on_two_cores_is_the_run_on_one(tmp_path: Path, toy_backbone: Backbone) -> None:
    torch.set_num_threads(2)
    if workers(2) < 2:
        pytest.skip("this system cannot fork")
    one, two = (chain(tmp_path / str(cores), toy_backbone, cores) for cores in (1, 2))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert Zoo.open(tmp_path / "2" / "zoo").tasks == Zoo.open(tmp_path / "1" / "zoo").tasks
