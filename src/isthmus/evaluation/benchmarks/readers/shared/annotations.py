"""Annotation files as data sets have them: tables and json, a fault named with its place."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from isthmus.core.json_text import parsed_bytes
from isthmus.core.limits import excess
from isthmus.core.messages import one_line
from isthmus.errors import FormatError

MAX_BYTES = 2**30

_NUMBER = re.compile(r"[0-9]{1,18}")


def read_lines(path: Path, *, encoding: str = "utf-8-sig") -> list[str]:
    """The lines of a text file without their ends; only line feeds end a line.

    Raises:
        FormatError: It cannot be read, is too large, or is of another encoding.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: has {size:,} bytes, more than {MAX_BYTES:,}. This is another file.")
        lines = path.read_bytes().decode(encoding).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({one_line(error)}). Fetch it again.") from error
    if lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def read_rows(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    quoting: bool = True,
    blanks: bool = False,
    encoding: str = "utf-8-sig",
) -> Iterator[dict[str, str]]:
    """Rows of a table with a header, all values text.

    Args:
        path: The file.
        columns: What the header must have.
        delimiter: Between values.
        quoting: Whether `"` quotes a value.
        blanks: Strip names and values, and take a quote after a blank for a quote.
        encoding: Encoding of the file.

    Raises:
        FormatError: A column is missing or a row has another number of values.
    """
    mode: Literal[0, 3] = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    lines = read_lines(path, encoding=encoding)
    try:
        reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, quoting=mode, skipinitialspace=blanks)
        header = [name.strip() if blanks else name for name in next(reader, [])]
        if absent := [name for name in columns if name not in header]:
            raise FormatError(
                f"{path}: has no column {absent[0]!r}. Expected {', '.join(columns)}, got {', '.join(header)[:200]}."
            )
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise FormatError(
                    f"{path}: line {reader.line_num} has {len(values)} values, expected {len(header)} "
                    f"({', '.join(header)[:100]}). Fetch the file again."
                )
            yield dict(zip(header, (value.strip() for value in values) if blanks else values, strict=True))
    except csv.Error as error:
        raise FormatError(f"{path}: is no table ({one_line(error)}). Fetch it again.") from error


def whole_number(text: str) -> int | None:
    """A text of plain digits as a number; None for every other, such as `²`, which counts as a digit too."""
    return int(text) if _NUMBER.fullmatch(text.strip()) else None


def read_json_file(path: Path, kind: type, what: str) -> Any:
    """A json file.

    Args:
        path: The file.
        kind: `dict` or `list`: what it must hold.
        what: What it is, for the message: "Karpathy's split".

    Raises:
        FormatError: It cannot be read or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: has {size:,} bytes, more than {MAX_BYTES:,}. This is another file.")
        raw = path.read_bytes()
        if fault := excess(parsed_bytes(raw), size):
            raise FormatError(f"{path}: {fault}.")
        value = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as {what} ({one_line(error)}). Fetch it again.") from error
    if not isinstance(value, kind):
        raise FormatError(f"{path}: holds a {type(value).__name__}, expected the {kind.__name__} of {what}.")
    return value


def field(record: Any, key: str, kind: type | tuple[type, ...], path: Path, number: int) -> Any:
    """A value of a record of an annotation file.

    Raises:
        FormatError: The record lacks it, or it is of another kind; file, record and key are named.
    """
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in kinds)
        raise FormatError(
            f"{path}: record {number} has {key!r} = {str(value)[:40]!r}, expected {expected}. This is another file, or "
            "a damaged one."
        )
    return value
