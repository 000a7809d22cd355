"""Modality names and the folder and column names that each gives rise to on disk."""

from __future__ import annotations

from typing import Final

TEXT: Final = "text"
IMAGE: Final = "image"
AUDIO: Final = "audio"
POINT_CLOUD: Final = "point_cloud"
VIDEO: Final = "video"

MODALITIES: Final = (TEXT, IMAGE, AUDIO, POINT_CLOUD, VIDEO)
"""The modalities with names of their own. The set is open: any plain lower-case word is a modality."""

_SHORT: Final = {IMAGE: "img", POINT_CLOUD: "pc"}


def embedding_stem(modality: str) -> str:
    """Return the stem of a modality's folder and shards, as clip-retrieval names them: `img_emb`, `text_emb`."""
    return f"{_SHORT.get(modality, modality)}_emb"


def source_column(modality: str) -> str:
    """Return the metadata column that says where an item came from: the text itself, or a path."""
    return TEXT if modality == TEXT else f"{modality}_path"
