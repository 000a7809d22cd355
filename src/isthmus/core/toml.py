"""TOML, read in one place: the reader is in the standard library from Python 3.11 on."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from isthmus.errors import ConfigError

LIMIT = 16 * 2**20
"""Most bytes of a TOML file: it is written by hand."""


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        ValueError: It is none; the message holds the line.
    """
    return dict(import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(text))


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        what: What it is to the user, for the message: "--config", "benchmark".

    Raises:
        ConfigError: It does not exist, is too large or is not TOML; the message holds the line.
    """
    try:
        if path.stat().st_size > LIMIT:
            raise ConfigError(f"{what} {path} has more than {LIMIT:,} bytes. Expected a TOML file written by hand.")
        return parse_toml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{what} {path} does not exist. Expected a TOML file of keys and values.") from error
    except ValueError as error:  # what both readers and the decoder of UTF-8 raise
        raise ConfigError(f"{what} {path} is not TOML: {error}. Expected lines such as epochs = 36.") from error
