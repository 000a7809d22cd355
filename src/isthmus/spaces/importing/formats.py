"""One file of embeddings, whatever its format, as blocks of rows and a table beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import special_file
from isthmus.core.table_files import parquet_faults
from isthmus.errors import FormatError
from isthmus.spaces.importing.array_files import named_arrays, open_arrays
from isthmus.spaces.importing.arrays import EACH_ARRAY, ArrayFile, Columns, EmptyFileError
from isthmus.spaces.importing.tables import Block, ParquetFile, TableFile, embedding_candidates

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (
    *(".npy", ".npz", ".parquet", ".safetensors", ".arrow", ".feather", ".jsonl", ".json", ".csv", ".tsv"),
    *(".pt", ".pth", ".h5", ".hdf5"),
)
"""Kinds of files of embeddings; beside them folders of LanceDB and of datasets, and raw maps of a given shape."""

FOLDER_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in (".csv", ".tsv", ".json", ".jsonl"))
"""Kinds that are taken of a folder; beside embeddings the others are notes and metadata."""

LANCE = ".lance"


class EmbeddingFile(Protocol):
    """File of embeddings as an import needs it.

    Attributes:
        path: The file.
        rows: Number of rows.
        dim: Length of a row.
        dtype: float16, bfloat16, float32 or float64.
        columns: Names of what stands beside the embeddings.
        unpacked: Bytes of memory that it keeps.
    """

    path: Path
    rows: int
    dim: int
    unpacked: int
    dtype: str
    columns: tuple[str, ...]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield (at most size, dim) floats from row `start` on, and the rows of the other columns."""


def open_file(path: Path, column: str | None = None) -> EmbeddingFile:
    """Open a file of embeddings without reading its values.

    Args:
        path: A file of one of `SUFFIXES`, or the folder of a LanceDB table.
        column: Name of the column or array that holds the embeddings, where the usual names do not.

    Raises:
        FormatError: The file is of another kind, damaged, or holds no embeddings.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, LANCE):
        raise FormatError(
            f"{path}: the suffix {suffix!r} is none of {', '.join(SUFFIXES)}. Convert the file, for example with "
            "numpy.save; of a raw map of numbers give its --shape, such as 1000x512:float32."
        )
    if what := special_file(path):
        raise FormatError(f"{path}: is {what}, no file. It is never opened.")
    if suffix == ".parquet":
        return ParquetFile(path, column)
    if suffix == ".npz" and column == EACH_ARRAY:
        import pyarrow as pa

        names, rows = named_arrays(path)
        return MemoryFile(path, rows, pa.table({"id": pa.array(names, pa.string())}), EACH_ARRAY)
    if suffix in (".npy", ".npz", ".safetensors"):
        return ArrayWithColumns(*open_arrays(path, column))
    from isthmus.spaces.importing import stores, tensor_files

    if suffix in (".pt", ".pth", ".h5", ".hdf5"):
        read = tensor_files.read_hdf5 if suffix in (".h5", ".hdf5") else tensor_files.read_torch
        rows, beside, label = read(path, column)
        return MemoryFile(path, rows, beside, label)
    return TableFile(path, stores.read_vectors(path), column)


class ArrayWithColumns:
    """Embeddings of a .npy, .npz or .safetensors, with the one-dimensional arrays beside them as columns."""

    def __init__(self, array: ArrayFile, beside: Columns) -> None:
        self._array, self._beside = array, beside
        self.path, self.rows, self.dim, self.dtype = array.path, array.rows, array.dim, array.dtype
        self.columns, self.notes, self.embedding_column = tuple(beside), list[str](), array.key
        self.unpacked = 0

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""
        import pyarrow as pa

        values = self._beside[name]()
        try:
            array = pa.array(np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise FormatError(
                f"{self.path}: array {name!r} of {values.dtype} is no column of a table ({error})."
            ) from error
        return pa.chunked_array([array])

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield rows from `start` on, and the rows of the other columns."""
        table = self._table
        for block in self._array.blocks(start, size):
            yield block, table.slice(start, len(block)) if table is not None else None
            start += len(block)

    @cached_property
    def _table(self) -> pa.Table | None:
        """Arrow table of the arrays beside the embeddings."""
        import pyarrow as pa

        columns = {}
        for name in self._beside:
            try:
                columns[name] = self.column(name)
            except FormatError as error:  # nobody asked for it: ids that are wanted are read by themselves
                self.notes.append(f"left out: {error}")
        return pa.table(columns) if columns else None


class MemoryFile:
    """Embeddings that were read as a whole, such as those of a .pt, with a table beside them."""

    def __init__(self, path: Path, rows: NDArray[Any], beside: pa.Table | None, name: str | None = None) -> None:
        if rows.ndim != 2 or rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
            raise FormatError(
                f"{path}: holds {rows.dtype} of shape {rows.shape}, expected floats of shape (rows, dim). Convert it."
            )
        if not rows.shape[0] or not rows.shape[1]:
            raise EmptyFileError(f"{path}: is empty, shape {rows.shape}. Expected at least one row and one dimension.")
        self.path, self.embedding_column = path, name
        self._values, self._beside = rows, beside
        self.rows, self.dim = rows.shape
        self.dtype = rows.dtype.newbyteorder("=").name
        self.columns = tuple(beside.column_names) if beside is not None else ()
        self.unpacked = rows.nbytes + (beside.nbytes if beside is not None else 0)

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""
        assert self._beside is not None
        return self._beside.column(name)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield rows from `start` on, and the rows of the other columns."""
        for first in range(start, self.rows, size):
            block = self._values[first : first + size]
            yield block, None if self._beside is None else self._beside.slice(first, len(block))


def holds_embeddings(path: Path, column: str | None = None) -> bool:
    """Whether a .parquet has a column of embeddings, rather than metadata alone."""
    import pyarrow.parquet as pq

    with parquet_faults(path):
        return bool(embedding_candidates(pq.read_schema(path), column))
