"""Fingerprint of a bridge's unified space: what must agree for two projected embeddings to be compared."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.files import sha256_json

if TYPE_CHECKING:
    from isthmus.bridges.joined import JoinedSpaces


def bridge_fingerprint(bridge: JoinedSpaces) -> str:
    """Hash of the dimension, the routes and their arrays, the same in memory and on disk, whatever the folder's name.

    Two bridges of one fingerprint project alike; a bridge that was trained again, or extended, has another.
    """
    known: str | None = bridge.__dict__.get("_fingerprint")
    if known is None:
        arrays = {name: _array_hash(bridge.arrays[name]) for name in sorted(bridge.arrays)}
        known = sha256_json({"dim": bridge.dim, "routes": bridge.routes, "arrays": arrays})
        bridge.__dict__["_fingerprint"] = known
    return known


def _array_hash(array: Any) -> str:
    """Hash of an array's type, shape and bytes."""
    plain = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{plain.dtype.str}{plain.shape}".encode())
    digest.update(plain.data)
    return digest.hexdigest()


def unified_fingerprint(embeddings: Any) -> str | None:
    """Fingerprint of the bridge that projected a modality of a space, or None where it is an encoder's own."""
    unified = (getattr(embeddings, "info", None) or {}).get("unified") or {}
    value = unified.get("fingerprint")
    return str(value) if value else None
