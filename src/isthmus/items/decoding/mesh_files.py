"""What files of shapes say of themselves, checked before trimesh reads them.

trimesh leaves out what it cannot read and goes on with the rest, which would be embedded as if it were the whole: the
Draco-compressed mesh of a scene, the faces behind a cut. Here counts are compared with what is there, and what cannot
be read is named.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import excess
from isthmus.items.decoding.glb_files import check_glb
from isthmus.items.item import Rejected

_PLY_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2"},
    **{"uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}
_PLY_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_PLY_LINE = 192
"""Bytes that trimesh takes for each line of a ply in text: an array of its own."""


def check_mesh(data: bytes, suffix: str, *, colours: bool) -> bytes:
    """Check a file of a mesh, and give what trimesh shall read: the file, or the same in a form that it knows.

    With `colours` those of an obj come on the scale of 0 to 1. Polygons of an off become triangles.

    Raises:
        Rejected: A part is missing or cannot be read, or it takes too much memory once unpacked.
    """
    if suffix == ".glb":
        check_glb(data)
    elif suffix == ".stl":
        _check_stl(data)
    elif suffix == ".off":
        return _triangular_off(data)
    elif suffix == ".ply":
        return _checked_ply(data)
    elif suffix == ".obj" and colours:
        return _scaled_obj(data)
    return data


def _check_stl(data: bytes) -> None:
    """Refuse an STL file that is cut."""
    count = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 and 84 + 50 * count == len(data):
        return
    text = data[:5].lower() == b"solid" and b"\0" not in data[:512]
    if text and b"facet" in data and b"endsolid" not in data.lower():
        raise Rejected("truncated: it has no endsolid")
    if not text and len(data) < 84:
        raise Rejected(f"damaged: {len(data):,} bytes, a binary stl has 84 before its first triangle")
    if not text and len(data) < 84 + 50 * count:
        raise Rejected(f"truncated: {(len(data) - 84) // 50:,} of {count:,} triangles")


def _triangular_off(data: bytes) -> bytes:
    """An off with as many lines as it announces, its polygons cut into fans of triangles, which trimesh reads."""
    lines = [line for line in (raw.partition(b"#")[0].strip() for raw in data.splitlines()) if line]
    head = re.match(rb"([A-Za-z]*OFF[A-Za-z]*)?\s*(\d+)\s+(\d+)", b"\n".join(lines[:2]))
    if head is None:
        return data
    corners, faces = int(head[2]), int(head[3])
    rows = lines[1 if head[1] is None or b"\n" not in head[0] else 2 :]
    if len(rows) < corners + faces:
        raise Rejected(f"truncated: {len(rows):,} of {corners + faces:,} lines of corners and faces")
    polygons = [row.split() for row in rows[corners : corners + faces]]
    if all(polygon[0] == b"3" for polygon in polygons):
        return data
    triangles = []
    for polygon in polygons:
        if not polygon[0].isdigit() or len(polygon) < 1 + int(polygon[0]):
            raise Rejected("damaged: a face without as many corners as it announces")
        first, *others = polygon[1 : 1 + int(polygon[0])] or [b"0"]
        triangles += [b" ".join((b"3", first, b, c)) for b, c in itertools.pairwise(others)]
    kind = head[1] or b"OFF"
    return b"\n".join([kind, b"%d %d 0" % (corners, len(triangles)), *rows[:corners], *triangles, b""])


@dataclass(frozen=True)
class PlyElement:
    """One kind of record of a ply: its name, count, and properties as (name, type) or (name, count type, item type)."""

    name: str
    count: int
    properties: list[tuple[str, ...]]

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of records without lists, little-endian and packed; None where there are lists."""
        if any(len(one) > 2 for one in self.properties):
            return None
        return np.dtype([(name, f"<{kind}") for name, kind in self.properties])


def ply_header(data: bytes) -> tuple[str, list[PlyElement], int] | None:
    """Format, elements and the byte at which the records begin; None where the header is not understood."""
    end = re.search(rb"end_header[ \t]*(\r\n|\n|\r)", data[: 1 << 20])
    if not data.startswith(b"ply") or end is None:
        return None
    kind, elements = "", []
    for line in data[: end.start()].decode("ascii", "replace").splitlines():
        match line.split():
            case ["format", name, _]:
                kind = name
            case ["element", name, count] if count.isdecimal():
                elements.append(PlyElement(name, int(count), []))
            case ["property", "list", length, item, name] if elements and {length, item} <= _PLY_TYPES.keys():
                elements[-1].properties.append((name, _PLY_TYPES[length], _PLY_TYPES[item]))
            case ["property", item, name] if elements and item in _PLY_TYPES:
                elements[-1].properties.append((name, _PLY_TYPES[item]))
            case ["property" | "element", *_]:
                return None
    for element in elements:
        names = [one[0] for one in element.properties]
        if len(set(names)) < len(names):
            raise Rejected(f"damaged: two properties of its {element.name} records have one name")
    return kind, elements, end.end()


def _checked_ply(data: bytes) -> bytes:
    """A ply with as many records as it announces; of a text what stands between and behind them is left out."""
    header = ply_header(data)
    if header is None:
        return data
    kind, elements, start = header
    count = sum(element.count for element in elements)
    if kind == "ascii":
        lines = [line for line in data[start:].splitlines() if line.strip()]
        if len(lines) < count:
            raise Rejected(f"truncated: {len(lines):,} of {count:,} lines of records")
        if fault := excess(_PLY_LINE * count, len(data)):
            raise Rejected(fault)
        return b"\n".join([data[:start].rstrip(), *lines[:count], b""])
    # Each record has a byte at least, so a count that the file cannot hold is known before memory is taken.
    least = sum(element.count * sum(np.dtype(one[1]).itemsize for one in element.properties) for element in elements)
    if least > len(data) - start:
        raise Rejected(f"truncated: {len(data) - start:,} of {least:,} bytes of records or more")
    return data


def colour_names(names: Sequence[str]) -> tuple[str, str, str] | None:
    """The names of red, green and blue among those of a ply's properties."""
    return next((one for one in _PLY_COLOURS if set(one) <= set(names)), None)


def ply_colours(data: bytes) -> NDArray[Any] | None:
    """Colours of the corners of a ply, (n, 3) with the type that the file gives them; None where there are none."""
    header = ply_header(data)
    if header is None or not header[1] or header[1][0].name != "vertex" or (dtype := header[1][0].dtype) is None:
        return None
    kind, (corners, *_), start = header
    wanted = colour_names([one[0] for one in corners.properties])
    if wanted is None:
        return None
    if kind != "ascii":
        rows = np.frombuffer(data, dtype.newbyteorder("<" if "little" in kind else ">"), corners.count, start)
        return np.stack([rows[name] for name in wanted], axis=1)
    lines = itertools.islice((line for line in data[start:].splitlines() if line.strip()), corners.count)
    at = [[one[0] for one in corners.properties].index(name) for name in wanted]
    try:
        values = [[float(fields[i]) for i in at] for fields in map(bytes.split, lines)]
    except (ValueError, IndexError) as error:
        raise Rejected("damaged: a corner without its colours") from error
    return np.array(values).astype(dtype[wanted[0]])


def mixed_polygons(data: bytes) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Corners and triangles of a binary ply whose faces differ in their number of corners, as Blender writes it.

    trimesh takes the size of the first face for that of all. Polygons are cut into fans of triangles, which is right
    for convex ones.

    Returns:
        The records of the corners, and (m, 3) triangles; None for every other file.

    Raises:
        Rejected: The faces end too early.
    """
    header = ply_header(data)
    if header is None or header[0] not in ("binary_little_endian", "binary_big_endian"):
        return None
    kind, elements, start = header
    order: Literal["<", ">"] = "<" if kind == "binary_little_endian" else ">"
    vertices = None
    for element in elements:
        if element.name == "face" and vertices is not None:
            return _fans(data, element, start, order, vertices)
        dtype = element.dtype
        if dtype is None:
            return None
        dtype = dtype.newbyteorder(order)
        if start + element.count * dtype.itemsize > len(data):
            raise Rejected(f"truncated: its {element.name} records end too early")
        if element.name == "vertex":
            vertices = np.frombuffer(data, dtype, element.count, start)
        start += element.count * dtype.itemsize
    return None


def _fans(
    data: bytes, faces: PlyElement, start: int, order: str, vertices: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Vertices and triangles of a binary PLY whose polygons have several sizes."""
    lists = [one for one in faces.properties if len(one) > 2]
    if len(lists) != 1 or faces.properties[0] is not lists[0] or not faces.count:
        return None
    count_type, item = (np.dtype(order + kind) for kind in lists[0][1:])
    tail = sum(np.dtype(one[1]).itemsize for one in faces.properties[1:])
    if start + count_type.itemsize > len(data):
        raise Rejected("truncated: the faces end too early")
    first = int(np.frombuffer(data, count_type, 1, start)[0])
    size = count_type.itemsize + first * item.itemsize + tail
    if start + faces.count * size <= len(data):
        records = np.frombuffer(data, np.uint8, faces.count * size, start).reshape(faces.count, size)
        counts = np.ascontiguousarray(records[:, : count_type.itemsize]).view(count_type)
        if (counts == first).all():
            return None
    triangles, position = [], start
    for _ in range(faces.count):
        if position + count_type.itemsize > len(data):
            raise Rejected("truncated: the faces end too early")
        count = int(np.frombuffer(data, count_type, 1, position)[0])
        position += count_type.itemsize
        if position + count * item.itemsize > len(data):
            raise Rejected("truncated: the faces end too early")
        corners = np.frombuffer(data, item, count, position).tolist()
        triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, count - 1)]
        position += count * item.itemsize + tail
    return vertices, np.array(triangles, np.int64).reshape(-1, 3)


def _scaled_obj(data: bytes) -> bytes:
    """An obj whose corners carry colours of 0 to 255, which trimesh takes for 0 to 1, with them on that scale."""
    rows = [line.split() for line in re.findall(rb"^v[ \t]+([^\r\n#]*)", data, re.MULTILINE)]
    coloured = [row for row in rows if len(row) >= 6]
    if not coloured:
        return data
    try:
        colours = np.array([row[3:6] for row in coloured], dtype=np.float64)
    except ValueError:
        return data  # trimesh says what it is
    if not np.isfinite(colours).all() or colours.min() < 0.0 or colours.max() > 255.0:
        raise Rejected(f"colours from {colours.min():g} to {colours.max():g}; expected 0 to 1 or 0 to 255")
    if colours.max() <= 1.0:
        return data

    def scaled(match: re.Match[bytes]) -> bytes:
        row = match[1].split()
        if len(row) < 6:
            return match[0]
        return b"v " + b" ".join([*row[:3], *(b"%.6f" % (float(value) / 255.0) for value in row[3:6])])

    return re.sub(rb"^v[ \t]+([^\r\n#]*)", scaled, data, flags=re.MULTILINE)
