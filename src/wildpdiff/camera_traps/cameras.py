"""The cameras of a table: their pictures by split, what they can teach, their groups, and the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wildpdiff.camera_traps.camera_groups import drawn_groups, stated_groups
from wildpdiff.camera_traps.crops import Cropping
from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.picture_files import PictureFile, fault_words, identical, some
from wildpdiff.camera_traps.placement import PlacedPicture, Placement, place, teaching_fault
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.suite_options import TableOptions
from wildpdiff.camera_traps.task_names import same_name, task_names
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import SPLITS, Group

MOST_SHOWN = 5
"""Names in one remark."""


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: safe in file names.
        title: the camera's own name, as written.
        placement: its pictures.
        group: None where nothing can be learned from it or measured on it.
        fault: why that is so, as the end of a sentence; empty where it is not.
        untuned: whether it is meant to be unseen and has test pictures, though nothing can be fine-tuned on it.
    """

    name: str
    title: str
    placement: Placement
    group: Group | None
    fault: str
    untuned: bool = False


@dataclass(frozen=True)
class Cameras:
    """The cameras of a suite, in the order of their titles, with the classes and remarks of one sentence each."""

    cameras: tuple[Camera, ...]
    classes: tuple[str, ...]
    remarks: tuple[str, ...]
    strangers: tuple[str, ...]


def camera_values(table: PictureTable) -> dict[str, dict[str, str]]:
    """The metadata of each camera: the source's own, and columns that have one value at all pictures of the camera."""
    found: dict[str, dict[str, set[str]]] = {}
    for picture in table.pictures:
        own = found.setdefault(picture.camera, {})
        for column, value in picture.values.items():
            own.setdefault(column, set()).add(value)
    return {
        camera: {column: values.pop() for column, values in found.get(camera, {}).items() if len(values) == 1}
        | dict(table.cameras.get(camera, {}))
        for camera in {**table.cameras, **found}
    }


def pictures_by_camera(table: PictureTable) -> dict[str, list[Picture]]:
    """The pictures of each camera, also of those that have none; pictures without a camera are left out.

    Where nothing names a camera, as in a detector's file, each folder of pictures is one.
    """
    found: dict[str, list[Picture]] = {camera: [] for camera in table.cameras if camera.strip()}
    named = names_cameras(table)
    for picture in table.pictures:
        camera = picture.camera.strip() if named else picture.path.rpartition("/")[0] or table.root.resolve().name
        if camera:
            found.setdefault(camera, []).append(picture)
    return {camera: found[camera] for camera in sorted(found)}


def names_cameras(table: PictureTable) -> bool:
    """Whether a table names any camera."""
    return bool(table.cameras) or any(picture.camera.strip() for picture in table.pictures)


def cameras_of(
    table: PictureTable,
    by_camera: Mapping[str, Sequence[Picture]],
    cropping: Cropping,
    *,
    files: Mapping[str, PictureFile],
    options: TableOptions,
) -> Cameras:
    """The cameras of a table.

    Args:
        table: as read.
        by_camera: its pictures by camera.
        cropping: the examples in a picture.
        files: of the pictures; those with a fault are left out, after splits were drawn.
        options: of the suite.

    Raises:
        DataError: a split, a group, or a label of what is learned from is unknown; the message names file and line.
    """
    root = table.root if options.root is None else Path(options.root)
    placed = _placements(table, by_camera, cropping, files=files, root=root, options=options)
    faults = {camera: teaching_fault(placement, options.minimum) for camera, placement in placed.items()}
    names = task_names(placed)
    meant, remarks = _groups(table, by_camera, faults, names=names, options=options)
    groups = {camera: _possible(meant[camera], faults[camera], placed[camera]) for camera in placed}
    classes = options.classes or (options.trained and _learned_labels(placed, groups)) or _all_labels(placed)
    if options.classes is not None and options.learning:
        _check_labels(table, placed, groups, classes)
    known = {camera: _of_classes(placement, frozenset(classes)) for camera, placement in placed.items()}
    cameras = []
    for camera, placement in known.items():
        fault = teaching_fault(placement, options.minimum)
        if not placement.labelled() and placed[camera].labelled():
            fault = "other species only"
        group = _possible(groups[camera], fault, placement)
        untuned = group is None and meant[camera] == "unseen" and any(map(_is_test, placement.pictures))
        cameras.append(Camera(names[camera], camera, placement, group, fault, untuned))
    remarks = [
        *_of_pictures(table, by_camera, placed),
        *remarks,
        *_of_cameras(cameras),
    ]
    return Cameras(tuple(cameras), tuple(classes), tuple(remarks), _strangers(placed, classes, options))


def _placements(
    table: PictureTable,
    by_camera: Mapping[str, Sequence[Picture]],
    cropping: Cropping,
    *,
    files: Mapping[str, PictureFile],
    root: Path,
    options: TableOptions,
) -> dict[str, Placement]:
    found = {}
    for camera, pictures in by_camera.items():
        alike = identical(root, {picture.path: files[picture.path] for picture in pictures if not picture.split})
        try:
            placement = place(camera, pictures, cropping, alike, by_time=options.by_time)
        except DataError as error:
            raise DataError(f"{table.source}, {error}") from None
        readable = tuple(entry for entry in placement.pictures if not files[entry.path].fault)
        found[camera] = replace(placement, pictures=readable)
    return found


def _groups(
    table: PictureTable,
    by_camera: Mapping[str, Sequence[Picture]],
    faults: Mapping[str, str],
    *,
    names: Mapping[str, str],
    options: TableOptions,
) -> tuple[dict[str, Group], list[str]]:
    """The group of each camera, stated or drawn, whether or not it can have a part in it."""
    try:
        stated = stated_groups(by_camera)
    except DataError as error:
        raise DataError(f"{table.source}, {error}") from None
    teaching = [camera for camera in by_camera if not faults[camera]]
    if not stated:
        unseen = options.unseen
        if unseen is not None and not isinstance(unseen, int | float):
            own = {name: camera for camera, name in names.items()}
            alike = [next((camera for camera in names if same_name(camera, name)), name) for name in unseen]
            unseen = [own.get(name, name) for name in alike]
        try:
            groups = drawn_groups(by_camera, teaching, unseen, options.seed)
        except DataError as error:
            raise DataError(f"{table.source}: {error}") from None
        held = [camera for camera in teaching if groups[camera] == "unseen"]
        remark = f"Kept unseen, to measure on: {len(held)} of {len(teaching)} cameras ({some(held)})"
        return groups, [f"{remark}; -o unseen=0 learns from all."] if held and unseen is None else []
    if options.unseen is not None:
        raise DataError(f"{table.source} has a column 'group', and unseen cameras are given as well; give only one.")
    open_ = [camera for camera in teaching if camera not in stated]
    seen = f"{_cameras(len(open_))} without a group {'is' if len(open_) == 1 else 'are'} taken as seen: {some(open_)}."
    return {camera: stated.get(camera, "seen") for camera in by_camera}, [seen] if open_ else []


def _possible(group: Group | None, fault: str, placement: Placement) -> Group | None:
    """The group that a camera is meant for where it can have a part in it: pretraining takes any training picture."""
    if group == "pretraining":
        return group if any(entry.label for entry in placement.of("train")) else None
    return None if fault else group


def _is_test(entry: PlacedPicture) -> bool:
    return bool(entry.label) and entry.split == "test"


def _learned_labels(placed: Mapping[str, Placement], groups: Mapping[str, Group | None]) -> tuple[str, ...]:
    return _labels(
        entry.label
        for camera, placement in placed.items()
        if groups[camera] in ("seen", "pretraining")
        for entry in placement.of("train")
    )


def _all_labels(placed: Mapping[str, Placement]) -> tuple[str, ...]:
    return _labels(entry.label for placement in placed.values() for entry in placement.pictures)


def _labels(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({label for label in labels if label}))


def _check_labels(
    table: PictureTable,
    placed: Mapping[str, Placement],
    groups: Mapping[str, Group | None],
    classes: Sequence[str],
) -> None:
    """Refuse labels that the model has not in training pictures; others are left out, as a pretraining leaves them."""
    for camera, placement in placed.items():
        for entry in placement.labelled() if groups[camera] in ("seen", "pretraining") else ():
            if entry.split == "train" and entry.label not in classes:
                raise DataError(
                    f"{table.source}, line {entry.picture.line}: the label {entry.label!r} is unknown; the classes are "
                    f"{', '.join(classes)}. Correct the label, or give a backbone that has the class by --backbone."
                )


def _of_classes(placement: Placement, classes: frozenset[str]) -> Placement:
    kept = tuple(entry for entry in placement.pictures if not entry.label or entry.label in classes)
    return replace(placement, pictures=kept)


def _of_pictures(
    table: PictureTable, by_camera: Mapping[str, Sequence[Picture]], placed: Mapping[str, Placement]
) -> list[str]:
    """Remarks on cameras without a name, pictures without one class or a time, and stated splits that cut bursts."""
    several = sum(placement.several for placement in placed.values())
    cut = [camera for camera, placement in placed.items() if placement.cut]
    lost = [
        picture
        for camera, pictures in by_camera.items()
        for picture in pictures
        if picture.split in SPLITS and not picture.labels
    ]
    found = (
        []
        if names_cameras(table)
        else [
            f"Nothing names the cameras: each folder is one ({some(list(by_camera))}). --columns task=COLUMN "
            "names them, or a joined table."
        ]
    )
    found += _alike(by_camera)
    if several:
        found.append(f"{several} pictures of several species are left out.")
    if lost:
        found.append(
            f"{len(lost)} pictures of a split for learning or testing have no label and are taken as unlabelled, first "
            f"{lost[0].path}."
        )
    if undated := [camera for camera, placement in placed.items() if placement.undated]:
        found.append(
            f"{_cameras(len(undated))} with pictures without a time ({some(undated)}): splits are not in the order of "
            "time there."
        )
    loose = [
        camera
        for camera, placement in placed.items()
        if any(row.drawn and row.picture.time is None and not row.picture.sequence for row in placement.labelled())
    ]
    if loose:
        found.append(
            f"{_cameras(len(loose))} with pictures without a time or sequence ({some(loose)}): frames of one event may "
            "be in training and test there, and scores on them too good. --columns datetime=COLUMN or sequence=COLUMN "
            "keeps each event together."
        )
    if cut:
        bursts = sum(placement.cut for placement in placed.values())
        found.append(
            f"The stated splits cut {bursts} bursts (pictures less than a minute apart, or of one sequence) at "
            f"{_cameras(len(cut))} ({some(cut)}): what is measured on these pictures is too good."
        )
    return found


def _alike(by_camera: Mapping[str, Sequence[Picture]]) -> list[str]:
    """Remarks on pictures of several cameras, and on cameras whose names are spellings of one."""
    owners: dict[str, dict[str, None]] = {}
    spellings: dict[str, list[str]] = {}
    for camera, pictures in by_camera.items():
        spellings.setdefault(spelling_key(camera), []).append(camera)
        for picture in pictures:
            owners.setdefault(picture.path, {})[camera] = None
    shared = {path: some(list(cameras)) for path, cameras in owners.items() if len(cameras) > 1}
    variants = [some(names) for names in spellings.values() if len(names) > 1]
    remarks = []
    if shared:
        path, cameras = next(iter(shared.items()))
        remarks.append(
            f"{len(shared)} pictures are listed at several cameras, first {path} ({cameras}): what one learns from may "
            "be another's test."
        )
    if variants:
        remarks.append(f"Cameras whose names are spelled nearly alike stand apart: {'; '.join(variants[:MOST_SHOWN])}.")
    return remarks


def _strangers(placed: Mapping[str, Placement], classes: Sequence[str], options: TableOptions) -> tuple[str, ...]:
    """A remark on the labelled pictures of no class."""
    found = (entry.label for placement in placed.values() for entry in placement.labelled())
    counts = Counter(label for label in found if label not in classes)
    if not counts:
        return ()
    order = sorted(counts, key=lambda label: (-counts[label], label))
    names = some([f"{label} {counts[label]}" for label in order], MOST_SHOWN)
    what = (
        "pictures of species that nothing is trained on are" if options.learning else "labels that the model lacks are"
    )
    return (f"{counts.total()} {what} left out: {names}.",)


def _of_cameras(cameras: Sequence[Camera]) -> list[str]:
    """A remark on the cameras that are in no group, by reason."""
    out = {camera.title: camera.fault for camera in cameras if camera.group is None}
    if not out:
        return []
    do, they = ("does", "It gets an adapter") if len(out) == 1 else ("do", "They get adapters")
    words = fault_words(out)
    found = [f"{len(out)} of {_cameras(len(cameras))} {do} not teach: {words}. {they} all the same, by --task."]
    if untuned := [camera.title for camera in cameras if camera.untuned]:
        found.append(
            f"Unseen, and measured on without a fine-tuned adapter next to it: {_cameras(len(untuned))} "
            f"({some(untuned)})."
        )
    return found


def _cameras(count: int) -> str:
    return f"{count} camera" if count == 1 else f"{count} cameras"
