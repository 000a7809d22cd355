"""An encoder of your own: images as coarse colour pictures, in forty lines. Any class with these members is an encoder.

Run: cd examples && isthmus encode PHOTOS/ --encoder own_encoder:ColourGrid --into colours.space
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from isthmus.encoders import BaseEncoder, Item


def decode(item: Item, grid: int) -> np.ndarray:
    """Turn a file into what the encoder takes; runs in worker processes, so it stands at the top of the module."""
    from isthmus.items.decoding.image import open_image

    small = open_image(item).resize((grid, grid))  # of an item with a box, which localisation asks for, that part
    return np.asarray(small, dtype=np.float32) / 255


class ColourGrid(BaseEncoder):
    """Embeds an image as its colours on a coarse grid."""

    modalities = ("image",)

    def __init__(self, *, grid: int = 8, device: str | None = None) -> None:
        self.name = f"own_encoder:ColourGrid grid {grid}"
        self.grid, self.dim = grid, grid * grid * 3
        # what tells this space from others: equal identities must give equal embeddings
        self.identity = {"library": "own", "id": "ColourGrid", "revision": "1", "weights_sha256": ""}

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """What is done to an item; part of the fingerprint."""
        return {"grid": self.grid, "range": "0 to 1, minus 0.5"}

    def decoder(self, modality: str) -> Callable[[Item], np.ndarray]:
        """The function that decodes one item."""
        return partial(decode, grid=self.grid)

    def encode_batch(self, batch: Sequence[np.ndarray], modality: str) -> np.ndarray:
        """Embed decoded items: (n, dim)."""
        return np.stack(batch).reshape(len(batch), -1) - 0.5
