"""Tables that every observer and every kind of artifact passes, for any problem."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems import Chain
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.registry import load_backbone, save_backbone, stored_kind
from wildpdiff.disk import json_bytes
from wildpdiff.errors import ArtifactError, WildpdiffError
from wildpdiff.evaluate.comparison import Comparison, ObserverInputs, compare_sources, seen_material
from wildpdiff.evaluate.results import provenance, read_results, section_kinds, write_results
from wildpdiff.evaluate.run import Method, Scored, SectionObserver, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.generator import Generator
from wildpdiff.records import decode, encode
from wildpdiff.registry import registered
from wildpdiff.tasks.objective import Classification
from wildpdiff.zoo.store import Zoo

OF_EVERY_PROBLEM = {"spread", "distances", "latent_map"}
OF_CLASSES = {"calibration", "memorisation"}
OF_PICTURES = {"pictures"}


def observers(chain: Chain, tests: dict[Any, Any]) -> list[SectionObserver]:
    """All that installed packages add, for a comparison of the chain."""
    backbone, zoo = chain.generator.backbone, chain.training_set.zoo
    comparison = Comparison(chain.suite, backbone, zoo, None, (chain.generator,), {})
    seen = seen_material(chain.suite, backbone, zoo, generator=chain.generator, features=None, seed=0)
    inputs = ObserverInputs(comparison, seen, zoo.task_adapters(), tests)
    return [observer for build in registered("observers").values() for observer in build(inputs)]


def test_observers_give_sections_of_any_problem_and_leave_adapters_alone(chain: Chain) -> None:
    backbone = chain.generator.backbone
    tests = {"unseen": [test_set(backbone, task) for task in chain.suite.tasks("unseen")[:2]]}
    found = observers(chain, tests)
    classes = isinstance(backbone.objective, Classification)
    expected = OF_EVERY_PROBLEM | (OF_CLASSES if classes else set()) | (OF_PICTURES if backbone.image_size else set())
    assert {observer.section for observer in found} == expected

    class Kept:
        def __init__(self) -> None:
            self.bytes: list[bytes] = []

        def observe(self, scored: Scored) -> None:
            self.bytes += [safetensors_bytes(adapter.tensors) for adapter in scored.adapters]

    before, after = Kept(), Kept()
    methods = [Method(chain.generator, "own", 0)]
    evaluate("plain", tests, backbone, methods, samples=2, observers=[before, *found, after])  # type: ignore[arg-type]
    assert before.bytes == after.bytes
    for observer in found:
        assert isinstance(observer, SectionObserver)
        section = observer.result()
        stored = json.loads(json_bytes(encode(section)))
        if observer.section in section_kinds():
            assert decode(section_kinds()[observer.section].record, stored, "section") == section


def write_adapter(chain: Chain, folder: Path) -> None:
    (made,) = chain.generator.sample(chain.suite.tasks("unseen")[0].description, n=1, seed=0)
    made.save(folder)


def write_zoo(chain: Chain, folder: Path) -> None:
    shutil.copytree(chain.training_set.zoo.folder, folder)


def write_measured(chain: Chain, folder: Path) -> None:
    backbone, zoo = chain.generator.backbone, chain.training_set.zoo
    comparison = Comparison(chain.suite, backbone, zoo, None, (chain.generator,), {}, seen_tasks=2)
    folder.mkdir()
    write_results(folder / "results.json", compare_sources(comparison, made=provenance("test", 0), samples=1))


def whole(zoo: Zoo) -> Zoo:
    """A zoo of which every tensor was read."""
    zoo.tensors(range(len(zoo)))
    return zoo


Write, Read = Callable[[Chain, Path], Any], Callable[[Chain, Path], Any]
ARTIFACTS: dict[str, tuple[Write, Read, Callable[[Any, Path], Any]]] = {
    "adapter": (write_adapter, lambda _, folder: Adapter.load(folder), lambda found, folder: found.save(folder)),
    "generator": (
        lambda chain, folder: chain.generator.save_pretrained(folder),
        lambda chain, folder: Generator.from_pretrained(folder, chain.generator.backbone),
        lambda found, folder: found.save_pretrained(folder),
    ),
    "backbone": (
        lambda chain, folder: save_backbone(chain.generator.backbone, folder),
        lambda _, folder: load_backbone(folder),
        lambda found, folder: save_backbone(found, folder),
    ),
    "zoo": (
        write_zoo,
        lambda _, folder: whole(Zoo.open(folder)),
        lambda found, folder: shutil.copytree(found.folder, folder),
    ),
    "results": (
        write_measured,
        lambda _, folder: read_results(folder / "results.json"),
        lambda found, folder: (folder.mkdir(), write_results(folder / "results.json", found)),
    ),
}
"""How each kind is written, read, and written again."""
UNCHECKED = {"adapter": "README.md", "zoo": "shards/*.parquet"}
"""Files that these readers do not need: the card, and rows that are in the index too."""


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def is_refused(read: Read, chain: Chain, folder: Path) -> bool:
    try:
        read(chain, folder)
    except WildpdiffError:
        return True
    return False


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_an_artifact_is_read_as_it_was_written_and_refused_when_altered(
    chain: Chain, kind: str, tmp_path: Path
) -> None:
    write, read, again = ARTIFACTS[kind]
    if kind == "backbone" and stored_kind(chain.generator.backbone) is None:
        with refused(ArtifactError, "rebuilt"):
            write(chain, tmp_path / kind)
        return
    write(chain, tmp_path / kind)
    (tmp_path / "again").mkdir()
    again(read(chain, tmp_path / kind), tmp_path / "again" / kind)
    files = contents(tmp_path / kind)
    assert contents(tmp_path / "again" / kind) == files
    passed: list[str] = []
    for name, data in files.items():
        path = tmp_path / kind / name
        for damaged in (data[: len(data) // 2], data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]):
            path.write_bytes(damaged)
            if not name.match(UNCHECKED.get(kind, "nothing")) and not is_refused(read, chain, tmp_path / kind):
                passed.append(f"{name}: {len(damaged)} of {len(data)} bytes")
        path.write_bytes(data)
    assert passed == []
    for other in set(ARTIFACTS) - {kind}:
        assert is_refused(ARTIFACTS[other][1], chain, tmp_path / kind), other
