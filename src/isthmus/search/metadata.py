"""Metadata of an index: a table that is read by row, filtered as Arrow, and changed by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.messages import one_line
from isthmus.errors import EvaluationError

if TYPE_CHECKING:
    import pyarrow as pa


class Metadata:
    """Columns of values, one a row of the index; a value that is not there is None.

    A table stays as Arrow until it is changed; then its columns are lists, and the Arrow form is made anew when a
    filter needs it.

    Args:
        content: A pyarrow table, a mapping of columns, or None.
        rows: How many rows the index has.

    Raises:
        EvaluationError: The content has another number of rows.
    """

    def __init__(self, content: Any, rows: int) -> None:
        self._table: pa.Table | None = content if hasattr(content, "num_rows") else None
        self._columns: dict[str, list[Any]] | None = None
        self.rows = rows
        if self._table is None:
            self._columns = {str(name): list(values) for name, values in dict(content or {}).items()}
        sizes = {self._table.num_rows} if self._table is not None else {len(v) for v in (self._columns or {}).values()}
        if sizes - {rows}:
            size = f"{sizes.pop():,}" if len(sizes) == 1 else "unequal columns of"
            raise EvaluationError(f"the index has {rows:,} embeddings and {size} metadata. Expected as many.")

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return (
            list(self._table.column_names) if self._columns is None and self._table is not None else list(self._lists)
        )

    @property
    def _lists(self) -> dict[str, list[Any]]:
        """Columns of the metadata as lists, made once."""
        if self._columns is None:
            assert self._table is not None
            self._columns = {name: self._table.column(name).to_pylist() for name in self._table.column_names}
        return self._columns

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one row."""
        if self._columns is None and self._table is not None:
            row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
            return row
        return {name: values[number] for name, values in self._lists.items()}

    def table(self) -> pa.Table:
        """All rows as an Arrow table.

        Raises:
            EvaluationError: A column holds values of several kinds.
        """
        import pyarrow as pa

        if self._table is None:
            arrays = {}
            for name, values in self._lists.items():
                try:
                    arrays[name] = pa.array(values)
                except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                    raise EvaluationError(
                        f"the metadata column {name!r} holds values of several kinds ({one_line(error)}). Give "
                        "numbers, or texts, or truth values."
                    ) from error
            # A table without columns forgets how many rows it has.
            self._table = pa.table(arrays) if arrays else pa.table({"_": pa.nulls(self.rows)}).select([])
        return self._table

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; columns that are new are None before."""
        lists = self._lists
        for name in dict.fromkeys(name for row in rows for name in row):
            if name not in lists:
                lists[name] = [None] * self.rows
        for name, values in lists.items():
            values.extend(row.get(name) for row in rows)
        self.rows += len(rows)
        self._table = None

    def replace(self, number: int, values: Mapping[str, Any]) -> None:
        """Replace the columns of one row by those given; the others become None."""
        lists = self._lists
        for name in values:
            lists.setdefault(name, [None] * self.rows)
        for name, column in lists.items():
            column[number] = values.get(name)
        self._table = None

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only the rows of these numbers, in their order."""
        if self._columns is None and self._table is not None:
            self._table = self._table.take(rows)
        else:
            wanted = rows.tolist()
            self._columns = {name: [values[row] for row in wanted] for name, values in self._lists.items()}
            self._table = None
        self.rows = len(rows)


def metadata_rows(content: Any, count: int) -> list[dict[str, Any]]:
    """Metadata that comes with `count` rows, as one dict a row: a table, columns, a list of dicts, or None.

    Raises:
        EvaluationError: It has another number of rows.
    """
    if content is None:
        return [{} for _ in range(count)]
    if isinstance(content, Sequence) and not isinstance(content, str):
        rows = [dict(row or {}) for row in content]
        if len(rows) != count:
            raise EvaluationError(f"got {count:,} ids and {len(rows):,} rows of metadata. Expected as many.")
        return rows
    metadata = Metadata(content, count)
    return [metadata.row(number) for number in range(count)] if metadata else [{} for _ in range(count)]
