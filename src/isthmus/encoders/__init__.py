"""Encoders: raw items to embeddings. One protocol, one adapter a file; a third-party model lives only in its adapter.

Importing this package loads no model library; `load_encoder` loads the one that is asked for.
"""

from __future__ import annotations

from isthmus.encoders.protocol import BaseEncoder, Encoder, Item, Rejected, embed_items, weights_sha256
from isthmus.encoders.registry import list_encoders, load_encoder

__all__ = [
    "BaseEncoder",
    "Encoder",
    "Item",
    "Rejected",
    "embed_items",
    "list_encoders",
    "load_encoder",
    "weights_sha256",
]
