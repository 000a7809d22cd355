"""Some rows of a modality of a space, in an order of one's own, to be projected and scored as the whole is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from isthmus.spaces.embeddings import Embeddings, Floats, RowNumbers

if TYPE_CHECKING:
    import pyarrow as pa


class Selection:
    """Rows of a modality by number. It has what a bridge and a metric ask of `Embeddings`.

    Args:
        whole: The modality.
        rows: (k,) row numbers, each at most once for ids to stay unique.
        columns: Further metadata columns, (k,) values each, over those of the same name.
    """

    def __init__(self, whole: Embeddings, rows: ArrayLike, columns: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.columns = dict(columns or {})
        self.whole, self.rows = whole, np.asarray(rows, np.int64).reshape(-1)
        self.modality, self.dim, self.space_name = whole.modality, whole.dim, whole.space_name
        self.info, self.fingerprint = whole.info, whole.fingerprint

    @classmethod
    def of_ids(cls, whole: Embeddings, ids: Sequence[str]) -> Selection:
        """The rows of ids, in their order.

        Raises:
            SpaceError: An id is not there.
        """
        return cls(whole, whole.rows_of(ids))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Selection({len(self):,} of {self.whole!r})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        x = self.whole.take(self.rows)
        return x if dtype is None else x.astype(dtype, copy=False)

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in the order of the rows."""
        every = self.whole.ids
        return [every[row] for row in self.rows]

    @cached_property
    def metadata(self) -> pa.Table:
        """The table that goes with the rows."""
        import pyarrow as pa

        table = self.whole.metadata.take(self.rows)
        for name, values in self.columns.items():
            table = table.drop_columns([name]) if name in table.column_names else table
            table = table.append_column(name, pa.array(list(values)))
        return table

    def take(self, rows: ArrayLike) -> Floats:
        """Rows by their number here, (k, dim) float32 as stored."""
        return self.whole.take(self.rows[np.asarray(rows, np.int64)])

    def unit(self, rows: ArrayLike | None = None) -> Floats:
        """All rows, or those numbered, scaled to unit length; SpaceError where one is zero."""
        wanted: RowNumbers = self.rows if rows is None else self.rows[np.asarray(rows, np.int64)]
        return self.whole.unit(wanted)

    def blocks(self, size: int = 65_536) -> Iterator[Floats]:
        """Yield all rows in order as (at most size, dim) float32 arrays."""
        for start in range(0, len(self), size):
            yield self.whole.take(self.rows[start : start + size])


EmbeddingRows = Embeddings | Selection
"""A modality of a space, or some of its rows: what a bridge projects and a metric scores."""
