"""Extend a base by two leaves that never met, then search across them: sounds find 3D shapes through images and texts.

Run: python examples/extend_twice.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import isthmus

MEANINGS, DIMS = 24, {"clip": 64, "clap": 48, "ulip": 56}
rng = np.random.default_rng(0)
LOOK = {name: rng.normal(size=(MEANINGS, dim)) for name, dim in DIMS.items()}


def embed(space: str, meaning: np.ndarray, noise: float = 0.1) -> np.ndarray:
    """Stand in for an encoder: the same meaning looks different in every space."""
    clean = np.tanh(meaning @ LOOK[space] / 4)
    return clean + noise * rng.normal(size=clean.shape)


def make(folder: Path, space: str, **items: tuple[str, np.ndarray]) -> isthmus.Space:
    """Write a space; items of one modality have the same ids in every space."""
    content = {m: ([f"{kind}-{i}" for i in range(len(x))], embed(space, x)) for m, (kind, x) in items.items()}
    return isthmus.make_space(folder / f"{space}.space", content)


def main(folder: Path) -> float:
    """Return how often a sound finds the shape of the same meaning first, which nothing was trained for."""
    texts, images, sounds, shapes = (rng.normal(size=(n, MEANINGS)) for n in (800, 800, 500, 500))
    clip = make(folder, "clip", text=("text", texts), image=("image", images))
    clap = make(folder, "clap", text=("text", texts), audio=("sound", sounds))
    ulip = make(folder, "ulip", image=("image", images), point_cloud=("shape", shapes))

    bridge = isthmus.extend(base=clip, leaf=clap, via="text", seed=0, quiet=True)
    before = bridge.project(clip["image"])
    bridge = isthmus.extend(base=bridge, leaf=ulip, via="image", seed=0, quiet=True)
    assert np.array_equal(before, bridge.project(clip["image"])), "the base never moves"
    bridge.save(folder / "unified.bridge")

    unseen = rng.normal(size=(200, MEANINGS))
    queries = bridge.project(embed("clap", unseen), space="clap", modality="audio")
    gallery = bridge.project(embed("ulip", unseen), space="ulip", modality="point_cloud")
    index = isthmus.SearchIndex(gallery, [f"shape-{i}" for i in range(200)])
    hits = index.search(queries, k=3)
    for query in range(3):
        print(f"sound-{query}:", ", ".join(f"{hit.id} {hit.score:.2f}" for hit in hits[query]))
    found = float(np.mean([best[0].id == f"shape-{i}" for i, best in enumerate(hits)]))
    print(f"sound to shape, never trained: R@1 {found:.3f} (chance {1 / 200:.3f})")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
