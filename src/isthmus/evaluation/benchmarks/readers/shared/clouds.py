"""Point clouds out of big arrays: one .npz an object in a work folder, written once, whole, and found again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import atomic_file, sha256_json
from isthmus.core.messages import one_line
from isthmus.core.runtime import Progress, numpy_generator
from isthmus.errors import FormatError
from isthmus.items import Item
from isthmus.items.decoding import require
from isthmus.items.decoding.shapes import rotation

Cloud = NDArray[np.float32]
"""(n, 3) points, or (n, 6) with colours from 0 to 1."""

MAX_VALUES = 2**29
"""Most numbers that are read of one dataset of an .h5 file."""

_MANY = 200


def farthest_points(xyz: NDArray[Any], count: int, start: int) -> NDArray[np.int64]:
    """Rows of points that are spread out: each next one is farthest from those taken (Qi et al. 2017, PointNet++).

    Args:
        xyz: (n, 3) points.
        count: How many rows; all, in their order, where there are not more.
        start: The first row. The published code draws it at random.
    """
    if count >= len(xyz):
        return np.arange(len(xyz))
    x, y, z = (np.ascontiguousarray(xyz[:, axis], dtype=np.float32) for axis in range(3))
    rows = np.empty(count, np.int64)
    nearest = np.full(len(xyz), np.inf, np.float32)
    at = start
    for number in range(count):
        rows[number] = at
        np.minimum(nearest, (x - x[at]) ** 2 + (y - y[at]) ** 2 + (z - z[at]) ** 2, out=nearest)
        at = int(nearest.argmax())
    return rows


def sample(xyz: NDArray[Any], sampling: str, points: int, *, seed: int, name: str) -> NDArray[np.int64]:
    """Rows of a cloud.

    Args:
        xyz: (n, 3) points.
        sampling: "fps" (farthest points from a seeded start), "first" or "all".
        points: How many.
        seed: Seed of the start.
        name: Name of the object: each has a start of its own, whatever stands before it.
    """
    if sampling == "all":
        return np.arange(len(xyz))
    if sampling == "first":
        return np.arange(min(points, len(xyz)))
    draw = numpy_generator(seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    return farthest_points(xyz, points, int(draw.integers(len(xyz))))


def cloud_items(
    names: Sequence[str],
    load: Callable[[int], Cloud],
    work: Path,
    *,
    sources: Mapping[str, Path] | Path,
    settings: Mapping[str, Any],
) -> list[Item]:
    """Items of clouds, each written to a file of its own unless it lies there from an earlier, perhaps killed run.

    Args:
        names: Ids.
        load: The cloud of a number of `names`; called only for what is not there yet.
        work: Folder for the files.
        sources: The file that all clouds are from, or by name. Another size or date makes another cloud.
        settings: What else a cloud depends on.
    """
    places = {}
    one = _stamp(sources) if isinstance(sources, Path) else None
    for name in names:
        stamp = one or _stamp(sources[name])  # type: ignore[index]
        digest = sha256_json({"name": name, "settings": dict(settings), "source": stamp})
        places[name] = work / "clouds" / digest[:2] / f"{digest[2:26]}.npz"
    todo = [number for number, name in enumerate(names) if not places[name].exists()]
    # Thousands of clouds take minutes once; readers do not know whether they shall be quiet, so pipes see nothing.
    quiet = len(todo) < _MANY or not sys.stderr.isatty()
    with Progress("clouds", len(todo), unit="clouds", quiet=quiet) as progress:
        for number in todo:
            _write(places[names[number]], load(number))
            progress.advance()
    return [Item(name, str(path)) for name, path in places.items()]


def _stamp(path: Path) -> list[Any]:
    """Name, size and time of a file, which tell a prepared cloud from a stale one."""
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns]


def _write(path: Path, cloud: Cloud) -> None:
    """Write a prepared cloud as .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"xyz": np.ascontiguousarray(cloud[:, :3], np.float32)}
    if cloud.shape[1] == 6:
        arrays["rgb"] = np.ascontiguousarray(cloud[:, 3:], np.float32)
    with atomic_file(path) as aside, aside.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def as_cloud(value: Any, where: str, *, up: str = "y", swap_yz: bool = False) -> Cloud:
    """Points of a file, with y up.

    Args:
        value: (n, 3) or wider numbers; further columns, such as normals, are left out.
        where: File and object, for the message.
        up: The axis that points up in the file; it is rotated to y.
        swap_yz: Exchange y and z too, as OpenShape's loader does: that is a mirror, not a rotation.

    Raises:
        FormatError: It is no array of points.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] < 3 or not len(array):
        raise FormatError(f"{where}: holds an array of {array.dtype} of shape {array.shape}, expected (n, 3) points.")
    xyz = array[:, :3].astype(np.float64)
    if not np.isfinite(xyz).all():
        raise FormatError(f"{where}: holds points that are NaN or infinite. Fetch the file again.")
    xyz = xyz @ rotation(up, "y").T
    return np.ascontiguousarray(xyz[:, [0, 2, 1]] if swap_yz else xyz, dtype=np.float32)


def with_colours(cloud: Cloud, rgb: Any, where: str, *, scale: float) -> Cloud:
    """Add colours, whose scale the layout says: a dark object must not be taken for one of another scale.

    Raises:
        FormatError: There is not one colour a point, or they are outside the scale.
    """
    colours = np.asarray(rgb, dtype=np.float32) / scale
    if colours.shape != (len(cloud), 3) or not (colours.min() >= 0.0 and colours.max() <= 1.0):
        raise FormatError(
            f"{where}: has colours of shape {colours.shape} for {len(cloud):,} points, or outside 0 to {scale:g}."
        )
    return np.concatenate([cloud, colours], axis=1)


def refuse_pickle(path: Path, instead: str) -> FormatError:
    """The fault of a cache that can be read only by running it.

    Args:
        path: A .dat or .pkl file.
        instead: What to use.
    """
    return FormatError(
        f"{path}: is a pickle, which can run anything when it is read, so isthmus does not read it. It was derived "
        f"from other files: use {instead}."
    )


@contextmanager
def open_h5(path: Path) -> Iterator[Callable[[str, int], NDArray[Any]]]:
    """Open an .h5 file; yields a function from the name and rank of a dataset to its numbers.

    Raises:
        DependencyError: h5py is not installed.
        FormatError: It is no .h5 file, or lacks a dataset; or one lies in another file, is too large, or of another
            rank or kind.
    """
    h5py = require("h5py", extra="benchmarks", purpose="reading .h5 files")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path}: is no whole .h5 file ({one_line(error)}). Fetch it again.") from error

    def get(name: str, rank: int) -> NDArray[Any]:
        link = file.get(name, getlink=True)
        if link is None:
            raise FormatError(f"{path}: has no dataset {name!r}. It has: {', '.join(file)[:200]}.")
        values = None if isinstance(link, h5py.ExternalLink) else file.get(name)
        if not isinstance(values, h5py.Dataset) or values.external or values.is_virtual:
            raise FormatError(f"{path}: {name!r} is no dataset of this file. Expected an array.")
        if values.dtype.kind not in "fiu" or values.ndim != rank or values.size > MAX_VALUES:
            raise FormatError(
                f"{path}: the dataset {name!r} is of {values.dtype} and shape {values.shape}; expected at most "
                f"{MAX_VALUES:,} numbers in {rank} dimensions."
            )
        try:
            return np.asarray(values[()])
        except OSError as error:
            raise FormatError(f"{path}: {name!r} cannot be read ({one_line(error)}). Fetch it again.") from error

    with file:
        yield get


def read_clouds_h5(path: Path) -> tuple[NDArray[Any], list[int]]:
    """`data` (n, points, 3) and `label`, (n,) or (n, 1), of an .h5 file.

    Raises:
        DependencyError: h5py is not installed.
        FormatError: The file is not of that form.
    """
    with open_h5(path) as get:
        data = get("data", 3)
        try:
            label = get("label", 1)
        except FormatError:
            label = get("label", 2)
    if data.shape[2] < 3 or label.shape not in ((len(data),), (len(data), 1)):
        raise FormatError(
            f"{path}: has data of shape {data.shape} and labels of shape {label.shape}. Expected (n, points, 3) and n."
        )
    return data, [int(value) for value in label.reshape(-1)]
