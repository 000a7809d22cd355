"""Text models of sentence-transformers, multilingual ones too: a leaf or base space of texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from isthmus.encoders.decoders.texts import TextDecoder
from isthmus.encoders.hub import Checkpoint, find_checkpoint, first_line
from isthmus.encoders.protocol import Decoder
from isthmus.encoders.registry import check_installed
from isthmus.encoders.torch_encoder import TorchEncoder, quiet_loading
from isthmus.errors import EncoderError


def load(
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
        size = len(inputs)
        return self.model.encode(inputs, batch_size=size, convert_to_tensor=True, show_progress_bar=False, **options)

    def _max_tokens(self) -> int | None:
        limit = getattr(self.model, "max_seq_length", None)
        return None if limit is None or limit > 10**6 else int(limit)

    def _count_truncated(self, texts: Sequence[str]) -> None:
        limit, tokenizer = self._max_tokens(), getattr(self.model, "tokenizer", None)
        # A token has at least one character: shorter texts cannot be cut, and need not be counted.
        longest = [self.prompt + text for text in texts if limit and len(text) + len(self.prompt) > limit - 2]
        if longest and callable(tokenizer):
            tokens = tokenizer(longest, truncation=True, max_length=limit)
            encodings = getattr(tokens, "encodings", None) or []
            self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)


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
        reason = first_line(error)
        raise EncoderError(f"{files.given} cannot be loaded as a sentence-transformers model: {reason}.") from error


def embedding_dim(model: Any) -> int:
    """Dimension of a SentenceTransformer's embeddings; found by encoding a word where the model does not say."""
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask() or len(model.encode("a", show_progress_bar=False)))
