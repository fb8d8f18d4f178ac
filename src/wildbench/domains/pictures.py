"""Domains of pictures: benchmarks of the panel, one command each."""

from __future__ import annotations

from pathlib import Path

from wildbench.domains.domain import Domain
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.panel import find_benchmark, open_benchmark

TITLES = {
    "scanners": "Chest X-rays of scanners with other physics (PneumoniaMNIST): normal or pneumonia.",
    "handwriting": "Handwritten digits by writer (QMNIST), described by unlabelled digits.",
    "pacs": "Photographs, paintings, cartoons and sketches (PACS) of sites with a style and label shares of their own.",
}


def _domain(name: str) -> Domain:
    def opened(data: Path, folder: Path, seed: int, tick: Tick) -> OpenBenchmark:
        return open_benchmark(name, data, folder, seed, progress=tick)

    return Domain(name, TITLES[name], find_benchmark(name).files, opened)


DOMAINS = {name: _domain(name) for name in TITLES}
