"""Rows of tables and lines of lists to items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.files import read_table
from isthmus.core.modality import TEXT, source_column
from isthmus.errors import FormatError
from isthmus.items.item import Item

if TYPE_CHECKING:
    import pyarrow as pa

    Types = dict[str, pa.DataType]
else:
    Types = dict

TABLES = (".csv", ".tsv", ".parquet", ".jsonl")
_TEXT_COLUMNS = ("text", "caption")
_PATH_COLUMNS = ("path", "file")


def list_items(path: Path, name: str) -> Iterator[Item]:
    """One text a line. Only line feeds end a line, so that rare Unicode separators do not shift the count."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(f"{path}: is UTF-16. Save it as UTF-8.")
    lines = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    if lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        yield Item(f"{name}:{number}", str(path), line.rstrip("\r"))


def table_items(
    path: Path, name: str, modality: str, *, columns: tuple[str | None, str | None], types: Types
) -> Iterator[Item]:
    """One item a row of a table.

    Args:
        path: The table.
        name: What generated ids begin with.
        modality: For text the rows hold the texts, else paths relative to the table.
        columns: The columns of ids and of texts as the user named them.
        types: The types of the further columns are added to it.

    Raises:
        FormatError: The table cannot be read, lacks a column, or a row has no id.
    """
    table = read_table(path)
    id_column, column = _columns(path, table.column_names, modality, *columns)
    named = id_column in table.column_names
    keys = table.column(id_column).to_pylist() if named else [f"{name}:{row}" for row in range(1, table.num_rows + 1)]
    values = table.column(column).to_pylist()
    taken = {column, id_column, source_column(modality)}
    rest = table.drop_columns([other for other in table.column_names if other in taken])
    _merge_types(types, rest)
    others: Iterable[dict[str, Any]] = rest.to_pylist() if rest.num_columns else ({} for _ in values)
    for row, (key, value, further) in enumerate(zip(keys, values, others, strict=True), 1):
        if key is None or key == "":
            raise FormatError(f"{path}: row {row} has no {id_column}. Fill it in, or leave the row out.")
        content = "" if value is None else str(value)
        if modality == TEXT:
            yield Item(str(key), str(path), content, columns=further)
        else:
            yield Item(str(key), str(path.parent / content), columns=further)


def _columns(path: Path, names: list[str], modality: str, ids: str | None, text_column: str | None) -> tuple[str, str]:
    """The column of ids, which may be missing when the user named none, and the column of texts or paths."""
    id_column = "id" if ids in (None, "path", "stem") else str(ids)
    if id_column != "id" and id_column not in names:
        raise FormatError(f"{path}: has no column {id_column!r} for the ids. It has: {', '.join(names)}.")
    if modality != TEXT:
        wanted: tuple[str, ...] = (source_column(modality), *_PATH_COLUMNS)
    else:
        wanted = (text_column,) if text_column else _TEXT_COLUMNS
    column = next((name for name in wanted if name in names), None)
    if column is None:
        hint = "Name the right one with --text-column" if modality == TEXT else "Give one that holds paths"
        raise FormatError(f"{path}: has no column {' or '.join(wanted)}. It has: {', '.join(names)}. {hint}.")
    return id_column, column


def _merge_types(types: Types, table: pa.Table) -> None:
    """Note the types of further columns; where two tables disagree the column becomes text."""
    import pyarrow as pa

    for field in table.schema:
        known = types.setdefault(field.name, field.type)
        if known != field.type:
            types[field.name] = field.type if pa.types.is_null(known) else known
            if not pa.types.is_null(known) and not pa.types.is_null(field.type):
                types[field.name] = pa.string()
