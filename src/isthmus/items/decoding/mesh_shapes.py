"""Mesh files to shapes: read by trimesh once their headers are checked, with the colours that they have."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.messages import one_line
from isthmus.items import Rejected
from isthmus.items.decoding import require
from isthmus.items.decoding.mesh_files import check_mesh, colour_names, mixed_polygons, ply_colours
from isthmus.items.decoding.shapes import (
    Points,
    Shape,
    check_faces,
    join_shapes,
    unit_colours,
)


def load_mesh(data: bytes, suffix: str, colours: bool) -> Shape:
    """Shape of a mesh file, read by trimesh."""
    trimesh = require("trimesh", extra="mesh", purpose="decoding meshes")
    data = check_mesh(data, suffix, colours=colours)
    if suffix == ".ply" and (mixed := mixed_polygons(data)) is not None:
        return check_faces(_mixed_shape(*mixed, colours))
    try:
        # Nothing is merged, repaired or fetched from beside the file: the same bytes are the same shape.
        scene = trimesh.load_scene(io.BytesIO(data), file_type=suffix[1:], process=False, maintain_order=True)
        geometries = [_part(geometry, colours) for geometry in scene.dump()]
    except Rejected:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise Rejected(f"damaged, or not {suffix[1:]} ({type(error).__name__}: {one_line(error)})") from error
    parts = [check_faces(part) for part in geometries if part is not None and len(part.xyz)]
    raw = ply_colours(data) if colours and suffix == ".ply" else None
    if raw is not None and len(parts) == 1 and len(raw) == len(parts[0].xyz):
        parts = [replace(parts[0], rgb=unit_colours(raw))]  # of floats trimesh does not ask which white they have
    if not parts:
        raise Rejected("no points and no triangles")
    if any(part.faces is not None for part in parts):
        parts = [part for part in parts if part.faces is not None]  # loose points beside a mesh are not its surface
    return join_shapes(parts)


def _mixed_shape(vertices: Any, faces: NDArray[np.int64], colours: bool) -> Shape:
    """Shape of a PLY whose polygons have several sizes."""
    names = vertices.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise Rejected("a ply without x, y and z")
    xyz = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    wanted = colour_names(names) if colours else None
    rgb = None if wanted is None else unit_colours(np.stack([vertices[name] for name in wanted], axis=1))
    return Shape(xyz, faces, rgb)


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
