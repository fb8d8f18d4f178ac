"""Heart beats by patient (MIT-BIH arrhythmia database, Moody & Mark 2001): a task is a patient, a beat is an example.

Patients are those of the published inter-patient split (de Chazal, O'Dwyer & Reilly 2004): what is learned comes from
the first set (DS1) alone, the patients of the second (DS2) are unseen. Records 201 and 202 are of one man, and the
split has one of them in each set; 201 is left out here, so that no beat of a test patient is learned from.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildbench.datasets.panel.suite import read_arrays
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataValue
from wildpdiff.tasks.task import SplitName

BEATS, PATIENTS = "mitbih_beats.npz", "mitbih_patients.csv"
CLASSES = ("N", "S", "V", "F")
"""Classes of the AAMI standard: normal, supraventricular, ventricular, fusion. Unclassifiable beats (15 of all patients
without a pacemaker) are left out, as in most published work."""
SAMPLES, RHYTHM = 96, 3
"""Numbers of a beat: its window, then the logarithms of the interval before it, of the one after it, and of the first
in units of the mean of the last ten."""
DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 203, 205, 207, 208, 209, 215, 220, 223, 230)
DS2 = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)
FEWEST_TAKERS = 3
"""Patients of the first set that take a drug, for it to be a field of the description."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeartbeatsConfig:
    """Size of the suite.

    Attributes:
        seed: chooses the patients of the pretraining and the beats of each split.
        pretraining: patients of DS1 that the backbone is trained on; all others are seen tasks.
        minutes: ends of the training and of the validation part of a seen patient's record; its test is the rest.
        unseen_minutes: the same of an unseen patient; the AAMI standard allows five minutes with labels.
        train, validation: most beats of each part.
        common: beats of each class, of pretraining patients, in every task's training: records may be of one class.
        examples: unlabelled beats a description, of the first five minutes.
    """

    seed: int = 0
    pretraining: int = 7
    minutes: tuple[float, float] = (15.0, 20.0)
    unseen_minutes: tuple[float, float] = (5.0, 7.5)
    train: int = 400
    validation: int = 200
    common: int = 20
    examples: int = 64


@dataclass(frozen=True)
class Records:
    """Beats of all patients in the order of their time.

    Attributes:
        inputs: window in mV and rhythm of each beat.
        labels: indices into :data:`CLASSES`.
        minutes: since the record's beginning.
        rows: of each patient.
    """

    inputs: Floats
    labels: Indices
    minutes: Floats
    rows: Mapping[int, Indices]

    def between(self, patient: int, start: float, end: float) -> Indices:
        """Beats of a patient in an interval of time."""
        rows = self.rows[patient]
        return rows[(self.minutes[rows] >= start) & (self.minutes[rows] < end)]


def read_records(path: Path) -> Records:
    """The beats of a file.

    Args:
        path: ``.npz`` with ``beats`` int16 ``[n, 96]`` in microvolts, and, ``[n]`` each, ``labels``, ``patients``,
            ``pre_rr`` and ``post_rr`` in seconds; the first and last intervals of a record may be missing (nan).

    Raises:
        DataError: the file cannot be read, or an array has another shape.
    """
    arrays = read_arrays(path, ("beats", "labels", "patients", "pre_rr", "post_rr"))
    count = len(arrays["labels"])
    for name, array in arrays.items():
        wanted = (count, SAMPLES) if name == "beats" else (count,)
        if array.shape != wanted:
            raise DataError(f"{path}: {name} has shape {array.shape}; {wanted} is needed.")
    known = arrays["labels"] < len(CLASSES)
    owners = arrays["patients"].astype(np.int64)
    minutes, rhythm = np.zeros(count, np.float32), np.zeros((count, RHYTHM), np.float32)
    rows = {}
    for patient in np.unique(owners).tolist():
        own = np.flatnonzero(owners == patient)
        before, after = (_filled(arrays[name][own], f"{path}: {name} of {patient}") for name in ("pre_rr", "post_rr"))
        minutes[own] = np.cumsum(before) / 60
        rhythm[own] = np.log(np.stack([before, after, before / _recent(before)], 1))
        rows[patient] = own[known[own]]
    inputs = np.concatenate([arrays["beats"].astype(np.float32) / 1000, rhythm], 1)
    return Records(inputs, arrays["labels"].astype(np.int64), minutes, rows)


def _filled(seconds: npt.NDArray[np.generic], what: str) -> Floats:
    """Intervals between beats, the median where one is missing."""
    found = seconds.astype(np.float32)
    usable = np.isfinite(found) & (found > 0)
    if not usable.any():
        raise DataError(f"{what} has no interval above 0 s.")
    return np.where(usable, found, np.float32(np.median(found[usable])))


def _recent(seconds: Floats) -> Floats:
    """Mean of up to ten intervals before each; of the first, itself."""
    sums = np.concatenate([[0.0], np.cumsum(seconds, dtype=np.float64)])
    ends = np.arange(len(seconds))
    starts = np.maximum(ends - 10, 0)
    means = (sums[ends] - sums[starts]) / np.maximum(ends - starts, 1)
    return np.where(ends > 0, means, seconds).astype(np.float32)


def read_patients(path: Path) -> dict[int, dict[str, str]]:
    """Rows of the table by patient; raises :class:`DataError` where it cannot be read or lacks a column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {int(row["patient"]): row for row in rows}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}).") from None
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} has no whole number in column 'patient' ({error}).") from None
    for name in ("age", "sex", "lead", "drugs"):
        if rows and rows[0].get(name) is None:
            raise DataError(f"{path} has no column {name!r}; it has {', '.join(rows[0])}.")
    return found


def _drugs(row: Mapping[str, str]) -> set[str]:
    names = {name.strip().casefold() for name in (row["drugs"] or "").split(",")}
    return names - {"", "none"}


def metadata_of(row: Mapping[str, str], drugs: Sequence[str]) -> dict[str, MetadataValue]:
    """Age in years where it is known, sex, lead, and whether each of the drugs is taken."""
    found: dict[str, MetadataValue] = {name: row[name].strip() for name in ("sex", "lead") if (row[name] or "").strip()}
    try:
        age = float(row["age"])
    except (TypeError, ValueError):
        age = -1.0
    if np.isfinite(age) and age >= 0:
        found["age"] = age
    return found | {name: "yes" if name in _drugs(row) else "no" for name in drugs}


def heartbeats(folder: Path, config: HeartbeatsConfig = HeartbeatsConfig()) -> PlainSuite:
    """The suite; patients of the split that the files do not have are left out.

    Raises:
        DataError: a file cannot be read, or has too few patients.
    """
    records, table = read_records(folder / BEATS), read_patients(folder / PATIENTS)
    learned, unseen = ([one for one in own if one in records.rows and one in table] for own in (DS1, DS2))
    if len(learned) < config.pretraining + 2 or not unseen:
        raise DataError(
            f"{folder} has {len(learned)} patients of DS1 and {len(unseen)} of DS2 in both files; "
            f"{config.pretraining + 2} and 1 are needed."
        )
    taken = Counter(name for patient in learned for name in _drugs(table[patient]))
    drugs = sorted(name for name, takers in taken.items() if takers >= FEWEST_TAKERS)
    first, seen = _pretraining_patients(records, learned, config)
    common = _common(records, first, config)

    def task(patient: int, ends: tuple[float, float] | None) -> PlainTask:
        name = f"patient-{patient}"
        draws = numpy_generator(config.seed, "heartbeats", patient)

        def some(rows: Indices, most: int) -> Indices:
            return np.sort(draws.permutation(rows)[:most])

        early = some(records.between(patient, 0.0, 5.0 if ends is None else min(5.0, ends[0])), config.examples)
        about = metadata_of(table[patient], drugs)
        if ends is None:
            parts: dict[SplitName, Indices] = {"train": records.rows[patient]}
        else:
            train = some(records.between(patient, 0.0, ends[0]), config.train)
            validation = some(records.between(patient, *ends), config.validation)
            test = records.between(patient, ends[1], np.inf)
            parts = {"train": np.concatenate([train, common]), "validation": validation, "test": test}
        short = next((split for split, rows in parts.items() if not len(rows)), None)
        if short is not None:
            raise DataError(f"Patient {patient} has no beat in the part of {short}. Leave the patient out.")
        splits = {split: Dataset(records.inputs[rows], records.labels[rows]) for split, rows in parts.items()}
        return PlainTask(name, splits, Description(metadata=about, examples=records.inputs[early]))

    return PlainSuite(
        "mitbih",
        [task(patient, config.minutes) for patient in seen],
        [task(patient, config.unseen_minutes) for patient in unseen],
        [task(patient, None) for patient in first],
    )


def _pretraining_patients(
    records: Records, patients: Sequence[int], config: HeartbeatsConfig
) -> tuple[list[int], list[int]]:
    """Patients of the pretraining and the others: the first draw in which the former have enough beats of every class.

    Enough is a tenth of all beats of the class, or as many as are common to all tasks.
    """

    def counts(chosen: Sequence[int]) -> npt.NDArray[np.int64]:
        return sum(
            (np.bincount(records.labels[records.rows[one]], minlength=len(CLASSES)) for one in chosen),
            np.zeros(len(CLASSES), np.int64),
        )

    wanted = np.minimum(counts(patients), np.maximum(config.common, counts(patients) // 10))
    draws = numpy_generator(config.seed, "heartbeats", "pretraining")
    for _ in range(1000):
        mixed = draws.permutation(patients).tolist()
        first = sorted(mixed[: config.pretraining])
        if (counts(first) >= wanted).all():
            return first, sorted(mixed[config.pretraining :])
    raise DataError(f"No {config.pretraining} patients of DS1 have enough beats of every class. Pretrain on more.")


def _common(records: Records, patients: Sequence[int], config: HeartbeatsConfig) -> Indices:
    """A few beats of every class, of the patients of the pretraining."""
    draws = numpy_generator(config.seed, "heartbeats", "common")
    pool = np.concatenate([records.rows[patient] for patient in patients])
    own = [draws.permutation(pool[records.labels[pool] == label])[: config.common] for label in range(len(CLASSES))]
    return np.concatenate(own)
