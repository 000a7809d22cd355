from __future__ import annotations

import pytest

from isthmus.items import Rejected
from isthmus.items.decoding.text import decode_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a dog", "a dog"), ("  a dog\r\n", "a dog"), ("\ufeffa dog", "a dog"), ("Kätzchen 猫", "Kätzchen 猫")],
)
def test_texts_are_stripped_and_left_alone(text: str, expected: str):
    assert decode_text(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), (" \t\n", "empty"), ("\ufeff", "empty"), ("\0\0", "empty"), ("caf\udce9", "not valid UTF-8")],
)
def test_texts_that_are_none(text: str, reason: str):
    with pytest.raises(Rejected, match=reason):
        decode_text(text)


def test_limit():
    with pytest.raises(Rejected, match="6 characters, the limit is 5"):
        decode_text("abcdef", max_characters=5)
