"""Public traits of some mammals and birds, from common zoological knowledge: approximate, for descriptions of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Traits:
    """A species.

    Attributes:
        order, family: its taxonomy.
        mass: of an adult, roughly, in kilograms.
        active: when it mostly is.
        region: where it lives in the wild, of these two.
    """

    order: str
    family: str
    mass: float
    active: Literal["day", "night", "both"]
    region: Literal["Europe", "the Americas"]


TRAITS = {
    "red deer": Traits("Artiodactyla", "Cervidae", 150.0, "both", "Europe"),
    "wild boar": Traits("Artiodactyla", "Suidae", 80.0, "night", "Europe"),
    "white tailed deer": Traits("Artiodactyla", "Cervidae", 65.0, "both", "the Americas"),
    "mouflon": Traits("Artiodactyla", "Bovidae", 40.0, "both", "Europe"),
    "red brocket deer": Traits("Artiodactyla", "Cervidae", 30.0, "both", "the Americas"),
    "roe deer": Traits("Artiodactyla", "Cervidae", 25.0, "both", "Europe"),
    "collared peccary": Traits("Artiodactyla", "Tayassuidae", 20.0, "day", "the Americas"),
    "ocelot": Traits("Carnivora", "Felidae", 11.0, "night", "the Americas"),
    "paca": Traits("Rodentia", "Cuniculidae", 8.0, "night", "the Americas"),
    "red fox": Traits("Carnivora", "Canidae", 6.0, "night", "Europe"),
    "white nosed coati": Traits("Carnivora", "Procyonidae", 4.5, "day", "the Americas"),
    "european hare": Traits("Lagomorpha", "Leporidae", 3.8, "night", "Europe"),
    "agouti": Traits("Rodentia", "Dasyproctidae", 3.0, "day", "the Americas"),
    "coiban agouti": Traits("Rodentia", "Dasyproctidae", 2.8, "day", "the Americas"),
    "common opossum": Traits("Didelphimorphia", "Didelphidae", 1.3, "night", "the Americas"),
    "great tinamou": Traits("Tinamiformes", "Tinamidae", 1.1, "day", "the Americas"),
    "spiny rat": Traits("Rodentia", "Echimyidae", 0.4, "night", "the Americas"),
    "red squirrel": Traits("Rodentia", "Sciuridae", 0.3, "day", "Europe"),
    "wood mouse": Traits("Rodentia", "Muridae", 0.02, "night", "Europe"),
}
"""By name in small letters, with spaces for hyphens and underscores."""


def species_name(label: str) -> str:
    """A label as a key of :data:`TRAITS`."""
    return " ".join(label.replace("_", " ").replace("-", " ").lower().split())
