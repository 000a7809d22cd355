"""Ids of what is imported: from a file, a column, a list, or row numbers; each once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.table_files import TABLE_SUFFIXES, read_table
from isthmus.core.text_lines import read_text_lines
from isthmus.errors import FormatError
from isthmus.spaces.importing.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

Ids = str | Path | Sequence[str] | None


def resolve_ids(source: Source, ids: Ids) -> tuple[pa.ChunkedArray | None, str, pa.Table | None]:
    """The ids of a source's rows.

    Args:
        source: The embeddings.
        ids: Name of a column; a file (.txt one a line, or a table with a column `id`); the ids; or None for the column
            `id`, and where there is none, none.

    Returns:
        The ids as large strings or None, how they were found, and other columns of the ids' file.

    Raises:
        FormatError: There is no such column or file, or its ids are empty, no text, or not one a row.
    """
    columns = source.columns
    if ids is None:
        name = next((name for name in ("id", "ids") if name in columns), None)
        if name is None:
            return None, "generated", None
        return _texts(source.column(name), source, f"column {name!r}"), f"column {name}", None
    if not isinstance(ids, str | Path):
        return _texts(list(ids), source, "the ids"), "given", None
    if str(ids) in columns:
        return _texts(source.column(str(ids)), source, f"column {str(ids)!r}"), f"column {ids}", None
    if not Path(ids).is_file():
        raise FormatError(
            f"{source.path}: ids {str(ids)!r} is neither a file nor a column. "
            f"Expected a .txt, .csv or .parquet file, or one of the columns: {', '.join(columns) or 'none'}."
        )
    values, beside = _ids_file(Path(ids))
    return _texts(values, source, str(ids)), f"file {Path(ids).name}", beside


def _ids_file(path: Path) -> tuple[Any, pa.Table | None]:
    """Ids from a file of lines or a table, and what stands beside them."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return read_text_lines(path), None
    table = read_table(path)
    name = next((name for name in ("id", "ids") if name in table.column_names), table.column_names[0])
    if name not in ("id", "ids") and table.num_columns > 1:
        raise FormatError(
            f"{path}: has no column 'id', it has {', '.join(table.column_names)}. Name the column of ids so."
        )
    rest = table.drop_columns([name])
    return table.column(name), rest if rest.num_columns else None


def _texts(values: Any, source: Source, what: str) -> pa.ChunkedArray:
    """Values as ids: text or whole numbers, none empty, one a row."""
    import pyarrow as pa

    try:
        array = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values)])
    except (pa.ArrowException, TypeError) as error:
        raise FormatError(f"{source.path}: {what} cannot be read as ids ({error}). Expected texts.") from error
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    t = pa.types
    if not (t.is_string(kind) or t.is_large_string(kind) or t.is_integer(kind) or (t.is_null(kind) and not len(array))):
        raise FormatError(
            f"{source.path}: {what} is of type {kind}, expected text or whole numbers as ids. Convert it."
        )
    if len(array) != source.rows:
        raise FormatError(
            f"{source.path}: has {source.rows:,} embeddings, but {what} has {len(array):,} ids. Give one id a row."
        )
    array = array.cast(kind).cast(pa.large_string())
    empty = np.flatnonzero(pa.compute.equal(array.fill_null(""), "").to_numpy())
    if len(empty):
        raise FormatError(
            f"{source.where(int(empty[0]))} has no id in {what} ({len(empty):,} are empty). Every row needs one."
        )
    return array


def check_unique(ids: pa.ChunkedArray, source: Source) -> None:
    """Raise FormatError that names the first id that stands twice, and both rows."""
    import pyarrow.compute as pc

    if pc.count_distinct(ids).as_py() == len(ids):
        return
    rows: dict[str, int] = {}
    for row, name in enumerate(ids.to_pylist()):
        if name in rows:
            raise FormatError(
                f"{source.where(row)} has the id {name!r} of row {rows[name]}. Ids are unique in a modality: "
                "correct them, or give another column or file with --ids."
            )
        rows[name] = row
