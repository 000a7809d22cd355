"""What `bridge.json` says, checked before a bridge is made of it: types, bounds and names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import BridgeError
from isthmus.spaces.manifest import IDENTITY, is_modality

MAX_DIM = 2**20
MAX_SPACES = 1000
_LONGEST = 512


def check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Check the parts of a bridge's manifest that are not routes.

    Raises:
        BridgeError: One is missing, of another type or out of bounds; the message names it.
    """
    kinds = {"method": str, "dim": int, "spaces": list, "routes": dict, "config": dict, "record": dict}
    for key, kind in kinds.items():
        if key not in manifest:
            raise BridgeError(f"{path}: is damaged, it lacks {key!r}. Copy the bridge again.")
        if not isinstance(manifest[key], kind) or isinstance(manifest[key], bool):
            got = type(manifest[key]).__name__
            raise BridgeError(f"{path}: {key} is {got}, expected {kind.__name__}. Copy the bridge again.")
    if not 1 <= manifest["dim"] <= MAX_DIM:
        raise BridgeError(f"{path}: dim is {manifest['dim']}, expected 1 to {MAX_DIM:,}. Copy the bridge again.")
    if len(manifest["spaces"]) > MAX_SPACES:
        raise BridgeError(f"{path}: has {len(manifest['spaces']):,} spaces, expected at most {MAX_SPACES:,}.")
    for number, space in enumerate(manifest["spaces"], start=1):
        if fault := _space_fault(space):
            raise BridgeError(f"{path}: space {number} is damaged ({fault}). Copy the bridge again.")


def _space_fault(space: Any) -> str | None:
    """What is wrong with the record of a space, or None."""
    if not isinstance(space, Mapping):
        return f"{type(space).__name__}, expected an object"
    for key in ("name", "role"):
        if not _is_name(space.get(key)):
            return f"{key} is {ascii(space.get(key))[:60]}, expected a name"
    dim = space.get("dim")
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= MAX_DIM:
        return f"dim is {ascii(dim)[:60]}, expected 1 to {MAX_DIM:,}"
    place = space.get("path")
    if place is not None and (not isinstance(place, str) or "\0" in place or len(place) > 4096 or "://" in place):
        return "path is no path"
    for key in ("fingerprints", "encoders", "preprocessing"):
        table = space.get(key, {})
        if not isinstance(table, Mapping) or not all(is_modality(name) for name in table):
            return f"{key} is no table of modalities"
    if not all(isinstance(one, str) for one in space.get("fingerprints", {}).values()):
        return "a fingerprint is no text"
    for key in ("encoders", "preprocessing"):
        if not all(isinstance(one, Mapping) for one in space.get(key, {}).values()):
            return f"one of {key} is no table"
    return next(filter(None, map(_encoder_fault, space.get("encoders", {}).values())), None)


def _encoder_fault(encoder: Mapping[str, Any]) -> str | None:
    """What is wrong with a recorded encoder, or None."""
    for key in IDENTITY:
        value = encoder.get(key)
        if value is not None and not (isinstance(value, str) and len(value) <= _LONGEST):
            return f"an encoder's {key} is {ascii(value)[:60]}, expected text"
    return None


def _is_name(value: Any) -> bool:
    """Whether a value can be the name of a space."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and "\0" not in value
