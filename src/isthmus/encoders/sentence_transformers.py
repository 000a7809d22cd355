"""Models of sentence-transformers: of texts, multilingual ones too, and multimodal ones (version 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from isthmus.core.messages import one_line
from isthmus.encoders.hub import Checkpoint, find_checkpoint
from isthmus.encoders.item_decoders import AudioDecoder, ImageDecoder, TextDecoder
from isthmus.encoders.protocol import Decoder
from isthmus.encoders.registry import check_installed
from isthmus.encoders.torch_encoder import TorchEncoder, quiet_loading
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


def load_text(
    checkpoint: str,
    *,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    prompt: str = "",
) -> SentenceTextEncoder:
    """Load a text model of sentence-transformers.

    Args:
        checkpoint: Repository of the Hub, or folder as `SentenceTransformer.save_pretrained` writes it.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16, for the model's own arithmetic.
        revision: Branch, tag or commit of the Hub.
        prompt: Put before every text, such as "query: " for the E5 models.

    Raises:
        DependencyError: sentence-transformers is not installed.
        EncoderError: There is no such model.
    """
    check_installed("text")
    files = find_checkpoint(checkpoint, revision=revision)
    return SentenceTextEncoder(files, device=device, dtype=dtype, prompt=prompt)


class SentenceTextEncoder(TorchEncoder):
    """A sentence-transformers model as an encoder of texts.

    Args:
        files: The model's files.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the model's own arithmetic.
        prompt: Put before every text.
    """

    kind = "text"
    modalities: tuple[str, ...] = ("text",)

    def __init__(
        self, files: Checkpoint, *, device: str | None = None, dtype: str = "float32", prompt: str = ""
    ) -> None:
        super().__init__(open_model(files), device=device, dtype=dtype)
        self.name, self.identity = f"{self.kind}:{files.given}", files.identity("sentence-transformers")
        self.prompt = prompt
        self.dim = embedding_dim(self.model)

    def decoder(self, modality: str) -> Decoder:
        """Texts to themselves."""
        return TextDecoder()

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Token limit and prompt."""
        return {"max_tokens": self._max_tokens(), "prompt": self.prompt}

    def size(self, decoded: Any) -> int:
        """Characters of a text; 0 for everything else."""
        return len(decoded) if isinstance(decoded, str) else 0

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embeddings of a batch, not normalised unless the model does so itself."""
        self._count_truncated(batch)
        return self._encode(list(batch), prompt=self.prompt or None)

    def _encode(self, inputs: Sequence[Any], **options: Any) -> Any:
        """Embeddings of a batch by the model."""
        size = len(inputs)
        return self.model.encode(inputs, batch_size=size, convert_to_tensor=True, show_progress_bar=False, **options)

    def _max_tokens(self) -> int | None:
        """Tokens that the model reads, or None."""
        limit = getattr(self.model, "max_seq_length", None)
        return None if limit is None or limit > 10**6 else int(limit)

    def _count_truncated(self, texts: Sequence[str]) -> None:
        """Count texts that are longer than the model reads."""
        limit, tokenizer = self._max_tokens(), getattr(self.model, "tokenizer", None)
        # A token has at least one character: shorter texts cannot be cut, and need not be counted.
        longest = [self.prompt + text for text in texts if limit and len(text) + len(self.prompt) > limit - 2]
        if longest and callable(tokenizer):
            tokens = tokenizer(longest, truncation=True, max_length=limit)
            encodings = getattr(tokens, "encodings", None) or []
            self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)


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


def open_model(files: Checkpoint) -> Any:
    """A SentenceTransformer from files on this machine, without running code of theirs.

    Raises:
        EncoderError: They are no such model.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_loading():
            return SentenceTransformer(str(files.folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # missing files, unknown modules, mismatched shapes
        reason = one_line(error)
        raise EncoderError(f"{files.given} cannot be loaded as a sentence-transformers model: {reason}.") from error


def embedding_dim(model: Any) -> int:
    """Dimension of a SentenceTransformer's embeddings; found by encoding a word where the model does not say."""
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask() or len(model.encode("a", show_progress_bar=False)))
