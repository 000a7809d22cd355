"""The journal of an encoding run: a batch is on disk as soon as it is encoded, so a killed run loses one at most.

Shards are written whole and may hold a million rows; what is encoded for the shard that is not whole yet lives
here. The file is a sequence of records: a line of json (ids, rejections, a checksum) and the rows as little-endian
float32. A record that was cut short by a kill ends the file; it is encoded again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import atomic_file

Floats = NDArray[np.float32]


class Rejection(NamedTuple):
    """A row of `rejected.parquet`."""

    id: str
    path: str
    reason: str


class Journal:
    """Rows and rejections of a run that has not come to its end. Opening it reads what an interrupted run left.

    Args:
        path: The file; made if missing.
        dim: Length of a row. A journal of another dim is dropped.

    Attributes:
        rejected: Rejections by id.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        self.rejected: dict[str, Rejection] = {}
        self._offsets: dict[str, int] = {}
        self._stream: BinaryIO = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        self._read()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()

    def __contains__(self, name: object) -> bool:
        """Whether an item's row or rejection is known."""
        return name in self._offsets or name in self.rejected

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._offsets)

    def rows(self, ids: Sequence[str]) -> Floats:
        """The rows of ids, (k, dim) float32."""
        out = np.empty((len(ids), self.dim), dtype="<f4")
        for number, name in enumerate(ids):
            self._stream.seek(self._offsets[name])
            out[number] = np.frombuffer(self._stream.read(4 * self.dim), dtype="<f4")
        return out

    def has_row(self, name: str) -> bool:
        """Whether the row of an id is here."""
        return name in self._offsets

    def add(self, ids: Sequence[str], rows: Floats, rejected: Iterable[Rejection] = ()) -> None:
        """Add a batch. When this returns, a kill of the process cannot lose it."""
        self._stream.seek(0, os.SEEK_END)
        self._note(self._stream, ids, rows, list(rejected))
        self._stream.flush()

    def shorten(self, keep: Sequence[str]) -> None:
        """Drop all rows, but those of `keep`: the others are in whole shards now. Rejections stay."""
        rows = self.rows(keep)
        with atomic_file(self.path) as aside, open(aside, "wb") as stream:
            self._offsets.clear()
            self._note(stream, keep, rows, list(self.rejected.values()))
        self._stream.close()
        self._stream = open(self.path, "r+b")  # noqa: SIM115

    def _note(self, stream: BinaryIO, ids: Sequence[str], rows: Floats, rejected: list[Rejection]) -> None:
        """Append embeddings and rejected items to the journal."""
        payload = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        head = {"dim": self.dim, "crc": zlib.crc32(payload), "ids": list(ids), "rejected": rejected}
        stream.write(json.dumps(head).encode("ascii") + b"\n")
        self._index(stream.tell(), ids, rejected)
        stream.write(payload)

    def _index(self, offset: int, ids: Iterable[str], rejected: Iterable[Sequence[str]]) -> None:
        """Remember where the journal holds each id."""
        self._offsets.update((name, offset + 4 * self.dim * row) for row, name in enumerate(ids))
        self.rejected.update((entry[0], Rejection(*entry)) for entry in rejected)

    def _read(self) -> None:
        """Index all whole records and cut off what follows them."""
        whole = 0
        while line := self._stream.readline():
            try:
                head = json.loads(line)
                ids, offset = head["ids"], self._stream.tell()
                payload = self._stream.read(4 * self.dim * len(ids))
                if line[-1:] != b"\n" or head["dim"] != self.dim or zlib.crc32(payload) != head["crc"]:
                    break
                self._index(offset, ids, [Rejection(*map(str, entry)) for entry in head["rejected"]])
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            whole = self._stream.tell()
        self._stream.truncate(whole)
