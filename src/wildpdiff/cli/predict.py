"""``wildpdiff predict``: classification of images by an adapter, or of all cameras of a table by a generator."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli import options
from wildpdiff.cli.delivery import Deliveries, backbone_of, delivered
from wildpdiff.cli.folders import check_output_file
from wildpdiff.cli.generate import MinTrustOption, least_trust, trust_of
from wildpdiff.cli.predict_texts import TextOutput, are_texts, predict_tasks, predict_texts
from wildpdiff.cli.prediction_output import Format, PredictionOutput, ZoneOption, format_of, parse_zone
from wildpdiff.cli.terminal import Stages, print_json, remark, show
from wildpdiff.disk import visible
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.registry import package_version

if TYPE_CHECKING:
    from rich.table import Table

    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.camera_traps.answers import Answer, Classifier
    from wildpdiff.camera_traps.records import Picture, PictureTable
    from wildpdiff.camera_traps.table_suite import TableSuite
    from wildpdiff.prediction import Rules

FEW = 10
"""Images below which each has to be readable; of more, as many may fail as of a suite's pictures."""

MOST_ROWS = 40
"""Cameras in the table on the terminal."""


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="ADAPTER|GENERATOR", help="Folder of an adapter; or of a generator, with --suite.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Images, folders of them, or files of texts; of an adapter."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Tables or files of cameras or other tasks, each with an adapter of its own; joined."),
    ] = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this camera or task of the suite; repeatable.")] = None,
    boxes: options.BoxesOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Output: file .csv or .json, or folder of a package; default: stdout.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Format of the output; default: by the suffix of --out.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes per file or text in CSV, the most probable first.")] = 1,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="One answer for all frames of a burst (sequence, or less than 60 s apart).")
    ] = False,
    species: Annotated[
        str | None, typer.Option(metavar="FILE|COLUMN", help="Species that occur: table (camera,species), or column.")
    ] = None,
    taxonomy: Annotated[
        Path | None, typer.Option(help="Table of classes and their taxa: answers below --threshold are taxa.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Least probability of an answer.")] = None,
    zone: ZoneOption = None,
    min_trust: MinTrustOption = None,
    seed: options.SeedOption = 0,
    backbone: options.AdapterBackboneOption = None,
    clip: options.ClipOption = None,
    skip_unreadable: options.SkipOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Classify images or texts: CSV, MegaDetector JSON (for Timelapse and AddaxAI), or Camtrap DP observations.

    A file name that a spreadsheet would run as a formula gets ./ in front, a class name an apostrophe; --json has both
    as they are.
    """
    wanted = _Wanted(PredictionOutput(out, format_of(out, form), top, parse_zone(zone)), smooth, species, taxonomy,
                     threshold, as_json)  # fmt: skip
    if out is not None and not wanted.output.is_package:
        check_output_file(out)
    if (model / "manifest.json").is_file() and not (model / "adapter_config.json").is_file():
        if not suite or images or boxes:
            raise DataError(
                f"{model} is a generator, which makes an adapter for each task. Give their table by --suite (and a "
                "detector's file by another one), and no other files."
            )
        least = least_trust(min_trust)
        generator = options.open_generator(model, backbone, clip)
        deliveries = Deliveries(generator, trust_of(model, generator, wanted=min_trust), least, seed)
        read, pairs = options.files_of(options.suite_inputs(suite)), options.with_columns(option, columns)
        if options.is_texts(suite, pairs):
            wanted.plain("texts")
            predict_tasks(
                deliveries,
                options.open_suite(suite, pairs, generator.backbone, learning=False),
                task,
                wanted.texts(read),
            )
            return
        _predict_suite(deliveries, _suite(suite, pairs, generator.backbone), task, wanted, read=read)
        return
    if not model.exists():
        raise ArtifactError(f"There is no {model}. Name the folder of an adapter or a generator.")
    named = options.named_columns(columns)
    texts = are_texts(images or [], named)
    if suite or option or task or min_trust is not None or (columns and not texts):
        raise DataError("--suite and its options are for a generator; an adapter is for one task. Give files of it.")
    if images and texts:
        wanted.plain("texts")
        predict_texts(model, backbone, images, named, wanted.texts(images))
        return
    _predict_images(model, backbone, images or [], boxes=boxes, skip=skip_unreadable, wanted=wanted)


@dataclass(frozen=True)
class _Wanted:
    """The output, and the rules between a model and it, as they were typed."""

    output: PredictionOutput
    smooth: bool
    species: str | None
    taxonomy: Path | None
    threshold: float | None
    as_json: bool

    @property
    def read(self) -> list[Path]:
        """The files that the rules are in."""
        return [Path(entry) for entry in (self.species, self.taxonomy) if entry is not None]

    def rules(self, classes: Sequence[str], cameras: Mapping[str, Mapping[str, str]]) -> Rules:
        """The rules for a model's classes; raises :class:`DataError` for a file that names none of them.

        Args:
            cameras: metadata by camera.
        """
        from wildpdiff.camera_traps.picture_files import some
        from wildpdiff.camera_traps.species_lists import SpeciesLists, read_species_lists
        from wildpdiff.camera_traps.taxonomy import THRESHOLD, Taxonomy, read_taxonomy
        from wildpdiff.prediction import Rules

        if not classes:
            raise DataError("The model's outputs are no classes, and images are only classified. Run the model itself.")
        if not 1 <= self.output.top <= len(classes):
            top = self.output.top
            raise DataError(f"The {top} most probable classes are not among {len(classes)}. Give 1 to that many.")
        taxa = Taxonomy(tuple(classes)) if self.taxonomy is None else read_taxonomy(self.taxonomy, classes)
        least = self.threshold if self.threshold is not None else 0.0 if self.taxonomy is None else THRESHOLD
        lists = None
        if self.species is not None:
            path = Path(self.species)
            lists = (
                read_species_lists(path, cameras) if path.exists() else SpeciesLists.of_column(self.species, cameras)
            )
            if unknown := lists.unknown(classes):
                more = f", … ({len(unknown)} names)" if len(unknown) > 5 else ""
                remark(f"Listed species that the model does not know: {', '.join(unknown[:5])}{more}.")
            if unlisted := lists.without(cameras):
                remark(f"Cameras without a list of species, where every class is possible: {some(unlisted)}.")
        return Rules(taxa, lists, self.smooth, least)

    def plain(self, what: str) -> None:
        """Refuse the rules and formats of pictures; raises :class:`DataError`."""
        given = {"--smooth": self.smooth, "--species": self.species, "--taxonomy": self.taxonomy,
                 "--threshold": self.threshold, "--format": self.output.form != "csv"}  # fmt: skip
        odd = next((name for name, value in given.items() if value), None)
        if odd is not None:
            raise DataError(f"{odd} is of pictures; the classes of {what} are written as a CSV table. Leave it out.")

    def texts(self, read: Sequence[Path]) -> TextOutput:
        """The output of classes of texts; raises :class:`DataError` where it is a file that is read."""
        if self.output.out is not None and self.output.out.resolve() in [path.resolve() for path in read]:
            raise DataError(f"--out is {self.output.out}, which is read. Choose another file.")
        return TextOutput(self.output.out, self.output.top, self.as_json)

    def classifier(self, rules: Rules, identity: str) -> Classifier:
        """The program's name in the output."""
        from wildpdiff.camera_traps.answers import ANIMAL, Classifier

        taxa = dict.fromkeys(name for rank in rules.taxonomy.ranks for name in rank if name)
        above = (*taxa, ANIMAL) if rules.threshold else ()
        now = datetime.now(UTC).replace(microsecond=0)
        return Classifier(rules.taxonomy.classes, package_version(), identity, now, above, rules.taxonomy.scientific)


@dataclass
class _Tally:
    """Counts of what was answered, while answers go by."""

    keep: bool = False
    total: int = 0
    failures: list[str] = field(default_factory=list)
    kept: list[Answer] = field(default_factory=list)
    by_camera: dict[str, list[Any]] = field(default_factory=dict)

    def of(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        for answer in answers:
            self.total += 1
            camera = self.by_camera.setdefault(answer.picture.camera, [answer.source, answer.trust, Counter(), 0])
            if answer.failure:
                self.failures.append(answer.failure)
                camera[3] += 1
            else:
                camera[2][answer.label] += 1
            if self.keep:
                self.kept.append(answer)
            yield answer

    def check(self) -> None:
        """Refuse an output without any prediction; raises :class:`DataError`."""
        if len(self.failures) == self.total:
            raise DataError(f"None of the {self.total} images could be read. Give at least one readable image.")


def _checked(tally: _Tally, answers: Iterable[Answer]) -> Iterator[Answer]:
    """The answers, refused at their end where no picture could be read: nothing is written then."""
    yield from tally.of(answers)
    tally.check()


# An adapter and images -----------------------------------------------------------------------------------------------


def _predict_images(
    folder: Path, backbone: str | None, images: list[Path], *, boxes: Path | None, skip: bool, wanted: _Wanted
) -> None:
    """Classify image files by one adapter."""
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.camera_traps.picture_files import Unreadable
    from wildpdiff.disk import file_hash
    from wildpdiff.prediction import camera_answers, find_images

    if not images:
        raise DataError("There are no images. Name files or folders after the adapter.")
    files = find_images(images)
    table = _plain_table(files, images)
    wanted.output.check(table, [*files, *wanted.read, *([] if boxes is None else [boxes])])
    adapter = Adapter.load(folder)
    camera = str(adapter.provenance.get("task") or "")
    table = replace(table, pictures=tuple(replace(picture, camera=camera) for picture in table.pictures))
    if boxes is not None:
        table = _with_boxes(table, boxes)
    model = backbone_of(adapter, backbone)
    rules = wanted.rules(model.classes, {})
    classifier = wanted.classifier(rules, file_hash(folder / "adapter_model.safetensors"))
    tally, given = _Tally(), delivered(adapter)
    most = None if skip else 0 if len(files) < FEW else Unreadable(len(files)).most
    with Stages() as stages:
        tick = stages(f"classify {len(files)} images")
        how: dict[str, Any] = {"rules": rules, "threshold": table.threshold, "most": most, "progress": tick}
        answers = camera_answers(given, model, table.pictures, table.root, **how)
        shown = [replace(entry, picture=_as_given(entry.picture, table.root)) for entry in answers]
        text = wanted.output.write(
            _checked(tally, shown if wanted.output.form == "csv" else answers), classifier, table
        )
    for failure in tally.failures:
        remark(f"Skipped: {failure}")
    if wanted.as_json:
        print_json([row for entry in shown for row in _rows(entry, classifier, wanted.output.top)])
    elif wanted.output.out is None:
        sys.stdout.write(visible(text))
    else:
        count = tally.total - len(tally.failures)
        remark(wanted.output.done(count * (wanted.output.top if wanted.output.form == "csv" else 1), table.root))


def _plain_table(files: Sequence[Path], given: Sequence[Path]) -> PictureTable:
    """Image files as a table; paths are relative to the folder that was given, or to the one above all files."""
    from wildpdiff.camera_traps.exposure import with_times
    from wildpdiff.camera_traps.records import Picture, PictureTable

    if any(".." in file.parts for file in files):  # which no program below the folder would follow
        files, given = ([Path(os.path.abspath(path)) for path in paths] for paths in (files, given))
    root = given[0] if len(given) == 1 and given[0].is_dir() else Path()
    if root == Path() and len({file.is_absolute() for file in files}) == 1:
        root = Path(os.path.commonpath([file.parent for file in files]))
    paths = [(file.relative_to(root) if file.is_relative_to(root) else file).as_posix() for file in files]
    pictures = [Picture(path, number) for number, path in enumerate(dict.fromkeys(paths), 1)]
    return PictureTable(root, "images", root, tuple(with_times(pictures, root)))


def _with_boxes(table: PictureTable, boxes: Path) -> PictureTable:
    """The images with their detections; all of them stand, in their order."""
    from wildpdiff.camera_traps.formats import read_pictures
    from wildpdiff.camera_traps.joining import join

    joined = join([table, read_pictures(boxes)])
    for sentence in joined.remarks:
        remark(sentence)
    known = {picture.path: picture for picture in joined.pictures}
    return replace(joined, pictures=tuple(known.get(picture.path, picture) for picture in table.pictures))


def _as_given(picture: Picture, root: Path) -> Picture:
    return replace(picture, path=str(root / picture.path))


def _rows(answer: Answer, classifier: Classifier, top: int) -> list[dict[str, Any]]:
    picture = answer.picture
    if answer.failure:
        return []
    found = [(answer.label, answer.probability)] if top == 1 else answer.ranked(classifier, top)
    about = {
        "camera": picture.camera,
        "time": None if picture.time is None else picture.time.isoformat(),
        "model": answer.source,
        "trust": answer.trust,
    }
    return [{"file": picture.path, "class": name, "probability": value, **about} for name, value in found]


# A generator and cameras ---------------------------------------------------------------------------------------------


def _suite(suite: list[str], option: list[str], backbone: Backbone) -> TableSuite:
    from wildpdiff.camera_traps.table_suite import TableSuite

    opened = options.open_suite(suite, option, backbone, learning=False)
    if not isinstance(opened, TableSuite):
        raise DataError(f"{opened.name} has no picture files. Export it by `wildpdiff suite export`, or name a table.")
    opened.notify = lambda sentence: None  # all that fail are listed at the end
    return opened


def _predict_suite(
    deliveries: Deliveries, suite: TableSuite, names: list[str] | None, wanted: _Wanted, *, read: list[Path]
) -> None:
    """Classify all pictures of a table, each camera's by its own adapter."""
    from wildpdiff.camera_traps.cameras import camera_values, pictures_by_camera
    from wildpdiff.prediction import camera_answers
    from wildpdiff.report.wording import count
    from wildpdiff.tasks.picture_cache import PictureCache

    backbone = deliveries.generator.backbone
    chosen: Any = suite.all_tasks if not names else dict.fromkeys(options.find_task(suite, name) for name in names)
    of_camera = pictures_by_camera(suite.table)
    pictures = {task.title: [replace(p, camera=task.title) for p in of_camera.get(task.title, ())] for task in chosen}
    table = replace(suite.table, root=suite.root, pictures=tuple(p for found in pictures.values() for p in found))
    wanted.output.check(table, [*read, *wanted.read, *(suite.root / picture.path for picture in table.pictures)])
    values = camera_values(table)
    rules = wanted.rules(backbone.classes, {camera: values.get(camera, {}) for camera in pictures})
    classifier = wanted.classifier(rules, deliveries.generator.fingerprint)
    tally, cache = _Tally(wanted.as_json), PictureCache.of_user()
    with Stages() as stages:
        tick = stages(f"classify {len(table.pictures)} images, {count(len(chosen), 'camera')}")

        def answers() -> Iterator[Answer]:
            done = 0
            for task in chosen:
                own = pictures[task.title]
                if own:
                    shown = {label for picture in own for label in suite.labels.of(picture.labels)}
                    past = lambda some, _, done=done: tick(done + some, len(table.pictures))  # noqa: E731
                    given: dict[str, Any] = {
                        "shown": shown,
                        "cache": cache,
                        "progress": past,
                        "threshold": table.threshold,
                    }
                    yield from camera_answers(deliveries.deliver(task), backbone, own, suite.root, rules=rules, **given)
                done += len(own)

        text = wanted.output.write(_checked(tally, answers()), classifier, table)
    for failure in tally.failures[:5]:
        remark(f"Skipped: {failure}")
    if len(tally.failures) > 5:
        remark(f"Skipped: {len(tally.failures)} pictures in all.")
    if wanted.as_json:
        rows = [row for entry in tally.kept for row in _rows(entry, classifier, wanted.output.top)]
        print_json({"cameras": _by_camera(tally), "predictions": rows, "out": wanted.output.out})
    elif wanted.output.out is None:
        sys.stdout.write(visible(text))
    else:
        show(_summary(tally))
        show(wanted.output.done(tally.total - len(tally.failures), table.root))
        checked = deliveries.generator.cross_validation
        if checked is not None and checked.unchanging:
            show(checked.unchanging)
        if deliveries.trust is None:
            show(
                "The generator has no trust: whether its adapters help is not known. Label some pictures of a camera, "
                "and score its adapter by wildpdiff check."
            )


def _by_camera(tally: _Tally) -> list[dict[str, Any]]:
    return [
        {
            "camera": camera,
            "model": source,
            "trust": trust,
            "answers": dict(answers.most_common()),
            "unreadable": failed,
        }
        for camera, (source, trust, answers, failed) in tally.by_camera.items()
    ]


def _summary(tally: _Tally) -> Table:
    """Each camera with its model, its trust and its most frequent answers."""
    from rich.text import Text

    from wildpdiff.report.terminal import plain_table
    from wildpdiff.report.wording import count

    by = Counter(source for source, *_ in tally.by_camera.values())
    words = ", ".join(f"{number} by the {_WORDS[source]}" for source, number in by.items())
    table = plain_table(f"{count(len(tally.by_camera), 'camera')}: {words}", "camera", "images")
    table.add_column("model")
    table.add_column("trust", justify="right")
    table.add_column("most frequent answers")
    for camera, (source, trust, answers, failed) in list(tally.by_camera.items())[:MOST_ROWS]:
        most = ", ".join(f"{label} {count}" for label, count in answers.most_common(3))
        value = "–" if trust is None else f"{trust:.2f}"
        style = "yellow" if source == "pretrained" else "green"
        table.add_row(Text(camera), str(answers.total() + failed), Text(source, style), value, Text(most))
    if len(tally.by_camera) > MOST_ROWS:
        table.add_row(Text(f"… {len(tally.by_camera) - MOST_ROWS} more (--json)"))
    return table


_WORDS = {"generated": "generated adapter", "pretrained": "pretrained model", "adapter": "adapter"}
