"""The domain missouri from tiny frames to its table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from refusals import refused
from species_frames import colours, write_frames
from wildbench.datasets.species_pairs import NEW_SPECIES
from wildbench.domains import missouri
from wildbench.domains.missouri import DOMAIN, principal_components
from wildbench.domains.registry import find_domain
from wildbench.domains.run import domain_config, run_domain
from wildbench.presets import tiny_generator
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.errors import DataError

TINY = replace(
    DOMAIN,
    open=partial(missouri.open_missouri, featurise=colours),
    generator=replace(
        tiny_generator(),
        parts=("metadata", "examples"),
        task_loss=TaskLossConfig(steps=4, tasks=4, images=8),
    ),
    samples=2,
    seen_tasks=3,
)


def test_a_table_with_groups_of_new_species(tmp_path: Path) -> None:
    write_frames(tmp_path / "data" / "missouri", frames=5)
    sizes = replace(missouri.SIZES, image_size=16, held_out=2, unseen=2, pretraining=2, one_new=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(missouri, "SIZES", sizes)
        table = run_domain(
            TINY,
            tmp_path / "data",
            tmp_path / "out",
            domain_config(TINY, trained=False),
            command="wildbench domain missouri",
            options={"framing": "whole", "named": True},
        )
    assert table.groups == {"seen": 3, "unseen": 2, NEW_SPECIES[1]: 3, NEW_SPECIES[2]: 1}
    assert table.cell("fine-tuned", "seen").score.value > table.cell("pretrained", "seen").score.value
    assert table.cell("fine-tuned", NEW_SPECIES[2]).score.value == 1.0, "colours tell the species apart"


def test_the_picture_of_real_frames_shows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "data" / "missouri", frames=5)
    sizes = replace(missouri.SIZES, image_size=16, held_out=2, unseen=2, pretraining=2, one_new=3)
    monkeypatch.setattr(missouri, "SIZES", sizes)
    config = domain_config(TINY, trained=False)
    table = run_domain(TINY, tmp_path / "data", tmp_path / "out", config, command="wildbench domain missouri")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "docs" / "img"))
    import real_frames

    monkeypatch.setattr(real_frames, "SIZES", sizes)
    monkeypatch.setattr(real_frames, "open_missouri", TINY.open)
    found = real_frames.pairs(tmp_path / "out", tmp_path / "data")
    for method, number in (("pretrained", 0), ("generated", 1)):
        assert sum(pair.scores[number] for pair in found) / len(found) == pytest.approx(
            table.cell(method, "unseen").score.value
        )
    for pair in found:
        species = set(pair.title.split("\nor "))
        right = [name.text for name in pair.after if name.right]
        assert len(pair.images) == len(pair.after)
        assert set(right) <= species
    assert real_frames.main([str(tmp_path / "out")]) == 2
    assert real_frames.main([str(tmp_path / "none"), str(tmp_path / "data")]) == 2
    assert real_frames.main([*map(str, (tmp_path / "out", tmp_path / "data", tmp_path / "frames.png"))]) == 0
    assert (tmp_path / "frames.png").is_file()


def test_data_and_framing_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    assert find_domain("missouri") is DOMAIN
    with refused(DataError, "missouri/index.csv"):
        DOMAIN.require(tmp_path)
    with refused(DataError, "oval"):
        missouri.open_missouri(tmp_path, tmp_path, 0, lambda *_: None, framing="oval", featurise=colours)


def test_principal_components_have_unit_variance_and_are_no_more_than_there_are() -> None:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(50, 3, generator=draws) @ torch.randn(3, 12, generator=draws) + 5.0
    layer = principal_components(values, 8)
    reduced = layer(values)
    assert reduced.shape == (50, 3), "values of rank 3"
    torch.testing.assert_close(reduced.T @ reduced / 50, torch.eye(3), atol=1e-3, rtol=0)
    assert principal_components(values, 2)(values).shape == (50, 2)
