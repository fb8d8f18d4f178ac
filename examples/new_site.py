"""An adapter for a site without labels, and how certain it is.

    python examples/new_site.py [RUN]

RUN is the folder that ``make demo`` wrote (``runs/demo`` by default). Several adapters are sampled from one
description. Their disagreement shows what the description leaves open, not whether the answers are right: that takes
labels, which a simulated site has, and the last lines use them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from wildpdiff import Generator, load_suite, predict

SAMPLES = 8


def main(run: Path) -> None:
    """Votes of sampled adapters on the first unseen site's photographs, then accuracy on its labels."""
    generator = Generator.from_pretrained(run / "generator-0")
    settings = json.loads((run / "run.json").read_text())
    size = generator.backbone.image_size
    suite = load_suite(settings["suite"], **{"seed": settings["seed"], "image_size": size, **settings["suite_options"]})
    site = suite.tasks("unseen")[0]
    metadata = site.description.metadata or {}
    print(f"{site.name}: {', '.join(f'{name} {value}' for name, value in metadata.items())}")

    adapters = generator.sample(site.description, n=SAMPLES, seed=0)
    answers = [predict(adapter, generator.backbone, [run / "images" / site.name]) for adapter in adapters]
    for of_one_image in zip(*answers, strict=True):
        votes = Counter(found.species for found in of_one_image)
        species, agreeing = votes.most_common(1)[0]
        print(f"{of_one_image[0].file.name}  {species:<16} {agreeing} of {SAMPLES} adapters agree")

    test = site.data("test")
    features = generator.backbone.stem(test.images)
    for name, tensors in (("pretrained", None), ("generated", adapters[0].tensors)):
        right = generator.backbone.predict(features, tensors).argmax(1).numpy() == test.labels
        print(f"{name:<10} names {right.mean():.0%} of {len(test)} labelled photographs right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
