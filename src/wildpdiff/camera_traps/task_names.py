"""Names of tasks that are safe in file names, from the user's own names of cameras in any script."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 60
"""Characters of a safe name."""


def task_names(cameras: Iterable[str]) -> dict[str, str]:
    """A safe name for each camera: ASCII letters, digits, ``-`` and ``_``, unique among them.

    A name that is safe stays, and a space becomes ``-``. Any other change adds a hash of the camera's own name, so
    that a camera's safe name does not depend on which other cameras there are.
    """
    found = sorted(set(cameras))
    plain = {camera: re.sub(" ", "-", camera.strip()) for camera in found}
    taken = {camera for camera in found if _safe(camera)}
    names: dict[str, str] = {}
    for camera, name in plain.items():
        if _safe(name) and (name == camera or name not in taken):
            taken.add(name)
            names[camera] = name
        else:
            names[camera] = _hashed(camera)
    return names


def same_name(one: str, other: str) -> bool:
    """Whether two names are the same but for the way Unicode composes letters, and spaces around them."""
    return _composed(one) == _composed(other)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _safe(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and len(name) <= LONGEST


def _hashed(camera: str) -> str:
    letters = unicodedata.normalize("NFKD", camera).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-")[: LONGEST - 9] or "site"
    return f"{readable}-{hashlib.sha256(_composed(camera).encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
