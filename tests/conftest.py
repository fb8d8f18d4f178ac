"""Shapes and types of every public function are checked while the tests run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

# Installed before the package is imported anywhere, and never uninstalled: late imports must be checked too.
install_import_hook("wildpdiff", "beartype.beartype")

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.fit import FittedGenerator
    from wildpdiff.zoo.store import Zoo

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests compare bytes, and the number of threads decides the order of sums; tiny tensors are faster so, too."""
    import torch

    torch.set_num_threads(1)


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
    return build_zoo(folder, toy_backbone, suite.tasks("seen"), suite.fingerprint, toys.FINETUNE, per_shard=2)


@pytest.fixture(scope="session")
def toy_fit(toy_zoo: Zoo, toy_backbone: Backbone) -> FittedGenerator:
    """A generator of the toy zoo."""
    import toys
    from wildpdiff.fit import fit_generator

    told = {task.name: task.description for task in toys.ToySuite().tasks("seen")}
    return fit_generator(toy_zoo, told, toys.SCHEMA, toy_backbone, toys.generator_config())
