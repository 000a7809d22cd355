"""Multimodal models of sentence-transformers (version 6): whatever of text, images and sounds a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from isthmus.encoders.decoders.images import ImageDecoder
from isthmus.encoders.decoders.sounds import AudioDecoder
from isthmus.encoders.decoders.texts import TextDecoder
from isthmus.encoders.hub import Checkpoint, find_checkpoint
from isthmus.encoders.protocol import Decoder
from isthmus.encoders.registry import check_installed
from isthmus.encoders.sentence_text import SentenceTextEncoder
from isthmus.errors import EncoderError
from isthmus.items.decoding import require
from isthmus.items.decoding.audio import pool_windows

_KNOWN = ("image", "text", "audio")


def load(
    checkpoint: str,
    *,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    window_seconds: float = 10.0,
    hop_seconds: float = 10.0,
) -> SentenceEncoder:
    """Load a multimodal model of sentence-transformers.

    Args:
        checkpoint: Repository of the Hub, or folder as `SentenceTransformer.save_pretrained` writes it.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16, for the model's own arithmetic.
        revision: Branch, tag or commit of the Hub.
        window_seconds: Length of the windows that sounds are cut into.
        hop_seconds: Seconds from one window to the next.

    Raises:
        DependencyError: sentence-transformers is not installed.
        EncoderError: There is no such model, or it takes neither text nor images nor sounds.
    """
    check_installed("sentence-transformers")
    files = find_checkpoint(checkpoint, revision=revision)
    return SentenceEncoder(files, device=device, dtype=dtype, window=window_seconds, hop=hop_seconds)


class SentenceEncoder(SentenceTextEncoder):
    """A sentence-transformers model as an encoder of all the modalities it takes.

    Args:
        files: The model's files.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the model's own arithmetic.
        window: Seconds of a window of sound.
        hop: Seconds from one window to the next.
    """

    kind = "sentence-transformers"

    def __init__(
        self,
        files: Checkpoint,
        *,
        device: str | None = None,
        dtype: str = "float32",
        window: float = 10.0,
        hop: float = 10.0,
    ) -> None:
        super().__init__(files, device=device, dtype=dtype)
        taken = _modalities(self.model)
        self.modalities = tuple(modality for modality in _KNOWN if modality in taken)
        if not self.modalities:
            raise EncoderError(
                f"{files.given} takes {', '.join(map(str, taken))}; expected one of {', '.join(_KNOWN)}."
            )
        self.cut = AudioDecoder(_sampling_rate(self.model), window, hop)

    def decoder(self, modality: str) -> Decoder:
        """Texts to themselves, images to their pixels, sounds to windows of samples."""
        if modality == "text":
            return TextDecoder()
        return ImageDecoder(None) if modality == "image" else self.cut

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """What is done before the model; resizing and scaling of images belong to the model's own files."""
        if modality == "text":
            return super().preprocessing(modality)
        return {"processor": "the model's own"} if modality == "image" else self.cut.describe()

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embeddings of a batch; a sound's is the mean of its windows' unit embeddings."""
        if modality == "text":
            self._count_truncated(batch)
            # A bare text that looks like the path of a picture would be opened as one.
            return self._encode([{"text": text} for text in batch] if len(self.modalities) > 1 else list(batch))
        if modality == "image":
            image_module = require("PIL.Image", extra="image", purpose="encoding images")
            return self._encode([image_module.fromarray(np.asarray(pixels)) for pixels in batch])
        sounds = [np.asarray(sound, dtype=np.float32) for sound in batch]
        windows = [sound if sound.ndim == 2 else self.cut.cut(sound) for sound in sounds]
        rate = self.cut.rate
        flat = [{"array": window, "sampling_rate": rate} for sound in windows for window in sound]
        chunks = (flat[start : start + len(batch)] for start in range(0, len(flat), len(batch)))
        embedded = torch.cat([self._encode([{"audio": window} for window in chunk]) for chunk in chunks])
        return pool_windows(embedded.float().cpu().numpy(), [len(sound) for sound in windows])


def _modalities(model: Any) -> list[Any]:
    """The modalities a model takes; versions before 6 do not say, their image models are CLIPs."""
    known = getattr(model, "modalities", None)
    if known is not None:
        return list(known)
    return ["image", "text"] if type(model[0]).__name__ == "CLIPModel" else ["text"]


def _sampling_rate(model: Any) -> int:
    """Samples a second that the model's processor wants; 48,000 where it does not say."""
    processor = getattr(model, "processor", None)
    extractor = getattr(processor, "feature_extractor", processor)
    return int(getattr(extractor, "sampling_rate", None) or 48_000)
