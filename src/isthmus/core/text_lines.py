"""Lines of text files of others: UTF-8, a fault named with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from isthmus.errors import FormatError


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends, each decoded by itself so that a fault has a line number."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            yield _decoded(raw, number, path)


def filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file that hold something, with their numbers; of blank ones there may be millions.

    Raises:
        FormatError: A line is not UTF-8.
    """
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if not raw.isspace():
                yield number, _decoded(raw, number, path)


def _decoded(raw: bytes, number: int, path: Path) -> str:
    """One line of a text file as text, or a fault with its number."""
    if number == 1:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FormatError(f"{path}: is UTF-16. Save it as UTF-8.")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
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
    return [line.rstrip("\r\n") for line in text_lines(path)]
