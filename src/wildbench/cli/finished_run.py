"""Everything that an evaluation reads from the folder of a demo: ``wildpdiff evaluate --run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wildpdiff.cli import options
from wildpdiff.cli.evaluate import EvaluationInputs, checked
from wildpdiff.errors import ArtifactError


def inputs_of_run(run: Path) -> EvaluationInputs:
    """Everything from the folder of a demo.

    Raises:
        ArtifactError: the folder holds no finished run.
    """
    from wildbench.pipeline import SEED_STEP
    from wildbench.run_folder import RunFolder
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.camera_traps.registry import load_suite
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.zoo.features import FeatureCache

    path = run / "run.json"
    if not path.is_file():
        raise ArtifactError(f"{run} holds no run: run.json is missing. Give the folder of a demo.")
    settings = _run_settings(path)
    # Next to a generator may lie its backbone, in generator-N-backbone.
    found = (path for path in run.glob("generator-*") if path.name.removeprefix("generator-").isdigit())
    generators = sorted(found, key=lambda path: int(path.name.removeprefix("generator-")))
    if len(generators) < settings["generator_seeds"] or not (run / "zoo").is_dir():
        raise ArtifactError(f"The run in {run} is unfinished. Run the same command again to finish it, then evaluate.")
    backbone = load_backbone(settings["backbone"])
    known = {
        "seed": settings["seed"],
        "image_size": backbone.image_size,
        "classes": backbone.classes,
        "framing": backbone.framing,
    }
    suite = load_suite(settings["suite"], **{**known, **settings["suite_options"]})
    reference = run / "reference"
    zoo = options.open_zoo(run / "zoo")
    opened = [options.open_generator(path, backbone, None) for path in generators]
    features = FeatureCache(backbone, suite.tasks("seen"))
    zoos = (zoo, options.open_zoo(reference) if reference.is_dir() else None)
    comparison = checked(Comparison(suite, backbone, *zoos, opened, settings["suite_options"], features), generators)
    seeds = [generator.training.get("seed") for generator in opened]
    wanted = [settings["seed"] + SEED_STEP * number for number in range(len(seeds))]
    if zoo.plan.seed != settings["seed"] or seeds != wanted:
        raise ArtifactError(
            f"{path} has the seed {settings['seed']}; the zoo next to it has {zoo.plan.seed} and the generators "
            f"{', '.join(map(str, seeds))}. They do not belong together: restore the file, or run the demo again."
        )
    # Without those of the run's own evaluation and page.
    stages = tuple(stage for stage in RunFolder(run).stages if stage.name not in ("evaluate", "report"))
    return EvaluationInputs(comparison, settings["seed"], stages)


def _run_settings(path: Path) -> dict[str, Any]:
    """The settings in a run.json; raises :class:`ArtifactError` where one is missing or of another kind."""
    from wildpdiff.disk import read_json

    settings = read_json(path, finite=True)
    kinds = {"suite": str, "suite_options": dict, "backbone": str, "seed": int, "generator_seeds": int}
    found = settings if isinstance(settings, dict) else {}
    wrong = [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
    if wrong or not 0 <= settings["seed"] < 2**63 or settings["generator_seeds"] < 1:
        raise ArtifactError(
            f"{path} is not that of a demo: {wrong[0] if wrong else 'a number'!r} is missing or of a wrong kind. "
            "Restore it, or give the folder of a demo."
        )
    return dict(settings)
