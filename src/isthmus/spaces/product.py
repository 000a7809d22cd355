"""A space as something that a command may write over: which files it is made of."""

from __future__ import annotations

import re
from pathlib import Path

from isthmus.core.replace import Product
from isthmus.errors import SpaceError
from isthmus.spaces.manifest import MANIFEST, WHOLE, read_manifest
from isthmus.spaces.shards import Layout

REJECTED = "rejected.parquet"
SOURCES = "sources.parquet"
"""What the files of a modality were when they were encoded (see `isthmus.encoders.pipeline.update`)."""


def space_files(folder: Path) -> set[str]:
    """Relative paths of all files of a whole space.

    Raises:
        SpaceError: It is no space, or one that is being written or was left half written.
    """
    files = {MANIFEST}
    for modality, entry in read_manifest(folder)["modalities"].items():
        if entry["state"] != WHOLE:
            raise SpaceError(f"its {modality!r} is still being written")
        layout = Layout(folder / modality, modality)
        for index in range(entry["shards"]):
            parts = (layout.embeddings(index), layout.metadata(index), layout.marker(index))
            files |= {part.relative_to(folder).as_posix() for part in parts}
        beside = (f"{modality}/{REJECTED}", f"{modality}/{SOURCES}", f".encode/{modality}/{REJECTED}")
        files |= {name for name in beside if (folder / name).is_file()}
    return files


SPACE_FILES = re.compile(
    rf"{re.escape(MANIFEST)}|[\w.-]+/(?:{re.escape(REJECTED)}|{re.escape(SOURCES)}|\.partial/.*|_done/\d+\.json"
    r"|[\w.-]+_emb/[\w.-]+_emb_\d+\.npy|metadata/metadata_\d+\.parquet)|\.encode/.*"
)
"""Relative paths that a space may have, whole or left half written."""

SPACE = Product("space", MANIFEST, space_files, SpaceError)
