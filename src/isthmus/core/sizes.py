"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_bytes(text: str) -> int:
    """Read a size such as "4GB", "512 MiB" or "1000000"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if not match:
        raise ValueError(f"expected a size such as 4GB or 512MiB, got {text!r}")
    return int(float(match[1]) * _SIZES[match[2] or ""])
