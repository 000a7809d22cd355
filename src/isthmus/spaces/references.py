"""Names of what lies inside a space: `clip.space/image` is a modality, `clap.space/audio/ID` one of its items."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isthmus.core.messages import shorten
from isthmus.errors import ConfigError, SpaceError
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.remote import holds_space
from isthmus.spaces.remote_folder import remote_url
from isthmus.spaces.selection import EmbeddingRows, Selection
from isthmus.spaces.space import open_space


def as_embeddings(x: EmbeddingRows | str | Path, *, option: str) -> EmbeddingRows:
    """Embeddings as they are, or the modality that a reference names.

    Args:
        x: One modality of a space, or `SPACE/MODALITY`.
        option: What the user gave it by, for the message.

    Raises:
        ConfigError: It is neither.
        SpaceError: The folder is no whole space, or lacks the modality.
    """
    if isinstance(x, str | Path):
        return open_reference(str(x), option=option)
    if all(hasattr(x, name) for name in ("fingerprint", "blocks", "ids", "modality")):
        return x
    got = shorten(type(x).__name__, 80)
    raise ConfigError(f"{option} got a {got}, expected a modality of a space: space['audio'], or 'clap.space/audio'.")


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


def open_item(reference: str, *, option: str) -> Selection:
    """Open `S.space/audio/ID`: one item of a modality of a space (an id may hold slashes).

    Raises:
        ConfigError: The reference holds no id.
        SpaceError: The folder is no whole space, or lacks the modality or the id.
    """
    space, modality, item = split_reference(reference, option=option)
    if item is None:
        raise ConfigError(f"{option} got {reference!r}, expected SPACE/MODALITY/ID such as {space / modality / 'ID'}.")
    return Selection.of_ids(open_modality(space, modality), [item])


def open_modality(path: Path, modality: str) -> Embeddings:
    """Open one modality of the space at `path`.

    Raises:
        SpaceError: The folder is no whole space, or lacks the modality.
    """
    space = open_space(path)
    if modality not in space:
        raise SpaceError(
            f"space {str(path)!r} has no modality {modality!r}, only {', '.join(space.modalities)}. "
            f"Give one of {', '.join(str(path / name) for name in space.modalities)}."
        )
    return space[modality]


def open_galleries(references: Iterable[str], *, option: str = "--gallery") -> dict[str, Embeddings]:
    """Open modalities of spaces by reference; of a whole space its items, not the texts that join it with others.

    Raises:
        SpaceError: A folder is no whole space, or lacks the modality.
    """
    galleries: dict[str, Embeddings] = {}
    for reference in references:
        if not holds_space(reference):
            galleries[reference] = open_reference(reference, option=option)
            continue
        space = open_space(reference)
        names = [name for name in space.modalities if name != "text" or len(space.modalities) == 1]
        galleries |= {f"{reference.rstrip('/')}/{name}": space[name] for name in names}
    return galleries


def split_reference(reference: str, *, option: str) -> tuple[Path, str, str | None]:
    """Find the space folder inside a reference; what follows it is the modality and, perhaps, an id.

    Raises:
        ConfigError: The reference is a space.
        SpaceError: It lies in no space.
    """
    parts = (remote_url(reference) or reference).split("/")
    first = 1 if remote_url(reference) is None else 3  # the scheme is no space
    for end in range(len(parts) - 1, first - 1, -1):
        folder = Path("/".join(parts[:end]) or "/")
        if parts[end] and holds_space(folder):
            rest = "/".join(parts[end + 1 :])
            return folder, parts[end], rest or None
    if holds_space(reference):
        raise ConfigError(
            f"{option} got the space {reference!r}, expected one modality of it: {reference.rstrip('/')}/MODALITY."
        )
    raise SpaceError(
        f"{option} got {reference!r}, which lies in no space folder. Expected SPACE/MODALITY such as clip.space/image."
    )
