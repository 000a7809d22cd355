"""Tables in files of others: .csv, .tsv, .parquet and .jsonl, read as what stands in them and never as a guess.

Values of text formats stay texts: a CSV has no types, and a string of a .jsonl that looks like a date is a string. A
file whose rows could be read in two ways, one of which loses rows, is refused with the line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.json_text import check_characters
from isthmus.core.limits import excess, special_file
from isthmus.core.messages import one_line
from isthmus.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")

_CHUNK = 65_536
_FIELD_LIMIT = 16 * 2**20
_NESTING = 64
_SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
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
        return _read_jsonl(path) if suffix == ".jsonl" else _read_csv(path, "\t" if suffix == ".tsv" else ",")
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
        file = pq.ParquetFile(path, memory_map=True)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise FormatError(f"{path}: two columns have one name ({listed(names)}). Rename one of them.")
        size, batches = 0, []
        for batch in file.iter_batches(batch_size=_CHUNK // 8, columns=None if columns is None else list(columns)):
            size += batch.nbytes
            if fault := excess(size, packed):
                raise FormatError(f"{path}: {fault}.")
            batches.append(batch)
        schema = file.schema_arrow if columns is None else pa.schema([file.schema_arrow.field(n) for n in columns])
        return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


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


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names on one line that stays short: the first few, then a count."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in names[:most]) + rest


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends, each decoded by itself so that a fault has a line number."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise FormatError(f"{path}: is UTF-16. Save it as UTF-8.")
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"{path}: line {number} is not UTF-8 (byte 0x{raw[error.start]:02x}). Save the file as UTF-8; "
                    "files of Excel are often Latin-1: iconv -f LATIN1 -t UTF-8."
                ) from error


def read_text_lines(path: Path) -> list[str]:
    """Lines of a text file without their ends, such as ids.

    Raises:
        FormatError: A line is not UTF-8.
    """
    return [line.rstrip("\r\n") for line in _lines(path)]


class _CsvLines:
    """Lines for `csv.reader`, of which those of the row in work are kept so that it can be looked at again."""

    def __init__(self, path: Path) -> None:
        self.row: list[str] = []
        self._lines = _lines(path)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            # Files of old spreadsheets end their lines with a carriage return alone.
            for piece in re.findall(r"[^\r]*\r\n?|[^\r]+", line):
                self.row.append(piece)
                yield piece


def _read_csv(path: Path, delimiter: str) -> pa.Table:
    """Rows by RFC 4180, strictly: what a lenient reader would mend in silence is refused with its line."""
    import pyarrow as pa

    lines, first = _CsvLines(path), 1
    # The limit is the module's: a text of 131,072 letters is a long caption, one of 16 million a lost quote mark.
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        _check_header(path, names, delimiter)
        batches: list[pa.RecordBatch] = []
        rows: list[list[str]] = []
        first = reader.line_num + 1
        lines.row.clear()
        for row in reader:
            if row:  # a blank line is no row
                _check_row(path, row, names, lines.row, first, delimiter)
                rows.append(row)
            first = reader.line_num + 1
            lines.row.clear()
            if len(rows) == _CHUNK:
                batches.append(_texts(rows, names))
                rows = []
    except csv.Error as error:
        raise FormatError(_quote_fault(path, lines.row, first, delimiter, error)) from error
    finally:
        csv.field_size_limit(before)
    return pa.Table.from_batches([*batches, _texts(rows, names)])


def _texts(rows: list[list[str]], names: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pa.record_batch([pa.array(list(column), pa.string()) for column in columns], names=list(names))


def _check_header(path: Path, names: Sequence[str], delimiter: str) -> None:
    if not names or names == [""]:
        raise FormatError(f"{path}: is empty. Expected a line with the names of the columns, then a line a row.")
    if len(set(names)) < len(names):
        raise FormatError(f"{path}: two columns have one name ({listed(names)}). Rename one of them.")
    header = delimiter.join(names)
    other = max(_SEPARATORS, key=header.count)
    if header.count(other) > header.count(delimiter):
        raise FormatError(
            f"{path}: seems to be separated by {_SEPARATORS[other]}; a {path.suffix} is by {_SEPARATORS[delimiter]} "
            f"(its first line is {header[:80]!r}). Save it with commas as .csv, or with tabs as .tsv."
        )


def _check_row(
    path: Path, row: Sequence[str], names: Sequence[str], lines: Sequence[str], first: int, delimiter: str
) -> None:
    if len(row) != len(names):
        raise FormatError(
            f"{path}: line {first} has {len(row)} fields, the header has {len(names)} ({listed(names, 6)}). A text "
            "that holds the separator or a quote mark stands in quote marks, those inside it doubled."
        )
    if len(lines) > 1 and _may_be_rows(row, names, lines, delimiter):
        raise FormatError(
            f"{path}: line {first} opens a quote mark that closes in line {first + len(lines) - 1}, and every line "
            "between could be a row of its own. Double quote marks that are part of a text and put the text in quote "
            "marks, or save the table as .jsonl or .parquet."
        )


def _may_be_rows(row: Sequence[str], names: Sequence[str], lines: Sequence[str], delimiter: str) -> bool:
    """Whether the lines of a text in quote marks would be rows if the quote marks were part of two captions.

    Then nobody can tell one text of several lines from rows swallowed by a quote mark that was never closed. A tab in a
    text is rare, so counting them is enough; commas are not, so the other fields must look like ids too.
    """
    if any(line.count(delimiter) != len(names) - 1 for line in lines):
        return False
    if delimiter == "\t":
        return True
    quoted = next((number for number, field in enumerate(row) if "\n" in field or "\r" in field), 0)
    others = [
        field
        for line in lines[1:]
        for number, field in enumerate(line.strip("\r\n").split(delimiter))
        if number != quoted
    ]
    return bool(others) and all(field and not re.search(r"\s", field) for field in others)


def _quote_fault(path: Path, lines: Sequence[str], first: int, delimiter: str, error: csv.Error) -> str:
    """The message about a row that csv cannot read; `lines` are those of the row."""
    text = str(error)
    if "field larger" in text or "end of data" in text or "expected after" in text:
        end = f"closes in line {first + len(lines) - 1} and is followed by more text"
        fault = end if "expected after" in text else "is never closed"
        return (
            f"{path}: line {first} opens a quote mark that {fault}. A text that holds quote marks stands in quote "
            'marks itself, those inside it doubled ("a ""big"" dog"); or save the table as .jsonl or .parquet.'
        )
    return f"{path}: line {first} cannot be read as {path.suffix[1:]} ({one_line(error)}). Correct it."


def _read_jsonl(path: Path) -> pa.Table:
    """One object a line, its strings as they stand."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    lines: list[int] = []  # of each row its line, for messages
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        for key, value in _json_object(path, number, line).items():
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


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
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
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _nesting(line: str) -> int:
    """The most brackets that are open at once, those inside strings left out."""
    depth = most = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", line)):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    return most


def _kind(value: Any) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def _json_column(path: Path, name: str, values: list[Any], lines: Sequence[int]) -> pa.Array:
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
