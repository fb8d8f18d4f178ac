"""The benchmarks of the panel: for each a suite, a backbone and the fine-tuning recipe, opened by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildbench.backbones import pretrain_small_cnn, retrain_neck
from wildbench.datasets.panel import class_subsets, handwriting, photo_sites, rotated_digits, scanners
from wildbench.datasets.panel.altered import divided, with_distractors
from wildbench.datasets.savanna.suite import SavannaConfig, SavannaSuite
from wildbench.run_folder import Tick
from wildbench.studies.groups import task_groups
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.variants import VARIANTS, Variant, folder_name
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head
from wildpdiff.backbones.pretrain import PretrainConfig, pretrain_savanna_cnn
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import ImageSuite
from wildpdiff.zoo.steps import FinetuneConfig

SAVANNA = FinetuneConfig()
"""Of savanna's backbones; elsewhere the recipe is chosen on seen tasks."""

SAVANNA_SIZES: dict[str, Any] = {"seen": 160, "unseen": 40, "pretraining": 100}
PACS = "pacs"
PACS_SIZE = 64
LABEL_TABLE = "metadata/conservision_site_label.csv"


OpenSuite = Callable[[Path, Path, int], ImageSuite]
"""Makes a suite from the data folder, the benchmark's own folder and a seed."""

Pretrain = Callable[[ImageSuite, Path, int, Tick | None], Backbone]
"""Makes a backbone from the opened suite, the data folder, a seed and a report of progress."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the panel.

    Attributes:
        name: of the benchmark.
        suite: makes the suite from the data folder, the benchmark's own folder and a seed.
        finetune: the recipe of fine-tuning; None where it is chosen on seen tasks.
        files: what the suite reads, relative to the data folder.
        pretrain: makes the backbone from the opened suite, the data folder and a seed.
    """

    name: str
    suite: OpenSuite
    finetune: FinetuneConfig | None
    pretrain: Pretrain
    files: tuple[str, ...] = ()

    def missing(self, data: Path | None) -> str | None:
        """The first of the files that the data folder does not hold; None where all are there."""
        return next((name for name in self.files if data is None or not (data / name).exists()), None)


def _digits(data: Path, folder: Path, seed: int) -> ImageSuite:
    return rotated_digits.rotated_digits(rotated_digits.RotatedDigitsConfig(seed))


def _ambiguous_digits(data: Path, folder: Path, seed: int) -> ImageSuite:
    return rotated_digits.rotated_digits(rotated_digits.RotatedDigitsConfig(seed, ambiguous=True))


def _handwriting(data: Path, folder: Path, seed: int) -> ImageSuite:
    return handwriting.handwriting(data / handwriting.FILE, handwriting.HandwritingConfig(seed))


def _subsets(data: Path, folder: Path, seed: int) -> ImageSuite:
    return class_subsets.class_subsets(data / class_subsets.FILE, class_subsets.ClassSubsetsConfig(seed))


def _strict_subsets(data: Path, folder: Path, seed: int) -> ImageSuite:
    return class_subsets.class_subsets(data / class_subsets.FILE, class_subsets.ClassSubsetsConfig(seed, strict=True))


def _scanners(data: Path, folder: Path, seed: int) -> ImageSuite:
    return scanners.scanners(data / scanners.FILE, scanners.ScannersConfig(seed))


def _small_cnn(epochs: int, neck: int) -> Pretrain:
    """A small network trained on the suite's own pretraining tasks."""

    def pretrain(suite: ImageSuite, data: Path, seed: int, progress: Tick | None) -> Backbone:
        return pretrain_small_cnn(
            suite.tasks("pretraining"),
            suite.classes,
            suite.image_size,
            PretrainConfig(epochs, 64, seed=seed),
            neck=neck,
            name=f"small-cnn-{suite.name}",
            progress=progress,
        ).backbone

    return pretrain


def _subsets_backbone(suite: ImageSuite, data: Path, seed: int, progress: Tick | None) -> Backbone:
    """A small network of ten classes, its embedding and classifier retrained to separate vehicles from animals."""
    config = class_subsets.ClassSubsetsConfig(seed)
    task, names = class_subsets.ten_classes(data / class_subsets.FILE, config)
    length = PretrainConfig(12, seed=seed)
    made = pretrain_small_cnn([task], names, suite.image_size, length, neck=32, mirror=True, progress=progress)
    return retrain_neck(
        made.backbone,
        suite.tasks("pretraining"),
        suite.classes,
        neck=4,
        epochs=2,
        seed=seed,
        name=f"small-cnn-{suite.name}",
    ).backbone


def _sites(data: Path, folder: Path, seed: int) -> ImageSuite:
    table = folder / "sites" / "sites.csv"
    if not (table.parent / "meta.json").is_file():
        config = photo_sites.SitesConfig(80, 20, seed, train=100, validation=24, test=100, unlabelled=24)
        photo_sites.write_sites(data / PACS, data / LABEL_TABLE, table.parent, config)
    # A site's style is to be found in its images: as metadata it would be given away.
    return TableSuite.from_csv(
        table, image_size=PACS_SIZE, root=data / PACS, classes=photo_sites.CLASSES, ignore=("domain",)
    )


def _sites_backbone(suite: ImageSuite, data: Path, seed: int, progress: Tick | None) -> Backbone:
    """EfficientNet-Lite0 with ImageNet weights and a classifier fitted to the pretraining tasks."""
    backbone = efficientnet_lite0(suite.classes, 0, image_size=suite.image_size, rank=4)
    return fit_head(backbone, suite.tasks("pretraining"), seed)


def _savanna(**options: Any) -> OpenSuite:
    def make(data: Path, folder: Path, seed: int) -> ImageSuite:
        return SavannaSuite(SavannaConfig(**{"seed": seed, **SAVANNA_SIZES, **options}))

    return make


def _extrapolation(data: Path, folder: Path, seed: int) -> ImageSuite:
    """Savanna with every task of one habitat unseen: the habitat whose share is nearest to a sixth."""
    suite = SavannaSuite(SavannaConfig(**{"seed": seed, **SAVANNA_SIZES}))
    groups = task_groups(suite.tasks("seen"), suite.metadata_schema, "habitat")
    wanted = len(suite.tasks("seen")) / 6
    group = min(groups, key=lambda entry: abs(len(entry.tasks) - wanted))
    return divided(suite, "savanna-extrapolation", group.tasks)


def _distracted(make: OpenSuite) -> OpenSuite:
    return lambda data, folder, seed: with_distractors(make(data, folder, seed), seed=seed)


def _bundled(suite: ImageSuite, data: Path, seed: int, progress: Tick | None) -> Backbone:
    return load_backbone("savanna-cnn")


def _savanna_cnn(suite: ImageSuite, data: Path, seed: int, progress: Tick | None) -> Backbone:
    """The bundled architecture trained on the variant's own pretraining locations."""
    tasks = suite.tasks("pretraining")
    return pretrain_savanna_cnn(tasks, suite.classes, suite.image_size, progress=progress).backbone


def _savanna_variant(variant: Variant) -> Benchmark:
    name = f"savanna-{folder_name(variant.name)}"
    pretrain = _savanna_cnn if variant.pretrained else _bundled
    return Benchmark(name, _savanna(**variant.options), SAVANNA, pretrain)


BENCHMARKS = (
    Benchmark("rotated-digits", _digits, None, _small_cnn(10, 12)),
    Benchmark("rotated-digits-ambiguous", _ambiguous_digits, None, _small_cnn(10, 12)),
    Benchmark("handwriting", _handwriting, None, _small_cnn(8, 12), (handwriting.FILE,)),
    Benchmark("pacs", _sites, None, _sites_backbone, (PACS, LABEL_TABLE)),
    Benchmark("class-subsets", _subsets, None, _subsets_backbone, (class_subsets.FILE,)),
    Benchmark("class-subsets-strict", _strict_subsets, None, _subsets_backbone, (class_subsets.FILE,)),
    Benchmark("scanners", _scanners, None, _small_cnn(20, 4), (scanners.FILE,)),
    *(_savanna_variant(variant) for variant in VARIANTS),
    Benchmark("savanna-extrapolation", _extrapolation, SAVANNA, _bundled),
    Benchmark("rotated-digits-distractors", _distracted(_digits), None, _small_cnn(10, 12)),
    Benchmark("savanna-distractors", _distracted(_savanna()), SAVANNA, _bundled),
)
"""The panel, in the order of its page."""


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name; raises :class:`DataError` where there is none."""
    for benchmark in BENCHMARKS:
        if benchmark.name == name:
            return benchmark
    raise DataError(
        f"There is no benchmark {name!r}; there are {', '.join(benchmark.name for benchmark in BENCHMARKS)}."
    )


def open_benchmark(
    benchmark: str | Benchmark,
    data: Path | str | None,
    folder: Path | str,
    seed: int = 0,
    *,
    progress: Tick | None = None,
) -> OpenBenchmark:
    """A benchmark's suite, backbone and recipe; the backbone is pretrained where the folder does not have it yet.

    Args:
        benchmark: of the panel, or its name.
        data: folder with the data sets; None where the benchmark reads none.
        folder: of the benchmark; the backbone goes to ``backbone`` in it.
        seed: of the suite and of the pretraining.
        progress: called with (pretraining steps done, in all).

    Raises:
        DataError: no such benchmark, or its data are not there.
        ArtifactError: the backbone in the folder cannot be read.
    """
    benchmark = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    folder, data = Path(folder), None if data is None else Path(data)
    missing = benchmark.missing(data)
    if missing is not None:
        raise DataError(f"The benchmark {benchmark.name} reads {missing}, which the data folder {data} does not have.")
    suite = benchmark.suite(data or Path("."), folder, seed)
    path = folder / "backbone"
    if not path.is_dir():
        save_backbone(benchmark.pretrain(suite, data or Path("."), seed, progress), path)
    return OpenBenchmark(suite, load_backbone(path), benchmark.finetune)
