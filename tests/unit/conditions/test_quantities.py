import pytest

from wildpdiff.conditions.text import frequent_quantities, quantities, without_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("At 2.5 m above the ground in woodland.", {"m above the ground": 2.5}),
        ("40 % canopy cover, at -3.20 degrees.", {"% canopy cover": 40.0, "degrees": -3.2}),
        ("\N{MINUS SIGN}4 degrees (estimated)", {"degrees": -4.0}),
        ("2 rivers 3 hills", {"rivers": 2.0, "hills": 3.0}),
        ("1200 M, 5 m", {"m": 1200.0}),
        ("model X3 of 2019.", {}),
        ("", {}),
    ],
)
def test_numbers_are_identified_by_the_words_after_them(text: str, expected: dict[str, float]) -> None:
    assert quantities(text) == expected


def test_frequent_quantities_are_in_half_of_the_texts_and_vary() -> None:
    texts = ["1 m, 7 days, 4 cats", "2 m, 7 days, 5 cats", "3 m, 7 days", "4 m, 7 days and a dog"]
    assert frequent_quantities(texts) == ("m", "cats")
    assert frequent_quantities([" ".join(f"{n + k} word{k}." for k in range(30)) for n in range(3)])[-1] == "word22"


def test_texts_that_differ_in_numbers_alone_are_one_text() -> None:
    assert without_numbers("A camera 1.2 m high, day 30") == without_numbers("A camera 0.8 m high, day -7")
    assert without_numbers("model X3") == "model X3"
