"""open_clip through a stand-in of the same shape: the library itself needs a torchvision that fits torch."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.encoders import load_encoder
from isthmus.encoders.openclip import load
from isthmus.encoders.protocol import weights_sha256
from isthmus.errors import DependencyError, EncoderError
from isthmus.items import Item

CONFIG = {
    "size": (16, 16),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


class Towers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = torch.nn.Linear(3 * 16 * 16, 12)
        self.words = torch.nn.Embedding(128, 12)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.image(pixels.flatten(1))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.words(tokens).sum(dim=1)


class Tokenizer:
    context_length = 10

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            tokens = [1, *self.encode(text)[: self.context_length - 2], 2]
            rows[row, : len(tokens)] = torch.tensor(tokens)
        return rows


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(b"weights of a tag")
    module: Any = types.ModuleType("open_clip")
    module.__spec__ = types.SimpleNamespace()
    module.config, module.weights = dict(CONFIG), weights

    def create_model(name: str, *, pretrained: str | None, require_pretrained: bool) -> Towers:
        if name != "ViT-tiny" and not name.startswith("hf-hub:"):
            raise RuntimeError(f"Model config for '{name}' not found.\nAvailable: ViT-tiny")
        assert require_pretrained
        torch.manual_seed(0)
        return Towers()

    module.create_model = create_model
    module.get_tokenizer = lambda name: Tokenizer()
    module.get_model_preprocess_cfg = lambda model: module.config
    module.get_pretrained_cfg = lambda name, tag: {"tag": tag}
    module.download_pretrained = lambda cfg: str(weights)
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return module


def test_images_and_captions_of_a_tag(library: Any, tmp_path: Path) -> None:
    encoder: Any = load_encoder("openclip:ViT-tiny/some_tag", device="cpu")
    assert (encoder.modalities, encoder.dim) == (("image", "text"), 12)
    assert encoder.identity == {
        "library": "open_clip",
        "id": "ViT-tiny",
        "revision": "some_tag",
        "weights_sha256": weights_sha256([library.weights]),
    }
    noise = np.random.default_rng(0).integers(0, 256, size=(23, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    pixels = encoder.decode(Item("a", path=str(tmp_path / "a.png")), "image")
    np.testing.assert_array_equal(pixels, noise[4:20])  # half of 7 is 3.5, which torchvision rounds to the even 4
    scaled = (torch.tensor(pixels) / 255.0 - torch.tensor(CONFIG["mean"])) / torch.tensor(CONFIG["std"])
    expected = encoder.model.encode_image(scaled.permute(2, 0, 1)[None])[0].detach().numpy()
    got = encoder.encode([pixels], modality="image", normalize_embeddings=False)[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    encoder.encode(["short", "exactly8", "longer than ten"], modality="text")
    assert encoder.truncated == 1
    assert encoder.preprocessing("text") == {"max_tokens": 10}
    assert encoder.preprocessing("image")["crop_rounding"] == "nearest"


def test_weights_from_a_file_and_whole_models(library: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    file.write_bytes(b"my own")
    encoder = load_encoder(f"openclip:ViT-tiny/{file}", device="cpu")
    assert encoder.identity["revision"] == "local"
    assert encoder.identity["weights_sha256"] == weights_sha256([file])
    library.download_pretrained = None
    whole = load_encoder("openclip:hf-hub:me/model", device="cpu")
    assert whole.identity["id"] == "hf-hub:me/model"
    assert len(whole.identity["weights_sha256"]) == 64


def test_squashed_images(library: Any) -> None:
    library.config.update(resize_mode="squash", size=16)
    encoder = load_encoder("openclip:ViT-tiny/tag", device="cpu")
    seen = encoder.preprocessing("image")
    assert (seen["resize"], seen["crop"]) == ([16, 16], None)
    library.config.update(resize_mode="longest")
    with pytest.raises(EncoderError, match=r"fits images by 'longest' into 16 x 16\. Expected 'squash'"):
        load_encoder("openclip:ViT-tiny/tag", device="cpu")


def test_faults_are_said_in_one_line(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match=r"openclip:ViT-tiny names no weights\. Expected openclip:ARCHITECTURE"):
        load_encoder("openclip:ViT-tiny")
    with pytest.raises(EncoderError, match=r"openclip:None/tag cannot be loaded: Model config for 'None' not found\. "):
        load_encoder("openclip:None/tag")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(DependencyError, match=r"Run: pip install 'isthmus\[openclip\]'"):
        load("ViT-tiny/tag")
