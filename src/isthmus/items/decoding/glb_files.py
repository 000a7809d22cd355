"""Headers of .glb files, checked before a parser reads them: what they need in memory, what they would fetch."""

from __future__ import annotations

import json
import struct
from typing import Any

from isthmus.core.json_text import parsed_bytes
from isthmus.core.limits import excess
from isthmus.items.item import Rejected

_COMPONENTS = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}

_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}

_MODES = range(6)  # points, lines and triangles in lists and strips; not fans

_HARMLESS = ("KHR_materials_", "KHR_texture_", "KHR_lights_", "EXT_texture_", "MSFT_texture_", "KHR_mesh_quantization")


def check_glb(data: bytes) -> None:
    """Refuse a scene of which a part cannot be decoded, or that takes too much memory once it is laid out."""
    header = _glb_header(data)
    if header is None:
        return
    required = [name for name in header.get("extensionsRequired", ()) if not str(name).startswith(_HARMLESS)]
    if required:
        names = ", ".join(map(str, required[:4]))
        hint = (
            "Draco and meshopt compression is"
            if any("draco" in n.lower() or "meshopt" in n for n in required)
            else "It is"
        )
        raise Rejected(f"requires {names}. {hint} not decoded here: save it without, such as with gltf-transform copy")
    accessors = [one for one in header.get("accessors", ()) if isinstance(one, dict)]
    size = sum(_accessor_bytes(one) for one in accessors)
    drawn = _instances(header, accessors)
    if fault := excess(max(size, drawn * 120), len(data)):  # positions, faces, colours and their copies
        raise Rejected(f"a scene that {fault}")
    for mesh in header.get("meshes", ()):
        for primitive in mesh.get("primitives", ()):
            _check_primitive(primitive, accessors)


def _check_primitive(primitive: dict[str, Any], accessors: list[dict[str, Any]]) -> None:
    """Refuse a mesh of a .glb in a form that is not read."""
    if primitive.get("mode", 4) not in _MODES:
        raise Rejected("a mesh of triangle fans, which are not read: save it with plain triangles")
    used = [primitive.get("attributes", {}).get("POSITION"), primitive.get("indices")]
    for index in used:
        accessor = accessors[index] if isinstance(index, int) and 0 <= index < len(accessors) else {}
        if "sparse" in accessor:
            raise Rejected("sparse positions, which are not read: save it without them")
        if accessor and "bufferView" not in accessor:
            raise Rejected("a mesh without data, as of an extension that is not decoded")
        if accessor.get("normalized"):
            raise Rejected("positions in normalised integers, which are not read: save it with float positions")


def _glb_header(data: bytes) -> dict[str, Any] | None:
    """JSON header of a .glb, or None where it is none."""
    if len(data) < 20 or data[:4] != b"glTF":
        return None
    length, kind = struct.unpack("<I4s", data[12:20])
    raw = data[20 : 20 + length]
    if fault := excess(parsed_bytes(raw), len(data)):
        raise Rejected(fault)
    try:
        header = json.loads(raw) if kind == b"JSON" else None
    except (ValueError, RecursionError) as error:
        raise Rejected(f"damaged: its scene is no json ({type(error).__name__})") from error
    return header if isinstance(header, dict) else None


def _accessor_bytes(accessor: dict[str, Any]) -> int:
    """Bytes that an accessor of a .glb takes when it is unpacked."""
    count = accessor.get("count", 0)
    width = _WIDTHS.get(str(accessor.get("type")), 16) * _COMPONENTS.get(accessor.get("componentType", 0), 4)
    return count * width if isinstance(count, int) and count > 0 else 0


def _instances(header: dict[str, Any], accessors: list[dict[str, Any]]) -> int:
    """Corners of all nodes: a mesh counts as often as it is drawn."""
    corners = []
    for mesh in header.get("meshes", ()):
        indices = [one.get("attributes", {}).get("POSITION") for one in mesh.get("primitives", ())]
        counts = [accessors[i].get("count", 0) for i in indices if isinstance(i, int) and 0 <= i < len(accessors)]
        corners.append(sum(count for count in counts if isinstance(count, int)))
    drawn = [node.get("mesh") for node in header.get("nodes", ()) if isinstance(node, dict)]
    return sum(corners[i] for i in drawn if isinstance(i, int) and 0 <= i < len(corners))
