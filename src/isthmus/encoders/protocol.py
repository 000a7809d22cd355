"""The encoder protocol, and the base class that adapters build on.

An encoder has two halves. Decoding turns an item (a file, a text) into an array; it is pure, needs no model, and runs
in worker processes. Encoding turns decoded items into embeddings; it owns the model and runs in one process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import sha256_file
from isthmus.core.geometry import normalize
from isthmus.core.runtime import Progress
from isthmus.errors import EncoderError
from isthmus.items import Item, Rejected

__all__ = ["BaseEncoder", "Encoder", "Item", "Rejected", "embed_items", "weights_sha256"]

Embedding = NDArray[np.float32]
Decoder = Callable[[Item], Any]

IDENTITY_KEYS = ("library", "id", "revision", "weights_sha256")


@runtime_checkable
class Encoder(Protocol):
    """Protocol of an encoder, as `isthmus encode` needs it. Any class with these members is one.

    Attributes:
        name: The name it is loaded by, such as `clip:openai/clip-vit-base-patch32`.
        modalities: What it can embed, such as `("image", "text")`.
        dim: Dimension of its space.
        identity: `library`, `id`, `revision` and `weights_sha256`; equal identities give equal embeddings.
    """

    name: str
    modalities: tuple[str, ...]
    dim: int
    identity: dict[str, str]

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """All that decoding and encoding do to an item of a modality, json-ready: sizes, rates, windows, pooling."""
        ...

    def decode(self, item: Item, modality: str) -> Any:
        """Turn an item into what `encode` takes; pure. Raises `Rejected` when the item cannot be embedded."""
        ...

    def encode(
        self,
        inputs: Sequence[Any],
        *,
        modality: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Embedding:
        """Embed decoded items of one modality: (n, dim) float32, in the order of `inputs`."""
        ...


class BaseEncoder:
    """Batching, normalising and checks, so that an adapter is only a model and its decoders.

    A subclass sets `name`, `modalities`, `dim`, `identity` and defines:

    - `decoder(modality)`: a picklable callable `Item -> decoded` that holds no model. It goes to the worker
      processes, so it should come from `isthmus.items.decoding` (or another module without torch) and carry only
      numbers and strings.
    - `encode_batch(batch, modality)`: decoded items to (n, dim) array or tensor on any device, of any float type.
    - `preprocessing(modality)`: what both of them do, json-ready.
    - `to(device)`, when it can move between devices.
    - `size(decoded)`, when items of a batch are padded to the longest: batches are then made of items of similar size.
    """

    name: str
    modalities: tuple[str, ...]
    dim: int
    identity: dict[str, str]

    def decoder(self, modality: str) -> Decoder:
        """A picklable function without a model, from item to decoded item."""
        raise NotImplementedError(f"{type(self).__name__} defines no decoder")

    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embed one batch of decoded items, (n, dim), normalised or not."""
        raise NotImplementedError(f"{type(self).__name__} defines no encode_batch")

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Everything done to an item of `modality` before the model, json-ready."""
        raise NotImplementedError(f"{type(self).__name__} defines no preprocessing")

    def to(self, device: str) -> None:
        """Move the model to a device. The default keeps it where it is."""

    def size(self, decoded: Any) -> int:
        """Length that a batch pads this item to; equal for all by default."""
        return 0

    def decode(self, item: Item, modality: str) -> Any:
        """Turn an item into what `encode` takes.

        Raises:
            Rejected: The item cannot be embedded.
        """
        return self.decoder(self.check_modality(modality))(item)

    def encode(
        self,
        inputs: Sequence[Any],
        *,
        modality: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Embedding:
        """Embed decoded items of one modality.

        Args:
            inputs: Decoded items, as `decode` gives them.
            modality: May be left out when the encoder has one modality only.
            batch_size: Items in one pass through the model.
            show_progress_bar: Show progress on standard error; None is no.
            device: Move the model there first; None leaves it where it is.
            normalize_embeddings: Scale the rows to unit length.

        Returns:
            (n, dim) float32, in the order of `inputs`.

        Raises:
            EncoderError: The modality is not one of this encoder's, or the model's output is not (n, dim).
        """
        modality = self.check_modality(modality)
        if device is not None:
            self.to(device)
        inputs = list(inputs)
        # Stable, so that equal inputs always meet in equal batches and give equal bytes.
        order = sorted(range(len(inputs)), key=lambda row: -self.size(inputs[row]))
        out = np.empty((len(inputs), self.dim), dtype=np.float32)
        with Progress(f"encode {modality}", len(inputs), quiet=not show_progress_bar) as progress:
            for start in range(0, len(inputs), batch_size):
                rows = order[start : start + batch_size]
                out[rows] = self._checked(self.encode_batch([inputs[row] for row in rows], modality), len(rows))
                progress.advance(len(rows))
        return normalize(out) if normalize_embeddings else out

    def check_modality(self, modality: str | None) -> str:
        """The modality itself, or the only one there is when None.

        Raises:
            EncoderError: It is not one of this encoder's, or None is ambiguous.
        """
        if modality is None and len(self.modalities) == 1:
            return self.modalities[0]
        if modality not in self.modalities:
            known = ", ".join(self.modalities)
            raise EncoderError(f"encoder {self.name!r} has no modality {modality!r}. Expected one of: {known}.")
        return modality

    def _checked(self, batch: Any, rows: int) -> Embedding:
        """Embeddings of a batch, refused if their shape is wrong."""
        array = _to_numpy(batch)
        if array.shape != (rows, self.dim):
            raise EncoderError(
                f"encoder {self.name!r} gave an array of shape {array.shape} for {rows} items. "
                f"Expected {(rows, self.dim)}: its encode_batch and its dim disagree."
            )
        return array


def _to_numpy(batch: Any) -> Embedding:
    """A batch of embeddings as float32 numpy, from numpy or from a torch tensor of any device and float type."""
    if hasattr(batch, "detach"):
        batch = batch.detach().float().cpu().numpy()
    return np.asarray(batch, dtype=np.float32)


def embed_items(encoder: Encoder, items: Iterable[Item], *, modality: str, batch_size: int = 32) -> Embedding:
    """Decode and embed a few items in this process, for queries; (n, dim) float32 unit rows.

    Raises:
        EncoderError: An item cannot be embedded; the message names it and the reason.
    """
    decoded = []
    for item in items:
        try:
            decoded.append(encoder.decode(item, modality))
        except Rejected as fault:
            raise EncoderError(
                f"{item.source or item.id!r} cannot be encoded as {modality}: {fault.reason}."
            ) from fault
    return encoder.encode(decoded, modality=modality, batch_size=batch_size)


def weights_sha256(files: Iterable[str | Path]) -> str:
    """Hash of a model's weights: the SHA-256 of a single file, or of the sorted `name hash` lines of several.

    Files of a Hugging Face cache are links to blobs that are named by their SHA-256; the name is then taken as read.
    """
    paths = sorted(Path(file) for file in files)
    if not paths:
        raise EncoderError("a model without weight files has no identity. Expected at least one file of weights.")
    if len(paths) == 1:
        return _weights_file_sha256(paths[0])
    # Names below their common folder: the parts of one model often all are called model.safetensors.
    root = os.path.commonpath([path.parent for path in paths])
    hashes = {path.relative_to(root).as_posix(): _weights_file_sha256(path) for path in paths}
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _weights_file_sha256(file: Path) -> str:
    """Hash of one file of weights: the name of its blob in a Hugging Face cache, or else that of its bytes."""
    blob = file.resolve().name if file.is_symlink() else ""
    if len(blob) == 64 and all(character in "0123456789abcdef" for character in blob):
        return blob
    return sha256_file(file)
