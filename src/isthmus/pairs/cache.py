"""Pseudo pairs kept in a folder: runs on the same embeddings that differ in training alone share them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import atomic_folder, read_json, write_json
from isthmus.core.locks import hold
from isthmus.core.replace import claim_folder, remove_written
from isthmus.errors import ConfigError, FormatError

_ABOUT = "about.json"
_FILES = re.compile(r"\d+\.npy|about\.json")

Columns = dict[str, NDArray[Any]]
Neighbours = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Block:
    """Block of one kind's pseudo pairs as the store keeps it.

    Attributes:
        columns: Arrays by name, mapped and not read.
        neighbours: What is known of its aggregations, by their names.
        arithmetic: What they were made with (`isthmus.core.products.arithmetic`).
    """

    columns: Columns
    neighbours: Neighbours
    arithmetic: dict[str, Any]


def digest(array: NDArray[Any]) -> str:
    """Hash of an array's shape, type and values."""
    hasher = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def digest_blocks(blocks: Iterable[NDArray[Any]]) -> str:
    """Hash of the blocks of a matrix that is not read whole."""
    hasher = hashlib.blake2b(digest_size=16)
    for block in blocks:
        hasher.update(digest(block).encode())
    return hasher.hexdigest()


def open_store(pairs_dir: str | Path | None, checkpoints: Path | None) -> PairStore | None:
    """Where a run keeps its pseudo pairs: the folder for other runs, else beside its checkpoints, else nowhere.

    A run that is taken up again then trains on the very pairs that it was stopped on, whatever machine it is on by now.
    """
    if pairs_dir is not None:
        return PairStore(pairs_dir)
    return PairStore(checkpoints / "pairs") if checkpoints is not None else None


class _Busy(ConfigError):
    """Another process writes a block."""


class PairStore:
    """Blocks of pseudo pairs by the hash of all that they depend on.

    A block is a folder `HASH/` with an array a column and `about.json`; it is renamed whole, so that a process that is
    killed leaves none by halves, and one that is damaged is made again.

    Args:
        folder: Where the blocks lie; it is made when the first block is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def load(self, key: str) -> Block | None:
        """The block of that key, or None where there is no whole one."""
        place = self.folder / key
        try:
            about = read_json(place / _ABOUT, kind="block of pseudo pairs")
            names: list[str] = about["columns"]
            columns = {name: np.load(place / f"{n}.npy", "r", allow_pickle=False) for n, name in enumerate(names)}
            return Block(columns, dict(about["neighbours"]), dict(about["arithmetic"]))
        except (FormatError, OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, key: str, block: Block) -> None:
        """Write a block whole, over a damaged one of the same key.

        Where another process writes that block now it is left to it: a key stands for all that a block depends on, so
        that both are the same.
        """
        with suppress(_Busy), self._written(key) as aside:
            for n, column in enumerate(block.columns.values()):
                np.save(aside / f"{n}.npy", column, allow_pickle=False)
            self._describe(aside, block)

    @contextmanager
    def fill(self, key: str, shapes: Mapping[str, tuple[int, int]]) -> Iterator[Block]:
        """Lend a block of float32 arrays on disk, to be filled; it is kept when the context ends without a fault.

        For what is too large to be held: `save` writes what is.

        Raises:
            ConfigError: Another process fills that block now; told at once and not after the work.
        """
        with self._written(key) as aside:
            columns: Columns = {
                name: np.lib.format.open_memmap(aside / f"{n}.npy", mode="w+", dtype=np.float32, shape=shape)
                for n, (name, shape) in enumerate(shapes.items())
            }
            block = Block(columns, {}, {})
            yield block
            for column in columns.values():
                column.flush()  # type: ignore[attr-defined]
            self._describe(aside, block)

    @contextmanager
    def _written(self, key: str) -> Iterator[Path]:
        """A folder that becomes the block of a key, written by one process at a time."""
        place = claim_folder(self.folder / key, _FILES, "block of pseudo pairs", make=False)
        with (
            hold(place, fault=_Busy),
            atomic_folder(place, overwrite=True, remove=lambda old: remove_written(old, _FILES)) as aside,
        ):
            yield aside

    @staticmethod
    def _describe(folder: Path, block: Block) -> None:
        """Write what is known of a block beside its columns."""
        about = {"columns": list(block.columns), "neighbours": block.neighbours, "arithmetic": block.arithmetic}
        write_json(folder / _ABOUT, about)
