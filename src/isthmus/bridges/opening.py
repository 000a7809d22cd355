"""Bridges and bases as a caller gives them: opened already, or by their folders."""

from __future__ import annotations

from pathlib import Path

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.folder import MANIFEST
from isthmus.errors import BridgeError
from isthmus.spaces.space import Space, as_space


def as_bridge(bridge: Bridge | str | Path) -> Bridge:
    """A bridge as it is, or the one in a folder or on the Hub.

    Raises:
        BridgeError: It is neither, or the folder holds no whole bridge.
    """
    if isinstance(bridge, Bridge):
        return bridge
    if isinstance(bridge, str | Path):
        return load_bridge(bridge)
    raise BridgeError(f"expected a bridge or its folder, got a {type(bridge).__name__}. Give load_bridge(PATH).")


def as_base(base: Space | Bridge | str | Path) -> Space | Bridge:
    """Base of an extension: a space or a bridge as it is, or the one in a folder.

    Raises:
        SpaceError: It is neither, or the folder holds no whole space.
        BridgeError: The folder holds no whole bridge.
    """
    if isinstance(base, Bridge):
        return base
    if isinstance(base, str | Path) and (Path(base) / MANIFEST).is_file():
        return load_bridge(base)
    return as_space(base)
