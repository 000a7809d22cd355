"""ULIP-2's PointBERT and, where the checkpoint has them, the SLIP towers beside it: point clouds, images, text.

The papers' leaf space is `ulip:/path/pointbert_ULIP-2.pt`, three modalities in 512 dimensions (Ex-MCR, arXiv
2310.08884, section 4.1). The coloured variant has no other towers: its space is that of OpenCLIP's ViT-bigG-14, into
which `openclip` encodes images and text.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.core.messages import one_line
from isthmus.core.weights import load_weights
from isthmus.encoders.hub import LOCAL
from isthmus.encoders.item_decoders import ImageDecoder, ImageFit, PointDecoder, TextDecoder
from isthmus.encoders.models.pointbert import GROUP_SIZE, PointBert
from isthmus.encoders.models.slip import IMAGE_MEAN, IMAGE_STD, Slip
from isthmus.encoders.protocol import Decoder, weights_sha256
from isthmus.encoders.torch_encoder import TorchEncoder
from isthmus.errors import EncoderError

POINTS = 10_000
TOKENIZER = "openai/clip-vit-base-patch32"
"""Where CLIP's vocabulary comes from, which SLIP shares."""

_ON_CPU = 4  # clouds in one pass: more do not run faster there, and each takes 100 MB


def load(
    checkpoint: str,
    *,
    device: str | None = None,
    dtype: str = "float32",
    points: int = POINTS,
    up: str = "y",
    tokenizer: str = TOKENIZER,
) -> UlipEncoder:
    """Load a ULIP PointBERT checkpoint, of either published variant.

    Args:
        checkpoint: The file.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16 for the networks; sampling and grouping stay in float32.
        points: Points sampled from a mesh, and kept of a larger cloud.
        up: The axis that points up in the files; it is turned to y.
        tokenizer: Folder or repository with CLIP's vocabulary, for captions.

    Raises:
        EncoderError: There is no such file, or it is no such checkpoint.
    """
    decoder = PointDecoder(points=points, up=up, fewest=GROUP_SIZE, repeat=False)
    return UlipEncoder(Path(checkpoint), device=device, dtype=dtype, points=decoder, tokenizer=tokenizer)


class UlipEncoder(TorchEncoder):
    """Point clouds, and with a whole checkpoint images and captions, in one space.

    Args:
        file: The checkpoint.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the networks.
        points: How files become clouds; colours are added where the variant has them.
        tokenizer: Folder or repository with CLIP's vocabulary; looked for when the first caption is encoded.
    """

    def __init__(
        self, file: Path, *, device: str | None, dtype: str, points: PointDecoder, tokenizer: str = TOKENIZER
    ) -> None:
        state = load_checkpoint(file)
        towers = nn.ModuleDict({"points": PointBert.from_state_dict(state)})
        if any(key.startswith("visual.") for key in state):
            towers["slip"] = Slip.from_state_dict(state)
        super().__init__(towers, device=device, dtype=dtype)
        self.modalities = ("point_cloud", "image", "text") if "slip" in towers else ("point_cloud",)
        shape = self.model["points"].shape
        self.dim = int(shape.dim)
        self.points = PointDecoder(points.points, shape.channels == 6, points.up, points.fewest, points.repeat)
        self.name = f"ulip:{file}"
        digest = weights_sha256([file])
        self.identity = {"library": "ulip", "id": file.name, "revision": LOCAL, "weights_sha256": digest}
        self._tokenizer_name, self._tokenizer = tokenizer, None

    def decoder(self, modality: str) -> Decoder:
        """Meshes and clouds to points, images to pixels, texts to themselves."""
        if modality == "text":
            return TextDecoder()
        return ImageDecoder(self._fit) if modality == "image" else self.points

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Points and axis of clouds, size and scaling of images, token limit of captions."""
        if modality == "text":
            return {"max_tokens": self._slip.shape.context, "tokenizer": "clip"}
        if modality == "image":
            return {**self._fit.describe(), "mean": list(IMAGE_MEAN), "std": list(IMAGE_STD)}
        return self.points.describe()

    def size(self, decoded: Any) -> int:
        """Characters of a caption, points of a cloud; images are equally large."""
        if isinstance(decoded, str):
            return len(decoded)
        return len(decoded) if np.ndim(decoded) == 2 else 0

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embeddings of a batch, not normalised."""
        if modality == "image":
            return self._slip.encode_image(self.pixels(batch, IMAGE_MEAN, IMAGE_STD))
        if modality == "text":
            context = self._slip.shape.context
            tokens = self.tokens(batch, self._clip_tokenizer(), max_length=context, padding="longest")
            return self._slip.encode_text(tokens["input_ids"])
        step = _ON_CPU if self.device.type == "cpu" else len(batch)
        return torch.cat([self._embed_clouds(batch[at : at + step]) for at in range(0, len(batch), step)])

    def _embed_clouds(self, clouds: Sequence[Any]) -> Tensor:
        """(points, 3 or 6) each, of any number of points."""
        parts = [torch.as_tensor(np.asarray(cloud, dtype=np.float32)) for cloud in clouds]
        lengths = torch.tensor([len(part) for part in parts], device=self.device)
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True).to(self.device)
        rgb = padded[..., 3:] if padded.shape[-1] == 6 else None
        return self.model["points"](padded[..., :3], rgb, lengths=lengths)  # type: ignore[no-any-return]

    @property
    def _slip(self) -> Any:
        """The image and text towers."""
        return self.model["slip"]

    @property
    def _fit(self) -> ImageFit:
        """How images are fitted."""
        side = self._slip.shape.image_size
        return ImageFit(resize=side, crop=(side, side), resample="bilinear", rounding="nearest")

    def _clip_tokenizer(self) -> Any:
        """CLIP's tokenizer, loaded once."""
        if self._tokenizer is None:
            self._tokenizer = load_clip_tokenizer(self._tokenizer_name, self._slip.shape.vocabulary)
        return self._tokenizer


def load_clip_tokenizer(name: str, vocabulary: int) -> Any:
    """CLIP's tokenizer from a folder or a repository of the Hub.

    Raises:
        EncoderError: It is not to be had, or its vocabulary has another size than the model's.
    """
    advice = "Give a folder with CLIP's tokenizer files as the option tokenizer."
    try:
        from transformers import CLIPTokenizerFast as ClipTokenizer
    except ImportError as error:
        raise EncoderError(f"captions need transformers ({one_line(error)}). Run: pip install 'isthmus[hf]'") from error
    try:
        tokenizer = ClipTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the libraries raise their own, network and OS errors
        raise EncoderError(f"no CLIP tokenizer at {name!r} ({one_line(error)}). {advice}") from error
    if len(tokenizer) != vocabulary:
        raise EncoderError(f"{name!r} has {len(tokenizer):,} tokens, the checkpoint {vocabulary:,}. {advice}")
    return tokenizer


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a ULIP checkpoint's arrays, the prefix `module.` stripped from their names.

    The published files hold an `argparse.Namespace` of training options beside the arrays; that one class is let
    through and no other, so that a file cannot run code.

    Raises:
        EncoderError: There is no such file, or it is no checkpoint of plain arrays.
    """
    file = Path(path)
    if not file.is_file():
        raise EncoderError(
            f"there is no checkpoint at {file}. Expected the ULIP authors' file, as ulip:/path/pointbert_ULIP-2.pt."
        )
    try:
        loaded = load_weights(file, allowed=[argparse.Namespace])
    except ValueError as error:
        raise EncoderError(f"{file} cannot be read as a checkpoint of plain arrays: {error}.") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(f"{file} holds no state dict of arrays. Expected a checkpoint with the key 'state_dict'.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
