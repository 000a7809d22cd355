"""Arguments that name a thing inside a space: `clip.space/image`, `clap.space/audio/ID`, and lists of modalities."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from isthmus.core.places import home_path
from isthmus.errors import ConfigError


def named_paths(pairs: Sequence[str] | None) -> dict[str, Path]:
    """Read repeated `--space NAME=PATH`: where the spaces that a bridge was trained on lie now."""
    values = named_values(pairs, option="--space", example="NAME=PATH such as clip=/data/clip.space")
    return {name: home_path(path) for name, path in values.items()}


def named_values(pairs: Sequence[str] | None, *, option: str, example: str) -> dict[str, str]:
    """Read a repeated option NAME=VALUE.

    Args:
        pairs: Its values as given.
        option: Its name, for the message.
        example: What was expected, for the message.

    Raises:
        ConfigError: One of them is no NAME=VALUE.
    """
    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} got {pair!r}, expected {example}.")
        values[name] = value
    return values


def find_local_encoders(*names: str | None) -> None:
    """Let `--encoder module:Class` name a module of the current folder; installed ones go first.

    Only a class that the user named in this very command opens the folder: no file can.
    """
    from isthmus.encoders.registry import REGISTRY

    own = any(name and ":" in name and name.partition(":")[0] not in REGISTRY for name in names)
    if own and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
