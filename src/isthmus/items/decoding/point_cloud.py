"""Meshes and point clouds to a fixed number of points, centred, in the unit sphere, with a known axis up."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import excess
from isthmus.core.runtime import numpy_generator
from isthmus.errors import FormatError
from isthmus.items import Rejected
from isthmus.items.decoding import Source
from isthmus.items.decoding.mesh_shapes import load_mesh
from isthmus.items.decoding.object_npy import is_object_npy, read_object_npy
from isthmus.items.decoding.shapes import (
    NO_COLOUR,
    Shape,
    as_numbers,
    choose_points,
    rotation,
    sample_surface,
    unit_colours,
    unit_sphere,
)

MAX_BYTES = 1 << 30

_MESHES = (".ply", ".obj", ".stl", ".off", ".glb")
_XYZ_KEYS = ("xyz", "points", "pos", "pc")
_RGB_KEYS = ("rgb", "colors", "colours", "color")
_COPIES = 4
"""Times that a cloud lies in memory while it is decoded: as stored, in float64, centred, and in float32."""


def decode_point_cloud(
    source: Source,
    *,
    suffix: str | None = None,
    points: int | None = 8192,
    colours: bool = False,
    up: str = "y",
    up_wanted: str = "y",
    repeat: bool = True,
    max_bytes: int = MAX_BYTES,
) -> NDArray[np.float32]:
    """Decode a mesh or a point cloud.

    Meshes are sampled uniformly by area; the draws are seeded by the hash of the file's bytes, so that a file
    always gives the same points, wherever it lies and whatever is decoded beside it. Of a point cloud that has more
    points than are wanted a subset is drawn in the same way; one that has fewer is repeated in order, or stays smaller.

    Args:
        source: Bytes or a path: ply, obj, stl, off, glb; npy of (n, 3 or 6) or of a dict; npz: `xyz`, maybe `rgb`.
        suffix: Kind of the file, such as ".ply"; needed for bytes.
        points: Number of points wanted; None keeps a point cloud as it is and takes 8192 of a mesh.
        colours: Add red, green and blue from 0 to 1 (0.4 everywhere where the file has none).
        up: The axis that points up in the file: x, y, z, -x, -y or -z.
        up_wanted: The axis that shall point up.
        repeat: Repeat a cloud that has fewer points than are wanted; otherwise it stays as it is.
        max_bytes: Larger files are refused.

    Returns:
        (points, 3) or, with colours, (points, 6) float32; mean at the origin, largest norm 1.

    Raises:
        Rejected: It is no shape, is damaged, has NaN, no surface or no extent, or is too large.
    """
    suffix = (Path(source).suffix if suffix is None and not isinstance(source, bytes) else suffix or "").lower()
    data = _read_bytes(source, max_bytes)
    shape = _load(data, suffix, colours)
    rng = numpy_generator(int.from_bytes(hashlib.sha256(data).digest()[:8], "little"))
    is_mesh = shape.faces is not None
    cloud = sample_surface(shape, points or 8192, rng) if is_mesh else choose_points(shape, points, rng, repeat)
    xyz = unit_sphere(cloud.xyz @ rotation(up, up_wanted).T)
    if not colours:
        return xyz.astype(np.float32)
    rgb = np.full_like(xyz, NO_COLOUR) if cloud.rgb is None else cloud.rgb
    return np.concatenate([xyz, rgb], axis=1).astype(np.float32)


def _read_bytes(source: Source, max_bytes: int) -> bytes:
    """Bytes of a file of points, within the limit."""
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        if size > max_bytes:
            raise Rejected(f"too large: {size:,} bytes, the limit is {max_bytes:,}")
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise Rejected("an empty file")
    return data


def _load(data: bytes, suffix: str, colours: bool) -> Shape:
    """The shape in a file. Colours are looked at only where they are wanted: else normals in their place do no harm."""
    if suffix in (".npy", ".npz"):
        shape = _load_numpy(data, suffix, colours)
    elif suffix in _MESHES:
        shape = load_mesh(data, suffix, colours)
    else:
        raise Rejected(
            f"the suffix {suffix!r} is no shape that isthmus reads ({', '.join((*_MESHES, '.npy', '.npz'))})"
        )
    if not len(shape.xyz):
        raise Rejected("no points")
    if not np.isfinite(shape.xyz).all() or not (shape.rgb is None or np.isfinite(shape.rgb).all()):
        raise Rejected("points that are NaN or infinite")
    return shape


def _load_numpy(data: bytes, suffix: str, colours: bool) -> Shape:
    """npy of (n, 3) or (n, 6), npz with an array of positions and maybe one of colours; never a pickle that is run."""
    if suffix == ".npy" and is_object_npy(data):
        return _load_object(data, colours)
    try:
        if suffix == ".npz":
            xyz, rgb = _load_npz(data, colours)
        else:
            xyz, rgb = np.load(io.BytesIO(data), allow_pickle=False), None
    except Rejected:
        raise
    except Exception as error:  # zip, header, memory and pickle faults
        # numpy takes any file that it does not know for a pickle
        pickled = data[:1] == b"\x80" or (data[:2] in (b"\x93N", b"PK") and "pickle" in str(error).lower())
        hint = "pickled; save plain arrays (npz with xyz and rgb)" if pickled else f"damaged ({type(error).__name__})"
        raise Rejected(hint) from error
    return _as_shape(xyz, rgb, colours)


def _load_npz(data: bytes, colours: bool) -> tuple[Any, Any]:
    """Positions and maybe colours. Other arrays are not unpacked, and the size of these is known before they are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {one.filename.removesuffix(".npy"): one.file_size for one in archive.infolist()}
    names = [next((key for key in keys if key in sizes), None) for keys in (_XYZ_KEYS, _RGB_KEYS if colours else ())]
    if names[0] is None:
        have = ", ".join(list(sizes)[:6]) + (", ..." if len(sizes) > 6 else "")
        raise Rejected(f"no array named {' or '.join(_XYZ_KEYS)} (it has {have or 'none'})")
    if fault := excess(_COPIES * sum(sizes[name] for name in names if name), len(data)):
        raise Rejected(f"a cloud that {fault}")
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        xyz, rgb = (None if name is None else loaded[name] for name in names)
    return xyz, rgb


def _load_object(data: bytes, colours: bool) -> Shape:
    """A dict with positions and maybe colours in a .npy, as OpenShape has one an object."""
    try:
        value = read_object_npy(data)
    except FormatError as error:
        reason = str(error).partition("plain data (")[2].partition("). Nothing")[0]
        raise Rejected(f"pickled: {reason}; save plain arrays (npz with xyz and rgb)") from error
    if not isinstance(value, dict) or not isinstance(_pick(value, _XYZ_KEYS), np.ndarray):
        raise Rejected(f"pickled, without an array {' or '.join(_XYZ_KEYS)}; save plain arrays (npz with xyz and rgb)")
    rgb = _pick(value, _RGB_KEYS)
    return _as_shape(_pick(value, _XYZ_KEYS), rgb if isinstance(rgb, np.ndarray) else None, colours)


def _as_shape(xyz: Any, rgb: Any, colours: bool) -> Shape:
    """Arrays of positions and colours, their types and shapes checked."""
    if rgb is None and getattr(xyz, "ndim", 0) == 2 and xyz.shape[1] == 6:
        xyz, rgb = xyz[:, :3], xyz[:, 3:]
        if rgb.dtype.kind == "f" and rgb.size and rgb.min() < 0.0:
            rgb = None  # three further columns without a name: normals, of which no model here knows anything
    xyz = as_numbers(xyz, "points")
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise Rejected(f"an array of shape {xyz.shape}; points are (n, 3), or (n, 6) with colours")
    if rgb is None or not colours:
        return Shape(xyz)
    if rgb.shape != xyz.shape:
        raise Rejected(f"colours of shape {rgb.shape} for points of shape {xyz.shape}")
    return Shape(xyz, None, unit_colours(rgb))


def _pick(arrays: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """The first array that has one of these names."""
    return next((arrays[key] for key in keys if key in arrays), None)
