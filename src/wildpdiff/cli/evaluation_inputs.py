"""What ``wildpdiff evaluate`` compares: taken from the folder of a run, or named part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildpdiff.cli.generators import open_generator, open_zoo
from wildpdiff.cli.options import open_suite, suite_settings
from wildpdiff.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.evaluate.results import Stage
    from wildpdiff.trust.model import TrustModel


@dataclass(frozen=True)
class EvaluationInputs:
    """A comparison, the seed of its run, and what its stages took where that is known."""

    comparison: Comparison
    seed: int
    stages: tuple[Stage, ...]


def inputs_of_run(run: Path) -> EvaluationInputs:
    """Everything from the folder of a demo.

    Raises:
        ArtifactError: the folder holds no finished run.
    """
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.pipeline import SEED_STEP
    from wildpdiff.run_folder import RunFolder
    from wildpdiff.tasks.registry import load_suite
    from wildpdiff.zoo.features import FeatureCache

    path = run / "run.json"
    if not path.is_file():
        raise ArtifactError(f"{run} holds no run: run.json is missing. Give the folder of a demo.")
    settings = _run_settings(path)
    # Beside a generator may lie its backbone, in generator-N-backbone.
    found = (path for path in run.glob("generator-*") if path.name.removeprefix("generator-").isdigit())
    generators = sorted(found, key=lambda path: int(path.name.removeprefix("generator-")))
    if len(generators) < settings["generator_seeds"] or not (run / "zoo").is_dir():
        raise ArtifactError(f"The run in {run} is unfinished. Run the same command again to go on, then evaluate.")
    backbone = load_backbone(settings["backbone"])
    known = {"seed": settings["seed"], "image_size": backbone.image_size, "classes": backbone.classes}
    suite = load_suite(settings["suite"], **{**known, **settings["suite_options"]})
    reference = run / "reference"
    zoo = open_zoo(run / "zoo")
    opened = [open_generator(path, backbone, None) for path in generators]
    comparison = Comparison(
        suite,
        backbone,
        zoo,
        open_zoo(reference) if reference.is_dir() else None,
        opened,
        settings["suite_options"],
        FeatureCache(backbone, suite.tasks("seen")),
        trust=_trust(generators, backbone),
    )
    _check(comparison)
    seeds = [generator.training.get("seed") for generator in opened]
    if zoo.plan.seed != settings["seed"] or seeds != [
        settings["seed"] + SEED_STEP * number for number in range(len(seeds))
    ]:
        raise ArtifactError(
            f"{path} has the seed {settings['seed']}; the zoo beside it has {zoo.plan.seed} and the generators "
            f"{', '.join(map(str, seeds))}. They do not belong together: restore the file, or run the demo again."
        )
    # The run's own evaluation and page are not what this one rests on.
    stages = tuple(stage for stage in RunFolder(run).stages if stage.name not in ("evaluate", "report"))
    return EvaluationInputs(comparison, settings["seed"], stages)


def inputs_of_parts(
    zoo: Path | None,
    reference: Path | None,
    generators: Sequence[Path],
    suite: str,
    option: Sequence[str] | None,
    backbone: str,
    seed: int,
    clip: Path | None = None,
) -> EvaluationInputs:
    """Everything named for itself.

    Raises:
        DataError: neither a run nor a zoo and a generator were named.
        ArtifactError: a zoo was not built on these tasks.
    """
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.evaluate.comparison import Comparison

    if zoo is None or not generators:
        raise DataError("There is nothing to compare. Give --run, or --zoo and at least one --generator.")
    loaded = load_backbone(backbone)
    opened = open_suite(suite, option, loaded)
    zoos = [open_zoo(path) for path in (zoo, reference) if path is not None]
    comparison = Comparison(
        opened,
        loaded,
        zoos[0],
        zoos[1] if len(zoos) > 1 else None,
        [open_generator(path, loaded, clip) for path in generators],
        suite_settings(suite, option),
        trust=_trust(generators, loaded),
    )
    _check(comparison)
    return EvaluationInputs(comparison, seed, ())


def _run_settings(path: Path) -> dict[str, Any]:
    """What is needed of a run.json; raises :class:`ArtifactError` where it is not there or of another kind."""
    from wildpdiff.disk import read_json

    settings = read_json(path, finite=True)
    kinds = {"suite": str, "suite_options": dict, "backbone": str, "seed": int, "generator_seeds": int}
    wrong = [
        key for key, kind in kinds.items() if not isinstance(settings, dict) or not isinstance(settings.get(key), kind)
    ]
    if wrong or not 0 <= settings["seed"] < 2**63 or settings["generator_seeds"] < 1:
        raise ArtifactError(
            f"{path} is not that of a demo: {wrong[0] if wrong else 'a number'!r} is missing or of a wrong kind. "
            "Restore it, or give the folder of a demo."
        )
    return dict(settings)


def _check(comparison: Comparison) -> None:
    """Refuse parts that do not belong together before anything else is done."""
    from wildpdiff.evaluate.belonging import check_belonging

    parts = (comparison.suite, comparison.backbone, comparison.zoo, comparison.reference)
    check_belonging(*parts, comparison.generators, comparison.trust)


def _trust(generators: Sequence[Path], backbone: Backbone) -> tuple[TrustModel, ...]:
    """The generators' models of trust, if all have one."""
    from wildpdiff.trust.model import FOLDER, TrustModel

    if not all((path / FOLDER).is_dir() for path in generators):
        return ()
    return tuple(TrustModel.beside(path, backbone) for path in generators)
