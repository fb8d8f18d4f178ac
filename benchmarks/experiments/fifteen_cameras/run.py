"""From tables with every usual flaw to predictions, as a new user types it: commands, stops and time.

    OMP_NUM_THREADS=1 python benchmarks/experiments/fifteen_cameras/run.py DATA OUT [--quick]

DATA is a local copy of the frames of Missouri Camera Traps (``images/``, ``index.csv``). A stop is an error that the
user has to mend. Commands, in ``experiment.json``, run in OUT; each command's screen stays there as ``N.txt``.
``--quick`` trains for a few steps only.
"""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import make_cameras

from wildpdiff.disk import json_bytes, write_file

HERE = Path(__file__).parent


def processor() -> float:
    """Seconds of the processor that finished commands have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def typed(number: int, command: str, folder: Path) -> dict[str, Any]:
    """Run a command in the folder."""
    began, used = time.perf_counter(), processor()
    with (folder / f"{number}.txt").open("w", encoding="utf-8") as screen:
        words = [sys.executable, "-m", "wildpdiff", *shlex.split(command)]
        status = subprocess.run(words, cwd=folder, stdout=screen, stderr=subprocess.STDOUT, check=False).returncode
    seconds = {"s": round(time.perf_counter() - began, 1), "processor s": round(processor() - used, 1)}
    return {"command": f"wildpdiff {command}", "status": status, **seconds}


def answered(path: Path) -> dict[str, Any]:
    """Counts of the answers in a file of MegaDetector's format."""
    content = json.loads(path.read_bytes())
    failed = sum("failure" in image for image in content["images"])
    names = content["classification_categories"]
    first = [found["classifications"][0][0] for image in content["images"] for found in image.get("detections") or ()]
    return {
        "pictures": len(content["images"]),
        "unreadable": failed,
        "answers": dict(Counter(names[number] for number in first).most_common()),
    }


def main(data: Path, out: Path, quick: bool) -> int:
    settings = json.loads((HERE / "experiment.json").read_text(encoding="utf-8"))
    make_cameras.make(data, out, settings)
    rows = []
    for number, command in enumerate(settings["commands"], 1):
        more = [words for verb, words in settings["quick"].items() if quick and command.startswith(verb)]
        rows.append(typed(number, " ".join([command, *more]), out))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    stops = sum(bool(row["status"]) for row in rows)
    found = {"commands": len(rows), "stops": stops, "quick": quick, **answered(out / "answers.json")}
    print(json.dumps(found, ensure_ascii=False))
    write_file(HERE / "results.json", json_bytes({"rows": rows, "found": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), "--quick" in sys.argv))
