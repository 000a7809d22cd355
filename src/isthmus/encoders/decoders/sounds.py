"""From an item to windows of sound, in a worker process. No torch, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.items import Item
from isthmus.items.decoding.audio import decode_audio, windows


@dataclass(frozen=True)
class AudioDecoder:
    """A sound file, or a video's sound track, to windows of equal length: always the same ones.

    Attributes:
        rate: Samples a second.
        seconds: Length of a window.
        hop: Seconds from one window to the next; the last one ends with the sound.
        pad: What fills the window of a short sound, "repeat" or "zero".
    """

    rate: int
    seconds: float
    hop: float
    pad: str = "repeat"

    def __call__(self, item: Item) -> NDArray[np.float32]:
        """The (windows, samples) of an item.

        Raises:
            Rejected: It holds no sound, is silent, or damaged.
        """
        return self.cut(decode_audio(item.content(), rate=self.rate))

    def cut(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """The windows of a mono signal at this rate."""
        return windows(signal, self.rate, self.seconds, self.hop, pad=self.pad)

    def describe(self) -> dict[str, Any]:
        """For a space's preprocessing record."""
        cut = {"sample_rate": self.rate, "window_seconds": self.seconds, "hop_seconds": self.hop}
        return {**cut, "channels": "mean", "padding": self.pad, "pooling": "mean"}
