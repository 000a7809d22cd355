"""What the demo's encoders read: images, sounds, shapes and texts at the sizes of the small world. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isthmus.items import Item
from isthmus.items.decoding.audio import decode_audio
from isthmus.items.decoding.image import open_image
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.text import decode_text

HEIGHT: Final = 28
WIDTH: Final = 72
RATE: Final = 8000
SAMPLES: Final = 12000
POINTS: Final = 1024

PREPROCESSING: Final[dict[str, dict[str, Any]]] = {
    "image": {"size": [HEIGHT, WIDTH], "resample": "bicubic", "colours": "grey", "scale": "darkest 0, brightest 1"},
    "audio": {"sample_rate": RATE, "channels": "mean", "window_seconds": SAMPLES / RATE, "padding": "zero, cut"},
    "point_cloud": {"points": POINTS, "up_axis": "y", "scale": "unit sphere"},
    "text": {"case": "lower", "max_characters": 48},
}


@dataclass(frozen=True)
class ToyDecoder:
    """Items of one modality to arrays; picklable, so that worker processes can run it.

    Attributes:
        modality: image, audio, point_cloud or text.
    """

    modality: str

    def __call__(self, item: Item) -> Any:
        """Decode one item: (28, 72) uint8, (12000,) float32, (1024, 3) float32 or a string.

        Raises:
            Rejected: The item cannot be decoded.
        """
        if self.modality == "text":
            return decode_text(item.text if item.text is not None else item.read_bytes().decode("utf-8", "replace"))
        if self.modality == "image":
            return _grey(item)
        if self.modality == "audio":
            return _fitted(decode_audio(item.read_bytes(), rate=RATE))
        return decode_point_cloud(item.read_bytes(), suffix=item.suffix, points=POINTS)


def _grey(item: Item) -> NDArray[np.uint8]:
    """Picture in grey, of the toy encoder's size."""
    image = open_image(item).convert("L")
    if image.size != (WIDTH, HEIGHT):
        image = image.resize((WIDTH, HEIGHT), 3)  # bicubic
    return np.array(image, dtype=np.uint8)


def _fitted(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """A signal at full length, silence after its end."""
    return np.pad(signal[:SAMPLES], (0, max(SAMPLES - len(signal), 0)))
