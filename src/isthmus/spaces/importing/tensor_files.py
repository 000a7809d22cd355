"""Files of torch and HDF5, read whole: as data alone, with `weights_only` and without links to other files.

The size is checked before memory is taken.
"""

from __future__ import annotations

import math
import mmap
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.arrays import to_numpy
from isthmus.core.limits import excess, unpacked_limit
from isthmus.core.messages import listed, one_line
from isthmus.core.weights import load_weights
from isthmus.errors import DependencyError, FormatError, IsthmusError
from isthmus.spaces.importing.arrays import EACH_ARRAY, NAMES

if TYPE_CHECKING:
    import pyarrow as pa

Read = tuple[NDArray[Any], "pa.Table | None", str | None]
"""Embeddings (rows, dim), the columns beside them, and the name of the array that they were."""

_HEAP = b"GCOL\1\0\0\0"
_TRIAL_SECONDS, _TRIAL_RATE = 60.0, 2e6
"""Seconds that reading texts for trial may take, and bytes a second beyond."""
_TEXT_BYTES = 64
"""Least that a text takes as an object of Python."""


class _Budget:
    """What the arrays of one file may take in memory together; asked before each is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._packed, self._taken = path, path.stat().st_size, 0

    def take(self, size: int, what: str) -> None:
        """Set memory aside.

        Raises:
            FormatError: It is more than is left.
        """
        self._taken += size
        if fault := excess(self._taken, self._packed):
            raise FormatError(f"{self._path}: with {what} it {fault}.")


def read_torch(path: Path, column: str | None) -> Read:
    """A tensor, a dict of tensors (with ids beside), or with "*" a dict of one tensor an id; nothing of it is run.

    Raises:
        FormatError: It holds anything but tensors and plain values, or takes too much memory.
    """
    import torch

    try:
        value = load_weights(path)
    except ValueError as error:
        raise FormatError(
            f"{path}: cannot be read with weights_only=True ({error}). Save a tensor or a dict of tensors."
        ) from error
    budget = _Budget(path)

    def loaded(tensor: Any) -> NDArray[Any]:
        # A tensor may have more elements than its file has bytes: all rows of one that was expanded are the same.
        budget.take(tensor.numel() * max(tensor.element_size(), 4), f"a tensor of shape {tuple(tensor.shape)}")
        return to_numpy(tensor)

    if isinstance(value, torch.Tensor):
        return loaded(value), None, None
    if isinstance(value, list | tuple) and value and all(isinstance(one, torch.Tensor) for one in value):
        return _stacked(path, [loaded(one) for one in value]), None, None
    if not isinstance(value, Mapping):
        raise FormatError(f"{path}: holds a {type(value).__name__}, expected a tensor or a dict of tensors.")
    arrays = {str(name): one for name, one in value.items() if isinstance(one, torch.Tensor)}
    shapes = {name: tuple(one.shape) for name, one in arrays.items() if one.is_floating_point()}
    lists = {str(name): list(one) for name, one in value.items() if isinstance(one, list | tuple)}
    return _picked(path, shapes, lambda name: loaded(arrays[name]), column, lists, list(arrays))


def read_hdf5(path: Path, column: str | None) -> Read:
    """The dataset of two dimensions of an HDF5 file with those beside it, or with "*" one dataset an id.

    Raises:
        FormatError: It is damaged, keeps data in other files, or takes too much memory once unpacked.
        DependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DependencyError(
            f"reading HDF5 needs h5py, not installed here ({error}). Run: pip install 'isthmus[benchmarks]'"
        ) from error
    budget = _Budget(path)
    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(h5py, file, path)
            texts = [name for name, one in datasets.items() if h5py.check_vlen_dtype(one.dtype) or _is_text(h5py, one)]
            if texts:
                with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    check_heaps(data, file.id.get_create_plist().get_sizes()[1])
                _try_texts(path, texts)

            def loaded(name: str) -> NDArray[Any]:
                dataset = datasets[name]
                text = _is_text(h5py, dataset)
                width = _TEXT_BYTES if text else max(dataset.dtype.itemsize, 1)
                # Chunks are unpacked whole, and a damaged file may claim one that is larger than its dataset.
                size = max(int(dataset.size), math.prod(dataset.chunks or ()))
                budget.take(size * width, f"dataset {name!r} of shape {dataset.shape}")
                values = dataset.asstr()[()] if text else dataset[()]
                return np.asarray(values)

            shapes = {name: one.shape for name, one in datasets.items() if one.dtype.kind == "f"}
            return _picked(path, shapes, loaded, column, {}, list(datasets))
    except IsthmusError:
        raise
    except Exception as error:  # of damaged files h5py raises nearly anything
        raise FormatError(
            f"{path}: cannot be read as HDF5 ({one_line(error)}). The file is cut short, damaged or of another kind."
        ) from error


def _is_text(h5py: Any, dataset: Any) -> bool:
    return h5py.check_string_dtype(dataset.dtype) is not None


_TRIAL = """
import sys
sys.path[:] = sys.argv[2].split("\\n")
import h5py
try:
    import resource
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]),) * 2)
except (ImportError, OSError, ValueError):
    pass  # a system that has no such limit
with h5py.File(sys.argv[1], "r") as file:
    for name in sys.argv[4:]:
        file[name][()]
"""
"""Reading texts of HDF5, in a process of its own, within the memory that the file may take: the library takes what a
damaged text claims to be. It looks for modules where this process does, and nowhere else."""


def _try_texts(path: Path, names: Sequence[str]) -> None:
    """Read texts in another process first: of damaged ones the library has been seen to end its process.

    Raises:
        ValueError: They cannot be read, take too much memory, or that process ended, or did not within its time.
    """
    packed = path.stat().st_size
    arguments = [str(path), "\n".join(sys.path), str(unpacked_limit(packed)), *names]
    command = [sys.executable, "-I", "-c", _TRIAL, *arguments]
    try:
        trial = subprocess.run(
            command, capture_output=True, timeout=_TRIAL_SECONDS + packed / _TRIAL_RATE, check=False, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"its texts {listed(names, 2)} have no end") from error
    if trial.returncode == 1:  # a fault that Python knows
        raise ValueError(f"its texts {listed(names, 2)}: {one_line(trial.stderr.strip().rpartition(chr(10))[2])}")
    if trial.returncode:
        raise ValueError(f"its texts {listed(names, 2)} end the library that reads them")


def check_heaps(data: bytes | mmap.mmap, width: int) -> None:
    """Look at the heaps in which an HDF5 file keeps texts: a piece of no length holds its library for ever.

    A heap is `GCOL`, its version, its size and its pieces: number, references, length, content. Piece 0 is what is
    free, and its length counts its head too.

    Args:
        data: The file.
        width: Bytes of a length in it.

    Raises:
        ValueError: A piece has no length, or ends outside its heap.
    """
    head, at = 8 + width, -1
    while (at := data.find(_HEAP, at + 1)) >= 0:
        end = at + int.from_bytes(data[at + 8 : at + head], "little")
        piece = at + head
        while piece + head <= end:
            number = int.from_bytes(data[piece : piece + 2], "little")
            length = int.from_bytes(data[piece + 8 : piece + head], "little")
            piece += head + -(-length // 8) * 8 if number else length
            if piece > min(end, len(data)) or (not number and length < 1):
                raise ValueError(f"its heap at byte {at:,} is damaged")


def _datasets(h5py: Any, group: Any, path: Path, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Datasets of a file and its groups, by name; links are not followed, and data in other files is refused."""
    datasets: dict[str, Any] = {}
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise FormatError(f"{path}: {prefix}{name} is a link, which is not followed. Copy the data into the file.")
        one = group[name]
        if isinstance(one, h5py.Group) and depth < 4:
            datasets.update(_datasets(h5py, one, path, f"{prefix}{name}/", depth + 1))
        elif isinstance(one, h5py.Dataset):
            if one.is_virtual or one.external:
                raise FormatError(f"{path}: {prefix}{name} keeps its data in other files. Copy it into the file.")
            datasets[f"{prefix}{name}"] = one
    return datasets


def _picked(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    loaded: Callable[[str], NDArray[Any]],
    column: str | None,
    lists: Mapping[str, list[Any]],
    names: Sequence[str],
) -> Read:
    """The array that holds the embeddings, and the arrays and lists of as many values beside it."""
    import pyarrow as pa

    if column == EACH_ARRAY:
        rows = _stacked(path, [loaded(name) for name in shapes])
        return rows, pa.table({"id": pa.array(list(shapes), pa.string())}), EACH_ARRAY
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    named = [name for name in ([column] if column else NAMES) if name in shapes]
    if not named and (len(flat) != 1 or column):
        have = listed([f"{name} {shape}" for name, shape in shapes.items()], 4) or "no array of floats"
        raise FormatError(
            f"{path}: which array holds the embeddings? Got {have}; expected one of shape (rows, dim). Name it with "
            f"--column; --column '{EACH_ARRAY}' takes each array as one embedding and its name as the id."
        )
    key = (named or flat)[0]
    rows = loaded(key)
    beside = {name: one for name, one in lists.items() if len(one) == len(rows)}
    for name in names:
        if name != key and (name not in shapes or shapes[name] == rows.shape[:1]):
            values = loaded(name)
            if values.shape == rows.shape[:1]:
                beside[name] = values.tolist()
    try:
        return rows, pa.table(beside) if beside else None, key
    except (pa.ArrowException, TypeError) as error:
        raise FormatError(f"{path}: what stands beside {key!r} is no table ({one_line(error)}).") from error


def _stacked(path: Path, rows: list[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one embedding each as a matrix."""
    if not rows or len({row.shape for row in rows}) > 1 or rows[0].ndim != 1:
        shapes = listed(list(dict.fromkeys(str(row.shape) for row in rows)), 4) or "none"
        raise FormatError(f"{path}: its arrays have the shapes {shapes}, expected one dim, one embedding each.")
    return np.stack(rows)
