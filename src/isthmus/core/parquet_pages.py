"""Sizes of the pages of a parquet, from its footer and its page headers, before pyarrow unpacks any of them.

A page is unpacked whole, however few of its rows are asked for, and its size stands in its header alone. Both are
written in Thrift's compact protocol, which is read here as far as sizes need it: pyarrow ends the process where the
metadata of a column is damaged.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"PAR1"
_BYTE_ARRAY = 6
_DEPTH = 16
_VARINT = 10
_DICTIONARY_PAGE = 2

# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)


@dataclass(frozen=True)
class PageSizes:
    """What the pages of a parquet take once unpacked.

    Attributes:
        at_once: Bytes of the largest pages of all columns together, dictionaries included.
        longest_text: Bytes that no text of a row is longer than.
    """

    at_once: int
    longest_text: int


def page_sizes(path: Path) -> PageSizes:
    """Read the sizes of all pages of a .parquet.

    Raises:
        ValueError: The footer or a header is damaged.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as file:
        length = int.from_bytes(file[-8:-4], "little")
        if len(file) < 12 or file[-4:] != _MAGIC or length > len(file) - 12:
            raise ValueError("no footer where one should be")
        footer = Thrift(file, len(file) - 8 - length).struct()
        largest: dict[int, int] = {}
        longest = 1
        for group in _listed(footer.get(4)):
            for number, column in enumerate(_listed(group.get(1))):
                about = column.get(3)
                if not isinstance(about, dict):
                    raise ValueError("a column without metadata")
                dictionary, page = _column_pages(file, about)
                largest[number] = max(largest.get(number, 0), dictionary + page)
                if about.get(1) == _BYTE_ARRAY:
                    longest = max(longest, dictionary, page)
    return PageSizes(sum(largest.values()), longest)


def _column_pages(file: mmap.mmap, about: dict[int, Any]) -> tuple[int, int]:
    """Unpacked bytes of the dictionary and of the largest page of one column of one row group."""
    values, first, dictionary = (about.get(key, 0) for key in (5, 9, 11))
    if not all(isinstance(one, int) for one in (values, first, dictionary)):
        raise ValueError("a column whose places are no numbers")
    at = dictionary if 0 < dictionary < first else first
    dictionary, largest, seen = 0, 0, 0
    while seen < values:
        header = Thrift(file, at)
        page = header.struct()
        unpacked, packed = page.get(2), page.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise ValueError("a page without sizes")
        if page.get(1) == _DICTIONARY_PAGE:
            dictionary = max(dictionary, unpacked)
        else:
            largest = max(largest, unpacked)
        about_page = page.get(5) or page.get(8) or {}
        seen += max(int(about_page.get(1, 0)) if isinstance(about_page, dict) else 0, 0)
        at = header.at + packed
    return dictionary, largest


def _listed(value: Any) -> list[dict[int, Any]]:
    """List of records in the metadata of a parquet page, or a fault."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("no list where one should be")
    return value


class Thrift:
    """Values of Thrift's compact protocol from a place in a buffer on; texts are passed over, they give None.

    Attributes:
        at: The byte behind what was read.
    """

    def __init__(self, buffer: mmap.mmap | bytes, at: int) -> None:
        self._buffer, self.at = buffer, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct: its fields by number."""
        if depth > _DEPTH:
            raise ValueError("metadata nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._signed()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        """Value of the compact Thrift protocol, of that kind."""
        if kind == _BYTE:
            return self._byte()
        if kind in (_TRUE, _FALSE):  # inside of lists these take a byte
            return self._byte() == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(self._fitting(count))]
        if kind == _MAP:
            if count := self._fitting(self._varint()):
                kinds = self._byte()
                for _ in range(count):
                    self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)
            return None
        if kind in (_DOUBLE, _UUID):
            return self._skip(8 if kind == _DOUBLE else 16)
        raise ValueError(f"a value of type {kind}")

    def _fitting(self, count: int) -> int:
        """A count of values, each of which takes a byte at least."""
        if count > len(self._buffer) - self.at:
            raise ValueError("a list that is longer than its file")
        return count

    def _byte(self) -> int:
        """The next byte."""
        if not 0 <= self.at < len(self._buffer):
            raise ValueError("metadata that leads out of the file")
        self.at += 1
        return self._buffer[self.at - 1]

    def _skip(self, count: int) -> None:
        """Pass over bytes."""
        self.at += count

    def _varint(self) -> int:
        """Whole number of variable length."""
        value = 0
        for place in range(_VARINT):
            byte = self._byte()
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                return value
        raise ValueError("a number without an end")

    def _signed(self) -> int:
        """Whole number with a sign, zigzag coded."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
