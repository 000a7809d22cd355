"""JSON of files that may come from a stranger: its size and its nesting are bounded before anything is parsed."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from isthmus.core.limits import excess

JSON_LIMIT = 64 * 2**20
"""Most bytes of one json text. `ISTHMUS_MAX_JSON` (bytes) raises it."""
DEPTH_LIMIT = 64
"""Deepest nesting of objects and lists."""

_DIGITS = 20
_PER_VALUE, _PER_CONTAINER, _PER_TEXT = 48, 88, 57
"""Bytes that CPython takes for a number and its place, for a list or an object, and for a text beside its letters."""
_Text = TypeVar("_Text", str, bytes)
_BLOCK = 2**20


def json_limit() -> int:
    """Most bytes of one json text, as `ISTHMUS_MAX_JSON` says or by default."""
    given = os.environ.get("ISTHMUS_MAX_JSON", "")
    return int(given) if given.isdecimal() else JSON_LIMIT


def parse_json(raw: bytes) -> Any:
    """Read a json text.

    Raises:
        ValueError: It is too long, nested too deep, takes too much memory, not UTF-8, not json, or holds what json does
            not have: NaN, infinite numbers, integers that no file of isthmus needs, halves of characters.
    """
    if len(raw) > json_limit():
        raise ValueError(f"{len(raw):,} bytes, more than {json_limit():,}; ISTHMUS_MAX_JSON raises that")
    if (depth := _depth(raw)) > DEPTH_LIMIT:
        raise ValueError(f"nested {depth} deep or more, expected at most {DEPTH_LIMIT}")
    if fault := excess(parsed_bytes(raw), len(raw)):
        raise ValueError(fault)
    text = raw.decode("utf-8")
    value = json.loads(text, parse_constant=_constant, parse_int=_integer, parse_float=_float)
    if "\\u" in text:
        check_characters(value)
    return value


def parsed_bytes(text: _Text) -> int:
    """Memory that a json text takes once it is parsed, at most about so many bytes, by its signs and before it is."""
    brackets, braces, commas, quotes = ("[", "{", ",", '"') if isinstance(text, str) else (b"[", b"{", b",", b'"')
    containers = text.count(brackets) + text.count(braces)
    values = text.count(commas) + containers
    return len(text) + _PER_VALUE * values + _PER_CONTAINER * containers + _PER_TEXT * text.count(quotes) // 2


def check_characters(value: Any) -> None:
    """Refuse texts that hold halves of characters, which `\\ud800` spells and no file can hold.

    Raises:
        ValueError: There is one.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half a character stands where text is expected") from error


def _depth(raw: bytes) -> int:
    """Deepest nesting, in a few passes over the bytes and without building anything; 0 where it cannot be deep."""
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_LIMIT:
        return 0
    import numpy as np

    # Escaped backslashes first, then escaped quotes: what is left of quotes opens and closes strings in turn.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = np.frombuffer(b"".join(plain.split(b'"')[::2]), dtype=np.uint8)
    step = np.zeros(256, np.int32)
    step[[ord("["), ord("{")]], step[[ord("]"), ord("}")]] = 1, -1
    depth = deepest = 0
    for start in range(0, len(outside), _BLOCK):
        depths = depth + np.cumsum(step[outside[start : start + _BLOCK]], dtype=np.int32)
        depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
        if deepest > DEPTH_LIMIT:
            break
    return deepest


def _constant(name: str) -> Any:
    """Refuse NaN and infinity in JSON."""
    raise ValueError(f"{name} is no number of json")


def _integer(text: str) -> int:
    """Integer of JSON, refused where it has too many digits."""
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    """Number of JSON, refused where a float cannot hold it."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value
