"""CSV tables of predictions and of labelled pictures, which no spreadsheet takes for formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wildpdiff.camera_traps.answers import Answer, Classifier
from wildpdiff.camera_traps.records import PictureTable
from wildpdiff.tables.delimited import FORMULA

Write = Callable[[str], object]

ANSWERS = ("file", "class", "probability", "camera", "time", "sequence", "model", "trust", "classified_by",
           "classified_at")  # fmt: skip


def line(*cells: str) -> str:
    """A line of a CSV table (RFC 4180); the standard library leaves a bare carriage return unquoted."""
    quoted = ('"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text for text in cells)
    return ",".join(quoted) + "\n"


def plain(text: str) -> str:
    """A cell that is shown as it is: an apostrophe before what would run, which spreadsheets hide."""
    return f"'{text}" if text.startswith(FORMULA) else text


def value(text: str) -> str:
    """A cell that may be a number below zero; else as :func:`plain`."""
    try:
        float(text)
    except ValueError:
        return plain(text)
    return text


def plain_path(path: str) -> str:
    """A path that is shown as it is and still leads to the file."""
    return f"./{path}" if path.startswith(FORMULA) else path


def write_answers(write: Write, answers: Iterable[Answer], classifier: Classifier, top: int = 1) -> None:
    """One row for each of the ``top`` most probable names of a picture; pictures that failed have none."""
    write(line(*ANSWERS))
    by, at = classifier.signature, classifier.time.isoformat(timespec="seconds")
    for answer in answers:
        if answer.failure:
            continue
        picture = answer.picture
        time = "" if picture.time is None else picture.time.isoformat(" ")
        trust = "" if answer.trust is None else f"{answer.trust:.4f}"
        found = [(answer.label, answer.probability)] if top == 1 else answer.ranked(classifier, top)
        for name, probability in found:
            place = (plain(picture.camera), time, plain(picture.sequence))
            write(
                line(plain_path(picture.path), plain(name), f"{probability:.6f}", *place, answer.source, trust, by, at)
            )


def write_pictures(write: Write, table: PictureTable) -> None:
    """A table of labelled pictures that is a suite again: one row for each label of a picture."""
    own = tuple(dict.fromkeys(column for values in table.cameras.values() for column in values))
    own += tuple(column for column in table.columns if column not in own)
    stated = [name for name in ("split", "group") if any(getattr(picture, name) for picture in table.pictures)]
    write(line("path", "label", "task", "time", "sequence", "frame", *stated, *map(plain, own)))
    for picture in table.pictures:
        values = {**table.cameras.get(picture.camera, {}), **picture.values}
        time = "" if picture.time is None else picture.time.isoformat(" ")
        frame = "" if picture.frame is None else str(picture.frame)
        rest = [plain(picture.camera), time, plain(picture.sequence), frame]
        rest += [getattr(picture, name) for name in stated]
        rest += [value(values.get(column, "")) for column in own]
        for label in picture.labels or ("",):
            write(line(plain_path(picture.path), plain(label), *rest))
