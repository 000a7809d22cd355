"""Rows of tables and lines of lists to items. What is no text is refused, never spelled out as if it were one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.messages import listed
from isthmus.core.modality import TEXT, source_column
from isthmus.core.table_files import TABLE_SUFFIXES, read_table, unstorable
from isthmus.errors import FormatError
from isthmus.items.item import Item

if TYPE_CHECKING:
    import pyarrow as pa

    Types = dict[str, pa.DataType]
else:
    Types = dict

TABLES = TABLE_SUFFIXES
_TEXT_COLUMNS = ("text", "caption")
_MOST_BLANK = 1_000
"""So many blank lines of a list are told one by one, each an item that is rejected, even where they are most of it."""
_PATH_COLUMNS = (
    *("path", "file", "file_name", "filename", "filepath", "file_path"),
    *("image", "audio", "video", "image_file", "audio_file"),
)


@dataclass(frozen=True)
class TableColumns:
    """Columns of a table as the user named them; None takes the usual names.

    Attributes:
        ids: Column of ids; "path" and "stem" are the rules for files and mean no column.
        text: Column of texts.
        path: Column of paths of files.
    """

    ids: str | None = None
    text: str | None = None
    path: str | None = None


def list_items(path: Path, name: str) -> Iterator[Item]:
    """Texts of a list, one a line. Only line feeds end a line, so that rare Unicode separators do not shift the count.

    Raises:
        FormatError: It is UTF-16, or most of its lines are blank.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(f"{path}: is UTF-16. Save it as UTF-8.")
    lines = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    if lines and not lines[-1].strip():
        lines.pop()
    blank = sum(not line or line.isspace() for line in lines)
    if blank > _MOST_BLANK and 2 * blank > len(lines):
        raise FormatError(f"{path}: {blank:,} of its {len(lines):,} lines are blank. Expected a text a line.")
    for number, line in enumerate(lines, 1):
        yield Item(f"{name}:{number}", str(path), line.rstrip("\r"))


def table_items(
    path: Path, name: str, modality: str, *, columns: TableColumns, types: Types, notes: list[str]
) -> Iterator[Item]:
    """Items of a table, one a row.

    Args:
        path: The table.
        name: What generated ids begin with.
        modality: For text the rows hold the texts, else paths relative to the table.
        columns: The columns of ids, texts and paths as the user named them.
        types: The types of the further columns are added to it.
        notes: A line is added for each further column that cannot be kept.

    Raises:
        FormatError: The table cannot be read, lacks a column, a row has no id, or an id, text or path is no text.
    """
    table = read_table(path)
    id_column, column = _chosen(path, table.column_names, modality, columns)
    named = id_column in table.column_names
    keys = (
        texts_of(table.column(id_column), path, id_column, numbers=True)
        if named
        else [f"{name}:{row}" for row in range(1, table.num_rows + 1)]
    )
    values = texts_of(table.column(column), path, column)
    taken = {column, id_column, source_column(modality)}
    rest = table.drop_columns([other for other in table.column_names if other in taken])
    rest = _storable(rest, path, notes)
    _merge_types(types, rest)
    others: Iterable[dict[str, Any]] = _rows(rest) if rest.num_columns else ({} for _ in values)
    for row, (key, value, further) in enumerate(zip(keys, values, others, strict=True), 1):
        if not key:
            raise FormatError(f"{path}: row {row} has no {id_column}. Fill it in, or leave the row out.")
        if modality == TEXT:
            yield Item(key, str(path), value or "", columns=further)
        else:
            yield Item(key, str(path.parent / (value or "")), columns=further)


def texts_of(column: pa.ChunkedArray, path: Path, name: str, *, numbers: bool = False) -> list[str | None]:
    """A column of texts, or of whole numbers where they are allowed, as Python texts; None where a value is missing.

    Raises:
        FormatError: The column is of another type. It is not guessed what its values mean as text.
    """
    import pyarrow as pa

    t = pa.types
    kind = column.type.value_type if t.is_dictionary(column.type) else column.type
    view = getattr(t, "is_string_view", lambda _: False)  # pyarrow 16 to 17 have no such type everywhere
    if t.is_string(kind) or t.is_large_string(kind) or t.is_null(kind) or view(kind):
        values: list[str | None] = column.to_pylist()
        return values
    if numbers and t.is_integer(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    expected = "texts or whole numbers" if numbers else "texts"
    row, value = _first_value(column)
    raise FormatError(
        f"{path}: the column {name!r} is of type {_short(str(kind))}, expected {expected} (row {row} holds {value})."
        f" {_advice(kind)}"
    )


def _first_value(column: pa.ChunkedArray) -> tuple[int, str]:
    """The first row that holds something, counted from 1, and what it holds, shortened."""
    for row, value in enumerate(column, 1):
        if value.is_valid:
            try:
                return row, _short(str(value))
            except ValueError:  # a time that Python cannot hold
                return row, "a value"
    return 1, "nothing"


def _short(text: str) -> str:
    """A text in at most 40 characters."""
    return text if len(text) <= 40 else text[:37] + "..."


def _advice(kind: pa.DataType) -> str:
    """What to do about a column of a type that is no id."""
    import pyarrow as pa

    t = pa.types
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return "Write one row a text, each with an id of its own (pandas: explode)."
    if t.is_floating(kind):
        return "Convert it: in pandas .astype('Int64').astype(str) for whole numbers."
    if t.is_struct(kind):
        return "Write the files out and give their paths, or name another column."
    if t.is_binary(kind) or t.is_large_binary(kind):
        return "Decode it to text first, or name another column."
    return "Write it as text, or name another column."


def _chosen(path: Path, names: list[str], modality: str, columns: TableColumns) -> tuple[str, str]:
    """The column of ids, which may be missing when the user named none, and the column of texts or paths."""
    id_column = "id" if columns.ids in (None, "path", "stem") else str(columns.ids)
    if id_column != "id" and id_column not in names:
        raise FormatError(f"{path}: has no column {id_column!r} for the ids. It has: {listed(names)}.")
    if modality == TEXT:
        wanted: Sequence[str] = (columns.text,) if columns.text else _TEXT_COLUMNS
        hint = "Name the right one with --text-column"
    else:
        wanted = (columns.path,) if columns.path else (source_column(modality), *_PATH_COLUMNS)
        hint = "Name the one that holds the paths with --path-column"
    column = next((name for name in wanted if name in names), None)
    if column is None:
        expected = " or ".join(wanted[:4])
        raise FormatError(f"{path}: has no column {expected}. It has: {listed(names)}. {hint}.")
    return id_column, column


def _storable(table: pa.Table, path: Path, notes: list[str]) -> pa.Table:
    """A table without the columns that the metadata of a space cannot hold; each is told."""
    for name in unstorable(table.schema):
        kind = _short(str(table.schema.field(name).type))
        notes.append(f"{path}: the column {name!r} is left out, a type ({kind}) that metadata cannot hold")
        table = table.drop_columns([name])
    return table


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows as dicts. What Python cannot hold, such as nanoseconds, stays an Arrow scalar and so keeps its value."""
    columns = [_values(table.column(name)) for name in table.column_names]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column as Python has them."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type):  # of these Python knows some, in some ranges and time zones
        return [value if value.is_valid else None for value in column]
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError):
        return [value if value.is_valid else None for value in column]


def _merge_types(types: Types, table: pa.Table) -> None:
    """Note the types of further columns; where two tables disagree the column becomes text."""
    import pyarrow as pa

    for field in table.schema:
        known = types.setdefault(field.name, field.type)
        if known != field.type:
            types[field.name] = field.type if pa.types.is_null(known) else known
            if not pa.types.is_null(known) and not pa.types.is_null(field.type):
                types[field.name] = pa.string()
