"""Shapes: positions with triangles and colours, sampled, scaled into the unit sphere, turned, and joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import ConfigError
from isthmus.items import Rejected

NO_COLOUR = 0.4
"""Grey that stands for missing colours, as the coloured ULIP-2 was trained."""

_AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Shape that a file holds: corners or points with, for a mesh, its triangles and, where there are any, colours.

    Attributes:
        xyz: (n, 3) positions.
        faces: (m, 3) rows of `xyz`; None for a point cloud.
        rgb: (n, 3) colours from 0 to 1; None where the file has none.
    """

    xyz: Points
    faces: NDArray[np.int64] | None = None
    rgb: Points | None = None


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


def choose_points(shape: Shape, count: int | None, rng: np.random.Generator, repeat: bool) -> Shape:
    """`count` points of a cloud: a random subset in the cloud's order, or the cloud repeated, or else as it is."""
    have = len(shape.xyz)
    if count is None or count == have or (count > have and not repeat):
        return shape
    rows = np.sort(rng.permutation(have)[:count]) if count < have else np.arange(count) % have
    return Shape(shape.xyz[rows], None, None if shape.rgb is None else shape.rgb[rows])


def as_numbers(array: Any, what: str) -> Points:
    """An array of numbers as float64."""
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
    kind, rgb = rgb.dtype, as_numbers(rgb, "colours")
    if not rgb.size or not np.isfinite(rgb).all():
        return rgb  # said of the whole cloud
    low, high = float(rgb.min()), float(rgb.max())
    white = {"u1": 255.0, "u2": 65535.0}.get(kind.str[1:], 255.0 if kind.kind in "iu" or high > 1.0 + 1e-3 else 1.0)
    if low < 0.0 or high > white * (1.0 + 1e-3):
        raise Rejected(
            f"colours from {low:g} to {high:g}; expected 0 to 1 or 0 to 255. Are they normals? Save the positions alone"
        )
    return np.asarray(np.minimum(rgb / white, 1.0))


def check_faces(shape: Shape) -> Shape:
    """A shape whose triangles name only corners that are there."""
    if shape.faces is not None and shape.faces.size:
        low, high = int(shape.faces.min()), int(shape.faces.max())
        if low < 0 or high >= len(shape.xyz):
            raise Rejected(f"damaged: a triangle names corner {high if low >= 0 else low} of {len(shape.xyz):,}")
    return shape


def join_shapes(parts: list[Shape]) -> Shape:
    """Several shapes as one, those without colours in grey."""
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
