"""Numbers in a text, each told apart by the words that follow it: ``1.2 m above the ground``, ``40 % canopy cover``.

Sentence models hardly know how near 1.2 is to 1.3, so numbers are read apart from the words around them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?![\w])")
WORD = re.compile(r"[^\s,.;:!?()]+")
END = re.compile(r"[,.;:!?()]")
WORDS = 4
"""Words after a number that tell what it counts; fewer where the clause ends or the next number comes."""

MOST = 16
PLACEHOLDER = "some"


def quantities(text: str) -> dict[str, float]:
    """The numbers of a text by what they count; the first where two count the same."""
    found: dict[str, float] = {}
    numbers = list(NUMBER.finditer(text))
    for number, match in enumerate(numbers):
        end = numbers[number + 1].start() if number + 1 < len(numbers) else len(text)
        clause = END.split(text[match.end() : end], maxsplit=1)[0]
        key = " ".join(WORD.findall(clause)[:WORDS]).casefold()
        if key:
            found.setdefault(key, float(match.group().replace("−", "-")))
    return found


def frequent_quantities(texts: Sequence[str]) -> tuple[str, ...]:
    """What at least half of the texts count, with more than one value; the most frequent first, 16 at most."""
    read = [quantities(text) for text in texts]
    counts = Counter(key for entry in read for key in entry)
    varying = [key for key in counts if len({entry[key] for entry in read if key in entry}) > 1]
    kept = [key for key in varying if 2 * counts[key] >= len(texts)]
    return tuple(sorted(kept, key=lambda key: (-counts[key], key))[:MOST])


def without_numbers(text: str) -> str:
    """The text with every number replaced by a word, so that its meaning alone is left."""
    return NUMBER.sub(PLACEHOLDER, text)
