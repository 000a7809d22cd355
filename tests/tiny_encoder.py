"""A tiny deterministic encoder without torch, for tests of the pipeline; reached as `tiny_encoder:TinyEncoder`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from isthmus.encoders import BaseEncoder, Item, Rejected
from isthmus.items.decoding.audio import decode_audio, windows
from isthmus.items.decoding.image import open_image
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.text import decode_text

MODALITIES = ("image", "audio", "text", "point_cloud")
INPUT = 192
RATE = 8_000


@dataclass(frozen=True)
class TinyDecoder:
    """Decode through the real decoders, then summarise in INPUT numbers."""

    modality: str

    def __call__(self, item: Item) -> np.ndarray:
        if "crash" in item.id and "good" not in item.id:
            os._exit(11)
        if self.modality == "text":
            codes = np.frombuffer(decode_text(item.text or "").encode(), dtype=np.uint8)
            return np.bincount(codes % INPUT, minlength=INPUT).astype(np.float32)
        if self.modality == "image":
            small = open_image(item).resize((8, 8), Image.Resampling.BOX)
            return np.asarray(small, dtype=np.float32).reshape(-1) / 255.0 + 0.01
        if self.modality == "audio":
            cut = windows(decode_audio(item.content(), rate=RATE), RATE, 1.0, 1.0)
            return np.abs(np.fft.rfft(cut, axis=1)).mean(axis=0)[:INPUT].astype(np.float32)
        cloud = decode_point_cloud(item.content(), suffix=item.suffix, points=INPUT)
        return cloud[:, 1] + 2.0


class TinyEncoder(BaseEncoder):
    """A fixed random projection. An embedding holds a little of its batch, so tests see how batches are cut.

    Args:
        slow: Seconds that a batch takes.
        dim: Length of an embedding.
        weights: Stands for the hash of the weights.
        fail_at: Raise at this batch, counted from 1.
        coupled: How much of the batch's mean an embedding holds.
    """

    modalities = MODALITIES

    def __init__(
        self, *, slow: float = 0.0, dim: int = 16, weights: str = "0" * 64, fail_at: int = 0, coupled: float = 0.01
    ) -> None:
        self.name = "tiny_encoder:TinyEncoder"
        self.dim, self.slow, self.fail_at, self.coupled = dim, slow, fail_at, coupled
        self.identity = {"library": "tests", "id": "tiny", "revision": "1", "weights_sha256": weights}
        self._weights = np.random.default_rng(0).standard_normal((INPUT, dim)).astype(np.float32)
        self.batches: list[int] = []

    def preprocessing(self, modality: str) -> dict[str, Any]:
        return {"tiny": modality}

    def decoder(self, modality: str) -> TinyDecoder:
        return TinyDecoder(modality)

    def encode_batch(self, batch: Sequence[Any], modality: str) -> np.ndarray:
        self.batches.append(len(batch))
        if len(self.batches) == self.fail_at:
            raise ValueError("the model failed")
        time.sleep(self.slow)
        if log := os.environ.get("TINY_LOG"):
            with open(log, "a") as stream:
                stream.write(f"{len(batch)}\n")
        x = np.stack(batch) @ self._weights
        return x + self.coupled * x.mean(axis=0)


class PlainEncoder:
    """The protocol and nothing more: no base class, no separate decoder."""

    name = "tiny_encoder:PlainEncoder"
    modalities = ("text",)
    dim = 4
    identity = {"library": "tests", "id": "plain", "revision": "1", "weights_sha256": "1" * 64}  # noqa: RUF012

    def preprocessing(self, modality: str) -> dict[str, Any]:
        return {}

    def decode(self, item: Item, modality: str) -> str:
        if not item.text:
            raise Rejected("empty text")
        return item.text

    def encode(self, inputs: Sequence[str], **options: Any) -> np.ndarray:
        rows = np.array([[len(text), 1.0, text.count(" "), ord(text[0])] for text in inputs], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class NotAnEncoder:
    """Lacks everything."""
