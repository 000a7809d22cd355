"""Shards of one modality: an .npy of embeddings, a .parquet of metadata, and last a marker that seals both."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import read_json, sha256_file, sha256_json, sync, write_json
from isthmus.core.modality import embedding_stem
from isthmus.errors import FormatError, SpaceError
from isthmus.spaces.npy import HEADER_BYTES, npy_header, read_npy_header

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_ROWS = 1_000_000
UNIT_TOLERANCE = 0.01
"""A row counts as of unit length within this: float16 and bfloat16 round a unit row by less."""

_ROW_GROUP = 65_536


@dataclass(frozen=True)
class Layout:
    """Where the shards of one modality lie, in the layout that clip-retrieval, embedding-reader and autofaiss read."""

    folder: Path
    modality: str

    def embeddings(self, index: int) -> Path:
        """Path of shard `index`'s embeddings."""
        stem = embedding_stem(self.modality)
        return self.folder / stem / f"{stem}_{index:05d}.npy"

    def metadata(self, index: int) -> Path:
        """Path of shard `index`'s metadata."""
        return self.folder / "metadata" / f"metadata_{index:05d}.parquet"

    def marker(self, index: int) -> Path:
        """Path of the marker that says that shard `index` is whole."""
        return self.folder / "_done" / f"{index:05d}.json"

    @property
    def partial_folder(self) -> Path:
        """Folder of the shard that is being written; what lies in it never counts."""
        return self.folder / ".partial"

    def remove(self, first: int) -> None:
        """Remove what an interrupted writer left, and the shards from `first` on, markers first."""
        shutil.rmtree(self.partial_folder, ignore_errors=True)
        for path_of in (self.marker, self.embeddings, self.metadata):
            for path in path_of(0).parent.glob(f"*{path_of(0).suffix}"):
                digits = path.stem.rsplit("_", 1)[-1]
                if digits.isdigit() and int(digits) >= first:
                    path.unlink()

    def remove_folders(self) -> None:
        """Remove the modality's folders where they are empty; what a user put there stays."""
        parts = (self.marker(0).parent, self.embeddings(0).parent, self.metadata(0).parent)
        for folder in (*parts, self.folder):
            with suppress(OSError):
                folder.rmdir()


@dataclass(frozen=True)
class Shard:
    """A whole shard: its files and what its marker says.

    Attributes:
        rows: Number of rows.
        start: Row of the modality at which the shard begins.
        offset: Byte of the .npy at which the values begin.
    """

    embeddings: Path
    metadata: Path
    marker: Mapping[str, Any]
    rows: int
    start: int
    offset: int


def read_shard(layout: Layout, index: int, *, start: int, dim: int, dtype: str) -> Shard:
    """Check shard `index` without reading its values: marker, sizes, header.

    Raises:
        SpaceError: A file is missing, or is not what the marker and the manifest say.
    """
    path, emb, meta = layout.marker(index), layout.embeddings(index), layout.metadata(index)
    for file in (path, emb, meta):
        if not file.is_file():
            raise _not_whole(file, "is missing")
    try:
        marker = read_json(path, kind="shard marker")
        rows = marker["rows"]
        sizes = {file: marker[key]["bytes"] for file, key in ((emb, "embeddings"), (meta, "metadata"))}
        header = read_npy_header(emb)
    except FormatError as error:
        raise SpaceError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise _not_whole(path, f"lacks {error}") from error
    for file, size in sizes.items():
        if file.stat().st_size != size:
            raise _not_whole(file, f"has {file.stat().st_size:,} bytes, its marker says {size!r}")
    if header.shape != (rows, dim) or header.dtype != np.dtype(dtype).newbyteorder("<") or header.fortran:
        raise _not_whole(
            emb, f"holds {header.dtype} of shape {header.shape}, expected {dtype} of shape ({rows}, {dim})"
        )
    return Shard(emb, meta, marker, rows, start, header.offset)


def _not_whole(file: Path, fault: str) -> SpaceError:
    """Fault for a shard of which a file is missing or changed."""
    return SpaceError(
        f"{file}: {fault}. The shard is not whole: restore the file from a copy, or make the space again."
    )


def content_hash(shards: Sequence[Shard]) -> str:
    """Hash of what shards hold, from their markers: nothing else is read."""
    return sha256_json([[shard.marker[key]["sha256"] for key in ("embeddings", "metadata")] for shard in shards])


def verify_shard(shard: Shard) -> int:
    """Hash both files of a shard again and return their bytes.

    Raises:
        SpaceError: A file is not the one that was written.
    """
    for key, path in (("embeddings", shard.embeddings), ("metadata", shard.metadata)):
        got, expected = sha256_file(path), shard.marker[key].get("sha256")
        if got != expected:
            raise SpaceError(
                f"{path}: sha256 is {got[:12]}..., expected {str(expected)[:12]}.... The file was changed or is "
                "damaged: restore it."
            )
    return shard.embeddings.stat().st_size + shard.metadata.stat().st_size


class ShardWriter:
    """Writes one shard aside, row block after row block, and moves it into place whole.

    Args:
        layout: Where the shard goes.
        index: Its number.
        dim: Length of a row.
        dtype: "float16" or "float32".
    """

    def __init__(self, layout: Layout, index: int, *, dim: int, dtype: str) -> None:
        self.layout, self.index, self.dim, self.rows = layout, index, dim, 0
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._tables: list[pa.Table] = []
        self._norms: list[NDArray[np.float64]] = []
        layout.partial_folder.mkdir(parents=True, exist_ok=True)
        self._path = layout.partial_folder / layout.embeddings(index).name
        self._stream = self._path.open("wb")
        self._stream.write(bytes(HEADER_BYTES))

    def write(self, array: NDArray[Any], table: pa.Table, norms: NDArray[np.float64]) -> None:
        """Add (k, dim) rows of the shard's type, the table of k rows that goes with them, and their norms (k,)."""
        self._stream.write(np.ascontiguousarray(array, dtype=self.dtype).data)
        self._tables.append(table)
        self._norms.append(norms)
        self.rows += len(array)

    def abort(self) -> None:
        """Drop what was written."""
        self._stream.close()
        shutil.rmtree(self.layout.partial_folder, ignore_errors=True)

    def finish(self) -> dict[str, Any]:
        """Put the shard in place: the embeddings, the metadata, and the marker last. Returns the marker."""
        self._stream.seek(0)
        self._stream.write(npy_header(self.rows, self.dim, self.dtype))
        self._stream.close()
        meta = self.layout.partial_folder / self.layout.metadata(self.index).name
        write_metadata(meta, self._tables)
        marker = {
            "rows": self.rows,
            "embeddings": _seal(self._path, self.layout.embeddings(self.index)),
            "metadata": _seal(meta, self.layout.metadata(self.index)),
            "norm": summarize_norms(np.concatenate(self._norms)),
        }
        # All three are made aside, so that a kill leaves nothing in the folders that others read.
        seal = self.layout.partial_folder / self.layout.marker(self.index).name
        write_json(seal, marker)
        for path, target in (
            (self._path, self.layout.embeddings(self.index)),
            (meta, self.layout.metadata(self.index)),
            (seal, self.layout.marker(self.index)),
        ):
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
            sync(target.parent)
        shutil.rmtree(self.layout.partial_folder, ignore_errors=True)
        return marker


def _seal(path: Path, target: Path) -> dict[str, Any]:
    """Size and hash of a shard's file, for its marker."""
    sync(path)
    return {"file": target.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def write_metadata(path: Path, tables: list[pa.Table]) -> None:
    """Write tables as one parquet whose bytes depend on the rows and not on how they were cut into tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata(None).combine_chunks()
    pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="zstd")


def summarize_norms(norms: NDArray[np.float64]) -> dict[str, Any]:
    """Sum, least and greatest of the norms (n,) of a shard's rows, and how many are of unit length."""
    unit = int(np.count_nonzero(np.abs(norms - 1.0) <= UNIT_TOLERANCE))
    return {
        "sum": round(math.fsum(norms), 3),
        "min": round(float(norms.min()), 6),
        "max": round(float(norms.max()), 6),
        "unit": unit,
    }


def merge_norms(markers: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Norms of a modality from those of its shards: mean, min, max, and the share of rows of unit length."""
    rows = sum(marker["rows"] for marker in markers)
    norms = [marker["norm"] for marker in markers]
    return {
        "mean": round(sum(norm["sum"] for norm in norms) / rows, 6),
        "min": min(norm["min"] for norm in norms),
        "max": max(norm["max"] for norm in norms),
        "unit_share": round(sum(norm["unit"] for norm in norms) / rows, 6),
    }


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that nobody writes to a second name, or copy it where the file system knows no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
