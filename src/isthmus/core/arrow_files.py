"""Arrow files and streams: what they take once unpacked is known before anything of them is.

Each message of the IPC format names its buffers, and a compressed buffer begins with the length that it unpacks to. A
table that holds a text once and repeats it in every row is small in memory, but not for whoever asks for its rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.limits import excess
from isthmus.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"ARROW1"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def arrow_batches(path: Path, mapped: Any) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """The batches of an Arrow file (feather) or stream in a memory map, checked; what is not packed is not copied.

    Raises:
        FormatError: They take more memory than the file may.
        pyarrow.ArrowException, OSError, EOFError, ValueError, struct.error: The file is damaged.
    """
    import pyarrow as pa

    packed = path.stat().st_size
    is_file = mapped.read(len(_MAGIC)) == _MAGIC
    mapped.seek(0)
    size = 0
    for message in _file_messages(mapped, packed) if is_file else pa.ipc.MessageReader.open_stream(mapped):
        size += message_bytes(message)
        _check(path, size, packed)
    mapped.seek(0)
    reader = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
    parts = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
    size, batches = 0, []
    for batch in parts:
        # Offsets that lead out of their buffers would be followed by native code: every one is looked at.
        batch.validate(full=True)
        size += rows_bytes(batch)
        _check(path, size, packed)
        batches.append(batch)
    return reader.schema, batches


def _check(path: Path, size: int, packed: int) -> None:
    """Refuse a file that takes more memory than its limit."""
    if fault := excess(size, packed):
        raise FormatError(f"{path}: {fault}.")


# ----------------------------------------------------------------------------------------- a message, by its flatbuffer


def _file_messages(mapped: Any, length: int) -> Iterator[Any]:
    """The messages of an Arrow file, as its footer names them: dictionaries, then batches."""
    import pyarrow as pa

    tail = len(_MAGIC) + 4
    mapped.seek(max(length - tail, 0))
    (footer_length,) = struct.unpack_from("<i", mapped.read(4))
    if not 0 < footer_length <= length - tail:
        raise struct.error("the footer has no length that a file may have")
    mapped.seek(length - tail - footer_length)
    footer = memoryview(mapped.read(footer_length))
    root = _jump(footer, 0)
    for number in (2, 3):
        for offset, _, _ in _structs(footer, _field(footer, root, number), "<qqq"):
            mapped.seek(offset)
            yield pa.ipc.read_message(mapped)


def message_bytes(message: Any) -> int:
    """Bytes that the buffers of a `pyarrow.ipc.Message` take once unpacked, from its metadata alone.

    Raises:
        struct.error: Its metadata leads out of itself.
    """
    if message.body is None:
        return 0
    meta, body = memoryview(message.metadata), memoryview(message.body)
    root = _jump(meta, 0)
    kind = _field(meta, root, 1)
    batch = _field(meta, root, 2)
    if kind is None or batch is None:
        return 0
    batch = _jump(meta, batch)
    (type_of_header,) = struct.unpack_from("<B", meta, kind)
    if type_of_header == _DICTIONARY_BATCH:
        inner = _field(meta, batch, 1)
        if inner is None:
            return 0
        batch = _jump(meta, inner)
    elif type_of_header != _RECORD_BATCH:
        return 0
    packed = _field(meta, batch, 3) is not None
    buffers = _structs(meta, _field(meta, batch, 2), "<qq")  # offset and length
    return sum(_unpacked(body, *buffer) if packed else buffer[1] for buffer in buffers)


def _unpacked(body: memoryview, offset: int, length: int) -> int:
    """Length of a buffer of a compressed batch: it stands in its first eight bytes, -1 where it is not compressed."""
    if length < 8:
        return 0
    (size,) = struct.unpack_from("<q", body, offset)
    return max(int(size), length)


def _structs(meta: memoryview, at: int | None, layout: str) -> Iterator[tuple[Any, ...]]:
    """The structs of a flatbuffer's vector, none where the field is missing."""
    if at is None:
        return
    start = _jump(meta, at)
    (count,) = struct.unpack_from("<I", meta, start)
    for number in range(count):
        yield struct.unpack_from(layout, meta, start + 4 + struct.calcsize(layout) * number)


def _field(meta: memoryview, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table stands, None where it has its default."""
    (table_to_vtable,) = struct.unpack_from("<i", meta, table)
    vtable = table - table_to_vtable
    if vtable < 0:
        raise struct.error("a table of a flatbuffer begins before it")
    (length,) = struct.unpack_from("<H", meta, vtable)
    if 4 + 2 * number + 2 > length:
        return None
    (offset,) = struct.unpack_from("<H", meta, vtable + 4 + 2 * number)
    return table + offset if offset else None


def _jump(meta: memoryview, at: int) -> int:
    """Where the offset that stands at a place leads."""
    (offset,) = struct.unpack_from("<I", meta, at)
    return at + int(offset)


# ---------------------------------------------------------------------------------- rows that share what they stand for


def rows_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch whose every row is written out: a dictionary's text counts in each row that names it."""
    return max(sum(map(_written_out, batch.columns)), int(batch.num_rows))


def _written_out(column: pa.Array) -> int:
    """Bytes of an Arrow column once views, runs and dictionaries are written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    t, kind = pa.types, column.type
    views = [f"is_{name}" for name in ("string_view", "binary_view")]
    if t.is_dictionary(kind):
        lengths = _lengths(column.dictionary)
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    if any(getattr(t, name, lambda _: False)(kind) for name in views):
        return int(pc.sum(_lengths(column)).as_py() or 0)
    if any(getattr(t, f"is_{name}list_view", lambda _: False)(kind) for name in ("", "large_")):
        each = column.values.nbytes / max(len(column.values), 1)
        return int((pc.sum(pc.list_value_length(column)).as_py() or 0) * each)
    if t.is_struct(kind):
        return sum(map(_written_out, column.flatten()))
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return max(int(column.nbytes), _written_out(column.flatten()))
    return int(column.nbytes)


def _lengths(values: pa.Array) -> pa.Array:
    """Bytes of each value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(pc.binary_length(values), pa.int64())
    except (pa.ArrowNotImplementedError, TypeError):  # numbers, times, nested values
        each = values.nbytes // max(len(values), 1)
        return pa.array([each] * len(values), pa.int64())
