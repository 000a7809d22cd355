"""Arrays in files: read in blocks from any row, and never believed against the file's size."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isthmus.errors import FormatError
from isthmus.spaces.importing.array_files import open_arrays
from isthmus.spaces.npy import read_npy_header

X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


def read(path: Path, start: int = 0, size: int = 7, key: str | None = None) -> np.ndarray:
    array, _ = open_arrays(path, key)
    blocks = list(array.blocks(start, size))
    assert all(len(block) <= size or array.fortran for block in blocks)
    return np.concatenate(blocks)


def save(path: Path, x: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, embeddings=x)
    else:
        save_file({"embeddings": np.ascontiguousarray(x)}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("start", [0, 1, 7, 22, 23])
def test_blocks_from_any_row_are_the_array(tmp_path: Path, suffix: str, dtype: str, start: int):
    x = X.astype(dtype)
    path = save(tmp_path / f"a{suffix}", x)
    array, beside = open_arrays(path)
    assert (array.rows, array.dim, array.dtype, beside) == (23, 5, dtype, {})
    blocks = list(array.blocks(start, 7))
    np.testing.assert_array_equal(np.concatenate([x[:0], *blocks]), x[start:])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_column_order_and_foreign_byte_order(tmp_path: Path, suffix: str):
    for x in (np.asfortranarray(X), X.astype(">f4")):
        path = save(tmp_path / f"a{suffix}", x)
        np.testing.assert_array_equal(read(path), X)
        np.testing.assert_array_equal(read(path, start=9), X[9:])


def test_bfloat16_is_widened_exactly(tmp_path: Path):
    upper = (X.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"emb": {"dtype": "BF16", "shape": [23, 5], "data_offsets": [0, 230]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + upper.tobytes())
    assert open_arrays(path)[0].dtype == "bfloat16"
    np.testing.assert_array_equal(read(path), (X.view(np.uint32) & 0xFFFF0000).view(np.float32))


def test_compressed_npz_with_columns(tmp_path: Path):
    np.savez_compressed(
        tmp_path / "a.npz", vectors=X, ids=np.array([f"i{i}" for i in range(23)]), label=np.arange(23), odd=np.arange(3)
    )
    array, beside = open_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.concatenate(list(array.blocks(0, 7))), X)
    assert set(beside) == {"ids", "label"}


def test_which_array(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=X, b=X + 1)
    with pytest.raises(FormatError, match=r"which array holds the embeddings\? Got a \(23, 5\), b \(23, 5\)"):
        open_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(read(tmp_path / "a.npz", key="b"), X + 1)
    with pytest.raises(FormatError, match="which array"):
        open_arrays(tmp_path / "a.npz", "c")
    np.savez(tmp_path / "b.npz", a=X, emb=X + 1)
    np.testing.assert_array_equal(read(tmp_path / "b.npz"), X + 1)
    save_file({"a": X, "b": X}, tmp_path / "b.safetensors")
    with pytest.raises(FormatError, match="which array"):
        open_arrays(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (np.array([{"a": 1}, None], dtype=object), "pickled Python objects .*never loaded.*numpy.stack"),
        (X[0], r"has shape \(5,\), expected \(rows, dim\)"),
        (X[None], r"has shape \(1, 23, 5\)"),
        (X[:0], "is empty"),
        (X[:, :0], "is empty"),
        (np.arange(6).reshape(2, 3), "holds int64, expected embeddings of float16"),
        (X.astype(np.complex64), "holds complex64"),
        (X.astype(np.longdouble), "expected embeddings of float16"),
        (np.zeros(3, [("a", "f4")]), "expected embeddings of float16"),
    ],
)
def test_arrays_that_are_no_embeddings(tmp_path: Path, x: np.ndarray, fault: str):
    np.save(tmp_path / "a.npy", x, allow_pickle=True)
    with pytest.raises(FormatError, match=fault) as caught:
        open_arrays(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path: Path):
    import pickle

    path = tmp_path / "a.npy"
    path.write_bytes(pickle.dumps(X))
    with pytest.raises(FormatError, match=r"is no .npy file, it begins with a pickle"):
        open_arrays(path)
    np.savez(tmp_path / "a.npz", embeddings=X, ids=np.array(["a"] * 23, dtype=object))
    with pytest.raises(FormatError, match=r"array 'ids' holds pickled Python objects, .*ids\.astype\(str\), or give"):
        open_arrays(tmp_path / "a.npz")[1]["ids"]()


@pytest.mark.parametrize("cut", [0, 3, 8, 60, 128, 200, -1])
def test_a_cut_npy_is_refused(tmp_path: Path, cut: int):
    np.save(tmp_path / "a.npy", X)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:cut])
    with pytest.raises(FormatError, match=r"a\.npy: "):
        open_arrays(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", ["(1000000000000, 5)", "(-23, -5)", "(24, 5)", "(23, 5, 0)", "'x'", "(2.0, 3)"])
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, shape: str):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + X.tobytes())
    with pytest.raises(FormatError):
        read_npy_header(path)


@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_cut_npz_is_refused(tmp_path: Path, cut: int):
    np.savez(tmp_path / "a.npz", embeddings=X)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:cut])
    with pytest.raises(FormatError, match=r"cannot be read as \.npz"):
        open_arrays(tmp_path / "a.npz")


def test_a_changed_npz_is_refused_when_read(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", embeddings=np.random.default_rng(0).normal(size=(2000, 8)))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(bytes(raw))
    with pytest.raises(FormatError, match=r"is damaged|is cut short|npy header"):
        list(open_arrays(tmp_path / "a.npz")[0].blocks(0, 100))


def test_a_npz_whose_member_lies_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", X)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("embeddings.npy", (tmp_path / "a.npy").read_bytes()[:-4])
    with pytest.raises(FormatError, match="array 'embeddings': has 584 bytes, but its header says"):
        open_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [23, 5], "data_offsets": [0, 10**9]},
        {"dtype": "F32", "shape": [10**9, 5], "data_offsets": [0, 460]},
        {"dtype": "F32", "shape": [-23, -5], "data_offsets": [0, 460]},
        {"dtype": "F32", "shape": [23, 5], "data_offsets": [-460, 0]},
        {"dtype": "F32", "shape": [23, 5]},
        {"dtype": "F32", "shape": [23, 5], "data_offsets": 1},
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, entry: dict):
    header = json.dumps({"embeddings": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + X.tobytes())
    with pytest.raises(FormatError, match=r"the \.safetensors header cannot be read"):
        open_arrays(path)


@pytest.mark.parametrize(
    "raw", [b"", b"abc", b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"[]", (2).to_bytes(8, "little") + b"{}"]
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, raw: bytes):
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(FormatError, match=r"a\.safetensors: "):
        open_arrays(tmp_path / "a.safetensors")


def test_memory_stays_bounded_while_a_sparse_file_is_read(tmp_path: Path):
    """A file of 8 GB, sparse on disk, opens at once and gives its last rows without being read."""
    path, rows = tmp_path / "a.npy", 4_000_000
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, 1024), }}".ljust(117) + "\n"
    with path.open("wb") as stream:
        stream.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
        stream.truncate(128 + rows * 2048)
    (block,) = open_arrays(path)[0].blocks(rows - 10, 100)
    assert block.shape == (10, 1024)
