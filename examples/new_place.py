"""An adapter for a place without labels, and how far to believe it.

    python examples/new_place.py [RUN]

Reads what ``make demo`` left in RUN (``runs/demo`` by default). Several adapters are sampled from one description; how
much their answers differ shows what the description leaves open. It does not show whether they are right: that takes
some labels, which a simulated place has, and the last lines use them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from wildpdiff import Generator, load_suite, predict

SAMPLES = 8


def main(run: Path) -> None:
    """Sample adapters for the first unseen place, let them vote, then look at the labels."""
    generator = Generator.from_pretrained(run / "generator-0")
    made = json.loads((run / "run.json").read_text())
    size = generator.backbone.image_size
    suite = load_suite(made["suite"], **{"seed": made["seed"], "image_size": size, **made["suite_options"]})
    place = suite.tasks("unseen")[0]
    told = place.description
    print(f"{place.name}: {', '.join(f'{name} {value}' for name, value in (told.metadata or {}).items())}")

    adapters = generator.sample(told, n=SAMPLES, seed=0)
    answers = [predict(adapter, generator.backbone, [run / "images" / place.name]) for adapter in adapters]
    for of_one_image in zip(*answers, strict=True):
        votes = Counter(found.species for found in of_one_image)
        species, agreeing = votes.most_common(1)[0]
        print(f"{of_one_image[0].file.name}  {species:<16} {agreeing} of {SAMPLES} adapters agree")

    test = place.data("test")
    features = generator.backbone.stem(test.images)
    for name, tensors in (("pretrained", None), ("generated", adapters[0].tensors)):
        right = generator.backbone.predict(features, tensors).argmax(1).numpy() == test.labels
        print(f"{name:<10} names {right.mean():.0%} of {len(test)} labelled photographs right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
