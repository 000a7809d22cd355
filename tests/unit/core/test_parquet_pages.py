"""Sizes of the pages of a parquet, against what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.core.limits import SETTING
from isthmus.core.parquet_pages import Thrift, _listed, page_sizes
from isthmus.core.table_files import read_parquet, text_rows
from isthmus.errors import FormatError

ROWS = 5_000


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(ROWS * 8).astype(np.float32)), 8)
    return pa.table(
        {
            "id": [f"item {number}" for number in range(ROWS)],
            "embedding": vectors,
            "label": (["cat"] * 9 + [None]) * (ROWS // 10),
            "nested": [{"a": [1, 2], "b": {"c": "x"}}] * ROWS,
            "seen": [True, False] * (ROWS // 2),
        }
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False, "row_group_size": 700},
        {"write_page_index": True, "write_page_checksum": True, "data_page_size": 1_000},
        {"store_schema": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}, "use_dictionary": ["label"]},
    ],
)
def test_sizes_are_those_that_were_written(options: dict, tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, **options)
    sizes = page_sizes(path)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    most = [max(group.column(at).total_uncompressed_size for group in groups) for at in range(metadata.num_columns)]
    assert 0 < sizes.longest_text <= max(most)
    assert 0 < sizes.at_once <= sum(most)
    # One page a column and group, as the first has it, is all of the column but the head of its page.
    if not options:
        assert sizes.at_once > 0.95 * sum(most)
    assert read_parquet(path).column("nested").to_pylist() == table().column("nested").to_pylist()


def test_files_of_polars_and_empty_ones(tmp_path: Path):
    polars = pytest.importorskip("polars")
    polars.from_arrow(table()).write_parquet(tmp_path / "a.parquet")
    assert page_sizes(tmp_path / "a.parquet").at_once > ROWS * 8 * 4
    pq.write_table(table().slice(0, 0), tmp_path / "b.parquet")
    assert page_sizes(tmp_path / "b.parquet").longest_text == 1
    assert read_parquet(tmp_path / "b.parquet").num_rows == 0


def test_rows_at_once_follow_the_longest_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["x" * 100_000] * 50}), path)
    monkeypatch.setenv(SETTING, "8MB")
    assert text_rows(path, 1_000) == 8_000_000 // 8 // page_sizes(path).longest_text
    monkeypatch.setenv(SETTING, "10kB")
    pq.write_table(pa.table({"x": np.zeros(100_000)}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(FormatError, match=r"a\.parquet: takes \S+ bytes once unpacked"):
        text_rows(path, 1_000)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "leads out of the file"),
        (b"\x15" + b"\xff" * 11, "a number without an end"),
        (b"\x19\xf5\xff\xff\xff\xff\x0f", "longer than its file"),
        (b"\x19\x53\x01\x01\x01\x01", "longer than its file"),
        (b"\x1c" * 40, "nested too deep"),
        (b"\x1e\x00", "a value of type 14"),
    ],
)
def test_damaged_metadata(raw: bytes, fault: str):
    with pytest.raises(ValueError, match=fault):
        Thrift(raw, 0).struct()


@pytest.mark.parametrize("value", [None, 3, {}, [{}, 3], [3], ["x", {}]])
def test_what_is_no_list_of_records(value: object):
    with pytest.raises(ValueError, match="no list where one should be"):
        _listed(value)
    assert _listed([{1: 2}, {}]) == [{1: 2}, {}]


def test_a_list_may_end_with_its_file():
    assert Thrift(b"\x19\x23\x01\x02\x00", 0).struct() == {1: [1, 2]}
