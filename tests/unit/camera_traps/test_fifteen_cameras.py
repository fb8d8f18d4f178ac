"""Tables of fifteen cameras of real frames with every usual flaw, as the experiment makes them."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.camera_traps.picture_files import MISSING
from wildpdiff.camera_traps.suite_check import check_suite
from wildpdiff.camera_traps.suite_options import TableOptions

PROJECT = Path(__file__).parents[3]
EXPERIMENT = PROJECT / "benchmarks" / "experiments" / "fifteen_cameras"
DATA = PROJECT.parent / "shared" / "data" / "missouri"
COLUMNS = {"path": "Datei", "label": "Art", "task": "Standort"}


@pytest.mark.skipif(not (DATA / "index.csv").is_file(), reason="needs a local copy of the Missouri Camera Traps frames")
def test_the_flawed_tables_are_one_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = json.loads((EXPERIMENT / "experiment.json").read_text(encoding="utf-8"))
    monkeypatch.syspath_prepend(EXPERIMENT)
    made = importlib.import_module("make_cameras")
    made.make(DATA, tmp_path, settings)
    files = [tmp_path / name for name in ("bilder.csv", "detektor.json", "kameras.csv")]
    found = check_suite(read_joined(files, COLUMNS), TableOptions(image_size=16, framing=None))
    values = found.to_json()
    assert values["groups"] == {"pretraining": 0, "seen": 10, "unseen": 2, "described": 3, "untuned": 0}
    faults = {row["camera"] for row in values["cameras"] if row["fault"]}
    assert faults == {settings["few"], settings["one_species"], settings["unlabelled"]}
    assert {len(paths) for paths in values["left_out"].values()} == {1}
    assert len(values["left_out"]) == 2
    assert MISSING in values["left_out"]
    frames = list(made.placed(DATA / "index.csv", settings))
    species = {frame.species for frame in frames if frame.camera != settings["unlabelled"]}
    assert values["species"].keys() == species | {"empty"}
    begun = [
        last is None or last.camera != frame.camera or frame.time - last.time > timedelta(minutes=1)
        for last, frame in zip([None, *frames], frames, strict=False)
    ]
    assert values["bursts"] == sum(begun)
    assert values["boxes"]["pictures"] == values["pictures"] == len(frames)
    assert values["metadata"] == {
        **dict.fromkeys(("Breite", "Länge", "Höhe"), "number"),
        **dict.fromkeys(("Lebensraum", "Kameramodell"), "category"),
    }
    assert found.suite.root == tmp_path / "bilder"
