"""Shapes and types of every function are checked while the tests run, see ``sampled_checks.py``."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sampled_checks

sampled_checks.install(["wildpdiff", "wildbench"])

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

if TYPE_CHECKING:
    from tiny_world import Run, World

    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.fit import FittedGenerator
    from wildpdiff.zoo.store import Zoo

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WILDPDIFF_CACHE", "off")  # tests leave nothing in the user's folders


@pytest.fixture(autouse=True)
def _checks_begin() -> None:
    """Every test checks the first calls of every function."""
    sampled_checks.begin_test()


@pytest.fixture(scope="session", autouse=True)
def _one_thread_at_first() -> None:
    """Fixtures of wider scopes, set up before the first test, run with one thread too."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests compare bytes, and the number of threads decides the order of sums; tiny tensors are faster so, too.

    After each test as well: code under test sets threads for its process, which is here that of all tests, and with
    more than one of them stages run in processes, where a test's recorders are not seen.
    """
    import torch

    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _denormals() -> None:
    """Verbs that train treat denormal numbers as zero for their process; no test depends on which ran before it."""
    import torch

    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def toy_backbone() -> Backbone:
    """See ``tests/toys.py``."""
    import toys

    return toys.backbone()


@pytest.fixture(scope="session")
def toy_zoo(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    """The five seen toy tasks, two a shard; not to be written to."""
    import toys
    from wildpdiff.zoo.build import build_zoo

    folder: Path = tmp_path_factory.mktemp("toys") / "zoo"
    suite = toys.ToySuite()
    return build_zoo(folder, toy_backbone, suite.tasks("seen"), suite.fingerprint, config=toys.FINETUNE, per_shard=2)


@pytest.fixture(scope="session")
def toy_fit(toy_zoo: Zoo, toy_backbone: Backbone) -> FittedGenerator:
    """A generator of the toy zoo."""
    import toys
    from wildpdiff.fit import fit_generator
    from wildpdiff.zoo.training_set import TrainingSet

    return fit_generator(TrainingSet.of(toys.ToySuite(), toy_backbone, toy_zoo), toys.generator_config())


@pytest.fixture(scope="session")
def toy_latents_fit(toy_zoo: Zoo, toy_backbone: Backbone) -> FittedGenerator:
    """A generator of the toy zoo without a conditional mean: a diffusion over latents carries the condition."""
    import toys
    from wildpdiff.fit import fit_generator
    from wildpdiff.zoo.training_set import TrainingSet

    return fit_generator(TrainingSet.of(toys.ToySuite(), toy_backbone, toy_zoo), toys.latents_config())


@pytest.fixture(scope="session")
def toy_posterior_fit(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> FittedGenerator:
    """A generator of twelve toy tasks with their images, and so with a posterior."""
    import toys
    from wildpdiff.fit import fit_generator
    from wildpdiff.zoo.build import build_zoo
    from wildpdiff.zoo.features import FeatureCache
    from wildpdiff.zoo.training_set import TrainingSet

    suite = toys.ToySuite(seen=toys.MORE_LEVELS)
    tasks = suite.tasks("seen")
    folder = tmp_path_factory.mktemp("posterior") / "zoo"
    zoo = build_zoo(folder, toy_backbone, tasks, suite.fingerprint, config=toys.FINETUNE, per_shard=12)
    features = FeatureCache(toy_backbone, tasks, 8)
    return fit_generator(TrainingSet.of(suite, toy_backbone, zoo, features), toys.posterior_config())


@pytest.fixture
def machine_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Verbs that train set threads and denormals for their process, which is here that of all tests."""
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WILDPDIFF_DEBUG", "1")  # an unexpected exception is a failure to look into
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with empty figures, where others check the drawing: it takes seconds."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(b""))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""
    from tiny_world import Outcome

    from wildpdiff.cli.main import main

    def call(*words: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The demo of size tiny, run once for all processes of the tests; not to be written to."""
    from tiny_world import World, tiny_backbone

    from wildpdiff.cli.main import main

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "world"
    folder.mkdir(exist_ok=True)
    found = World(folder / "backbone", folder / "run")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "finished").is_file():
            backbone = str(tiny_backbone(found.backbone))
            demo = ["demo", "--size", "tiny", "--backbone", backbone, "--out", str(found.run), "--threads", "1"]
            assert main([*demo, "--json"]) == 0
            (folder / "finished").touch()
    return found
