"""Seconds and memory of reading many pictures with labels and boxes from one file.

    python benchmarks/experiments/picture_formats/run.py FOLDER

The files are written to FOLDER (some 250 MB) and stay there. Each is read by a process of its own.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.disk import json_bytes, write_file

HERE = Path(__file__).parent


def names(settings: dict[str, Any], number: int) -> tuple[str, str, str]:
    """Camera, path and time of a picture."""
    camera = f"site{number % settings['cameras']:04}"
    minute = number // settings["cameras"]
    time = f"{2015 + minute // 500_000}-{minute // 40_000 % 12 + 1:02}-{minute // 1440 % 28 + 1:02}"
    return camera, f"{camera}/IMG_{number:07}.JPG", f"{time} {minute // 60 % 24:02}:{minute % 60:02}:00"


def write_coco(path: Path, settings: dict[str, Any], draw: random.Random) -> None:
    """COCO Camera Traps with boxes in pixels; every twentieth picture is empty."""
    images, annotations = [], []
    for number in range(settings["pictures"]):
        camera, file, time = names(settings, number)
        sequence = {"seq_id": f"{number // 3:036x}", "seq_num_frames": 3, "frame_num": number % 3}
        size = {"width": 2048, "height": 1536}
        images.append(
            {"id": f"{number:036x}", "file_name": file, "location": camera, "datetime": time, **size, **sequence}
        )
        for box in range(settings["boxes"] if number % 20 else 1):
            sides = [round(draw.random() * side, 2) for side in (1024, 768, 1024, 768)]
            label = (
                {"category_id": 1 + number % settings["classes"], "bbox": sides} if number % 20 else {"category_id": 0}
            )
            own = {"id": f"{number:032x}-{box}", "image_id": f"{number:036x}"}
            annotations.append({**own, **label})
    categories = [{"id": 0, "name": "empty"}] + [{"id": i + 1, "name": f"s{i}"} for i in range(settings["classes"])]
    document = {"info": {"version": "1.0"}, "categories": categories, "images": images, "annotations": annotations}
    path.write_text(json.dumps(document, indent=1))


def write_megadetector(path: Path, settings: dict[str, Any], draw: random.Random) -> None:
    """MegaDetector's output with three classes a box."""
    images = []
    for number in range(settings["pictures"]):
        detections = []
        for _ in range(settings["boxes"]):
            classes = [[str(draw.randrange(settings["classes"])), round(0.9 / rank, 3)] for rank in (1, 2, 4)]
            bbox = [round(draw.random() / 2, 4) for _ in range(4)]
            detections.append(
                {"category": "1", "conf": round(draw.random(), 3), "bbox": bbox, "classifications": classes}
            )
        images.append({"file": names(settings, number)[1], "detections": detections})
    classes = {str(number): f"s{number}" for number in range(settings["classes"])}
    document = {"info": {"format_version": "1.6"}, "detection_categories": {"1": "animal"}, "images": images}
    path.write_text(json.dumps({**document, "classification_categories": classes}, indent=1))


def write_lila(path: Path, settings: dict[str, Any], draw: random.Random) -> None:
    """LILA's index."""
    places = ["dataset_name", "url_gcp", "image_id", "sequence_id", "location_id", "frame_num"]
    header = [*places, "original_label", "common_name", "datetime"]
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for number in range(settings["pictures"]):
            camera, file, time = names(settings, number)
            label = f"s{draw.randrange(settings['classes'])}"
            address = f"https://storage.example/lila/{file}"
            row = ["S", address, f"S : {number}", f"S : {number // 3}", f"S : {camera}", number % 3, label, label, time]
            writer.writerow(row)


WRITERS: dict[str, Callable[[Path, dict[str, Any], random.Random], None]] = {
    "coco.json": write_coco,
    "megadetector.json": write_megadetector,
    "lila.csv": write_lila,
}


def measured(path: Path) -> dict[str, Any]:
    """Seconds of reading a file, of the processor too, and the process's largest memory."""
    began, used = time.perf_counter(), time.process_time()
    table = read_pictures(path)
    return {
        "format": table.format,
        "pictures": len(table.pictures),
        "boxes": sum(len(picture.boxes or ()) for picture in table.pictures),
        "file MB": round(path.stat().st_size / 1e6, 1),
        "s": round(time.perf_counter() - began, 2),
        "processor s": round(time.process_time() - used, 2),
        "peak MiB": peak_memory(),
    }


def peak_memory() -> int:
    """The largest memory of this process in MiB; ``ru_maxrss`` would be that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if folder.is_file():
        print(json.dumps(measured(folder)))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        settings = json.loads((HERE / "experiment.json").read_text())
        rows = []
        for name, write in WRITERS.items():
            write(folder / name, settings, random.Random(settings["seed"]))
            command = [sys.executable, __file__, str(folder / name)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(rows[-1])
        write_file(HERE / "results.json", json_bytes({"settings": settings, "rows": rows}))
