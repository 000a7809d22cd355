"""The demo's encoders: `toy:picture` (image, text), `toy:sound` (audio, text) and `toy:shape` (point cloud, image).

They read three-digit numbers and nothing else, weigh under a megabyte each, ship with the package and answer at once:
for the demo, for tests, and for trying commands. scripts/train_demo_encoders.py trains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from isthmus.core.messages import one_line
from isthmus.core.runtime import resolve_device
from isthmus.encoders.protocol import BaseEncoder, Decoder, weights_sha256
from isthmus.encoders.toy.decoders import PREPROCESSING, ToyDecoder
from isthmus.encoders.toy.towers import DIMS, ToySpace, character_codes
from isthmus.errors import EncoderError

REVISION: Final = "1"
"""Version of the shipped weights."""

WEIGHTS: Final = Path(__file__).parent / "weights"


def load(checkpoint: str, *, device: str | None = None) -> ToyEncoder:
    """Load one of the demo's encoders.

    Args:
        checkpoint: `picture`, `sound` or `shape`.
        device: Where it goes; None is the CPU, where so small a model is at home.

    Raises:
        EncoderError: There is no such encoder.
    """
    if checkpoint not in DIMS:
        known = ", ".join(f"toy:{name}" for name in DIMS)
        raise EncoderError(f"there is no encoder 'toy:{checkpoint}'. Expected one of {known}.")
    return ToyEncoder(checkpoint, device=device or "cpu")


class ToyEncoder(BaseEncoder):
    """Encoder of the demo with its shipped weights.

    Args:
        checkpoint: `picture`, `sound` or `shape`.
        device: Where it goes.
    """

    def __init__(self, checkpoint: str, *, device: str = "cpu") -> None:
        file = WEIGHTS / f"{checkpoint}.safetensors"
        self.name, self.dim = f"toy:{checkpoint}", DIMS[checkpoint]
        self.identity = {
            "library": "isthmus",
            "id": self.name,
            "revision": REVISION,
            "weights_sha256": weights_sha256([file]),
        }
        self.space = load_space(checkpoint, file)
        self.modalities = self.space.modalities
        self.to(device)

    def to(self, device: str) -> None:
        """Move the model to another device."""
        self.device = resolve_device(device)
        self.space.to(self.device)

    def decoder(self, modality: str) -> Decoder:
        """Files and texts to arrays of the small world's sizes."""
        return ToyDecoder(modality)

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Sizes and rates that items are brought to."""
        return dict(PREPROCESSING[self.check_modality(modality)])

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Tensor:
        """Embed decoded items: (n, dim) unit rows."""
        codes = character_codes(list(batch)) if modality == "text" else torch.from_numpy(np.stack(batch)).float()
        embedded: Tensor = self.space(codes.to(self.device), modality)
        return embedded


def load_space(checkpoint: str, file: Path) -> ToySpace:
    """The towers of an encoder, in evaluation mode, with the weights of `file` (half precision) in float32.

    Raises:
        EncoderError: The file is missing, or does not hold this encoder's weights.
    """
    space = ToySpace(checkpoint)
    try:
        space.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise EncoderError(
            f"{file} does not hold the weights of toy:{checkpoint} ({one_line(error)}). "
            "Reinstall isthmus, or run scripts/train_demo_encoders.py."
        ) from error
    return space.eval().requires_grad_(False)
