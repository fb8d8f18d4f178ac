"""A tiny copy of the form of SIB-200."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet

from wildbench.domains.sib200 import FILE

TOPICS = ("sports", "travel")


def write(folder: Path, languages: int = 9) -> Path:
    """A tiny copy of the form of SIB-200, with rows of a script that is none and an empty sentence."""
    known = [("eng", "Latn"), *((f"l{i:02}", "Latn") for i in range(languages)), ("gr1", "Grek"), ("gr2", "Grek")]
    rows = [
        {"language": language, "script": script, "split": split, "topic": TOPICS[n % 2], "sentence": n, "text": text}
        for language, script in [*known, ("eng", "14")]
        for n in range(20)
        for split in ["train" if n < 12 else "validation" if n < 15 else "test"]
        for text in [f"{language} {script} {split} sentence {n} on {TOPICS[n % 2]}"]
    ]
    rows.append({**rows[0], "text": ""})
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / FILE)
    return folder
