"""Arguments that name a thing inside a space: `clip.space/image`, `clap.space/audio/ID`, and lists of modalities."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core.replace import home_path
from isthmus.errors import ConfigError, SpaceError

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings


def open_reference(reference: str, *, option: str) -> Embeddings:
    """Open `S.space/audio`: one modality of a space.

    Raises:
        ConfigError: The reference holds no modality.
        SpaceError: The folder is no whole space, or lacks the modality.
    """
    space, modality, rest = split_reference(reference, option=option)
    if rest is not None:
        raise ConfigError(f"{option} got {reference!r}, expected SPACE/MODALITY such as {space / modality}.")
    return open_modality(space, modality)


def open_item(reference: str, *, option: str) -> tuple[Embeddings, str]:
    """Open `S.space/audio/ID`: one modality of a space and the id of one of its items (an id may hold slashes)."""
    space, modality, item = split_reference(reference, option=option)
    if item is None:
        raise ConfigError(f"{option} got {reference!r}, expected SPACE/MODALITY/ID such as {space / modality / 'ID'}.")
    return open_modality(space, modality), item


def open_modality(path: Path, modality: str) -> Embeddings:
    """Open one modality of the space at `path`."""
    from isthmus.spaces.space import open_space

    space = open_space(path)
    if modality not in space:
        raise SpaceError(
            f"space {str(path)!r} has no modality {modality!r}, only {', '.join(space.modalities)}. "
            f"Give one of {', '.join(str(path / name) for name in space.modalities)}."
        )
    return space[modality]


def split_reference(reference: str, *, option: str) -> tuple[Path, str, str | None]:
    """Find the space folder inside a reference; what follows it is the modality and, perhaps, an id."""
    parts = reference.split("/")
    for end in range(len(parts) - 1, 0, -1):
        folder = Path("/".join(parts[:end]) or "/")
        if (folder / "space.json").is_file() and parts[end]:
            rest = "/".join(parts[end + 1 :])
            return folder, parts[end], rest or None
    if (Path(reference) / "space.json").is_file():
        raise ConfigError(
            f"{option} got the space {reference!r}, expected one modality of it: {reference.rstrip('/')}/MODALITY."
        )
    raise SpaceError(
        f"{option} got {reference!r}, which lies in no space folder. Expected SPACE/MODALITY such as clip.space/image."
    )


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
