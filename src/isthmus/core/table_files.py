"""Tables in files of others: .csv, .tsv, .parquet and .jsonl, read as what stands in them and never as a guess.

Values of text formats stay texts: a CSV has no types, and a string of a .jsonl that looks like a date is a string. A
file whose rows could be read in two ways, one of which loses rows, is refused with the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.arrow_files import rows_bytes
from isthmus.core.csv_files import CHUNK, COLUMN_LIMIT, read_csv
from isthmus.core.json_text import check_characters, parsed_bytes
from isthmus.core.limits import excess, special_file, unpacked_limit
from isthmus.core.messages import listed, one_line
from isthmus.core.parquet_pages import page_sizes
from isthmus.core.text_lines import filled_lines
from isthmus.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")

_NESTING = 64
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a .csv, .tsv, .parquet or .jsonl file as a table.

    Each column of a CSV is text: the id "007" stays "007". Strings of a .jsonl are strings, whatever they look like.

    Args:
        path: The file.
        columns: Those that are wanted of a .parquet; others are not read. None reads all.

    Raises:
        FormatError: The file is missing, of another kind, empty, damaged, would take too much memory, or can be read in
            two ways.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise FormatError(
            f"{path}: a table is one of {', '.join(TABLE_SUFFIXES)}, got {suffix or 'no suffix'!r}. Convert it, or "
            "rename it."
        )
    if not path.is_file():
        what = special_file(path)
        is_what = f"is {what}, no file" if what else "no such file"
        raise FormatError(f"{path}: {is_what}. Expected a table ({', '.join(TABLE_SUFFIXES)}); check the path.")
    import pyarrow as pa

    try:
        if suffix == ".parquet":
            return read_parquet(path, columns)
        return _read_jsonl(path) if suffix == ".jsonl" else read_csv(path, "\t" if suffix == ".tsv" else ",")
    except pa.ArrowException as error:
        raise FormatError(
            f"{path}: cannot be read as {suffix[1:]} ({one_line(error)}). Check that the file is whole and UTF-8."
        ) from error


@contextmanager
def parquet_faults(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises about a damaged .parquet into a FormatError of one line."""
    import pyarrow as pa

    try:
        yield
    except (PermissionError, FileNotFoundError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:  # names need not be text either
        raise FormatError(
            f"{path}: cannot be read as parquet ({one_line(error)}). The file is cut short, damaged or of another kind."
        ) from error


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a .parquet, or some columns of it, a stretch at a time so that its limit holds.

    Raises:
        FormatError: It is damaged, has two columns of one name, or takes too much memory once unpacked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = path.stat().st_size
    with parquet_faults(path):
        rows = text_rows(path, CHUNK // 8)
        file = pq.ParquetFile(path, memory_map=True)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise FormatError(f"{path}: two columns have one name ({listed(names)}). Rename one of them.")
        size, batches = 0, []
        wanted = None if columns is None else list(columns)
        for batch in file.iter_batches(batch_size=rows, columns=wanted):
            batch.validate(full=True)  # texts that are no UTF-8 are found here, and not by whoever uses one
            size += rows_bytes(batch)
            if fault := excess(size, packed):
                raise FormatError(f"{path}: {fault}.")
            batches.append(batch)
        known = [name for name in (names if columns is None else columns) if name in names]
        schema = pa.schema([file.schema_arrow.field(name) for name in known])
        return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def text_rows(path: Path, rows: int) -> int:
    """How many rows of a .parquet may be read at once, at most `rows`, so that its pages and its texts fit.

    A text that a dictionary holds once can stand in every row: no text is longer than its page is unpacked, so that so
    many rows stay within an eighth of what the file may take.

    Raises:
        FormatError: Its pages are damaged, or the largest of all columns take too much memory once unpacked.
    """
    packed = path.stat().st_size
    try:
        sizes = page_sizes(path)
    except (ValueError, TypeError, IndexError) as error:
        raise FormatError(
            f"{path}: cannot be read as parquet ({one_line(error)}). The file is cut short, damaged or of another kind."
        ) from error
    if fault := excess(sizes.at_once, packed):
        raise FormatError(f"{path}: {fault}.")
    return max(min(rows, unpacked_limit(packed) // 8 // sizes.longest_text), 1)


def read_records(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a .parquet that isthmus wrote beside a space, such as what was rejected.

    Raises:
        FormatError: It is damaged, lacks a column, or takes too much memory once unpacked.
    """
    import pyarrow.parquet as pq

    with parquet_faults(path):
        known = pq.read_schema(path).names
    if missing := [name for name in columns if name not in known]:
        raise FormatError(f"{path}: has no column {missing[0]!r}. Remove the file, or restore it from a copy.")
    with parquet_faults(path):
        return [dict(row) for row in read_parquet(path, columns).to_pylist()]


def unstorable(schema: pa.Schema) -> list[str]:
    """Names of the columns that a .parquet, and so the metadata of a space, cannot hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = []
    for field in schema:
        try:
            pq.write_table(pa.table({field.name: pa.array([], field.type)}), pa.BufferOutputStream())
        except pa.ArrowException:
            names.append(field.name)
    return names


def _read_jsonl(path: Path) -> pa.Table:
    """One object a line, its strings as they stand."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    lines: list[int] = []  # of each row its line, for messages
    packed, size = path.stat().st_size, 0
    for number, line in filled_lines(path):
        size += parsed_bytes(line)
        if fault := excess(size, packed):
            raise FormatError(f"{path}: up to line {number} {fault}.")
        for key, value in _json_object(path, number, line).items():
            if key not in columns:
                _check_keys(path, number, len(columns) + 1, len(lines) + 1)
            column = columns.setdefault(key, [])
            if len(column) < len(lines):
                column.extend([None] * (len(lines) - len(column)))
            column.append(value)
        lines.append(number)
    if not lines:
        raise FormatError(f"{path}: is empty. Expected one json object a line.")
    arrays = {}
    for name, values in columns.items():
        values.extend([None] * (len(lines) - len(values)))
        arrays[name] = _json_column(path, name, values, lines)
    return pa.table(arrays) if arrays else pa.table({"": pa.nulls(len(lines))}).select([])


def _check_keys(path: Path, number: int, keys: int, rows: int) -> None:
    """Refuse lines of ever other keys: each key is a column with a place for every row."""
    fault = excess(8 * keys * rows, path.stat().st_size)
    if keys > COLUMN_LIMIT or fault:
        raise FormatError(
            f"{path}: line {number} has key number {keys:,} ({fault or f'the limit is {COLUMN_LIMIT:,}'}). Expected "
            "the same keys in every line."
        )


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """Flat object of one line of a .jsonl."""
    depth = line.count("[") + line.count("{")
    if depth > _NESTING and _nesting(line) > _NESTING:
        raise FormatError(f"{path}: line {number} is nested more than {_NESTING} deep. Expected a flat object a line.")
    try:
        value = json.loads(line, object_pairs_hook=_unique_keys)
        if "\\u" in line:
            check_characters(value)
    except (ValueError, RecursionError) as error:
        hint = " A .json with one list is no .jsonl." if number == 1 and line.lstrip()[:1] == "[" else ""
        raise FormatError(
            f"{path}: line {number} is no json object ({one_line(error)}). Expected one object a line.{hint}"
        ) from error
    if not isinstance(value, dict):
        raise FormatError(
            f"{path}: line {number} is {_kind(value)}, expected a json object such as {{'id': ..., 'text': ...}}."
        )
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keys of a JSON object, of which none may stand twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return record


def _nesting(line: str) -> int:
    """The most brackets that are open at once, those inside strings left out."""
    depth = most = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", line)):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    return most


def _kind(value: Any) -> str:
    """Kind of a JSON value, for messages."""
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def _json_column(path: Path, name: str, values: list[Any], lines: Sequence[int]) -> pa.Array:
    """Arrow column of JSON values, which must be of one kind."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    numbers = kinds <= {int, float}
    if len(kinds) > 1 and not numbers:
        first = next(value for value in values if value is not None)
        row = next(i for i, value in enumerate(values) if value is not None and type(value) is not type(first))
        raise FormatError(
            f"{path}: line {lines[row]} has {_kind(values[row])} as {name!r}, lines before it {_kind(first)}. Write "
            "the values of one key with one type."
        )
    try:
        return pa.array([value if value is None else float(value) for value in values] if len(kinds) > 1 else values)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise FormatError(
            f"{path}: the values of {name!r} cannot be one column ({one_line(error)}). Write them with one type."
        ) from error
