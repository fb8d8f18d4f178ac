"""Pictures of the first page: which curves and frames they show, and that they are drawn."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from refusals import refused
from wildbench.study_sections import Scaling, ScalingCell
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import read_results, write_results

IMAGES = Path(__file__).parents[3] / "docs" / "img"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, IMAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gains() -> ModuleType:
    return script("gain_by_cameras")


def scaling(*sources: str, top: float = 0.9) -> Scaling:
    cells = [
        ScalingCell(tasks, diversity, checkpoints, seed, source, (0.5 + tasks / 500 + 0.01 * seed, 0.3), 1.0)
        for source in sources
        for tasks in (5, 40)
        for diversity in ("wide", "narrow")
        for checkpoints in (1, 13)
        for seed in (0, 1)
    ]  # fmt: skip
    return Scaling(("a", "b"), (0.5, 0.5), (top, top), tuple(cells))


def test_curves_are_those_of_wide_draws_with_most_checkpoints(gains: ModuleType) -> None:
    found = gains.curves_of(scaling("nearest task", "mean adapter", "generated"))
    assert [(curve.source, curve.diversity, curve.checkpoints) for curve in found] == [
        ("generated", "wide", 13),
        ("mean adapter", "wide", 13),
    ]


def test_without_a_gain_to_recover_there_is_no_picture(gains: ModuleType, tmp_path: Path) -> None:
    for useless in (scaling("nearest task"), scaling("generated", top=0.5)):
        with refused(ArtifactError, "no curve"):
            gains.draw(useless, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_losses_beyond_the_axis_are_drawn_within_it(gains: ModuleType, tmp_path: Path) -> None:
    harmful = scaling("generated", "mean adapter", "additive kernel regression", top=0.55)
    assert min(point.gain for point in gains.curves_of(harmful)[0].points) < gains.LOWEST
    gains.draw(harmful, tmp_path / "gain.png")
    with Image.open(tmp_path / "gain.png") as picture:
        assert picture.width > picture.height > 400
        assert len(set(picture.convert("RGB").getdata())) > 50


def test_results_without_a_scaling_study_are_refused(
    gains: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = sorted((Path(__file__).parents[2] / "golden").glob("results-*/results.json"))[-1]
    assert gains.main([str(golden), str(tmp_path / "gain.png")]) == 0
    write_results(tmp_path / "results.json", replace(read_results(golden), sections={}))
    assert gains.main([str(tmp_path / "results.json"), str(tmp_path / "none.png")]) == 2
    assert "scaling" in capsys.readouterr().err
    assert gains.main([str(tmp_path / "none.json")]) == 2
    assert gains.main([]) == 2


def test_frames_are_the_first_on_which_the_models_differ(tmp_path: Path) -> None:
    frames = script("frames")
    labels, before = np.array([4, 4, 1, 4, 0, 1]), np.array([4, 1, 0, 1, 0, 2])
    after = np.array([4, 4, 1, 4, 0, 1])
    assert frames.disagreements(labels, before, after, 3) == [1, 2, 5]
    assert frames.disagreements(labels, before, after, 4) == [1, 2, 3, 5], "the same difference again"
    assert frames.disagreements(labels, before, after, 5) == [0, 1, 2, 3, 5], "and where none differs"
    images = np.random.default_rng(0).integers(0, 255, (6, 144, 144, 3), dtype=np.uint8)
    before = tuple(frames.Name("blank", False) for _ in range(6))
    after = tuple(frames.Name("plains zebra", number != 2) for number in range(6))
    frames.draw([frames.Camera("rocky, 1268 m", images, before, after, (0.5, 0.9))], tmp_path / "frames.png")
    with Image.open(tmp_path / "frames.png") as picture:
        assert picture.width > 3 * picture.height
    assert frames.main([str(tmp_path)]) == 2
