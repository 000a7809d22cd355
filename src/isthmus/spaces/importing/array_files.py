"""Files of arrays opened by their headers, .npy, .npz and .safetensors: embeddings, and the columns beside them."""

from __future__ import annotations

import json
import math
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.arrays import NPY_FAULTS
from isthmus.core.limits import excess
from isthmus.core.messages import listed, one_line
from isthmus.errors import FormatError
from isthmus.spaces.importing.arrays import EACH_ARRAY, NAMES, ArrayFile, Columns, EmptyFileError
from isthmus.spaces.npy import NpyHeader, check_npy_header, read_npy_header

_HEADER_LIMIT = 64 * 2**20

_TENSOR_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


def open_arrays(path: Path, key: str | None = None) -> tuple[ArrayFile, Columns]:
    """Find the embeddings in a .npy, .npz or .safetensors file.

    Args:
        path: The file.
        key: Name of the array, where the usual names do not say which it is.

    Returns:
        The array of embeddings, and by name the one-dimensional arrays of as many values beside it (ids, labels ...).

    Raises:
        FormatError: The file is damaged, holds objects, or holds no array or no single array that can be embeddings.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        header = read_npy_header(path)
        return array_file(path, None, header), {}
    return _open_npz(path, key) if suffix == ".npz" else _open_safetensors(path, key)


def array_file(path: Path, key: str | None, header: NpyHeader, dtype: str | None = None) -> ArrayFile:
    """File of embeddings from the header of one of its arrays."""
    where = str(path) if key is None else f"{path}: array {key!r}"
    check_array(
        where, header.shape, dtype or header.dtype.name, float_like=dtype is not None or header.dtype.kind == "f"
    )
    rows, dim = header.shape
    return ArrayFile(path, key, rows, dim, dtype or header.dtype.name, header.offset, header.dtype, header.fortran)


def check_array(where: str, shape: tuple[int, ...], dtype: str, *, float_like: bool) -> None:
    """Refuse an array that holds no embeddings."""
    if not float_like or dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise FormatError(
            f"{where}: holds {dtype}, expected embeddings of float16, bfloat16, float32 or float64. Convert it first."
        )
    if len(shape) != 2:
        raise FormatError(f"{where}: has shape {shape}, expected (rows, dim). Reshape or stack it to two dimensions.")
    if not shape[0] or not shape[1]:
        raise EmptyFileError(f"{where}: is empty, shape {shape}. Expected at least one row and one dimension.")


def _open_npz(path: Path, wanted: str | None) -> tuple[ArrayFile, Columns]:
    """The embeddings of a .npz by their header, and the arrays beside them, unpacked only when asked for."""
    headers = _npz_headers(path)
    if wanted == EACH_ARRAY:
        raise FormatError(f"{path}: {EACH_ARRAY!r} is for arrays that are embeddings one by one.")
    key = _choose(path, {name: header.shape for name, header in headers.items() if header.dtype.kind == "f"}, wanted)
    array = array_file(path, key, headers[key])
    packed = path.stat().st_size
    if headers[key].fortran and (fault := excess(headers[key].bytes, packed)):
        raise FormatError(f"{path}: array {key!r} has its columns one after another and {fault}.")
    beside = [name for name, header in headers.items() if header.shape == (array.rows,)]
    return array, {name: partial(_npz_column, path, name, headers[name]) for name in beside}


def _npz_headers(path: Path) -> dict[str, NpyHeader]:
    """The header of each array of a .npz, by name. Nothing else of them is unpacked."""
    headers: dict[str, NpyHeader] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as stream:
                        key = member.filename[:-4]
                        headers[key] = check_npy_header(
                            stream, member.file_size, f"{path}: array {key!r}", objects=True
                        )
    except NPY_FAULTS as error:
        raise FormatError(
            f"{path}: cannot be read as .npz ({one_line(error)}). Write it with numpy.savez(path, embeddings=array, "
            "ids=ids)."
        ) from error
    return headers


def _npz_column(path: Path, name: str, header: NpyHeader) -> NDArray[Any]:
    """Array beside the embeddings of a .npz, as a column."""
    if header.dtype.hasobject:
        raise FormatError(
            f"{path}: array {name!r} holds pickled Python objects, which are never loaded. Save it as text, "
            f"{name}.astype(str), or give the ids with --ids FILE."
        )
    if fault := excess(header.bytes, path.stat().st_size):
        raise FormatError(f"{path}: array {name!r} of type {header.dtype} {fault}.")
    try:
        with np.load(path, allow_pickle=False) as loaded:
            column: NDArray[Any] = loaded[name]
            return column
    except NPY_FAULTS as error:
        raise FormatError(f"{path}: is damaged ({one_line(error)}). Copy or write the file again.") from error


def named_arrays(path: Path) -> tuple[list[str], NDArray[Any]]:
    """Names and rows of a .npz that holds one embedding an array, its name the id.

    Raises:
        FormatError: The arrays are not all floats of one length, or take too much memory.
    """
    headers = _npz_headers(path)
    if not headers:
        raise FormatError(f"{path}: is empty, it has no arrays. Expected one embedding an array.")
    first = next(iter(headers.values()))
    for name, header in headers.items():
        if header.dtype.kind != "f" or len(header.shape) != 1 or header.shape != first.shape:
            raise FormatError(
                f"{path}: array {name!r} has shape {header.shape} of {header.dtype}, expected floats of shape "
                f"{first.shape[:1]} in every array, one embedding each."
            )
    if fault := excess(sum(header.bytes for header in headers.values()), path.stat().st_size):
        raise FormatError(f"{path}: {fault}.")
    try:
        with np.load(path, allow_pickle=False) as loaded:
            return list(headers), np.stack([loaded[name] for name in headers])
    except NPY_FAULTS as error:
        raise FormatError(f"{path}: is damaged ({one_line(error)}). Copy or write the file again.") from error


def _choose(path: Path, shapes: dict[str, tuple[int, ...]], wanted: str | None) -> str:
    """The name of the array that holds embeddings: the wanted or a known name, or the only one of two dimensions."""
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    named = [name for name in ([wanted] if wanted else NAMES) if name in shapes]
    if named or (len(flat) == 1 and not wanted):
        return (named or flat)[0]
    have = listed([f"{name} {shape}" for name, shape in shapes.items()], 4) or "no array of floats"
    each = len(shapes) > 1 and len(set(shapes.values())) == 1 and len(next(iter(shapes.values()))) == 1
    hint = f" If each array is one embedding and its name the id, give --column '{EACH_ARRAY}'." if each else ""
    raise FormatError(
        f"{path}: which array holds the embeddings? Got {have}; expected one of shape (rows, dim), or one named "
        f"{NAMES[0]!r}. Name it with --column.{hint}"
    )


def _open_safetensors(path: Path, wanted: str | None) -> tuple[ArrayFile, Columns]:
    """Embeddings of a .safetensors by their header, and the tensors beside them."""
    headers = _safetensors_headers(path)
    key = _choose(
        path,
        {name: tuple(entry["shape"]) for name, entry in headers.items() if entry["dtype"] in _TENSOR_TYPES},
        wanted,
    )
    entry = headers[key]
    header = NpyHeader(tuple(entry["shape"]), np.dtype(_TENSOR_TYPES[entry["dtype"]]), False, entry["offset"])
    return array_file(path, key, header, "bfloat16" if entry["dtype"] == "BF16" else header.dtype.name), {}


def _safetensors_headers(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a .safetensors by name: dtype, shape and first byte, checked against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise FormatError(
                f"{path}: is no whole .safetensors file ({size:,} bytes, a header of {length:,}). Copy or write it "
                "again."
            )
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            entry["offset"] = 8 + length + begin
            width = np.dtype(_TENSOR_TYPES[entry["dtype"]]).itemsize if entry["dtype"] in _TENSOR_TYPES else None
            fits = 0 <= begin <= end <= size - 8 - length and all(side >= 0 for side in entry["shape"])
            if not fits or (width is not None and end - begin != math.prod(entry["shape"]) * width):
                raise ValueError("a tensor does not fit the file")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path}: the .safetensors header cannot be read ({error}). The file is cut short or damaged."
        ) from error
    return {str(name): entry for name, entry in header.items()}
