"""A small bridge on disk for tests of projections: one linear layer over a space of random rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.spaces.space import Space, make_space


def linear_bridge(
    folder: Path, rows: int, dim: int, *, modalities: tuple[str, ...] = ("image", "text")
) -> tuple[Bridge, Space]:
    """A space of random rows with metadata, and a bridge on disk that is one linear layer."""
    rng = np.random.default_rng(0)
    items = {}
    for modality in modalities:
        x = rng.standard_normal((rows, dim), dtype=np.float32)
        metadata = {"year": rng.integers(2000, 2021, rows).tolist(), "name": [f"n{n}" for n in range(rows)]}
        items[modality] = ([f"{modality}{n}" for n in range(rows)], x, metadata)
    space = make_space(folder / "clip.space", items, dtype="float32", encoder="some/encoder")
    route = [{"kind": "normalize"}, {"kind": "linear", "weight": "w", "bias": None}]
    arrays = {"w": rng.standard_normal((dim, dim), dtype=np.float32)}
    bridge = replace(Bridge.over(space), routes={f"clip/{name}": route for name in items}, arrays=arrays)
    bridge.save(folder / "u.bridge")
    return load_bridge(folder / "u.bridge"), space
