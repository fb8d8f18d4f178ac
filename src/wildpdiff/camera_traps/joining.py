"""Several sources of the same pictures as one table: labels from one, boxes from another, metadata from a third."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wildpdiff.camera_traps.exposure import with_exposures
from wildpdiff.camera_traps.fields import is_video
from wildpdiff.camera_traps.folders import FolderReader
from wildpdiff.camera_traps.formats import find_reader
from wildpdiff.camera_traps.gathering import ZONES
from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.matching import Matches, match_paths
from wildpdiff.camera_traps.paths import below_cameras, on_disk, path_below, with_root
from wildpdiff.camera_traps.picture_files import some
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.tables.columns import name_key, stated_word
from wildpdiff.tables.delimited import read_header
from wildpdiff.tables.remarks import Remarks

_SAMPLE = 32
"""Matched pictures whose files are looked for below either root."""


def read_joined(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None, root: Path | None = None
) -> PictureTable:
    """The pictures of files and folders of any known formats, joined, with times in the files where none states any.

    Args:
        paths: at least one; see :func:`join` for their order.
        columns: names of columns by word. A table takes those that it has; one of them must have each.
        root: the folder that paths of pictures are relative to; by default that of each file's format.

    Raises:
        DataError: a file is at fault, no file has a column that was named, or the files have no picture in common.
    """
    stated = {stated_word(word): name for word, name in (columns or {}).items()}
    unused = dict(stated)
    tables = []
    for path in paths:
        reader = find_reader(path)
        keys = {name_key(name) for name in read_header(path)} if path.is_file() and len(paths) > 1 else None
        own = {word: name for word, name in stated.items() if keys is None or name_key(name) in keys}
        table = reader.read(path, own)
        if isinstance(reader, FolderReader):
            remarks = Remarks()
            for file in reader.known_files(path, paths):
                remarks.add(f"Files of known formats in {path} are not read; name them as inputs to join them", file)
            table = replace(table, remarks=(*table.remarks, *remarks.sentences()))
        tables.append(table if root is None else with_root(table, root))
        unused = {word: name for word, name in unused.items() if word not in own}
    if unused:
        word, name = next(iter(unused.items()))
        raise DataError(f"No table has a column {name!r} for the {word}; correct --columns.")
    return with_exposures(on_disk(join(tables)))


def join(tables: Sequence[PictureTable]) -> PictureTable:
    """One table of the pictures and cameras of several.

    Pictures are matched by their paths (:func:`~wildpdiff.camera_traps.matching.match_paths`). What two tables state
    of a picture or a camera is the first one's; a remark counts where labels, times or cameras differ. The first
    table's pictures all stand, those of others where they are matched or have a camera of their own; once any picture
    has a camera, those without are left out. Cameras of tables without pictures are matched by name, in any case and
    spelling.

    Raises:
        DataError: there are no tables, one has no picture or camera in common with those before it, or pictures of two
            cannot be distinguished.
    """
    if not tables:
        raise DataError("There are no tables of pictures to join. Give at least one.")
    tables = [below_cameras(_composed(_without_videos(table))) for table in tables]
    with_pictures = [table for table in tables if table.pictures]
    joined = with_pictures[0] if with_pictures else tables[0]
    for table in with_pictures[1:]:
        joined = _with_pictures(joined, table)
    joined = _of_one_clock(_placed(joined))
    for table in tables:
        if not table.pictures and table is not joined:
            joined = _with_cameras(joined, table)
    return joined


def _without_videos(table: PictureTable) -> PictureTable:
    """The table without rows of videos, which cameras keep among their pictures."""
    pictures = tuple(picture for picture in table.pictures if not is_video(picture.path))
    if len(pictures) == len(table.pictures):
        return table
    remarks = Remarks()
    for picture in table.pictures:
        if is_video(picture.path):
            remarks.add("Videos are left out", picture.path)
    return replace(table, pictures=pictures, remarks=(*table.remarks, *remarks.sentences()))


def _composed(table: PictureTable) -> PictureTable:
    """The table with the names of cameras in Unicode's composed form: a Mac writes folders in another one."""
    names = {name: unicodedata.normalize("NFC", name) for name in _cameras_of(table)}
    if all(name == old for old, name in names.items()):
        return table
    cameras: dict[str, Mapping[str, str]] = {}
    for old, values in table.cameras.items():
        cameras[names[old]] = {**values, **cameras.get(names[old], {})}
    pictures = (replace(p, camera=names.get(p.camera, p.camera)) for p in table.pictures)
    return replace(table, pictures=tuple(pictures), cameras=cameras)


def _with_pictures(table: PictureTable, other: PictureTable) -> PictureTable:
    """A table with what another one states of the same pictures, and with its own further pictures."""
    found = _matches(table, other)
    remarks = Remarks()
    other = _named_alike(other, _cameras_of(table), remarks)
    for pairs, kind in ((found.ends, "by the end of their path alone"), (found.cases, "regardless of case")):
        for path, own in pairs.items():
            remarks.add(f"Pictures of {other.source} are matched {kind}", f"{path} is {own}")
    moved = _lies_below_other(table, other, found.ends)
    by_path: dict[str, list[Picture]] = {}
    further = []
    for picture in other.pictures:
        if picture.path in found.pairs:
            by_path.setdefault(found.pairs[picture.path], []).append(picture)
        elif picture.camera:
            path = picture.path if moved else path_below(table.root, other.root, picture.path)
            further.append(replace(picture, path=path))
        else:
            remarks.add(f"Pictures of {other.source} that no other table has are left out", picture.path)
    if not found.pairs and not further:
        raise DataError(
            f"{other.source} and {table.source} have no picture in common (for example {other.pictures[0].path} and "
            f"{table.pictures[0].path}). Give files about the same pictures, with paths that end alike."
        )
    pictures = []
    for picture in table.pictures:
        again = by_path.get(picture.path)
        if again:
            best = next((entry for entry in again if entry.camera == picture.camera), again[0])
            picture = _merged(picture, best, remarks)
            picture = replace(picture, path=best.path) if moved else picture
        elif moved:
            picture = replace(picture, path=path_below(other.root, table.root, picture.path))
        pictures.append(picture)
    if missing := len(table.pictures) - sum(p.path in by_path for p in table.pictures):
        remarks.add(f"Pictures without a record in {other.source}", f"{missing:,} of {len(table.pictures):,}")
    return replace(
        table,
        format=_listed(table.format, other.format),
        root=other.root if moved else table.root,
        pictures=(*pictures, *further),
        cameras=_merged_cameras(table, other),
        columns=tuple(dict.fromkeys((*table.columns, *other.columns))),
        blanks=table.blanks | other.blanks,
        threshold=other.threshold if table.threshold is None else table.threshold,
        remarks=(*table.remarks, *other.remarks, *remarks.sentences()),
    )


def _matches(table: PictureTable, other: PictureTable) -> Matches:
    """The pictures that two tables share; raises :class:`DataError` where one may be several of the other's."""
    apart = _apart(table, other)
    own, others = [p.path for p in table.pictures], [p.path for p in other.pictures if p.path not in apart]
    of_table, of_other = ({p.path: p.camera for p in one.pictures if p.camera} for one in (table, other))
    found = match_paths(own, others, (of_table, of_other))
    pairs = {**{path: own for path, own in apart.items() if own}, **found.pairs}
    if found.ambiguous:
        path, several = next(iter(found.ambiguous.items()))
        raise DataError(
            f"{len(found.ambiguous):,} pictures of {other.source} and {table.source} cannot be distinguished, since "
            f"their cameras number pictures alike: {path} may be {some(several)}. Give paths with the same folders in "
            "both, name the column of folders (--columns folder=COLUMN), or name folders as the cameras."
        )
    return replace(found, pairs=pairs)


def _apart(table: PictureTable, other: PictureTable) -> dict[str, str]:
    """Paths of a table below another root whose files are not those of the same paths: the first table's, or none."""
    if table.root.resolve() == other.root.resolve():
        return {}
    own, found = {picture.path for picture in table.pictures}, {}
    for path in dict.fromkeys(picture.path for picture in other.pictures):
        below = path_below(table.root, other.root, path)
        if below != path and below in own:
            found[path] = below
        elif path in own and os.path.isfile(here := other.root / path) and os.path.isfile(there := table.root / path):
            found |= {} if os.path.samefile(here, there) else {path: ""}
    return found


def _listed(formats: str, more: str) -> str:
    return formats if more in formats.split(" + ") else f"{formats} + {more}"


def _lies_below_other(table: PictureTable, other: PictureTable, ends: Mapping[str, str]) -> bool:
    """Whether the files of pictures whose paths differ are where the other table has them."""
    sample = list(ends.items())[:: max(1, len(ends) // _SAMPLE)]
    own = sum(os.path.isfile(table.root / path) for _, path in sample)
    return sum(os.path.isfile(other.root / path) for path, _ in sample) > own


def _merged(first: Picture, second: Picture, remarks: Remarks) -> Picture:
    """A picture with what a second record of it adds."""
    for word, own, its in (
        ("labels", set(map(spelling_key, first.labels)), set(map(spelling_key, second.labels))),
        ("times", first.time, second.time),
        ("cameras", spelling_key(first.camera), spelling_key(second.camera)),
    ):
        if own and its and own != its:
            remarks.add(f"Pictures with two different {word} have the first table's", first.path)
    return first.completed(second)


def _placed(table: PictureTable) -> PictureTable:
    """The table without pictures of no camera, where others have one."""
    placed = tuple(picture for picture in table.pictures if picture.camera)
    if len(placed) in (0, len(table.pictures)):
        return table
    remarks = Remarks()
    for picture in table.pictures:
        if not picture.camera:
            remarks.add("Pictures without a camera are left out", picture.path)
    return replace(table, pictures=placed, remarks=(*table.remarks, *remarks.sentences()))


def _of_one_clock(table: PictureTable) -> PictureTable:
    """The table without zones where only some of its times have one: they could not be put in order."""
    zones = {picture.time.tzinfo is None for picture in table.pictures if picture.time is not None}
    if len(zones) < 2:
        return table
    pictures = (replace(entry, time=entry.time and entry.time.replace(tzinfo=None)) for entry in table.pictures)
    return replace(table, pictures=tuple(pictures), remarks=(*table.remarks, f"{ZONES}."))


def _with_cameras(table: PictureTable, other: PictureTable) -> PictureTable:
    """A table with the metadata of a table of cameras."""
    remarks = Remarks()
    names = _cameras_of(table)
    other = _by_deployment(_named_alike(other, names, remarks), table, remarks)
    if names and not other.cameras.keys() & names:
        raise DataError(
            f"{other.source} has none of the cameras of {table.source} (for example {next(iter(other.cameras))!r} and "
            f"{next(iter(names))!r}). Give the same names in both, or name the column with --columns task=…."
        )
    for name in names:
        if name not in other.cameras:
            remarks.add(f"Cameras without metadata in {other.source}", repr(name))
    cameras = _merged_cameras(table, other)
    return replace(table, cameras=cameras, remarks=(*table.remarks, *other.remarks, *remarks.sentences()))


def _by_deployment(other: PictureTable, table: PictureTable, remarks: Remarks) -> PictureTable:
    """A table of cameras whose names are those of another one's deployments, under the names of their cameras."""
    owners = {picture.deployment: picture.camera for picture in table.pictures if picture.deployment}
    if not other.cameras.keys() & owners.keys() or other.cameras.keys() & set(owners.values()):
        return other
    cameras: dict[str, dict[str, str]] = {}
    for name, values in other.cameras.items():
        own = cameras.setdefault(owners.get(name, name), {})
        own.update({column: value for column, value in values.items() if column not in own})
        remarks.add(
            f"Rows of {other.source} are matched by their deployment", f"{name!r} of {owners.get(name, name)!r}"
        )
    return replace(other, cameras=cameras)


def _cameras_of(table: PictureTable) -> dict[str, None]:
    """The names of a table's cameras, in its order."""
    return dict.fromkeys((*(picture.camera for picture in table.pictures if picture.camera), *table.cameras))


def _named_alike(table: PictureTable, known: Iterable[str], remarks: Remarks) -> PictureTable:
    """The table with the known spelling of each camera's name, where there is one."""
    keys = Counter(map(_camera_key, known))
    by_key = {key: name for name in known if keys[key := _camera_key(name)] == 1}
    names = {name: name if name in known else by_key.get(_camera_key(name), name) for name in _cameras_of(table)}
    if all(name == old for old, name in names.items()):
        return table
    for old, name in names.items():
        if name != old:
            remarks.add(f"Cameras of {table.source} are matched in another spelling", f"{old!r} is {name!r}")
    return replace(
        table,
        pictures=tuple(replace(p, camera=names[p.camera]) if p.camera else p for p in table.pictures),
        cameras={names[camera]: values for camera, values in table.cameras.items()},
    )


def _camera_key(name: str) -> str:
    """The same text for all spellings of a name, and of a number: programs write ``01`` as ``1`` or ``1.0``."""
    found = re.fullmatch(r"0*(\d+)(\.0+)?", name.strip())
    return found[1] if found else spelling_key(name)


def _merged_cameras(first: PictureTable, second: PictureTable) -> dict[str, Mapping[str, str]]:
    """Metadata of both tables' cameras; where both state a value, the first one's."""
    cameras = dict.fromkeys((*first.cameras, *second.cameras))
    return {name: {**second.cameras.get(name, {}), **first.cameras.get(name, {})} for name in cameras}
