"""CLIP, SigLIP and SigLIP 2: tiny random models through the real path."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.encoders import load_encoder
from isthmus.encoders.torch_encoder import embedding_of
from isthmus.errors import ConfigError, EncoderError
from isthmus.items import Item
from tiny_models import save_clap, save_clip, save_siglip, save_siglip2

CAPTIONS = ["a dog", "Two dogs bark at a cat.", "x", "a bird sings in a tree by a lake"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    savers = {"clip": save_clip, "siglip": save_siglip, "siglip2": save_siglip2}
    return {name: save(home / name) for name, save in savers.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    home = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    items = []
    for number, size in enumerate([(40, 60), (80, 33), (32, 32), (100, 90), (50, 51)]):
        Image.fromarray(rng.integers(0, 256, size=(*size, 3), dtype=np.uint8)).save(home / f"{number}.png")
        items.append(Item(str(number), path=str(home / f"{number}.png")))
    return items


@pytest.mark.parametrize(("name", "dim"), [("clip", 24), ("siglip", 32), ("siglip2", 32)])
def test_the_same_items_give_the_same_embeddings_in_any_batch(
    name: str, dim: int, models: dict[str, Path], files: list[Item]
) -> None:
    encoder = load_encoder(f"clip:{models[name]}", device="cpu")
    assert encoder.modalities == ("image", "text")
    assert encoder.dim == dim
    images = [encoder.decode(item, "image") for item in files]
    for modality, inputs in (("image", images), ("text", CAPTIONS)):
        together = encoder.encode(inputs, modality=modality, batch_size=32)
        assert together.shape == (len(inputs), dim)
        assert together.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
        for other in (1, 2, 3):
            again = encoder.encode(inputs, modality=modality, batch_size=other)
            assert ((together * again).sum(axis=1) > 1 - 1e-6).all()
        backwards = encoder.encode(inputs[::-1], modality=modality, batch_size=2)[::-1]
        assert ((together * backwards).sum(axis=1) > 1 - 1e-6).all()


def test_clip_embeddings_are_the_models_own(models: dict[str, Path], files: list[Item]) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    encoder = load_encoder(f"clip:{models['clip']}", device="cpu")
    model = CLIPModel.from_pretrained(models["clip"]).eval()
    tokens = AutoTokenizer.from_pretrained(models["clip"])(CAPTIONS, padding=True, truncation=True, return_tensors="pt")
    processor = CLIPImageProcessorPil.from_pretrained(models["clip"])
    pictures = [Image.open(str(item.path)) for item in files]
    with torch.inference_mode():
        out = model(**tokens, pixel_values=processor(images=pictures, return_tensors="pt")["pixel_values"])
    images = [encoder.decode(item, "image") for item in files]
    np.testing.assert_allclose(encoder.encode(images, modality="image"), out.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(CAPTIONS, modality="text"), out.text_embeds.numpy(), atol=1e-5)


def test_identity_and_preprocessing_say_what_was_loaded(models: dict[str, Path]) -> None:
    encoder = load_encoder(f"clip:{models['clip']}", device="cpu")
    assert encoder.name == f"clip:{models['clip']}"
    assert set(encoder.identity) == {"library", "id", "revision", "weights_sha256"}
    assert (encoder.identity["library"], encoder.identity["revision"]) == ("transformers", "local")
    assert len(encoder.identity["weights_sha256"]) == 64
    seen = encoder.preprocessing("image")
    assert (seen["resize"], seen["crop"], seen["resample"]) == (32, [32, 32], "bicubic")
    assert seen["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert encoder.preprocessing("text") == {"max_tokens": 24}
    siglip = load_encoder(f"clip:{models['siglip']}", device="cpu")
    assert siglip.preprocessing("text") == {"max_tokens": 16, "padding": "max_length", "case": "lower"}
    patches = load_encoder(f"clip:{models['siglip2']}", device="cpu").preprocessing("image")
    assert (patches["patch_size"], patches["max_num_patches"]) == (8, 16)


def test_long_captions_are_cut_and_counted(models: dict[str, Path]) -> None:
    encoder: Any = load_encoder(f"clip:{models['clip']}", device="cpu")
    long = "word " * 40
    embedded = encoder.encode([long, "short", long], modality="text")
    assert encoder.truncated == 2
    assert (embedded[0] * embedded[2]).sum() > 1 - 1e-6


def test_siglip_does_not_tell_case(models: dict[str, Path]) -> None:
    encoder = load_encoder(f"clip:{models['siglip2']}", device="cpu")
    a, b = encoder.encode(["A DOG", "a dog"], modality="text")
    assert a @ b > 1 - 1e-6


def test_half_precision_stays_near(models: dict[str, Path]) -> None:
    full = load_encoder(f"clip:{models['clip']}", device="cpu").encode(CAPTIONS, modality="text")
    half = load_encoder(f"clip:{models['clip']}", device="cpu", dtype="bfloat16").encode(CAPTIONS, modality="text")
    assert half.dtype == np.float32
    assert ((full * half).sum(axis=1) > 0.99).all()
    with pytest.raises(ConfigError, match=r"dtype is 'int8'\. Expected one of float32"):
        load_encoder(f"clip:{models['clip']}", device="cpu", dtype="int8")


def test_outputs_of_both_versions_of_transformers_are_unwrapped() -> None:
    tensor = torch.zeros(2, 3)
    assert embedding_of(tensor) is tensor
    assert embedding_of(SimpleNamespace(pooler_output=tensor)) is tensor
    with pytest.raises(EncoderError, match=r"returned dict without embeddings"):
        embedding_of({"pooler": tensor})


def test_other_models_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    clap = save_clap(tmp_path / "clap", fused=False)
    with pytest.raises(EncoderError, match=r"of type 'clap'\. Expected one of clip, siglip, siglip2"):
        load_encoder(f"clip:{clap}", device="cpu")
    broken = save_clip(tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    (broken / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"cannot be loaded as a CLIP model"):
        load_encoder(f"clip:{broken}", device="cpu")
