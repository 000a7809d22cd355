"""True pairs and class labels, from files, tables or lists, as row numbers of the embeddings they speak of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import EvaluationError
from isthmus.metrics.ranks import Ints

PAIR_COLUMNS = ("query_id", "gallery_id")
LABEL_COLUMNS = ("query_id", "class_id")

_ALIASES = {"query_id": ("query-id", "qid"), "gallery_id": ("corpus-id", "doc_id", "docid")}
_SCORES = ("score", "relevance", "rel")


@dataclass(frozen=True)
class Names:
    """Names of the items of one side of an evaluation.

    Attributes:
        what: The side, as messages call it: "query", "gallery", "classes".
        rows: By id, the row; None where items have no ids and are called by their row number.
        size: Number of items.
    """

    what: str
    rows: Mapping[str, int] | None
    size: int

    @classmethod
    def of(cls, what: str, ids: Sequence[str] | None, size: int) -> Names:
        """Index ids.

        Raises:
            EvaluationError: Other than one id an item, or an id stands twice.
        """
        if ids is None:
            return cls(what, None, size)
        if len(ids) != size:
            raise EvaluationError(f"{what} has {len(ids):,} ids for {size:,} embeddings. Expected one id for each.")
        rows = {name: row for row, name in enumerate(ids)}
        if len(rows) < size:
            twice = next(name for row, name in enumerate(ids) if rows[name] != row)
            raise EvaluationError(f"{what} has the id {twice!r} more than once. Expected unique ids.")
        return cls(what, rows, size)

    def find(self, ids: Sequence[Any], source: str, column: str) -> Ints:
        """Rows of ids.

        Raises:
            EvaluationError: An id is unknown; the message names the source, the first one and how many there are.
        """
        rows = np.fromiter((self._row(each) for each in ids), np.int64, len(ids))
        if len(missing := np.flatnonzero(rows < 0)):
            first = int(missing[0])
            known = "row numbers from 0" if self.rows is None else f"such as {next(iter(self.rows))!r}"
            raise EvaluationError(
                f"{source}: {column} {ids[first]!r} (row {first + 1:,}) is none of the {self.size:,} {self.what} ids; "
                f"{len(missing):,} of {len(ids):,} rows name unknown ids. Expected ids of the embeddings, {known}."
            )
        return rows

    def _row(self, name: Any) -> int:
        """Row number of a name, or -1."""
        if self.rows is not None:
            return self.rows.get(str(name), -1)
        text = str(name)
        return int(text) if text.isdecimal() and int(text) < self.size else -1


def read_columns(source: Any, columns: tuple[str, str], what: str) -> tuple[list[Any], list[Any], str]:
    """Read two columns of names.

    Args:
        source: Path of a .csv, .tsv, .parquet or .jsonl file; a table or a mapping with the two columns; a (p, 2)
            array; or a list of 2-tuples. Of a table with a column `score` or `relevance` the rows above 0 count.
        columns: Names of the two columns.
        what: What they are, for messages: "pairs", "labels".

    Returns:
        The two columns and what to call the source in messages.

    Raises:
        EvaluationError: A column is missing, an entry is empty or no 2-tuple, or there is none.
        FormatError: The file cannot be read.
    """
    name = what
    if isinstance(source, str | Path):
        from isthmus.core.table_files import read_table

        name, source = str(source), read_table(source)
    if hasattr(source, "column_names") or isinstance(source, Mapping):
        source = _named_as_here(source, columns)
        relevant = _relevant(source, name)
        left, right = (_column(source, column, columns, name) for column in columns)
        if relevant is not None and len(relevant) == len(left) == len(right):
            left, right = (list(compress(side, relevant)) for side in (left, right))
            if not left:
                raise EvaluationError(f"{name}: no row has a score above 0, so there are no true {what}.")
    else:
        left, right = _unzip(source, columns, name)
    if not left:
        raise EvaluationError(f"{name}: holds no {what}. Expected rows of {columns[0]},{columns[1]}.")
    if len(left) != len(right):
        raise EvaluationError(f"{name}: the columns have {len(left):,} and {len(right):,} entries. Expected as many.")
    return left, right, name


def _named_as_here(table: Any, columns: tuple[str, str]) -> Any:
    """A table whose columns have the names that BEIR and TREC give them, under ours; others as they are."""
    present = list(table) if isinstance(table, Mapping) else list(table.column_names)
    present_names = [
        next((name for name in (column, *_ALIASES.get(column, ())) if name in present), column) for column in columns
    ]
    if tuple(present_names) == columns:
        return table
    scores = {name: table[name] for name in _SCORES if name in present}
    return {
        **{ours: table[name] for ours, name in zip(columns, present_names, strict=True) if name in present},
        **scores,
    }


def _relevant(table: Any, name: str) -> list[bool] | None:
    """Whether the score of each row says that its pair is a true one, by the rule of TREC: above 0; None without one.

    Raises:
        EvaluationError: A score is no number; its row is named.
    """
    present = list(table) if isinstance(table, Mapping) else list(table.column_names)
    column = next((one for one in _SCORES if one in present), None)
    if column is None:
        return None
    values = table[column]
    relevant = []
    for row, value in enumerate(values.to_pylist() if hasattr(values, "to_pylist") else list(values), 1):
        try:
            relevant.append(float(value) > 0.0)
        except (TypeError, ValueError) as error:
            raise EvaluationError(
                f"{name}: row {row:,} has the {column} {value!r}, expected a number: above 0 is a true pair."
            ) from error
    return relevant


def _column(table: Any, column: str, columns: tuple[str, str], name: str) -> list[Any]:
    """Column of a table of true pairs, which must be there."""
    present = list(table) if isinstance(table, Mapping) else list(table.column_names)
    if column not in present:
        raise EvaluationError(
            f"{name}: has no column {column!r}, only {', '.join(map(str, present))}. "
            f"Expected the columns {columns[0]},{columns[1]}."
        )
    values = table[column]
    values = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    for row, value in enumerate(values):
        if value is None or value == "":
            raise EvaluationError(f"{name}: row {row + 1:,} has no {column}. Fill it in, or leave the row out.")
    return values


def _unzip(entries: Iterable[Any], columns: tuple[str, str], name: str) -> tuple[list[Any], list[Any]]:
    """Pairs of a list as two lists."""
    left, right = [], []
    for row, entry in enumerate(entries.tolist() if isinstance(entries, np.ndarray) else entries):
        if isinstance(entry, str) or not hasattr(entry, "__len__") or len(entry) != 2:
            raise EvaluationError(
                f"{name}: entry {row + 1:,} is {entry!r}, expected a pair ({columns[0]}, {columns[1]})."
            )
        left.append(entry[0])
        right.append(entry[1])
    return left, right


def read_pairs(pairs: Any, query: Names, gallery: Names) -> tuple[Ints, Ints]:
    """Rows of the true pairs, (p,) and (p,) int64. What `pairs` may be: see `read_columns`.

    Raises:
        EvaluationError: As `read_columns`, or an id is unknown.
    """
    left, right, name = read_columns(pairs, PAIR_COLUMNS, "pairs")
    return query.find(left, name, PAIR_COLUMNS[0]), gallery.find(right, name, PAIR_COLUMNS[1])


def read_labels(labels: Any, query: Names, classes: Names) -> tuple[Ints, Ints]:
    """Rows of the queries and numbers of their classes, (p,) and (p,) int64.

    Args:
        labels: As for `read_columns`, or (n,) class numbers, one for each query.
        query: The queries' names.
        classes: The classes' names.

    Raises:
        EvaluationError: As `read_columns`, an id is unknown, or there are not as many numbers as queries.
    """
    if not isinstance(labels, str | Path | Mapping) and not hasattr(labels, "column_names"):
        array = np.asarray(labels)
        if array.ndim == 1 and array.dtype.kind in "iu":
            if len(array) != query.size:
                raise EvaluationError(
                    f"labels name {len(array):,} classes for {query.size:,} queries. Expected as many."
                )
            return np.arange(query.size), Names(classes.what, None, classes.size).find(
                array.tolist(), "labels", "class"
            )
    left, right, name = read_columns(labels, LABEL_COLUMNS, "labels")
    return query.find(left, name, LABEL_COLUMNS[0]), classes.find(right, name, LABEL_COLUMNS[1])
