"""docs/results-schema.md names every key that results.json can have, each in the section of its object."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from wildbench import sections as added
from wildbench import study_sections as studies
from wildpdiff.evaluate import results as module

DOCUMENT = (Path(__file__).parents[3] / "docs" / "results-schema.md").read_text(encoding="utf-8")
KINDS = {
    "Top level": (
        module.Results,
        module.Provenance,
        module.SuiteInfo,
        module.BackboneInfo,
        module.GeneratorInfo,
        module.AutoencoderInfo,
        module.Ceiling,
        module.Stage,
    ),
    "rows": (module.ResultRow,),
    "summary": (module.SummaryRow,),
    "sources": (module.SourceInfo,),
    "spread": (added.ParameterSpread,),
    "memorisation": (added.Memorisation, added.NoveltyPoint),
    "distances": (added.ConditionDistance,),
    "calibration": (module.Calibration, module.CalibrationBin),
    "latent_map": (added.LatentMap, added.LatentPoint),
    "pictures": (added.Picture,),
    "interpolation": (studies.Interpolation, studies.InterpolationPair, studies.InterpolationPath),
    "scaling": (studies.Scaling, studies.ScalingCell),
    "paper": (studies.PaperRow, studies.PublishedRow),
    "pooled_scores": (added.PooledCounts,),
    "trust": (module.TrustSection, module.TrustPoint),
}


def words_of(title: str) -> set[str]:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", text))))


@pytest.mark.parametrize("title", KINDS)
def test_every_key_is_documented_in_its_section(title: str) -> None:
    keys = {field.name for kind in KINDS[title] for field in dataclasses.fields(kind)}
    assert keys - words_of(title) == set()


def test_every_class_has_a_section() -> None:
    classes: set[Any] = {
        kind
        for module_ in (module, added, studies)
        for kind in vars(module_).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module_.__name__
    }
    classes -= {module.SectionKind}
    assert classes == {kind for kinds in KINDS.values() for kind in kinds}
    assert f"| `schema_version` | {module.SCHEMA_VERSION} |" in DOCUMENT
