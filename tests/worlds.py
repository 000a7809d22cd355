"""A synthetic world for tests: hidden meanings that every space sees through encoders of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isthmus.spaces.space import Space, make_space

MEANINGS = 5


def view(meanings: np.ndarray, dim: int, seed: int, *, noise: float = 0.05) -> np.ndarray:
    """What an encoder makes of meanings: a random two-layer map of its own, some noise, unit length."""
    rng = np.random.default_rng(seed)
    hidden = np.tanh(meanings @ rng.standard_normal((meanings.shape[1], 4 * dim)) / 2)
    x = hidden @ rng.standard_normal((4 * dim, dim)) + noise * rng.standard_normal((len(meanings), dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def contrastive(meanings: np.ndarray, dim: int, space: int, modality: int) -> np.ndarray:
    """An embedding in a contrastive space: its modalities agree but for noise of their own and a modality gap."""
    rng = np.random.default_rng((space, modality, len(meanings)))
    x = view(meanings, dim, space, noise=0.0) + 0.02 * rng.standard_normal((len(meanings), dim))
    gap = np.random.default_rng((space, modality)).standard_normal(dim)
    x = x + 0.3 * gap / np.linalg.norm(gap)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def meanings(n: int, seed: int) -> np.ndarray:
    """n items as points on a sphere of `MEANINGS` dimensions."""
    x = np.random.default_rng(seed).standard_normal((n, MEANINGS))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_space(folder: Path, name: str, dim: int, seed: int, items: dict[str, tuple[str, np.ndarray]]) -> Space:
    """Write a space; items: modality to (prefix of the ids, meanings)."""
    arrays = {
        modality: ([f"{prefix}{i}" for i in range(len(what))], contrastive(what, dim, seed, number))
        for number, (modality, (prefix, what)) in enumerate(items.items())
    }
    encoder = {"library": "test", "id": name, "revision": None, "weights_sha256": None}
    return make_space(folder / f"{name}.space", arrays, name=name, encoder=encoder)


def three_spaces(folder: Path, n: int = 400) -> tuple[Space, Space, Space]:
    """clip (image, text), clap (audio, text) and ulip (point_cloud, image): texts and images shared by id, no other."""
    texts, images = meanings(n, 1), meanings(n, 2)
    clip = write_space(folder, "clip", 24, 101, {"text": ("t", texts), "image": ("i", images)})
    clap = write_space(folder, "clap", 20, 102, {"text": ("t", texts), "audio": ("a", meanings(n, 3))})
    ulip = write_space(folder, "ulip", 16, 103, {"image": ("i", images), "point_cloud": ("p", meanings(n, 4))})
    return clip, clap, ulip
