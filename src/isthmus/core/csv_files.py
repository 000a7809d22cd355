"""Rows of .csv and .tsv, by RFC 4180 and strictly.

What a lenient reader would mend in silence is refused with its line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core.messages import listed, one_line
from isthmus.core.text_lines import text_lines
from isthmus.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 65_536
"""Rows that are read before they become a batch of a table."""

COLUMN_LIMIT = 65_536
"""Most columns of a table of text: each takes a kilobyte, whatever stands in it."""

_BLANK = ("\n", "\r\n", "\r")
_PIECES = re.compile(r"[^\r]*\r\n?|[^\r]+")
_FIELD_LIMIT = 16 * 2**20
_SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}


class _CsvLines:
    """Lines for `csv.reader`, of which those of the row in work are kept so that it can be looked at again.

    Attributes:
        row: The lines of the row in work.
        first: Number of the row's first line.
    """

    def __init__(self, path: Path) -> None:
        self.row: list[str] = []
        self.first = 1
        self._lines = text_lines(path)

    def __iter__(self) -> Iterator[str]:
        number, row = 0, self.row
        for line in self._lines:
            if not row and number and line in _BLANK:  # between two rows it is none, and there may be millions
                number += 1
                continue
            # Files of old spreadsheets end their lines with a carriage return alone.
            pieces = (line,) if line.find("\r") in (-1, len(line) - 2) else _PIECES.findall(line)
            for piece in pieces:
                number += 1
                if not row:
                    if number > 1 and piece == "\r":
                        continue
                    self.first = number
                row.append(piece)
                yield piece


def read_csv(path: Path, delimiter: str) -> pa.Table:
    """Rows by RFC 4180, strictly: what a lenient reader would mend in silence is refused with its line."""
    import pyarrow as pa

    lines = _CsvLines(path)
    # The limit is the module's: a text of 131,072 letters is a long caption, one of 16 million a lost quote mark.
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        _check_header(path, names, delimiter)
        batches: list[pa.RecordBatch] = []
        rows: list[list[str]] = []
        lines.row.clear()
        for row in reader:
            if row:  # a blank line is no row
                _check_row(path, row, names, lines.row, lines.first, delimiter)
                rows.append(row)
            lines.row.clear()
            if len(rows) == CHUNK:
                batches.append(_texts(rows, names))
                rows = []
    except csv.Error as error:
        raise FormatError(_quote_fault(path, lines.row, lines.first, delimiter, error)) from error
    finally:
        csv.field_size_limit(before)
    return pa.Table.from_batches([*batches, _texts(rows, names)])


def _texts(rows: list[list[str]], names: Sequence[str]) -> pa.RecordBatch:
    """Rows of a csv as an Arrow batch of text columns."""
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pa.record_batch([pa.array(list(column), pa.string()) for column in columns], names=list(names))


def _check_header(path: Path, names: Sequence[str], delimiter: str) -> None:
    """Refuse a header of a csv that names no columns, too many, or one twice."""
    if not names or names == [""]:
        raise FormatError(f"{path}: is empty. Expected a line with the names of the columns, then a line a row.")
    if len(names) > COLUMN_LIMIT:
        raise FormatError(f"{path}: has {len(names):,} columns, the limit is {COLUMN_LIMIT:,}. Save it as .parquet.")
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
    """Refuse a row of a csv with another number of fields than the header."""
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
