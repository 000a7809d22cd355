"""The embeddings of one modality on disk, read lazily through memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.core.files import sha256_json
from isthmus.core.geometry import normalize
from isthmus.core.html import html_table
from isthmus.core.messages import one_line
from isthmus.core.table_files import read_parquet
from isthmus.errors import FormatError, SpaceError
from isthmus.spaces.manifest import fingerprint
from isthmus.spaces.shards import Layout, Shard, read_shard, verify_shard

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]
RowNumbers = NDArray[np.int64]

FIRST_ROWS = 5
"""Items that a notebook shows."""


class Embeddings:
    """Embeddings of one modality of a space on disk. Nothing but sizes is read until it is asked for.

    `numpy.asarray(embeddings)` gives (n, dim) float32 as stored; `unit` gives rows of length one.

    Args:
        folder: The space's folder.
        modality: Its name.
        manifest: The space's checked manifest.
        pending: Show the rows of an interrupted writer too, which do not count.

    Raises:
        SpaceError: A shard is missing or not whole.
    """

    def __init__(self, folder: Path, modality: str, manifest: Mapping[str, Any], *, pending: bool = False) -> None:
        self.path = folder / modality
        self.modality = modality
        self.space_name: str = manifest["name"]
        self.dim: int = manifest["dim"]
        self.info: dict[str, Any] = manifest["modalities"][modality]
        self.dtype: str = self.info["dtype"]
        self.shards = read_shards(Layout(self.path, modality), self.info, self.dim)
        rows = sum(shard.rows for shard in self.shards)
        if rows != self.info["rows"]:
            raise SpaceError(
                f"{folder}: the shards of {modality!r} hold {rows:,} rows, the manifest says {self.info['rows']:,}. "
                "The space is not whole: restore it from a copy, or make it again."
            )
        if pending:
            self.shards += pending_shards(Layout(self.path, modality), self.info, self.dim, self.shards)
        self._rows = sum(shard.rows for shard in self.shards)
        self._starts = np.array([shard.start for shard in self.shards], np.int64)
        self._maps: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dim."""
        return len(self), self.dim

    @property
    def fingerprint(self) -> str:
        """Hash of what made these embeddings (encoder, preprocessing, dim), never of the rows."""
        return fingerprint(self.info, self.dim)

    @property
    def content_hash(self) -> str:
        """Hash of the rows, ids and metadata with what made them, from the seals of the shards: nothing is read."""
        seals = [shard.marker[key]["sha256"] for shard in self.shards for key in ("embeddings", "metadata")]
        return sha256_json([f"{self.space_name}/{self.modality}", self.fingerprint, *seals])

    def __repr__(self) -> str:
        return f"Embeddings({self.space_name}/{self.modality}: {len(self):,} x {self.dim} {self.dtype})"

    def _repr_html_(self) -> str:
        """Table of the first items for a notebook."""
        first = self.metadata.slice(0, FIRST_ROWS).to_pylist()
        names = list(dict.fromkeys(["id", *(name for row in first for name in row)]))
        rows = [[row.get(name) for name in names] for row in first]
        note = f"the first {len(rows):,} of {len(self):,} items" if len(rows) < len(self) else ""
        title = f"{self.space_name}/{self.modality}: {len(self):,} x {self.dim} {self.dtype}"
        return html_table(title, names, rows, note=note)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, np.float32)
        for shard in range(len(self.shards)):
            start = int(self._starts[shard])
            out[start : start + self.shards[shard].rows] = self._map(shard)
        return out if dtype is None else out.astype(dtype, copy=False)

    def _map(self, index: int) -> NDArray[Any]:
        """Memory map of one shard."""
        if index not in self._maps:
            shard = self.shards[index]
            kind = np.dtype(self.dtype).newbyteorder("<")
            self._maps[index] = np.memmap(shard.embeddings, kind, "r", shard.offset, (shard.rows, self.dim))
        return self._maps[index]

    def take(self, rows: ArrayLike) -> Floats:
        """Rows by number, (k, dim) float32 as stored.

        Raises:
            IndexError: A row number is negative or past the end.
        """
        wanted = np.asarray(rows, np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"{self!r} has rows 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        out = np.empty((len(wanted), self.dim), np.float32)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            out[here] = self._map(int(shard))[wanted[here] - self._starts[shard]]
        return out

    def blocks(self, size: int = 65_536) -> Iterator[Floats]:
        """Yield all rows in order as (at most size, dim) float32 arrays, so that memory stays bounded."""
        for start in range(0, len(self), size):
            yield self._range(start, min(start + size, len(self)))

    def _range(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` as float32."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            shard = self.shards[first]
            end = min(stop, shard.start + shard.rows)
            parts.append(np.asarray(self._map(first)[start - shard.start : end - shard.start], np.float32))
            start, first = end, first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unit(self, rows: ArrayLike | None = None) -> Floats:
        """All rows, or those numbered, scaled to unit length, (n, dim) float32.

        Raises:
            SpaceError: A row is zero and has no direction.
        """
        x = np.asarray(self) if rows is None else self.take(rows)
        if len(zero := np.flatnonzero(~x.any(axis=1))):
            row = int(zero[0] if rows is None else np.asarray(rows).reshape(-1)[zero[0]])
            raise SpaceError(
                f"{self.space_name}/{self.modality}: the embedding of id {self.ids[row]!r} (row {row}) is zero and has "
                "no direction. "
                "Encode the item again, or leave it out."
            )
        return normalize(x)

    @cached_property
    def id_array(self) -> pa.ChunkedArray:
        """The ids as an Arrow array of large strings."""
        return read_ids(self.shards)

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in the order of the rows."""
        ids: list[str] = self.id_array.to_pylist()
        return ids

    @cached_property
    def metadata(self) -> pa.Table:
        """The table that goes with the rows: column `id` and whatever was stored beside it."""
        return read_metadata(self.shards)

    def rows_of(self, ids: Sequence[str] | pa.ChunkedArray) -> RowNumbers:
        """Row numbers of ids, (k,) int64.

        Raises:
            SpaceError: An id is not there; the message names the first.
        """
        import pyarrow as pa

        wanted = (
            ids
            if isinstance(ids, pa.ChunkedArray)
            else pa.chunked_array([pa.array([str(i) for i in ids], pa.large_string())])
        )
        rows = find_rows(wanted, self.id_array)
        if len(missing := np.flatnonzero(rows < 0)):
            name = wanted[int(missing[0])].as_py()
            raise SpaceError(
                f"{self.space_name}/{self.modality}: has no id {name!r} ({len(missing):,} of {len(rows):,} ids are "
                "missing; "
                f"the first id there is {self.ids[0]!r}). Give ids that the space holds."
            )
        return rows

    def followed_by(self, more: Embeddings) -> Embeddings:
        """Make one of these embeddings and more of the same space, stored elsewhere; nothing on disk changes.

        Args:
            more: Embeddings of the same dim and dtype, under other ids; what was recorded of them does not count.

        Raises:
            SpaceError: The two differ in dim or dtype.
        """
        if (self.dim, self.dtype) != (more.dim, more.dtype):
            raise SpaceError(
                f"{more!r} cannot follow {self!r}: expected dim {self.dim} and {self.dtype}. "
                "Encode both with one encoder and one dtype."
            )
        joined = copy(self)
        joined._maps = {}
        for cached in ("id_array", "ids", "metadata"):
            joined.__dict__.pop(cached, None)
        joined.shards = [*self.shards, *(replace(shard, start=shard.start + len(self)) for shard in more.shards)]
        joined._rows = len(self) + len(more)
        joined._starts = np.array([shard.start for shard in joined.shards], np.int64)
        return joined

    def verify(self) -> int:
        """Hash every shard again and return the bytes checked; SpaceError at the first file that is not as written."""
        return sum(verify_shard(shard) for shard in self.shards)


def find_rows(wanted: pa.ChunkedArray, ids: pa.ChunkedArray) -> RowNumbers:
    """For each wanted id its row among `ids`, or -1, (k,) int64. Both are large strings; `ids` are unique."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.index_in(wanted, value_set=ids).fill_null(-1).cast(pa.int64())
    return np.asarray(numbers.to_numpy(), np.int64)


def read_shards(layout: Layout, entry: Mapping[str, Any], dim: int) -> list[Shard]:
    """The shards of a modality that count, each checked by its sizes; SpaceError where one is not whole."""
    shards: list[Shard] = []
    for index in range(entry["shards"]):
        start = shards[-1].start + shards[-1].rows if shards else 0
        shards.append(read_shard(layout, index, start=start, dim=dim, dtype=entry["dtype"]))
    return shards


def pending_shards(layout: Layout, entry: Mapping[str, Any], dim: int, counted: Sequence[Shard]) -> list[Shard]:
    """The whole shards that an interrupted writer left after those that count."""
    pending: list[Shard] = []
    start = counted[-1].start + counted[-1].rows if counted else 0
    while layout.marker(index := len(counted) + len(pending)).is_file():
        try:
            pending.append(read_shard(layout, index, start=start, dim=dim, dtype=entry["dtype"]))
        except SpaceError:  # sealed, but damaged since: it is written again
            break
        start += pending[-1].rows
    return pending


def read_metadata(shards: Sequence[Shard], columns: Sequence[str] | None = None) -> pa.Table:
    """The metadata of shards as one table, of some columns or of all.

    Raises:
        SpaceError: A file cannot be read, or has other rows than its shard.
    """
    import pyarrow as pa

    tables = []
    for shard in shards:
        try:
            table = read_parquet(shard.metadata, columns)
        except FormatError as error:
            raise SpaceError(f"{error} Restore the file from a copy.") from error
        except OSError as error:
            raise SpaceError(
                f"{shard.metadata}: cannot be read as parquet ({one_line(error)}). Restore the file from a copy."
            ) from error
        if table.num_rows != shard.rows or "id" not in table.column_names:
            raise SpaceError(
                f"{shard.metadata}: has {table.num_rows:,} rows and columns {table.column_names}, expected "
                f"{shard.rows:,} rows "
                "with an `id`. Restore the file from a copy."
            )
        tables.append(table)
    return (
        pa.concat_tables(tables, promote_options="permissive")
        if tables
        else pa.table({"id": pa.array([], pa.string())})
    )


def read_ids(shards: Sequence[Shard]) -> pa.ChunkedArray:
    """The ids of shards as large strings, of which more than 2 GiB can be searched."""
    import pyarrow as pa

    return read_metadata(shards, ["id"]).column("id").cast(pa.large_string())
