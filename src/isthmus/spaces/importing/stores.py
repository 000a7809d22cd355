"""Exports of vector stores and of other tools, read whole as tables: Arrow files, json, csv and LanceDB.

The size is checked before memory is taken.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.arrow_files import arrow_batches, rows_bytes
from isthmus.core.csv_files import COLUMN_LIMIT
from isthmus.core.json_text import parsed_bytes
from isthmus.core.limits import excess
from isthmus.core.messages import listed, one_line
from isthmus.core.table_files import read_table
from isthmus.errors import DependencyError, FormatError
from isthmus.spaces.importing.arrays import NAMES

if TYPE_CHECKING:
    import pyarrow as pa

_LISTS = ("points", "vectors", "matches", "objects", "results", "result", "records", "data", "Get")
"""Keys under which exports of vector stores hold their rows."""

_IDS = ("uuid", "_id", "pk")
"""What Weaviate's client, Elasticsearch and Milvus call an id; taken for one where no two rows share a value."""

_SMALL_TABLE, _FEW_ROWS, _MANY_ROWS = 64 * 2**20, 16, 256
"""Bytes of a small LanceDB table, the rows of one that are read at once, so few that its longest possible text fits,
and the rows of others."""


def read_vectors(path: Path) -> pa.Table:
    """A table of an Arrow, csv, json or LanceDB export, nested vectors as columns of their own.

    Raises:
        FormatError: It cannot be read, or takes too much memory once unpacked.
    """
    suffix = path.suffix.lower()
    if suffix in (".arrow", ".feather"):
        return _read_arrow(path)
    if suffix == ".lance":
        return _read_lance(path)
    table = _flat(_read_json(path) if suffix == ".json" else read_table(path))
    return _parsed(table, path) if suffix in (".csv", ".tsv") else _with_id(table)


def _read_arrow(path: Path) -> pa.Table:
    """An Arrow file (feather) or stream, as `datasets` writes them; mapped: what is not packed is not copied."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            schema, batches = arrow_batches(path, mapped)
            if len(set(schema.names)) < len(schema.names):
                raise FormatError(f"{path}: two columns have one name ({listed(schema.names)}). Rename one of them.")
            return _flat(pa.Table.from_batches(batches, schema=schema))
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError, OverflowError, ValueError, struct.error) as error:
        raise FormatError(
            f"{path}: cannot be read as Arrow ({one_line(error)}). The file is cut short, damaged or of another kind."
        ) from error


def _read_lance(path: Path) -> pa.Table:
    """LanceDB table as Arrow."""
    try:
        import lancedb
    except ImportError as error:
        raise DependencyError(
            f"reading a LanceDB table needs lancedb, not installed here ({error}). Run: pip install 'isthmus[lance]'"
        ) from error
    try:
        table = lancedb.connect(str(path.parent)).open_table(path.stem)
        return _flat(_lance_rows(table, path))
    except FormatError:
        raise
    except Exception as error:  # of damaged tables the library raises many kinds
        raise FormatError(
            f"{path}: cannot be read as a LanceDB table ({one_line(error)}). Give the folder NAME.lance."
        ) from error


def _lance_rows(table: Any, path: Path) -> pa.Table:
    """All rows of a LanceDB table, a few at a time: a text that its pages hold once may stand in every row."""
    import pyarrow as pa

    packed = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    size, batches = 0, []
    rows = _FEW_ROWS if packed < _SMALL_TABLE else _MANY_ROWS
    for batch in table.search(None).to_batches(batch_size=rows):
        size += rows_bytes(batch)
        if fault := excess(size, packed):
            raise FormatError(f"{path}: {fault}.")
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else table.schema)


def _read_json(path: Path) -> pa.Table:
    """The rows of an export of a vector store: a list of objects, wherever in the answer it stands."""
    import pyarrow as pa

    raw = path.read_bytes()
    if fault := excess(parsed_bytes(raw), len(raw)):
        raise FormatError(f"{path}: {fault}, or write the rows as .jsonl or .parquet.")
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as json ({one_line(error)}). Write it again.") from error
    if columns := _columns_of(value):
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        rows = _rows_of(value) or []
    if not rows:
        raise FormatError(f"{path}: holds no list of objects with vectors. Expected one, or a key {_LISTS[0]!r}.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    fault = excess(8 * len(names) * len(rows), path.stat().st_size)
    if len(names) > COLUMN_LIMIT or fault:
        raise FormatError(f"{path}: its rows have {len(names):,} keys together, at most {COLUMN_LIMIT:,} can be read.")
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: its rows are no table ({one_line(error)}). Write each key with one type."
        ) from error


def _columns_of(value: Any) -> dict[str, list[Any]]:
    """The lists of one length of an answer that has a list a column, as Chroma's; nothing for other answers."""
    names = [name for name in NAMES if isinstance(value, dict) and isinstance(value.get(name), list)]
    if not names or not value[names[0]] or not all(isinstance(row, list) for row in value[names[0]]):
        return {}
    return {name: one for name, one in value.items() if isinstance(one, list) and len(one) == len(value[names[0]])}


def _rows_of(value: Any, depth: int = 0) -> list[dict[str, Any]] | None:
    """Rows of an export of a vector store, wherever its JSON holds them."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return value
    if not isinstance(value, dict) or depth > 4:
        return None
    inner = [value[key] for key in _LISTS if key in value] or (list(value.values()) if len(value) == 1 else [])
    for one in inner:
        if (rows := _rows_of(one, depth + 1)) is not None:
            return rows
    if value and all(isinstance(row, dict) and any(name in row for name in NAMES) for row in value.values()):
        return [{"id": name, **row} for name, row in value.items()]  # Pinecone's fetch: vectors by id
    return None


def _flat(table: pa.Table) -> pa.Table:
    """A table whose nested vectors (`vector.default`, `_additional.id`) are columns; other nested ones stay."""
    import pyarrow as pa

    for name in table.column_names:
        kind = table.schema.field(name).type
        if not pa.types.is_struct(kind) or not any(pa.types.is_list(field.type) for field in kind):
            continue
        column = table.column(name).combine_chunks()
        column = pa.chunked_array([column]) if not isinstance(column, pa.ChunkedArray) else column
        for index, field in enumerate(kind):
            short = name if kind.num_fields == 1 else field.name if field.name in NAMES else f"{name}.{field.name}"
            short = f"{name}.{field.name}" if short in table.column_names and short != name else short
            part = pa.chunked_array([chunk.field(index) for chunk in column.chunks])
            at = table.schema.get_field_index(short)
            table = table.append_column(short, part) if at < 0 else table.set_column(at, short, part)
        if kind.num_fields > 1:
            table = table.drop_columns([name])
    return table


def _with_id(table: pa.Table) -> pa.Table:
    """A table whose column of ids is called `id`, where it has another of the usual names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "id" in table.column_names or "ids" in table.column_names:
        return table
    for name in (name for name in _IDS if name in table.column_names):
        column = table.column(name)
        plain = pa.types.is_string(column.type) or pa.types.is_integer(column.type)
        if plain and not column.null_count and pc.count_distinct(column).as_py() == len(column):
            return table.rename_columns(["id" if one == name else one for one in table.column_names])
    return table


def _parsed(table: pa.Table, path: Path) -> pa.Table:
    """A csv whose column of vectors is spelled `[0.1, 0.2]` or as numpy prints it, or one with a column a dimension."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in (name for name in NAMES if name in table.column_names):
        rows = []
        for row, text in enumerate(table.column(name).to_pylist(), 1):
            try:
                rows.append([float(value) for value in _numbers(text)])
            except (ValueError, TypeError, RecursionError) as error:
                if "..." in str(text):
                    raise FormatError(
                        f"{path}: row {row} of {name!r} was cut short when it was written (it has '...'), its numbers "
                        "are lost. Write the frame anew as .parquet."
                    ) from error
                raise FormatError(
                    f"{path}: row {row} has {str(text)[:40]!r} as {name!r}, expected numbers as [0.1, 0.2]."
                ) from error
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.array(rows, pa.list_(pa.float64())))
    for name in table.column_names:
        if name[-1:].isdigit():
            try:
                numbers = pc.cast(table.column(name), pa.float64())
            except pa.ArrowException:  # a column of texts that ends in a digit
                continue
            table = table.set_column(table.schema.get_field_index(name), name, numbers)
    return table


def _numbers(text: str) -> list[Any]:
    """The numbers of a list of json, or of an array as numpy prints it: `[0.1 0.2]`, over several lines."""
    try:
        value: list[Any] = json.loads(text)
        return value
    except ValueError:
        if "," in text or not (text.startswith("[") and text.endswith("]")):
            raise
        return text[1:-1].split()
