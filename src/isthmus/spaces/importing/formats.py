"""One file of embeddings, whatever its format, as blocks of rows and a table beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import special_file
from isthmus.core.messages import listed, one_line
from isthmus.core.table_files import parquet_faults, read_parquet, text_rows, unstorable
from isthmus.errors import FormatError
from isthmus.spaces.importing.arrays import (
    EACH_ARRAY,
    NAMES,
    ArrayFile,
    Columns,
    EmptyFileError,
    named_arrays,
    open_arrays,
)

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
_ROWS_AT_ONCE = 65_536
Block = tuple[NDArray[Any], "pa.Table | None"]


class EmbeddingFile(Protocol):
    """What an import needs of a file of embeddings.

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


class TableFile:
    """Embeddings in an Arrow table in memory: a list column, or one column a dimension."""

    def __init__(self, path: Path, table: pa.Table, column: str | None = None) -> None:
        left_out = unstorable(table.schema)
        self.notes = [f"{path}: the column {name!r} is left out, metadata cannot hold its type" for name in left_out]
        self.path, self._table = path, table.drop_columns(left_out)
        self._rows = RowReader(path, self._table.schema, column)
        self.embedding_column = self._rows.label
        self.columns, self.unpacked = self._rows.others, int(table.nbytes)
        self.rows: int = table.num_rows
        if not self.rows:
            raise EmptyFileError(f"{path}: is empty, it has no rows. Expected at least one embedding.")
        self.dtype = self._rows.dtype
        self.dim = self._rows.find_dim(lambda: table.slice(0, 1).combine_chunks().to_batches()[0])

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""
        return self._table.column(name)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield rows from `start` on, and the rows of the other columns."""
        for first in range(start, self.rows, size):
            part = self._table.slice(first, size).combine_chunks()
            beside = part.select(self.columns) if self.columns else None
            yield self._rows.values(part.to_batches()[0], first), beside


class ParquetFile:
    """Embeddings of a .parquet, in a list column or one column a dimension, read a few row groups at a time."""

    def __init__(self, path: Path, column: str | None = None) -> None:
        import pyarrow.parquet as pq

        self.path = path
        with parquet_faults(path):
            self._most_rows = text_rows(path, _ROWS_AT_ONCE)
            self._file = pq.ParquetFile(path, memory_map=True)
        schema = self._file.schema_arrow
        if len(set(schema.names)) < len(schema.names):
            raise FormatError(f"{path}: two columns have one name ({listed(schema.names)}). Rename one of them.")
        self._rows = RowReader(path, schema, column)
        self.embedding_column = self._rows.label
        self.columns, self.unpacked = self._rows.others, 0
        self.rows: int = self._file.metadata.num_rows
        if not self.rows:
            raise EmptyFileError(f"{path}: is empty, it has no rows. Expected at least one embedding.")
        self.dtype = self._rows.dtype
        self.dim = self._rows.find_dim(self._first_row)

    def _first_row(self) -> pa.RecordBatch:
        with parquet_faults(self.path):
            first = next(self._file.iter_batches(batch_size=1, columns=list(self._rows.names)), None)
        if first is None or not first.num_rows:
            raise FormatError(f"{self.path}: has no row, its footer says {self.rows:,}. Copy or write the file again.")
        return first

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, such as the ids."""
        return read_parquet(self.path, [name]).column(name)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield rows from `start` on, and the rows of the other columns."""
        import pyarrow as pa

        groups, row = self._groups_from(start)
        with parquet_faults(self.path):
            for batch in self._file.iter_batches(batch_size=min(size, self._most_rows), row_groups=groups):
                batch.validate(full=True)
                skip = min(max(start - row, 0), batch.num_rows)
                row += batch.num_rows
                if skip < batch.num_rows:
                    batch = batch.slice(skip)
                    table = pa.Table.from_batches([batch])
                    values = self._rows.values(batch, row - batch.num_rows)
                    yield values, table.select(self.columns) if self.columns else None

    def _groups_from(self, start: int) -> tuple[list[int], int]:
        """The row groups that hold row `start` and those after it, and the first row of the first."""
        row, counts = 0, [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        for index, count in enumerate(counts):
            if row + count > start:
                return list(range(index, len(counts))), row
            row += count
        return [], row


class RowReader:
    """Takes the embeddings out of batches of a table: of one list column, or of one column a dimension.

    Attributes:
        names: The columns that hold them.
        label: What they are called.
        others: The other columns.
        dtype: float16, float32 or float64.
        dim: Length of a row, once it is known.
    """

    def __init__(self, path: Path, schema: pa.Schema, wanted: str | None) -> None:
        self._path = path
        self.names = _embedding_columns(path, schema, wanted)
        self.is_list = len(self.names) == 1
        self.label = self.names[0] if self.is_list else f"{self.names[0]} to {self.names[-1]}"
        taken = set(self.names)
        self.others = tuple(name for name in schema.names if name not in taken)
        kinds = [schema.field(name).type for name in self.names]
        types = {str(kind.value_type if self.is_list else kind) for kind in kinds}
        known = {"halffloat": "float16", "float": "float32", "double": "float64"}
        self.dtype = known.get(types.pop(), "float32") if len(types) == 1 else "float32"
        self.dim = len(self.names)
        self._kind = kinds[0]

    def find_dim(self, first_row: Callable[[], pa.RecordBatch]) -> int:
        """Length of a row: what the type says, else that of the first row."""
        import pyarrow as pa

        if self.is_list:
            if pa.types.is_fixed_size_list(self._kind):
                self.dim = int(self._kind.list_size)
            else:
                batch = first_row()
                self.dim = len(batch.column(batch.schema.get_field_index(self.names[0]))[0].as_py() or ())
        if self.dim < 1:
            raise FormatError(f"{self._path}: the embedding of row 0 is empty. Expected a list of floats in every row.")
        return self.dim

    def values(self, batch: pa.RecordBatch, first: int) -> NDArray[Any]:
        """A batch as (n, dim); `first` is the row of the file at which it begins."""
        columns = [batch.column(batch.schema.get_field_index(name)) for name in self.names]
        if self.is_list:
            return self._list_values(columns[0], first)
        for name, column in zip(self.names, columns, strict=True):
            if column.null_count:
                row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise FormatError(f"{self._path}: row {first + row} has nothing in column {name!r}, expected a number.")
        try:
            return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1).astype(self.dtype)
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"{self._path}: a row from {first} on has no numbers in the columns {self.label} ({one_line(error)}). "
                "Expected one in each."
            ) from error

    def _list_values(self, lists: pa.Array, first: int) -> NDArray[Any]:
        import pyarrow.compute as pc

        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.dim)
        flat = lists.flatten()
        if not len(wrong) and flat.null_count:
            wrong = np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False)) // self.dim
            raise FormatError(
                f"{self._path}: the embedding of row {first + wrong[0]} has empty values, expected {self.dim} numbers."
            )
        if len(wrong):
            got = f"{lengths[wrong[0]]} values" if lists.is_valid()[int(wrong[0])].as_py() else "nothing"
            raise FormatError(
                f"{self._path}: the embedding of row {first + wrong[0]} has {got}, the first row has {self.dim}. "
                "All embeddings of a file have one dimension: correct the row, or split the file."
            )
        values: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(-1, self.dim)
        return values if values.dtype.kind == "f" else values.astype(np.float32)


def holds_embeddings(path: Path, column: str | None = None) -> bool:
    """Whether a .parquet has a column of embeddings, rather than metadata alone."""
    import pyarrow.parquet as pq

    with parquet_faults(path):
        return bool(_candidates(pq.read_schema(path), column))


def _candidates(schema: Any, wanted: str | None) -> list[str]:
    """The lists of numbers of a schema that can be the embeddings: the wanted one, one of a known name, or all.

    Lists of whole numbers, as json has them where no row has a fraction, only under a known name.
    """
    import pyarrow as pa

    t = pa.types
    lists = {
        field.name: t.is_floating(field.type.value_type)
        for field in schema
        if (t.is_list(field.type) or t.is_large_list(field.type) or t.is_fixed_size_list(field.type))
        and (t.is_floating(field.type.value_type) or t.is_integer(field.type.value_type))
    }
    named = [name for name in ((wanted,) if wanted else NAMES) if name in lists]
    return named[:1] or ([] if wanted else [name for name, floats in lists.items() if floats])


def _dimension_columns(schema: Any, wanted: str | None) -> list[str]:
    """Columns of one number each that are the dimensions: one stem, numbered without a gap (`dim_0`, `dim_1` ...)."""
    import pyarrow as pa

    stems: dict[str, list[int]] = {}
    for field in schema:
        match = re.fullmatch(r"(.*?)(\d+)", field.name)
        if match and pa.types.is_floating(field.type) and (wanted is None or match[1] == wanted):
            stems.setdefault(match[1], []).append(int(match[2]))
    found = [
        stem
        for stem, numbers in stems.items()
        if len(numbers) > 1 and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    ]
    if len(found) != 1:
        return []
    names = [field.name for field in schema if re.fullmatch(re.escape(found[0]) + r"\d+", field.name)]
    return sorted(names, key=lambda name: int(name[len(found[0]) :]))


def _embedding_columns(path: Path, schema: Any, wanted: str | None) -> list[str]:
    candidates = _candidates(schema, wanted)
    if len(candidates) == 1:
        return candidates
    if not candidates and (names := _dimension_columns(schema, wanted)):
        return names
    have = listed([f"{field.name} ({str(field.type)[:40]})" for field in schema], 6)
    raise FormatError(
        f"{path}: which column holds the embeddings? Expected {wanted or NAMES[1]!r}, a list of floats, or numbered "
        f"columns of one float each; the file has {have}. Name it with --column."
    )
