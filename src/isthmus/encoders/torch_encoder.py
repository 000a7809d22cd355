"""What the adapters of torch models share: device and number format, captions to tokens, and the output of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.core.messages import one_line
from isthmus.core.runtime import resolve_device
from isthmus.encoders.protocol import BaseEncoder
from isthmus.errors import ConfigError, EncoderError

FROM_DATA: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers loads a model's files: from the disk alone, and without running code of theirs or asking to."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEncoder(BaseEncoder):
    """A torch model in evaluation mode, on one device, in one number format.

    Args:
        model: The model.
        device: Where it goes; None takes the best there is.
        dtype: float32, bfloat16 or float16. Embeddings come out as float32 in any case.

    Attributes:
        truncated: Captions that were longer than the model takes and lost their end, so far.
    """

    truncated = 0

    def __init__(self, model: torch.nn.Module, *, device: str | None = None, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}. Expected one of {', '.join(DTYPES)}.")
        self.dtype = DTYPES[dtype]
        self.model: Any = model.eval().requires_grad_(False)
        self.device = resolve_device(device)
        self.model.to(device=self.device, dtype=self.dtype)

    def to(self, device: str) -> None:
        """Move the model to another device."""
        self.device = resolve_device(device)
        self.model.to(self.device)

    def tokens(
        self, texts: Sequence[str], tokenizer: Any, *, max_length: int, padding: str | bool
    ) -> dict[str, Tensor]:
        """Tokens of a batch of captions on the model's device; captions that had to be cut are counted."""
        batch = tokenizer(list(texts), padding=padding, truncation=True, max_length=max_length, return_tensors="pt")
        encodings = getattr(batch, "encodings", None)
        if encodings is not None:
            self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        else:  # a tokenizer written in Python: count the whole captions
            whole = tokenizer(list(texts), truncation=False)["input_ids"]
            self.truncated += sum(len(ids) > max_length for ids in whole)
        return {key: value.to(self.device) for key, value in batch.items()}

    def pixels(self, images: Sequence[Any], mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """A batch of equally large (height, width, 3) uint8 images as (n, 3, height, width), scaled and normalised."""
        batch = torch.from_numpy(np.stack(images)).to(self.device)
        scaled = batch.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        center = torch.tensor(mean, device=self.device)[:, None, None]
        spread = torch.tensor(std, device=self.device)[:, None, None]
        return ((scaled - center) / spread).to(self.dtype)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the progress bars of transformers, one for every part of a model, off standard error."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def loading_faults(name: str, what: str) -> Iterator[None]:
    """Turn what transformers raises while it loads a model into an `EncoderError`; `what` the model should be."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise EncoderError(f"{name} cannot be loaded as a {what}: {one_line(error)}.") from error


def embedding_of(output: Any) -> Tensor:
    """The embeddings that `get_*_features` of a transformers model returned: a tensor in version 4, an object in 5.

    Raises:
        EncoderError: The output is neither.
    """
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    if not isinstance(pooled, Tensor):
        raise EncoderError(
            f"the model returned {type(output).__name__} without embeddings. Expected a tensor or an object with"
            " pooler_output; this version of transformers may be newer than isthmus knows."
        )
    return pooled
