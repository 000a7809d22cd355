"""What paths hold: raw files by modality, lists of texts, spaces; looked at before anything is loaded or written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, TEXT
from isthmus.errors import ConfigError, FormatError
from isthmus.items import Item, find_items
from isthmus.spaces.manifest import MANIFEST

SEEN = (IMAGE, AUDIO, POINT_CLOUD, TEXT)
"""Modalities that are looked for, in the order in which their spaces are made: the first one's is the base."""
EMBEDDINGS = (".npy", ".npz", ".parquet", ".safetensors", ".pt", ".h5", ".arrow", ".feather")


@dataclass
class Survey:
    """Survey of what the paths given to `join` hold.

    Attributes:
        items: By modality, the items of raw files, each with an id of its own.
        spaces: Folders of spaces that exist already.
        bytes: By modality, the size of the files.
    """

    items: dict[str, list[Item]] = field(default_factory=dict)
    spaces: list[Path] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> list[str]:
        """Modalities of the raw files."""
        return list(self.items)


def survey(paths: str | Path | Iterable[str | Path]) -> Survey:
    """Look at paths.

    Args:
        paths: Folders of raw files (searched through), files, lists of texts (.txt, one a line), tables of texts, tars,
            and spaces.

    Raises:
        FormatError: A path does not exist, or holds nothing that can be embedded.
        ConfigError: A path holds embeddings, which have to be imported first; the message holds the command.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not given:
        raise ConfigError("join needs paths, got none. Give folders of files, lists of texts, or spaces.")
    result = Survey()
    raw = []
    for path in given:
        if (path / MANIFEST).is_file():
            result.spaces.append(path)
        elif path.is_file() and path.suffix.lower() in EMBEDDINGS:
            raise ConfigError(
                f"{path}: holds embeddings. Import them first, and give the space: isthmus import {path} --into "
                "NAME.space --modality MODALITY --encoder ID."
            )
        else:
            raw.append(path)
    if raw:
        _look(raw, result)
    if raw and not result.items:
        raise FormatError(
            f"{', '.join(map(str, raw[:3]))}: holds no image, sound, point cloud or list of texts. Check the path."
        )
    return result


def _look(raw: Sequence[Path], result: Survey) -> None:
    """Find the raw files of every modality."""
    for modality in SEEN:
        try:
            items = find_items(raw, modality=modality).items
        except FormatError as error:
            if " and nothing of " not in str(error):
                raise
            continue
        result.items[modality] = items
        files = {item.path for item in items if item.path is not None}
        result.bytes[modality] = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
