"""One file of embeddings in any format gives the same rows and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.errors import FormatError
from isthmus.spaces.importing.formats import holds_embeddings, open_file

X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float16)
IDS = [f"i{row}" for row in range(23)]


def lists(kind: str, x: np.ndarray = X) -> pa.Array:
    value = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}[x.dtype.name]
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1), value), x.shape[1])
    offsets = np.arange(0, x.size + 1, x.shape[1])
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(x.reshape(-1), value))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(x.reshape(-1), value))


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("start", [0, 4, 5, 22, 23])
def test_parquet_rows_from_any_start(tmp_path: Path, kind: str, dtype: str, start: int):
    table = pa.table({"id": IDS, "embedding": lists(kind, X.astype(dtype)), "label": range(23)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    file = open_file(tmp_path / "a.parquet")
    assert (file.rows, file.dim, file.dtype, file.columns) == (23, 5, dtype, ("id", "label"))
    blocks = list(file.blocks(start, 4))
    np.testing.assert_array_equal(np.concatenate([X[:0], *(x for x, _ in blocks)]), X[start:].astype(dtype))
    assert [i for _, beside in blocks for i in beside.column("id").to_pylist()] == IDS[start:]
    assert [beside.column_names for _, beside in blocks] == [["id", "label"]] * len(blocks)
    assert file.column("label").to_pylist() == list(range(23))


@pytest.mark.parametrize(("start", "size"), [(0, 4), (9, 100), (22, 1)])
def test_npz_columns_go_with_the_rows(tmp_path: Path, start: int, size: int):
    np.savez(tmp_path / "a.npz", embeddings=X, ids=np.array(IDS), raw=np.array(IDS, "S3"), label=np.arange(23))
    file = open_file(tmp_path / "a.npz")
    assert set(file.columns) == {"ids", "raw", "label"}
    blocks = list(file.blocks(start, size))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in blocks]), X[start:])
    for name in ("ids", "raw"):
        assert [i for _, beside in blocks for i in beside.column(name).to_pylist()] == IDS[start:]
    assert file.column("ids").to_pylist() == IDS


def test_columns_that_are_no_table(tmp_path: Path):
    np.savez(tmp_path / "a.npz", embeddings=X, raw=np.array([b"\xff"] * 23))
    with pytest.raises(FormatError, match=r"array 'raw' of [|]S1 is no column of a table"):
        open_file(tmp_path / "a.npz").column("raw")


def test_the_column_of_embeddings(tmp_path: Path):
    path = tmp_path / "a.parquet"
    for names, column, found in (
        (["embedding"], None, "embedding"),
        (["emb"], None, "emb"),
        (["vector"], None, "vector"),
        (["other", "embedding"], None, "embedding"),
        (["a", "b"], "b", "b"),
        (["a", "embedding"], "a", "a"),
    ):
        pq.write_table(pa.table({name: lists("fixed") for name in names}), path)
        assert found not in open_file(path, column).columns
        assert holds_embeddings(path, column)
    for table, column in ((pa.table({"a": lists("fixed"), "b": lists("fixed")}), None), (pa.table({"id": IDS}), None)):
        pq.write_table(table, path)
        with pytest.raises(
            FormatError,
            match=r"which column holds the embeddings\? Expected 'embedding', a list of floats, or .* each; the file",
        ):
            open_file(path, column)
    assert not holds_embeddings(path)
    pq.write_table(pa.table({"embedding": lists("fixed")}), path)
    with pytest.raises(FormatError, match="Expected 'vec', a list of floats"):
        open_file(path, "vec")


def rows_of(values: list) -> pa.Array:
    return pa.array(values, pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([[1, 2], [1, 2], [1, 2, 3]], "embedding of row 2 has 3 values, the first row has 2"),
        ([[1, 2], None], "embedding of row 1 has nothing, the first row has 2"),
        ([[1, 2], [1, None]], "embedding of row 1 has empty values, expected 2 numbers"),
        ([[], [1]], "embedding of row 0 is empty"),
        ([None, [1]], "embedding of row 0 is empty"),
        ([], "is empty, it has no rows"),
    ],
)
def test_rows_that_are_no_embeddings(tmp_path: Path, values: list, fault: str):
    pq.write_table(pa.table({"embedding": rows_of(values)}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=fault):
        list(open_file(tmp_path / "a.parquet").blocks(0, 2))


def test_fixed_size_lists_with_a_missing_row(tmp_path: Path):
    column = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"embedding": column}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="embedding of row 1 has nothing"):
        list(open_file(tmp_path / "a.parquet").blocks(0, 2))


@pytest.mark.parametrize("cut", [0, 4, 100, -1, -20])
def test_a_cut_parquet_is_refused(tmp_path: Path, cut: int):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"embedding": lists("fixed")}), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=r"a\.parquet: cannot be read as parquet") as caught:
        open_file(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"embedding": lists("fixed")}), path, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[4:40] = bytes(36)
    path.write_bytes(bytes(raw))
    with pytest.raises(FormatError, match="cannot be read as parquet"):
        list(open_file(path).blocks(0, 100))


def test_other_suffixes_are_refused(tmp_path: Path):
    (tmp_path / "a.pkl").touch()
    with pytest.raises(FormatError, match=r"the suffix '.pkl' is none of .npy, .npz, .parquet, .safetensors"):
        open_file(tmp_path / "a.pkl")
