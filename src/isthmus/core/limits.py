"""How much a file may take once it is unpacked, and which paths are files at all.

A few kilobytes can unpack to gigabytes, and a named pipe can be waited on for ever. Readers ask here before they take
memory or open a path: one rule for all, and one setting to raise it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from isthmus.core.sizes import parse_bytes
from isthmus.errors import ConfigError

DEFAULT_BYTES = 512 * 2**20
"""Most bytes that a small file may take in memory once it is unpacked."""

FACTOR = 32
"""A larger file may take this many times what it has on disk: honest formats pack numbers and sounds by less."""

SETTING = "ISTHMUS_MAX_UNPACKED"
"""Environment variable that takes the place of `DEFAULT_BYTES`, such as 4GB."""


def unpacked_limit(packed: int) -> int:
    """The most bytes that a file of `packed` bytes may take once unpacked.

    Raises:
        ConfigError: The environment variable that sets the limit holds no size.
    """
    text = os.environ.get(SETTING)
    try:
        floor = DEFAULT_BYTES if text is None else parse_bytes(text)
    except ValueError as error:
        raise ConfigError(f"the environment variable {SETTING}: {error}.") from error
    return max(floor, FACTOR * packed)


def excess(size: int, packed: int) -> str | None:
    """Fault of unpacking `size` bytes from a file of `packed` bytes, in words; None where it is allowed."""
    limit = unpacked_limit(packed)
    if size <= limit:
        return None
    return f"takes {size:,} bytes once unpacked, the limit is {limit:,}; set {SETTING} to allow more"


def special_file(path: str | Path) -> str | None:
    """Kind of a path that is no file or folder: "a named pipe", "a device" or "a socket"; None for all others.

    Nothing is opened. A path that does not exist is none of these: who opens it says so.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None
