"""One file of embeddings, whatever its format, as blocks of rows and a table beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.core.table_files import parquet_faults
from isthmus.errors import FormatError
from isthmus.spaces.importing.arrays import NAMES, ArrayFile, Columns, EmptyFile, open_arrays

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors")
Block = tuple[NDArray[Any], "pa.Table | None"]


class EmbeddingFile(Protocol):
    """What an import needs of a file of embeddings.

    Attributes:
        path: The file.
        rows: Number of rows.
        dim: Length of a row.
        dtype: float16, bfloat16, float32 or float64.
        columns: Names of what stands beside the embeddings.
    """

    path: Path
    rows: int
    dim: int
    dtype: str
    columns: tuple[str, ...]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield (at most size, dim) floats from row `start` on, and the rows of the other columns."""


def open_file(path: Path, column: str | None = None) -> EmbeddingFile:
    """Open a file of embeddings without reading its values.

    Args:
        path: A .npy, .npz, .parquet or .safetensors file.
        column: Name of the column or array that holds the embeddings, where the usual names do not.

    Raises:
        FormatError: The file is of another kind, damaged, or holds no embeddings.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise FormatError(
            f"{path}: the suffix {suffix!r} is none of {known}. Convert the file, for example numpy.save."
        )
    if suffix == ".parquet":
        return ParquetFile(path, column)
    array, beside = open_arrays(path, column)
    return ArrayWithColumns(array, beside)


class ArrayWithColumns:
    """Embeddings of a .npy, .npz or .safetensors, with the one-dimensional arrays beside them as columns."""

    def __init__(self, array: ArrayFile, beside: Columns) -> None:
        self._array, self._beside = array, beside
        self.path, self.rows, self.dim, self.dtype = array.path, array.rows, array.dim, array.dtype
        self.columns, self.notes, self.embedding_column = tuple(beside), list[str](), array.key

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
        import pyarrow as pa

        columns = {}
        for name in self._beside:
            try:
                columns[name] = self.column(name)
            except FormatError as error:  # nobody asked for it: ids that are wanted are read by themselves
                self.notes.append(f"left out: {error}")
        return pa.table(columns) if columns else None


class ParquetFile:
    """Embeddings in a list column of a .parquet, read a few row groups at a time."""

    def __init__(self, path: Path, column: str | None = None) -> None:
        import pyarrow.parquet as pq

        self.path = path
        with parquet_faults(path):
            self._file = pq.ParquetFile(path, memory_map=True)
        schema = self._file.schema_arrow
        self._name = self.embedding_column = _embedding_column(path, schema, column)
        self.columns = tuple(name for name in schema.names if name != self._name)
        if len(set(schema.names)) < len(schema.names):
            raise FormatError(f"{path}: two columns have one name ({', '.join(schema.names)}). Rename one of them.")
        self.rows: int = self._file.metadata.num_rows
        if not self.rows:
            raise EmptyFile(f"{path}: is empty, it has no rows. Expected at least one embedding.")
        self.dtype = {"halffloat": "float16", "float": "float32", "double": "float64"}[
            str(schema.field(self._name).type.value_type)
        ]
        self.dim = self._dim(schema.field(self._name).type)

    def _dim(self, kind: Any) -> int:
        import pyarrow as pa

        if pa.types.is_fixed_size_list(kind):
            size = int(kind.list_size)
        else:
            with parquet_faults(self.path):
                batch = next(self._file.iter_batches(batch_size=1, columns=[self._name]))
            size = len(batch.column(0)[0].as_py() or ())
        if size < 1:
            raise FormatError(f"{self.path}: the embedding of row 0 is empty. Expected a list of floats in every row.")
        return size

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""
        with parquet_faults(self.path):
            return self._file.read(columns=[name]).column(name)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield rows from `start` on, and the rows of the other columns."""
        import pyarrow as pa

        groups, row = self._groups_from(start)
        with parquet_faults(self.path):
            for batch in self._file.iter_batches(batch_size=size, row_groups=groups):
                skip = min(max(start - row, 0), batch.num_rows)
                row += batch.num_rows
                if skip < batch.num_rows:
                    batch = batch.slice(skip)
                    table = pa.Table.from_batches([batch])
                    values = self._values(batch.column(batch.schema.get_field_index(self._name)), row - batch.num_rows)
                    yield values, table.select(self.columns) if self.columns else None

    def _groups_from(self, start: int) -> tuple[list[int], int]:
        """The row groups that hold row `start` and those after it, and the first row of the first."""
        row, counts = 0, [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        for index, count in enumerate(counts):
            if row + count > start:
                return list(range(index, len(counts))), row
            row += count
        return [], row

    def _values(self, lists: pa.Array, first: int) -> NDArray[Any]:
        """A batch of lists as (n, dim); `first` is the row of the file at which the batch begins."""
        import pyarrow.compute as pc

        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.dim)
        flat = lists.flatten()
        if not len(wrong) and flat.null_count:
            wrong = np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False)) // self.dim
            raise FormatError(
                f"{self.path}: the embedding of row {first + wrong[0]} has empty values, expected {self.dim} numbers."
            )
        if len(wrong):
            got = f"{lengths[wrong[0]]} values" if lists.is_valid()[int(wrong[0])].as_py() else "nothing"
            raise FormatError(
                f"{self.path}: the embedding of row {first + wrong[0]} has {got}, the first row has {self.dim}. "
                "All embeddings of a file have one dimension: correct the row, or split the file."
            )
        values: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(-1, self.dim)
        return values


def holds_embeddings(path: Path, column: str | None = None) -> bool:
    """Whether a .parquet has a column of embeddings, rather than metadata alone."""
    import pyarrow.parquet as pq

    with parquet_faults(path):
        return bool(_candidates(pq.read_schema(path), column))


def _candidates(schema: Any, wanted: str | None) -> list[str]:
    """The lists of floats of a schema that can be the embeddings: the wanted one, one of a known name, or all."""
    import pyarrow as pa

    t = pa.types
    lists = [
        field.name
        for field in schema
        if (t.is_list(field.type) or t.is_large_list(field.type) or t.is_fixed_size_list(field.type))
        and t.is_floating(field.type.value_type)
    ]
    named = [name for name in ((wanted,) if wanted else NAMES) if name in lists]
    return named[:1] or ([] if wanted else lists)


def _embedding_column(path: Path, schema: Any, wanted: str | None) -> str:
    candidates = _candidates(schema, wanted)
    if len(candidates) != 1:
        have = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise FormatError(
            f"{path}: which column holds the embeddings? Expected {wanted or NAMES[1]!r}, a list of floats; "
            f"the file has {have}."
        )
    return candidates[0]
