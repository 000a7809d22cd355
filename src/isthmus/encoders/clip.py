"""CLIP, SigLIP and SigLIP 2 of Hugging Face transformers: images and text.

The papers' base space is `clip:openai/clip-vit-base-patch32` (C-MCR, arXiv 2305.14381; Ex-MCR, arXiv 2310.08884).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from isthmus.encoders.hub import Checkpoint, find_checkpoint
from isthmus.encoders.item_decoders import RESAMPLING, ImageDecoder, ImageFit, TextDecoder
from isthmus.encoders.protocol import Decoder
from isthmus.encoders.registry import check_installed
from isthmus.encoders.torch_encoder import FROM_DATA, TorchEncoder, embedding_of, loading_faults, quiet_loading
from isthmus.errors import EncoderError

FAMILIES = ("clip", "siglip", "siglip2")


def load(
    checkpoint: str, *, device: str | None = None, dtype: str = "float32", revision: str | None = None
) -> ClipEncoder:
    """Load a CLIP, SigLIP or SigLIP 2.

    Args:
        checkpoint: Repository of the Hub, or folder as `save_pretrained` writes it.
        device: Where the model goes; None takes the best there is.
        dtype: float32, bfloat16 or float16, for the model's own arithmetic.
        revision: Branch, tag or commit of the Hub.

    Raises:
        DependencyError: transformers or Pillow is not installed.
        EncoderError: There is no such model, or it is of another family.
    """
    check_installed("clip")
    files = find_checkpoint(checkpoint, revision=revision)
    return ClipEncoder(files, device=device, dtype=dtype)


class ClipEncoder(TorchEncoder):
    """A dual encoder of images and captions.

    Args:
        files: The model's files.
        device: Where the model goes; None takes the best there is.
        dtype: Number format of the model's own arithmetic.
    """

    modalities = ("image", "text")

    def __init__(self, files: Checkpoint, *, device: str | None = None, dtype: str = "float32") -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

        with loading_faults(files.given, "CLIP model"):
            config = AutoConfig.from_pretrained(files.folder, **FROM_DATA)
            if config.model_type not in FAMILIES:
                raise EncoderError(
                    f"{files.given} is a model of type {config.model_type!r}. Expected one of {', '.join(FAMILIES)};"
                    " `isthmus encoders` lists the encoders of other families."
                )
            self.processor = AutoImageProcessor.from_pretrained(files.folder, **FROM_DATA)
            self.tokenizer = AutoTokenizer.from_pretrained(files.folder, **FROM_DATA)
            with quiet_loading():
                model = AutoModel.from_pretrained(files.folder, **FROM_DATA)
        super().__init__(model, device=device, dtype=dtype)
        self.name, self.identity = f"clip:{files.given}", files.identity("transformers")
        self.clip, self.dim = config.model_type == "clip", _dim(config)
        self.fit = fit_of(self.processor)
        self.max_tokens = min(int(config.text_config.max_position_embeddings), int(self.tokenizer.model_max_length))

    def decoder(self, modality: str) -> Decoder:
        """Files to fitted pixels, texts to themselves."""
        return TextDecoder() if modality == "text" else ImageDecoder(self.fit)

    def preprocessing(self, modality: str) -> dict[str, Any]:
        """Sizes, filters and scaling of images; token limit of captions."""
        if modality == "text":
            return {"max_tokens": self.max_tokens, **({} if self.clip else {"padding": "max_length", "case": "lower"})}
        fit = self.fit.describe() if self.fit else {"processor": type(self.processor).__name__, **self._patches()}
        return {**fit, "mean": _floats(self.processor.image_mean), "std": _floats(self.processor.image_std)}

    def size(self, decoded: Any) -> int:
        """Characters of a caption; images of a batch are equally large."""
        return len(decoded) if isinstance(decoded, str) else 0

    @torch.inference_mode()
    def encode_batch(self, batch: Sequence[Any], modality: str) -> torch.Tensor:
        """Embeddings of a batch, not normalised."""
        if modality == "text":
            return self._embed_texts(batch)
        if self.fit is not None:
            pixels = self.pixels(batch, self.processor.image_mean, self.processor.image_std)
            return embedding_of(self.model.get_image_features(pixel_values=pixels))
        inputs = self.processor(images=list(batch), return_tensors="pt").to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return embedding_of(self.model.get_image_features(**inputs))

    def _embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of captions, as the family was trained on them."""
        if self.clip:
            tokens = self.tokens(texts, self.tokenizer, max_length=self.max_tokens, padding="longest")
            return embedding_of(self.model.get_text_features(**tokens))
        # SigLIP was trained on lower case, padded to full length, and reads its padding without a mask.
        lower = [text.lower() for text in texts]
        tokens = self.tokens(lower, self.tokenizer, max_length=self.max_tokens, padding="max_length")
        return embedding_of(self.model.get_text_features(input_ids=tokens["input_ids"]))

    def _patches(self) -> dict[str, Any]:
        """Patch settings of a processor without fixed size."""
        names = ("patch_size", "max_num_patches")
        return {name: int(getattr(self.processor, name)) for name in names if hasattr(self.processor, name)}


def fit_of(processor: Any) -> ImageFit | None:
    """The resizing and cropping that a transformers image processor does, or None where it does something else.

    What is known here runs in the worker processes, and gives the pixels that the processor's Pillow version gives.
    """
    size, crop = _plain(processor.size), _plain(getattr(processor, "crop_size", None))
    names = {number: name for name, number in RESAMPLING.items()}
    known = processor.do_rescale and processor.do_normalize and abs(processor.rescale_factor - 1 / 255) < 1e-9
    if not known or hasattr(processor, "max_num_patches"):
        return None
    resize: int | tuple[int, int] | None = None
    if processor.do_resize:
        if set(size) == {"shortest_edge"}:
            resize = int(size["shortest_edge"])
        elif set(size) == {"height", "width"}:
            resize = int(size["height"]), int(size["width"])
        else:
            return None
    cut = (int(crop["height"]), int(crop["width"])) if getattr(processor, "do_center_crop", False) else None
    if cut is None and not isinstance(resize, tuple):
        return None
    return ImageFit(resize=resize, crop=cut, resample=names[int(processor.resample)])


def _plain(size: Any) -> dict[str, int]:
    """A size of a processor (a dict, an object in newer versions, or None) as a dict of what is set."""
    return {key: value for key, value in dict(size or {}).items() if value is not None}


def _dim(config: Any) -> int:
    """Dimension of the joint space: a projection's in CLIP, the vision tower's own in SigLIP."""
    dim = getattr(config, "projection_dim", None) if config.model_type == "clip" else None
    return int(dim or config.vision_config.hidden_size)


def _floats(values: Any) -> list[float]:
    """Numbers of a processor's configuration."""
    return [float(value) for value in np.asarray(values, dtype=np.float64)]
