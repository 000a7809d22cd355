"""Embeddings in tables: a column of lists, or a column a dimension, of Parquet and of what Arrow reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.messages import listed, one_line
from isthmus.core.table_files import parquet_faults, read_parquet, text_rows, unstorable
from isthmus.errors import FormatError
from isthmus.spaces.importing.arrays import NAMES, EmptyFileError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 65_536
Block = tuple[NDArray[Any], "pa.Table | None"]
"""(n, dim) floats and the rows of the columns beside them."""


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
        """First row of a parquet file, which tells the dimension."""
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
        """Rows of a column of lists, each of the dimension."""
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


def embedding_candidates(schema: Any, wanted: str | None) -> list[str]:
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
    dimension_stems = [
        stem
        for stem, numbers in stems.items()
        if len(numbers) > 1 and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    ]
    if len(dimension_stems) != 1:
        return []
    names = [field.name for field in schema if re.fullmatch(re.escape(dimension_stems[0]) + r"\d+", field.name)]
    return sorted(names, key=lambda name: int(name[len(dimension_stems[0]) :]))


def _embedding_columns(path: Path, schema: Any, wanted: str | None) -> list[str]:
    """Column of lists, or columns of numbers, that hold the embeddings."""
    candidates = embedding_candidates(schema, wanted)
    if len(candidates) == 1:
        return candidates
    if not candidates and (names := _dimension_columns(schema, wanted)):
        return names
    have = listed([f"{field.name} ({str(field.type)[:40]})" for field in schema], 6)
    raise FormatError(
        f"{path}: which column holds the embeddings? Expected {wanted or NAMES[1]!r}, a list of floats, or numbered "
        f"columns of one float each; the file has {have}. Name it with --column."
    )
