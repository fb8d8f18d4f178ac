"""Examples in pictures: the part of a picture that an example is about, and its class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wildpdiff.camera_traps.labels import BLANKS, JoinedLabels, spelling_key
from wildpdiff.camera_traps.records import Box, Picture
from wildpdiff.tasks.framing import Fractions, Framing

ANIMAL = "animal"

CONFIDENCE = 0.2
"""Below it a detector's box is usually none (MegaDetector's advice), where the file states no other threshold."""


class Crop(NamedTuple):
    """A part of a picture and its class.

    Attributes:
        label: empty where the part has none.
        box: None for the whole picture.
    """

    label: str
    box: Fractions | None = None


@dataclass(frozen=True)
class Cropping:
    """How pictures become examples.

    Attributes:
        labels: the spelling of each label.
        framing: of the model's pictures: only ``box`` and ``boxes`` read boxes.
        threshold: confidence below which a detector's box counts as none.
    """

    labels: JoinedLabels
    framing: Framing = "square"
    threshold: float = CONFIDENCE

    def crops(self, picture: Picture) -> tuple[Crop, ...]:
        """The labelled examples in a picture; none without a label, or with several where no box separates them."""
        names = self.labels.of(picture.labels)
        boxes = () if _say_blank(names) else animals_of(picture, self.threshold)
        own = names[0] if len(names) == 1 else ""
        if self.framing in ("box", "boxes") and boxes:
            found = [Crop(self._label(box, names) or own, _fractions(box)) for box in boxes]
            known = [crop for crop in found if crop.label]
            return tuple(known if self.framing == "boxes" else known[:1])
        return (Crop(own),) if own else ()

    def unlabelled(self, picture: Picture) -> Crop:
        """The example in a picture whose label is not read: its largest animal, where the framing is one of boxes."""
        return Crop("", box_of(picture, self.framing, self.threshold))

    def is_blank(self, picture: Picture) -> bool:
        """Whether people or, where they say nothing, a detector found nothing in a picture."""
        names = self.labels.of(picture.labels)
        if names or picture.boxes is None:
            return _say_blank(names)
        return not any(_is_sure(box, self.threshold) for box in picture.boxes)

    def _label(self, box: Box, names: Sequence[str]) -> str:
        """The class that people gave to a box; a classifier's is no label."""
        if not box.label or box.label_confidence is not None:
            return ""
        label = self.labels.canonical.get(box.label, box.label)
        return label if label in names else ""


def _say_blank(names: Sequence[str]) -> bool:
    """Whether a picture's labels say that it is empty; a model's classes may have another word than the records."""
    return len(names) == 1 and spelling_key(names[0]) in BLANKS


def animals_of(picture: Picture, threshold: float = CONFIDENCE) -> tuple[Box, ...]:
    """The boxes of animals that were drawn by hand or found with this confidence, the largest first."""
    found = (box for box in picture.boxes or () if box.category == ANIMAL and _is_sure(box, threshold))
    return tuple(sorted(found, key=lambda box: (-box.width * box.height, box.left, box.top)))


def box_of(picture: Picture, framing: Framing, threshold: float = CONFIDENCE) -> Fractions | None:
    """The box of a picture's largest animal; None where there is none, or the framing is not one of boxes."""
    animals = animals_of(picture, threshold) if framing in ("box", "boxes") else ()
    return _fractions(animals[0]) if animals else None


def framing_for(pictures: Iterable[Picture], threshold: float = CONFIDENCE) -> Framing:
    """The framing that suits pictures: ``box`` where a detector or people have drawn one, else ``whole``."""
    return "box" if any(animals_of(picture, threshold) for picture in pictures) else "whole"


def _is_sure(box: Box, threshold: float) -> bool:
    return box.confidence is None or box.confidence >= threshold


def _fractions(box: Box) -> Fractions:
    return box.left, box.top, box.width, box.height
