"""What the containers of sounds and videos say of their own length, which decoders read over without a word.

A download that broke off, or a recorder that was switched off, leaves a file whose first part decodes. Embedded, it
would pass for the whole. Each check here reads a few headers and no samples.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from isthmus.items.item import Rejected

_STREAMED = 0x7FFFF000
"""Sizes of 32 bits from here on stand for "not known": writers to a pipe put 2 or 4 GiB, less a header."""

_PCM, _FLOAT = 1, 3
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_SEARCH = 1 << 16


def check_container(stream: BinaryIO) -> None:
    """Refuse a file whose container says that a part of it is missing, or describes its samples wrongly.

    Args:
        stream: At any place; it is left at its start.

    Raises:
        Rejected: The end is missing, the header was never finished, or the header contradicts itself.
    """
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    check = next((check for starts, check in _CHECKS if starts(head)), None)
    if check is not None:
        with suppress(struct.error, IndexError):  # headers that end too early are the decoders' to tell
            check(stream, end)
    stream.seek(0)


def _cut(have: int, size: int, what: str = "bytes of samples") -> Rejected:
    """Rejection of a sound that is shorter than its header says."""
    return Rejected(f"truncated: {have:,} of {size:,} {what}")


def _unfinished(rest: int) -> Rejected:
    """Rejection of a sound whose header was never finished."""
    return Rejected(
        f"its header was never finished: it says 0 bytes of samples, and {rest:,} follow. Write it anew, such as with "
        "ffmpeg -i OLD NEW"
    )


def _wave(stream: BinaryIO, end: int) -> None:
    """RIFF and RF64 wave files, and AVI, whose chunks are the same."""
    stream.seek(0)
    kind, size, form = struct.unpack("<4sI4s", stream.read(12))
    if form != b"WAVE":
        if size < _STREAMED and size + 8 > end + 1:
            raise _cut(end, size + 8, "bytes")
        return
    position, long_size = 12, None
    while position + 8 <= end:
        stream.seek(position)
        name, size = struct.unpack("<4sI", stream.read(8))
        if name == b"ds64":
            long_size = struct.unpack("<8xQ", stream.read(16))[0]
        elif name == b"fmt ":
            _check_format(stream.read(min(size, 16)), size)
        elif name == b"data":
            size = long_size if kind == b"RF64" and long_size is not None else size
            rest = end - position - 8
            if size > rest and (size < _STREAMED or kind == b"RF64"):
                raise _cut(rest, size)
            if size == 0 and rest and not _chunks_follow(stream, position + 8, end):
                raise _unfinished(rest)
            return
        position += 8 + size + size % 2


def _check_format(data: bytes, size: int) -> None:
    """The description of the samples: decoders that mend it read 16 bit as noise of 8."""
    if size < 16 or len(data) < 16:
        raise Rejected(f"a malformed header: its fmt chunk has {size} bytes, expected 16 or more")
    tag, channels, _, _, block, bits = struct.unpack("<HHIIHH", data)
    if tag in (_PCM, _FLOAT) and channels and block not in (channels * -(-bits // 8), channels * 4):
        raise Rejected(f"a malformed header: {channels} channels of {bits} bits in blocks of {block} bytes")


def _chunks_follow(stream: BinaryIO, position: int, end: int) -> bool:
    """Whether what stands after empty samples is a run of whole chunks, and so no samples."""
    while position + 8 <= end:
        stream.seek(position)
        _, size = struct.unpack("<4sI", stream.read(8))
        position += 8 + size + size % 2
    return position in (end, end + 1)


def _aiff(stream: BinaryIO, end: int) -> None:
    """Refuse an AIFF file that is cut."""
    position = 12
    while position + 8 <= end:
        stream.seek(position)
        name, size = struct.unpack(">4sI", stream.read(8))
        rest = end - position - 8
        if name == b"SSND":
            if size > rest:
                raise _cut(rest, size)
            if size <= 8 < rest:
                raise _unfinished(rest)
            return
        position += 8 + size + size % 2


def _au(stream: BinaryIO, end: int) -> None:
    """Refuse an AU file that is cut."""
    stream.seek(4)
    offset, size = struct.unpack(">II", stream.read(8))
    if size < _STREAMED and offset + size > end:
        raise _cut(end - offset, size)
    if size == 0 and end > offset:
        raise _unfinished(end - offset)


def _caf(stream: BinaryIO, end: int) -> None:
    """Refuse a CAF file that is cut."""
    position = 8
    while position + 12 <= end:
        stream.seek(position)
        name, size = struct.unpack(">4sq", stream.read(12))
        rest = end - position - 12
        if name == b"data":
            if size > rest:
                raise _cut(rest, size)
            return
        if size < 0:
            return
        position += 12 + size


def _w64(stream: BinaryIO, end: int) -> None:
    """Refuse a Wave64 file that is cut."""
    position = 40
    while position + 24 <= end:
        stream.seek(position)
        name, size = struct.unpack("<16sQ", stream.read(24))
        if name == _W64_DATA:
            if size > end - position:
                raise _cut(end - position, size)
            return
        position += max(size + -size % 8, 24)


def _ogg(stream: BinaryIO, end: int) -> None:
    """The last page is whole and marked as the last."""
    tail = min(end, 2 * 65_307)  # a page has at most 65,307 bytes
    stream.seek(end - tail)
    data = stream.read(tail)
    at = data.rfind(b"OggS")
    page = data[at:] if at >= 0 else b""
    whole = len(page) > 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 4:
        raise Rejected("truncated: the last page of the stream is missing")


def _mp3(stream: BinaryIO, end: int) -> None:
    """The header that encoders put first says how many bytes there are."""
    stream.seek(0)
    head = stream.read(10)
    tag = 0
    if head[:3] == b"ID3":
        tag = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    stream.seek(tag)
    data = stream.read(_SEARCH)
    at = min((place for place in (data.find(b"Xing"), data.find(b"Info")) if place >= 0), default=-1)
    if at < 0 or len(data) < at + 16:
        return
    flags = int.from_bytes(data[at + 4 : at + 8], "big")
    if not flags & 2:
        return
    field = at + (12 if flags & 1 else 8)
    size = int.from_bytes(data[field : field + 4], "big")
    rest = end - tag - at + 40  # the frame begins some 36 bytes before
    if size > rest + 256 + size // 200:
        raise _cut(rest, size, "bytes")


def _matroska(stream: BinaryIO, end: int) -> None:
    """The segment, which holds everything, says its size unless it was streamed."""
    stream.seek(4)
    header = _vint(stream)
    if header is None:
        return
    stream.seek(header, io.SEEK_CUR)
    if stream.read(4) != b"\x18\x53\x80\x67":
        return
    size = _vint(stream)
    if size is not None and stream.tell() + size > end:
        raise _cut(end, stream.tell() + size, "bytes")


def _vint(stream: BinaryIO) -> int | None:
    """A number of Matroska's, whose leading zeros say its length; None for "not known"."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    data = first + stream.read(length - 1)
    value = int.from_bytes(data, "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value


def _iso(stream: BinaryIO, end: int) -> None:
    """mp4, m4a and mov are boxes one after another, each with its size."""
    position = 0
    while position + 8 <= end:
        stream.seek(position)
        size, kind = struct.unpack(">I4s", stream.read(8))
        if size == 1:
            size = int.from_bytes(stream.read(8), "big")
        if size == 0 or not kind.isalnum() or size < 8:  # to the end of the file, or no box
            return
        if position + size > end:
            raise _cut(end, position + size, "bytes")
        position += size


_CHECKS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], None]], ...] = (
    (lambda head: head[:4] in (b"RIFF", b"RF64"), _wave),
    (lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"), _aiff),
    (lambda head: head[:4] == b".snd", _au),
    (lambda head: head[:4] == b"caff", _caf),
    (lambda head: head[:4] == b"riff" and len(head) == 16, _w64),
    (lambda head: head[:4] == b"OggS", _ogg),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[4:8] == b"ftyp", _iso),
    (lambda head: head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0), _mp3),
)


def open_container(av: Any, source: Any) -> Any:
    """Open a file or stream with PyAV, whatever its tags are: names that are no text are nobody's concern here.

    Before version 19 PyAV refuses such tags unless it is told to pass them over; from 19 on it knows no such option.
    """
    known = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    return av.open(source, mode="r", **known)
