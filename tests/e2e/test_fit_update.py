"""``zoo build`` in a zoo that has some of the tasks, and ``fit --update``: what grows, what stays, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from test_zoo_resume import files_of
from tiny_world import Calibrated, Run, refused_run, tiny_backbone

from wildpdiff.conditional_mean.training import NetworkStore
from wildpdiff.trust import generated

BUILD = ("zoo", "build", "--steps", "6", "--checkpoints", "2", "--batch", "16", "--out")
SIZES = ("train=24", "validation=8", "test=4", "backgrounds=3")
NETWORKS = {"steps": 20, "folds": 2, "bases": ["nothing"], "tasks": 4, "images": 4, "evaluation_images": 4}
SETTINGS = {"parts": ["metadata"], "task_loss": NETWORKS, "diffusion": {"steps": 4}, "posterior": {"scales": [0.5]}}


@dataclass(frozen=True)
class Grown:
    """A zoo of eleven tasks, its generator, both after two more were added; not to be written to."""

    backbone: Path
    few: Path
    zoo: Path
    generator: Path
    updated: Path
    printed: dict[str, Any]

    def suite(self, seen: int, *options: str) -> list[str | Path]:
        pairs = (*SIZES, f"seen={seen}", *options)
        return [*(word for pair in pairs for word in ("-o", pair)), "--backbone", self.backbone, "--threads", "1"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    from wildpdiff.cli.main import main

    folder = tmp_path_factory.mktemp("growth")
    backbone = tiny_backbone(folder / "backbone")
    made = Grown(backbone, folder / "few", folder / "zoo", folder / "first" / "g", folder / "second" / "g", {})
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    fit = ["fit", "--no-trust", "--config", folder / "settings.json", "--zoo", made.few, "--out", made.generator]
    calls = [[*BUILD, made.few, *made.suite(11)], [*fit, *made.suite(11)], [*BUILD, made.zoo, *made.suite(13)]]
    for words in calls:
        assert main([str(word) for word in words]) == 0
        if words == calls[1]:
            shutil.copytree(made.few, made.zoo)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([str(word) for word in update(made, made.updated, "--no-trust", "--json")]) == 0
    return replace(made, printed=json.loads(out.getvalue()))


def update(grown: Grown, out: Path, *words: str | Path) -> list[str | Path]:
    return ["fit", "--zoo", grown.zoo, "--update", grown.generator, *grown.suite(13), "--out", out, *words]


def test_a_zoo_grows_by_its_new_tasks_and_its_generator_follows(grown: Grown, run: Run) -> None:
    old, new = files_of(grown.few), files_of(grown.zoo)
    changed = [name for name in old if old[name] != new[name]]
    assert changed == ["index.parquet", "plan.json"]
    training = json.loads((grown.updated / "manifest.json").read_bytes())["config"]["training"]
    assert (training["tasks"], [entry["tasks"] for entry in training["updates"]]) == (13, [11])
    assert sorted(path.name for path in grown.updated.parent.iterdir()) == ["g", "g-backbone"]
    assert run("inspect", grown.updated).status == 0
    assert grown.printed["added"] == ["seen-011", "seen-012"]
    assert 0 <= grown.printed["residual"] <= 1
    assert grown.printed["cross_validation"]["tasks"] == 13


def test_an_update_that_is_stopped_leaves_no_generator_and_resumes(
    grown: Grown, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "g"
    real, saved = NetworkStore.save, iter(range(99))

    def save(store: NetworkStore, *arguments: Any) -> None:
        if next(saved) == 1:
            raise KeyboardInterrupt
        real(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkStore, "save", save)
        assert run(*update(grown, stopped, "--no-trust")).status == 130
    assert [path.name for path in tmp_path.iterdir()] == [".g.unfinished"]
    resumed = run(*update(grown, stopped, "--no-trust"))
    assert resumed.status == 0, resumed.err
    assert "resuming" in resumed.err
    assert files_of(stopped) == files_of(grown.updated)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "g-backbone"]
    assert "2 tasks were added" in resumed.out


def test_trust_is_calibrated_anew_and_never_that_of_the_earlier_generator(
    grown: Grown, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "g", []

    def calibrate(generator: Any, training_set: Any, config: Any, *, seed: int, **_: Any) -> Calibrated:
        calls.append((generator.fingerprint, len(training_set.tasks), config.task_loss.steps, seed))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return Calibrated(generator.fingerprint)

    monkeypatch.setattr(generated, "FEWEST_TASKS", 11)
    monkeypatch.setattr(generated, "calibrate_generator", calibrate)
    assert run(*update(grown, out)).status == 130
    assert not (out / "trust").exists()
    again = run(*update(grown, out, "--json"))
    assert again.status == 0, again.err
    assert "added" not in again.json, "the generator was finished, and is not updated again"
    assert calls == [(again.json["fingerprint"], 13, 20, 0)] * 2
    assert (out / "trust" / "of").read_text() == again.json["fingerprint"]


@pytest.mark.parametrize(
    ("words", "named"),
    [(("--steps", "3"), "--steps"), (("--task-steps", "3"), "--task-steps"), (("--parts", "metadata"), "--parts")],
)
def test_settings_of_an_update_are_the_generators(
    grown: Grown, run: Run, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    refused_run(run(*update(grown, tmp_path / "g", *words)), named, grown.generator)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_updated_is_refused(grown: Grown, run: Run, tmp_path: Path) -> None:
    before = files_of(grown.generator)
    refused_run(run(*update(grown, grown.generator)), grown.generator)
    words = ["--update", grown.generator, *grown.suite(11), "--out", tmp_path / "g"]
    refused_run(run("fit", "--zoo", grown.few, *words), grown.few)
    imported = Path(__file__).parents[1] / "golden" / "imported-1"
    refused_run(run("fit", "--zoo", imported, *words), "imported")
    assert files_of(grown.generator) == before
    assert not list(tmp_path.iterdir())


def test_a_task_with_other_images_is_named_and_rebuilt_on_demand(grown: Grown, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grown.zoo, tmp_path / "zoo"))
    before, other = files_of(folder), grown.suite(13, "train=25")
    refused_run(run(*BUILD, folder, *other), "'seen-000'", "--rebuild")
    assert files_of(folder) == before
    rebuilt = run(*BUILD, folder, *other, "--rebuild", "--json")
    assert rebuilt.status == 0, rebuilt.err
    assert json.loads((folder / "plan.json").read_bytes()).get("earlier") is None
    assert run("inspect", folder).status == 0
