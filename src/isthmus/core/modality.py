"""Modality names and the folder and column names that each gives rise to on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isthmus.errors import ConfigError

TEXT: Final = "text"
IMAGE: Final = "image"
AUDIO: Final = "audio"
POINT_CLOUD: Final = "point_cloud"
VIDEO: Final = "video"

MODALITIES: Final = (TEXT, IMAGE, AUDIO, POINT_CLOUD, VIDEO)
"""The modalities with names of their own. The set is open: any lower-case identifier may be used."""

_SHORT: Final = {IMAGE: "img", POINT_CLOUD: "pc"}


def embedding_stem(modality: str) -> str:
    """Return the stem of a modality's folder and shards, as clip-retrieval names them: `img_emb`, `text_emb`."""
    return f"{_SHORT.get(modality, modality)}_emb"


def source_column(modality: str) -> str:
    """Return the metadata column that says where an item came from: the text itself, or a path."""
    return TEXT if modality == TEXT else f"{modality}_path"


def via_list(via: str | Sequence[str], *, option: str = "via") -> list[str]:
    """Read `via` as a list of distinct modalities: "text", "text,image" or ("text", "image").

    Args:
        via: The names.
        option: What the user gave them by, for the message.

    Raises:
        ConfigError: It names nothing, or a modality twice, or is neither a text nor a list of texts.
    """
    given = via.split(",") if isinstance(via, str) else list(via) if isinstance(via, Sequence) else [via]
    names = [name.strip() if isinstance(name, str) else "" for name in given]
    if not names or not all(names) or len(set(names)) != len(names):
        raise ConfigError(
            f"{option} got {via!r}. Expected one modality or several different ones, such as 'text,image'."
        )
    return names
