"""Texts: checked, and otherwise left as they are. Tokenizers belong to the encoders."""

from __future__ import annotations

from isthmus.items import Rejected

MAX_CHARACTERS = 1_000_000


def decode_text(text: str, *, max_characters: int = MAX_CHARACTERS) -> str:
    """Strip white space around a text and check it.

    Raises:
        Rejected: It is empty, too long, or holds bytes that were not UTF-8.
    """
    text = text.strip().strip("\ufeff\x00").strip()
    if not text:
        raise Rejected("empty text")
    if len(text) > max_characters:
        raise Rejected(f"too long: {len(text):,} characters, the limit is {max_characters:,}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Rejected("not valid UTF-8")
    return text
