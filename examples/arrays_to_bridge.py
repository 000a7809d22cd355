"""From arrays in memory to a bridge and its scores: two spaces that share texts, never a sound beside an image.

Run: python examples/arrays_to_bridge.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import isthmus

MEANINGS, DIMS = 24, {"clip": 64, "clap": 48}
rng = np.random.default_rng(0)
LOOK = {name: rng.normal(size=(MEANINGS, dim)) for name, dim in DIMS.items()}


def embed(space: str, meaning: np.ndarray, noise: float = 0.1) -> np.ndarray:
    """Stand in for an encoder: the same meaning looks different in every space."""
    clean = np.tanh(meaning @ LOOK[space] / 4)
    return clean + noise * rng.normal(size=clean.shape)


def main(folder: Path) -> dict[str, float]:
    """Make two spaces, extend one by the other, score sounds against images that no training saw."""
    texts, images, sounds = (rng.normal(size=(n, MEANINGS)) for n in (1000, 800, 600))
    text_ids = [f"text-{i}" for i in range(len(texts))]
    clip = isthmus.make_space(
        folder / "clip.space",
        {
            "text": (text_ids, embed("clip", texts)),
            "image": ([f"image-{i}" for i in range(len(images))], embed("clip", images)),
        },
    )
    clap = isthmus.make_space(
        folder / "clap.space",
        {
            "text": (text_ids, embed("clap", texts)),
            "audio": ([f"sound-{i}" for i in range(len(sounds))], embed("clap", sounds)),
        },
    )

    seen_by_nobody = rng.normal(size=(200, MEANINGS))
    test_images, test_sounds = embed("clip", seen_by_nobody), embed("clap", seen_by_nobody)
    pairs = [(i, i) for i in range(200)]
    scores = {}
    for method in ("dictionary", "ridge", "ex-mcr"):
        bridge = isthmus.extend(base=clip, leaf=clap, via="text", method=method, seed=0, quiet=True)
        query = bridge.project(test_sounds, space="clap", modality="audio")
        gallery = bridge.project(test_images, space="clip", modality="image")
        result = isthmus.evaluate_retrieval(query, gallery, pairs).to_dict()
        scores[method] = result["mean"]["r@1"]
        print(f"{method:<12} sound to image and back, R@1 {scores[method]:.3f} (chance {1 / 200:.3f})")
    bridge.save(folder / "clap-to-clip.bridge")
    return scores


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
