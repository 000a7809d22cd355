"""What Arrow files take once unpacked: by their messages, and by rows that share a value."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isthmus.core.arrow_files import arrow_batches, message_bytes, rows_bytes
from isthmus.core.limits import SETTING
from isthmus.errors import FormatError

TABLE = pa.table(
    {
        "id": [f"item {number}" for number in range(300)],
        "label": pa.array(["cat", "dog", None] * 100).dictionary_encode(),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(1200, dtype=np.float32)), 4),
    }
)


def written(path: Path, table: pa.Table, compression: str | None, *, stream: bool) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=100)
    return path


def read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as mapped:
        schema, batches = arrow_batches(path, mapped)
        return pa.Table.from_batches(batches, schema=schema)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("stream", [True, False])
def test_files_and_streams_are_read_as_they_were_written(stream: bool, compression: str | None, tmp_path: Path):
    assert read(written(tmp_path / "a.arrow", TABLE, compression, stream=stream)).equals(TABLE)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "uncompressed"])
def test_files_of_polars(compression: str, tmp_path: Path):
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(TABLE)
    frame.write_ipc(tmp_path / "a.arrow", compression=compression)
    assert read(tmp_path / "a.arrow").column("id").to_pylist() == TABLE.column("id").to_pylist()
    frame.write_ipc_stream(tmp_path / "b.arrow", compression=compression)
    assert read(tmp_path / "b.arrow").num_rows == 300


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_message_says_what_it_takes(compression: str, tmp_path: Path):
    zeros = pa.table({"x": pa.array(np.zeros(1_000_000, np.float32))})
    path = tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, zeros.schema, options=options) as writer:
        writer.write_table(zeros)
    assert path.stat().st_size < 100_000
    with pa.memory_map(str(path)) as mapped:
        sizes = [message_bytes(message) for message in pa.ipc.MessageReader.open_stream(mapped)]
    assert sizes == [0, 4_000_000]


@pytest.mark.parametrize("stream", [True, False])
def test_the_limit_is_looked_at_before_anything_is_unpacked(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zeros = pa.table({"x": pa.array(np.zeros(10_000_000, np.float32))})
    path = tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, zeros.schema, options=options) as writer:
        writer.write_table(zeros)
    monkeypatch.setenv(SETTING, "20MB")
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(path)) as mapped, pytest.raises(FormatError, match="takes 40,000,000 bytes once unpacked"):
        arrow_batches(path, mapped)
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_every_row_counts_what_it_stands_for():
    text = "x" * 1000
    index = pa.array([0] * 50, pa.int8())
    once = pa.DictionaryArray.from_arrays(index, pa.array([text]))
    lists = pa.ListViewArray.from_arrays(pa.array([0] * 50, pa.int32()), pa.array([250] * 50, pa.int32()), zeros(250))
    columns = {
        "a text of a dictionary": (once, 50_000),
        "numbers of a dictionary": (pa.DictionaryArray.from_arrays(index, pa.array([1.5])), 400),
        "a view": (pa.array([text] * 50, pa.string_view()), 50_000),
        "views of one list": (lists, 50_000),
        "a dictionary in a struct": (pa.StructArray.from_arrays([once], ["inner"]), 50_000),
        "a dictionary in a list": (pa.ListArray.from_arrays(pa.array(range(51), pa.int32()), once), 50_000),
        "nothing at all": (pa.nulls(50), 50),
    }
    for name, (column, bytes_) in columns.items():
        size = rows_bytes(pa.record_batch([column], names=["x"]))
        assert bytes_ <= size <= 1.1 * bytes_ + 10, name


def zeros(count: int) -> pa.Array:
    return pa.array(np.zeros(count, np.float32))


def test_damaged_footers(tmp_path: Path):
    """Whatever stands in a footer ends as a fault that the reader of embeddings turns into its own."""
    from isthmus.spaces.importing.formats import open_file

    whole = written(tmp_path / "a.arrow", TABLE, "zstd", stream=False).read_bytes()
    length = int.from_bytes(whole[-10:-6], "little")
    for at in range(len(whole) - 10 - length, len(whole)):
        for value in (0, 0x7F, 0xFF):
            path = tmp_path / "b.arrow"
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            with contextlib.suppress(FormatError):  # nothing else goes up
                open_file(path)


def test_two_columns_of_one_name(tmp_path: Path):
    from isthmus.spaces.importing.formats import open_file

    table = pa.Table.from_arrays([TABLE.column("embedding"), TABLE.column("id"), TABLE.column("id")], ["e", "id", "id"])
    with pytest.raises(FormatError, match=r"two columns have one name \(e, id, id\)"):
        open_file(written(tmp_path / "a.arrow", table, None, stream=True))
