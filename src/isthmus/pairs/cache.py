"""Pseudo pairs kept in a folder: runs on the same embeddings that differ in training alone share them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import atomic_folder, read_json, write_json
from isthmus.errors import FormatError

_ABOUT = "about.json"

Columns = dict[str, NDArray[Any]]
Neighbours = dict[str, dict[str, Any]]


def digest(array: NDArray[Any]) -> str:
    """Hash of an array's shape, type and values."""
    told = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=16)
    told.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return told.hexdigest()


class PairStore:
    """Blocks of pseudo pairs by the hash of all that they depend on.

    A block is a folder `HASH/` with an array a column and `about.json`; it is renamed whole, so that a process that is
    killed leaves none by halves, and one that is damaged is made again.

    Args:
        folder: Where the blocks lie; it is made when the first block is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def take(self, key: str) -> tuple[Columns, Neighbours] | None:
        """A block's columns, mapped and not read, and its effective neighbours; None where there is no whole block."""
        place = self.folder / key
        try:
            about = read_json(place / _ABOUT, kind="block of pseudo pairs")
            names: list[str] = about["columns"]
            columns = {name: np.load(place / f"{n}.npy", "r", allow_pickle=False) for n, name in enumerate(names)}
        except (FormatError, OSError, ValueError, KeyError, TypeError):
            return None
        return columns, about["neighbours"]

    def keep(self, key: str, columns: Mapping[str, NDArray[Any]], neighbours: Neighbours) -> None:
        """Write a block whole, over a damaged one of the same key."""
        with atomic_folder(self.folder / key, overwrite=True) as aside:
            for n, column in enumerate(columns.values()):
                np.save(aside / f"{n}.npy", column, allow_pickle=False)
            write_json(aside / _ABOUT, {"columns": list(columns), "neighbours": neighbours})
