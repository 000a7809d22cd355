"""Models of open_clip: images and text, such as the ViT-bigG-14 whose space the coloured ULIP-2 shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from isthmus.core.messages import one_line
from isthmus.encoders.hub import LOCAL
from isthmus.encoders.item_decoders import ImageDecoder, ImageFit, TextDecoder
from isthmus.encoders.protocol import Decoder, weights_sha256
from isthmus.encoders.registry import check_installed
from isthmus.encoders.torch_encoder import TorchEncoder
from isthmus.errors import DependencyError, EncoderError

_WHOLE = ("hf-hub:", "local-dir:")


def load(checkpoint: str, *, device: str | None = None, dtype: str = "float32") -> OpenClipEncoder:
    """Load a model of open_clip.

    Args:
        checkpoint: Architecture and pretrained tag, `ViT-B-32/laion2b_s34b_b79k`; architecture and file,
            `ViT-B-32//data/weights.pt`; or a whole model, `hf-hub:organisation/name` or `local-dir:/data/model`.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16, for the model's own arithmetic.

    Raises:
        DependencyError: open_clip, or a torchvision that fits torch, is not installed.
        EncoderError: There is no such architecture or tag.
    """
    check_installed("openclip")
    if checkpoint.startswith(_WHOLE):
        return OpenClipEncoder(checkpoint, "", device=device, dtype=dtype)
    architecture, _, pretrained = checkpoint.partition("/")
    if not architecture or not pretrained:
        raise EncoderError(
            f"openclip:{checkpoint} names no weights. Expected openclip:ARCHITECTURE/PRETRAINED, such as"
            " openclip:ViT-B-32/laion2b_s34b_b79k."
        )
    return OpenClipEncoder(architecture, pretrained, device=device, dtype=dtype)


class OpenClipEncoder(TorchEncoder):
    """A dual encoder of images and captions.

    Args:
        architecture: Name of the architecture in open_clip.
        pretrained: Tag of the weights in open_clip, or a file of weights; empty for a whole model.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the model's own arithmetic.
    """

    modalities = ("image", "text")

    def __init__(
        self, architecture: str, pretrained: str, *, device: str | None = None, dtype: str = "float32"
    ) -> None:
        library = _open_clip()
        self.name = f"openclip:{architecture}/{pretrained}" if pretrained else f"openclip:{architecture}"
        try:
            model = library.create_model(architecture, pretrained=pretrained or None, require_pretrained=True)
            self.tokenizer = library.get_tokenizer(architecture)
        except Exception as error:  # unknown names, network and OS errors of several libraries
            raise EncoderError(
                f"{self.name} cannot be loaded: {one_line(error)}. "
                "open_clip.list_pretrained() names the architectures and tags there are."
            ) from error
        # Weights in a file are told apart by their hash, wherever the file lies.
        revision = LOCAL if not pretrained or Path(pretrained).is_file() else pretrained
        digest = _weights_digest(library, architecture, pretrained, model)
        self.identity = {"library": "open_clip", "id": architecture, "revision": revision, "weights_sha256": digest}
        super().__init__(model, device=device, dtype=dtype)
        self.config = dict(library.get_model_preprocess_cfg(model))
        self.fit = _fit(self.config, self.name)
        self.context = int(getattr(self.tokenizer, "context_length", 77))
        self.dim = int(self.encode_batch(["a"], "text").shape[1])

    def decoder(self, modality: str) -> Decoder:
        """Files to fitted pixels, texts to themselves."""
        return TextDecoder() if modality == "text" else ImageDecoder(self.fit)

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Sizes, filters and scaling of images; token limit of captions."""
        if modality == "text":
            return {"max_tokens": self.context}
        return {**self.fit.describe(), "mean": list(self.config["mean"]), "std": list(self.config["std"])}

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> Any:
        """Embeddings of a batch, not normalised."""
        if modality == "image":
            return self.model.encode_image(self.pixels(batch, self.config["mean"], self.config["std"]))
        self.truncated += sum(self._too_long(text) for text in batch)
        return self.model.encode_text(self.tokenizer(list(batch)).to(self.device))

    def _too_long(self, text: str) -> bool:
        """Whether a caption is longer than the model reads."""
        if len(text) <= self.context - 2:  # a token has at least one character
            return False
        encode = getattr(self.tokenizer, "encode", None)
        if encode is not None:  # open_clip's own tokenizer, without the tokens for start and end
            return len(encode(text)) + 2 > self.context
        return len(self.tokenizer.tokenizer(text)["input_ids"]) > self.context


def _open_clip() -> Any:
    """The module open_clip, or how to install it."""
    try:
        import open_clip
    except Exception as error:  # a torchvision built for another torch fails with a RuntimeError
        raise DependencyError(
            f"encoder 'openclip' cannot import open_clip ({one_line(error)}). Run: pip install 'isthmus[openclip]',"
            " with a torchvision that was built for the installed torch."
        ) from error
    return open_clip


def _fit(config: dict[str, Any], name: str) -> ImageFit:
    """What open_clip's own transform does, with Pillow alone."""
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))
    mode, resample = config.get("resize_mode", "shortest"), str(config.get("interpolation", "bicubic"))
    resample = "bilinear" if resample == "bilinear" else "bicubic"
    if mode == "squash":
        return ImageFit(resize=(height, width), crop=None, resample=resample, rounding="nearest")
    if mode != "shortest" or height != width:
        raise EncoderError(
            f"{name} fits images by {mode!r} into {height} x {width}. Expected 'squash', or 'shortest' into a square."
        )
    return ImageFit(resize=height, crop=(height, width), resample=resample, rounding="nearest")


def _weights_digest(library: Any, architecture: str, pretrained: str, model: torch.nn.Module) -> str:
    """Hash of the weights' file, or of the arrays themselves where open_clip does not say where the file is."""
    if pretrained and Path(pretrained).is_file():
        return weights_sha256([pretrained])
    try:
        file = library.download_pretrained(library.get_pretrained_cfg(architecture, pretrained))
    except Exception:  # moved or renamed in other versions
        file = ""
    if file and Path(file).is_file():
        return weights_sha256([file])
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
