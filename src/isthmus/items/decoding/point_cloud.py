"""Meshes and point clouds to a fixed number of points, centred, in the unit sphere, with a known axis up."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import excess
from isthmus.core.messages import one_line
from isthmus.core.runtime import numpy_generator
from isthmus.errors import ConfigError, FormatError
from isthmus.items import Rejected
from isthmus.items.decoding import Source, require
from isthmus.items.decoding.mesh_files import check_mesh, colour_names, mixed_polygons, ply_colours
from isthmus.items.decoding.object_npy import is_object_npy, read_object_npy

MAX_BYTES = 1 << 30
NO_COLOUR = 0.4
"""Grey that stands for missing colours, as the coloured ULIP-2 was trained."""

_MESHES = (".ply", ".obj", ".stl", ".off", ".glb")
_XYZ_KEYS = ("xyz", "points", "pos", "pc")
_RGB_KEYS = ("rgb", "colors", "colours", "color")
_COPIES = 4
"""Times that a cloud lies in memory while it is decoded: as stored, in float64, centred, and in float32."""

_AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """What a file holds: corners or points with, for a mesh, its triangles and, where there are any, colours.

    Attributes:
        xyz: (n, 3) positions.
        faces: (m, 3) rows of `xyz`; None for a point cloud.
        rgb: (n, 3) colours from 0 to 1; None where the file has none.
    """

    xyz: Points
    faces: NDArray[np.int64] | None = None
    rgb: Points | None = None


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
    cloud = sample_surface(shape, points or 8192, rng) if is_mesh else _choose(shape, points, rng, repeat)
    xyz = unit_sphere(cloud.xyz @ rotation(up, up_wanted).T)
    if not colours:
        return xyz.astype(np.float32)
    rgb = np.full_like(xyz, NO_COLOUR) if cloud.rgb is None else cloud.rgb
    return np.concatenate([xyz, rgb], axis=1).astype(np.float32)


def sample_surface(shape: Shape, count: int, rng: np.random.Generator) -> Shape:
    """Draw points uniformly from the triangles of a mesh, colours interpolated between the corners.

    Raises:
        Rejected: The triangles have no area.
    """
    assert shape.faces is not None
    a, b, c = (shape.xyz[shape.faces[:, corner]] for corner in range(3))
    ends = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not ends.size or not np.isfinite(ends[-1]) or ends[-1] <= 0.0:
        raise Rejected("no surface: its triangles have no area")
    chosen = np.minimum(np.searchsorted(ends, rng.random(count) * ends[-1], side="right"), ends.size - 1)
    # Folding the unit square onto the triangle keeps the draw uniform.
    u, v = rng.random(count), rng.random(count)
    u, v = np.where(u + v > 1.0, 1.0 - u, u), np.where(u + v > 1.0, 1.0 - v, v)
    weights = np.stack([1.0 - u - v, u, v], axis=1)[:, :, None]
    corners = shape.faces[chosen]
    rgb = None if shape.rgb is None else (shape.rgb[corners] * weights).sum(axis=1)
    return Shape((shape.xyz[corners] * weights).sum(axis=1), None, rgb)


def unit_sphere(xyz: Points) -> Points:
    """Move the mean of (n, 3) points to the origin and scale the largest norm to 1; applied again it changes nothing.

    Raises:
        Rejected: All points are one.
    """
    centred = xyz - xyz.mean(axis=0)
    radius = float(np.linalg.norm(centred, axis=1).max())
    # Below this the differences are rounding errors of the coordinates themselves.
    if radius <= 1e-12 * max(float(np.abs(xyz).max()), 1e-300):
        raise Rejected("no extent: all its points are one")
    return np.asarray(centred / radius)


def rotation(up: str, up_wanted: str) -> Points:
    """The (3, 3) rotation from one axis to another by the shortest way; half a turn goes about x (z for x itself).

    Raises:
        ConfigError: An axis is unknown.
    """
    for axis in (up, up_wanted):
        if axis not in _AXES:
            raise ConfigError(f"unknown up axis {axis!r}. Expected one of {', '.join(_AXES)}.")
    start, end = (np.array(_AXES[axis], dtype=np.float64) for axis in (up, up_wanted))
    if (start == end).all():
        return np.eye(3)
    if (start == -end).all():
        return np.diag([-1.0, -1.0, 1.0] if start[0] else [1.0, -1.0, -1.0])
    x, y, z = np.cross(start, end)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # Rodrigues for a quarter turn: sin is 1, cos is 0.
    return np.asarray(np.eye(3) + cross + cross @ cross)


def _choose(shape: Shape, count: int | None, rng: np.random.Generator, repeat: bool) -> Shape:
    """`count` points of a cloud: a random subset in the cloud's order, or the cloud repeated, or else as it is."""
    have = len(shape.xyz)
    if count is None or count == have or (count > have and not repeat):
        return shape
    rows = np.sort(rng.permutation(have)[:count]) if count < have else np.arange(count) % have
    return Shape(shape.xyz[rows], None, None if shape.rgb is None else shape.rgb[rows])


def _read_bytes(source: Source, max_bytes: int) -> bytes:
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
        shape = _load_trimesh(data, suffix, colours)
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
    xyz = _numbers(xyz, "points")
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise Rejected(f"an array of shape {xyz.shape}; points are (n, 3), or (n, 6) with colours")
    if rgb is None or not colours:
        return Shape(xyz)
    if rgb.shape != xyz.shape:
        raise Rejected(f"colours of shape {rgb.shape} for points of shape {xyz.shape}")
    return Shape(xyz, None, unit_colours(rgb))


def _pick(arrays: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((arrays[key] for key in keys if key in arrays), None)


def _numbers(array: Any, what: str) -> Points:
    if array.dtype.kind not in "fiu":
        raise Rejected(f"{what} of type {array.dtype}; expected numbers")
    return np.asarray(array, dtype=np.float64)


def unit_colours(rgb: NDArray[Any]) -> Points:
    """Colours to 0 to 1, by one rule for every kind of file.

    Integers of 8 or 16 bit are on the scale of their type, other integers of 0 to 255. Floats up to 1 are of 0 to 1,
    up to 255 of 0 to 255.

    Raises:
        Rejected: Values are below 0 or above 255, and so on no known scale: normals, for example.
    """
    kind, rgb = rgb.dtype, _numbers(rgb, "colours")
    if not rgb.size or not np.isfinite(rgb).all():
        return rgb  # said of the whole cloud
    low, high = float(rgb.min()), float(rgb.max())
    white = {"u1": 255.0, "u2": 65535.0}.get(kind.str[1:], 255.0 if kind.kind in "iu" or high > 1.0 + 1e-3 else 1.0)
    if low < 0.0 or high > white * (1.0 + 1e-3):
        raise Rejected(
            f"colours from {low:g} to {high:g}; expected 0 to 1 or 0 to 255. Are they normals? Save the positions alone"
        )
    return np.asarray(np.minimum(rgb / white, 1.0))


def _load_trimesh(data: bytes, suffix: str, colours: bool) -> Shape:
    trimesh = require("trimesh", extra="mesh", purpose="decoding meshes")
    data = check_mesh(data, suffix, colours=colours)
    if suffix == ".ply" and (mixed := mixed_polygons(data)) is not None:
        return _checked(_mixed_shape(*mixed, colours))
    try:
        # Nothing is merged, repaired or fetched from beside the file: the same bytes are the same shape.
        scene = trimesh.load_scene(io.BytesIO(data), file_type=suffix[1:], process=False, maintain_order=True)
        geometries = [_part(geometry, colours) for geometry in scene.dump()]
    except Rejected:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise Rejected(f"damaged, or not {suffix[1:]} ({type(error).__name__}: {one_line(error)})") from error
    parts = [_checked(part) for part in geometries if part is not None and len(part.xyz)]
    raw = ply_colours(data) if colours and suffix == ".ply" else None
    if raw is not None and len(parts) == 1 and len(raw) == len(parts[0].xyz):
        parts = [replace(parts[0], rgb=unit_colours(raw))]  # of floats trimesh does not ask which white they have
    if not parts:
        raise Rejected("no points and no triangles")
    if any(part.faces is not None for part in parts):
        parts = [part for part in parts if part.faces is not None]  # loose points beside a mesh are not its surface
    return _joined(parts)


def _mixed_shape(vertices: Any, faces: NDArray[np.int64], colours: bool) -> Shape:
    names = vertices.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise Rejected("a ply without x, y and z")
    xyz = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    wanted = colour_names(names) if colours else None
    rgb = None if wanted is None else unit_colours(np.stack([vertices[name] for name in wanted], axis=1))
    return Shape(xyz, faces, rgb)


def _checked(shape: Shape) -> Shape:
    """A shape whose triangles name only corners that are there."""
    if shape.faces is not None and shape.faces.size:
        low, high = int(shape.faces.min()), int(shape.faces.max())
        if low < 0 or high >= len(shape.xyz):
            raise Rejected(f"damaged: a triangle names corner {high if low >= 0 else low} of {len(shape.xyz):,}")
    return shape


def _part(geometry: Any, colours: bool) -> Shape | None:
    """One geometry of a scene; None for lines and the like."""
    vertices = getattr(geometry, "vertices", None)
    if vertices is None or type(geometry).__name__ not in ("Trimesh", "PointCloud"):
        return None
    xyz = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    faces = getattr(geometry, "faces", None)
    shape = Shape(xyz, None if faces is None or not len(faces) else np.array(faces, dtype=np.int64))
    return replace(shape, rgb=_colours(geometry, len(xyz))) if colours else shape


def _colours(geometry: Any, count: int) -> Points | None:
    """Colours of the corners, where the file has any: of corners, of faces (averaged at corners) or of a texture."""
    visual = getattr(geometry, "visual", None)
    kind = getattr(visual, "kind", None)
    if visual is None:
        colours = getattr(geometry, "colors", None)
    elif kind is None:
        return None
    else:
        try:
            colours = (visual.to_color() if kind == "texture" else visual).vertex_colors
        except Exception:  # a texture that is not in the file
            return None
    colours = None if colours is None else np.asarray(colours)
    if colours is None or colours.shape[:1] != (count,) or colours.ndim != 2 or colours.shape[1] < 3:
        return None
    return np.asarray(colours[:, :3], dtype=np.float64) / 255.0


def _joined(parts: list[Shape]) -> Shape:
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.xyz) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False) if part.faces is not None]
    coloured = any(part.rgb is not None for part in parts)
    rgb = [np.full_like(part.xyz, NO_COLOUR) if part.rgb is None else part.rgb for part in parts]
    return Shape(
        np.concatenate([part.xyz for part in parts]),
        np.concatenate(faces) if faces else None,
        np.concatenate(rgb) if coloured else None,
    )
