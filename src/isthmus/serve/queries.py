"""What is asked for, as vectors of the unified space: texts together, uploads decoded in a process of their own."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from isthmus.bridges.training_spaces import spaces_with
from isthmus.core.geometry import Array
from isthmus.encoders import Item, embed_items
from isthmus.encoders.pipeline.pool import DecodePool
from isthmus.errors import EncoderError, IsthmusError
from isthmus.items.decoding.worker import OK, REJECTED

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.encoders import Encoder

SUFFIXES = 12
"""Longest suffix of an uploaded file's name that is kept; decoders of shapes go by it."""


class Embedded(NamedTuple):
    """One item of a query.

    Attributes:
        row: (dim,) unit row of the unified space.
        space: Space of the bridge that embedded it; empty where a vector was given.
        modality: Its modality.
        own: (d,) its row in that space, by which a match is explained; None where it is not known.
    """

    row: Array
    space: str = ""
    modality: str = ""
    own: Array | None = None


class Decoded(NamedTuple):
    """An uploaded file as the encoder of a space and modality takes it."""

    space: str
    modality: str
    value: Any


class QueryEncoders:
    """The encoders of a bridge's spaces, each loaded when it is first needed and kept.

    Args:
        bridge: The bridge.
        decode_seconds: Longest time that a file may take to decode.
        encoders: By `space` or `space/modality`, an encoder to take instead of the recorded one.
        device: Where models go.
    """

    def __init__(
        self,
        bridge: Bridge,
        *,
        decode_seconds: float = 60.0,
        encoders: dict[str, str] | None = None,
        device: str | None = None,
    ) -> None:
        self.bridge, self.decode_seconds, self.device = bridge, decode_seconds, device
        self._named = dict(encoders or {})
        self._loaded: dict[tuple[str, str], Encoder] = {}
        self._pools: dict[tuple[str, str], DecodePool] = {}
        self._lock = threading.RLock()

    def modalities(self) -> list[str]:
        """Modalities whose raw items can be searched by: those whose encoder the bridge names."""
        return [modality for modality in self._routed() if self._nameable(modality)]

    def _routed(self) -> list[str]:
        return list(dict.fromkeys(key.rpartition("/")[2] for key in self.bridge.routes))

    def _nameable(self, modality: str) -> bool:
        try:
            self._name(self._home(modality), modality)
        except IsthmusError:
            return False
        return True

    def _home(self, modality: str) -> str:
        """Which space's encoder speaks for a modality: the base's before a leaf's."""
        return spaces_with(self.bridge, modality)[0].name

    def _name(self, space: str, modality: str) -> str:
        given = self._named.get(f"{space}/{modality}") or self._named.get(space)
        return given or self.bridge.space(space).encoder_name(modality)

    def _encoder(self, modality: str) -> tuple[str, Encoder]:
        space = self._home(modality)
        with self._lock:
            if (space, modality) not in self._loaded:
                name = self._name(space, modality)
                named = self._named.get(f"{space}/{modality}") or self._named.get(space)
                encoder = self.bridge.space(space).load_encoder(modality, named, device=self.device)
                self.bridge.space(space).check_encoder(encoder, modality)
                # One model may serve several modalities of its space.
                for each in getattr(encoder, "modalities", (modality,)):
                    if f"{space}/{each}" in self.bridge.routes and self._name(space, each) == name:
                        self._loaded.setdefault((space, each), encoder)
                self._loaded[space, modality] = encoder
            return space, self._loaded[space, modality]

    def texts(self, texts: Sequence[str]) -> list[Embedded]:
        """Texts in the unified space.

        Raises:
            EncoderError: There is no encoder, or a text cannot be encoded.
        """
        space, encoder = self._encoder("text")
        items = [Item(id=str(i), text=text) for i, text in enumerate(texts)]
        own = embed_items(encoder, items, modality="text", batch_size=64)
        rows = self.bridge.project(own, space=space, modality="text")
        return [Embedded(row, space, "text", each) for row, each in zip(rows, own, strict=True)]

    def decode(self, data: bytes, modality: str, name: str) -> Decoded:
        """Decode an uploaded file in a process of its own: one that kills or stalls its decoder is rejected and the
        service goes on.

        Raises:
            EncoderError: It cannot be decoded, or takes too long.
        """
        space, encoder = self._encoder(modality)
        suffix = Path(name).suffix.lower()[:SUFFIXES]
        suffix = suffix if suffix[1:].isalnum() else ""
        with tempfile.NamedTemporaryFile(prefix="isthmus-upload-", suffix=suffix) as file:
            file.write(data)
            file.flush()
            return Decoded(space, modality, self._decode(space, modality, encoder, Item(id="upload", path=file.name)))

    def embed(self, decoded: Sequence[Decoded]) -> list[Embedded]:
        """Embed decoded files; those of one modality pass through the model together."""
        answers: dict[int, Embedded] = {}
        for modality in dict.fromkeys(each.modality for each in decoded):
            numbers = [number for number, each in enumerate(decoded) if each.modality == modality]
            space, encoder = self._encoder(modality)
            own = encoder.encode([decoded[number].value for number in numbers], modality=modality)
            rows = self.bridge.project(own, space=space, modality=modality)
            for number, row, each in zip(numbers, rows, own, strict=True):
                answers[number] = Embedded(row, space, modality, each)
        return [answers[number] for number in range(len(decoded))]

    def _decode(self, space: str, modality: str, encoder: Any, item: Item) -> Any:
        key = (space, modality)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = DecodePool(encoder.decoder(modality), 1)
            pool = self._pools[key]
        try:
            ((kind, value),) = pool.submit([item])[0].result(timeout=self.decode_seconds)
        except Late:
            with self._lock:
                if self._pools.get(key) is pool:
                    del self._pools[key]
            pool.__exit__(None, None, None)
            raise EncoderError(
                f"the file took longer than {self.decode_seconds:g} seconds to decode. Send a smaller one."
            ) from None
        if kind == OK:
            return value
        if kind == REJECTED:
            raise EncoderError(f"the file cannot be encoded as {modality}: {value}.")
        raise value

    def close(self) -> None:
        """End the decoding processes."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.__exit__(None, None, None)


class Handles:
    """Embedded uploads by a name that cannot be guessed; the oldest are forgotten first.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._rows = most, OrderedDict[str, Embedded]()
        self._lock = threading.Lock()

    def keep(self, item: Embedded) -> str:
        """Remember an item; its handle."""
        handle = secrets.token_urlsafe(12)
        with self._lock:
            self._rows[handle] = item
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        return handle

    def item(self, handle: str) -> Embedded | None:
        """The item of a handle, or None where it is forgotten."""
        with self._lock:
            return self._rows.get(handle)
