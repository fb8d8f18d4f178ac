"""Values of a description that no seen task has."""

from dataclasses import replace

import pytest

import toys
from refusals import refused
from wildpdiff.cli.description import build_description
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.errors import DescriptionError
from wildpdiff.fit import FittedGenerator
from wildpdiff.generator import Generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema(
    (MetadataField("level", "number"), MetadataField("lamp", "category", categories=("red", "blue")))
)


@pytest.fixture
def generator(toy_fit: FittedGenerator) -> Generator:
    seen = [Description(metadata={"level": float(level), "lamp": "red"}) for level in range(4)]
    features = toys.backbone().image_features
    return replace(toy_fit.generator, conditions=fit_fusion(seen, SCHEMA, features, ("metadata",)))


@pytest.mark.parametrize(("lamp", "hint"), [("ret", "did you mean 'red'?"), ("blue", "seen are red.")])
def test_unknown_categories_are_left_out_with_a_warning(
    generator: Generator, capsys: pytest.CaptureFixture[str], lamp: str, hint: str
) -> None:
    described = build_description({"metadata": {"level": "2", "lamp": lamp}}, generator)
    assert described.metadata == {"level": 2.0, "lamp": lamp}  # as given: the provenance keeps it
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Warning: ")
    assert repr(lamp) in captured.err
    assert hint in captured.err


def test_known_values_pass_in_silence(generator: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    build_description({"metadata": {"level": 2, "lamp": "red"}}, generator)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("metadata", "values"),
    [
        ({"lamp": "green"}, ["lamp", "'green'"]),
        ({"lamb": "red"}, ["'lamb'"]),
        ({"level": "high"}, ["'level'", "'high'"]),
    ],
)
def test_what_leaves_nothing_to_read_or_is_a_slip_is_refused(
    generator: Generator, capsys: pytest.CaptureFixture[str], metadata: dict[str, str], values: list[str]
) -> None:
    with refused(DescriptionError, *values):
        build_description({"metadata": metadata}, generator)
    assert capsys.readouterr().err == ""
