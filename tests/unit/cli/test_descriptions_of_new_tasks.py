"""What ``wildpdiff generate`` says of values that no seen task has."""

from dataclasses import replace

import pytest

import toys
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
    told = build_description({"metadata": {"level": "2", "lamp": lamp}}, generator)
    assert told.metadata == {"level": 2.0, "lamp": lamp}  # as given: the provenance keeps it
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"Warning: lamp {lamp!r} was in no seen task and is left out; {hint}\n")


def test_known_values_pass_in_silence(generator: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    build_description({"metadata": {"level": 2, "lamp": "red"}}, generator)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"lamp": "green"}, "lamp 'green' was in no seen task .* Give at least one value that a seen task had"),
        ({"lamb": "red"}, "Unknown metadata key 'lamb'"),
        ({"level": "high"}, "a number is needed"),
    ],
)
def test_what_leaves_nothing_to_read_or_is_a_slip_is_refused(
    generator: Generator, capsys: pytest.CaptureFixture[str], metadata: dict[str, str], sentence: str
) -> None:
    with pytest.raises(DescriptionError, match=sentence):
        build_description({"metadata": metadata}, generator)
    assert capsys.readouterr().err == ""
