"""Models of sentence-transformers: texts alone, and images and sounds in one model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from isthmus.encoders import load_encoder
from isthmus.errors import DependencyError, EncoderError
from isthmus.items import Item
from tiny_models import (
    save_clap,
    save_clip,
    save_multimodal_sentence_transformer,
    save_sentence_transformer,
    save_sounding_sentence_transformer,
)

TEXTS = ["a dog", "two dogs and a cat", "x", "rain"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_multimodal_sentence_transformer(tmp_path_factory.mktemp("models") / "pictures")


def test_texts_do_not_change_with_their_company(plain: Path) -> None:
    encoder = load_encoder(f"text:{plain}", device="cpu")
    assert (encoder.modalities, encoder.dim) == (("text",), 20)
    together = encoder.encode([encoder.decode(Item("a", text=text), "text") for text in TEXTS])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    for size in (1, 3):
        again = encoder.encode(TEXTS[::-1], batch_size=size)[::-1]
        assert ((together * again).sum(axis=1) > 1 - 1e-6).all()


def test_embeddings_are_the_librarys_own(plain: Path) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(plain), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(load_encoder(f"text:{plain}", device="cpu").encode(TEXTS), expected, atol=1e-5)


def test_prompts_and_limits_are_recorded_and_counted(plain: Path) -> None:
    encoder: Any = load_encoder(f"text:{plain}", device="cpu", prompt="query ")
    assert encoder.preprocessing("text") == {"max_tokens": 16, "prompt": "query "}
    bare = load_encoder(f"text:{plain}", device="cpu")
    a, b = encoder.encode(["rain"])[0], bare.encode(["query rain"])[0]
    assert a @ b > 1 - 1e-6
    encoder.encode(["rain " * 10, "ok", "words and more words"])
    assert encoder.truncated == 2


def test_all_parts_of_the_model_count_for_its_identity(plain: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"text:{plain}", device="cpu")
    other = tmp_path / "plain"
    for file in plain.rglob("*"):
        if file.is_file():
            (other / file.relative_to(plain)).parent.mkdir(parents=True, exist_ok=True)
            (other / file.relative_to(plain)).write_bytes(file.read_bytes())
    assert load_encoder(f"text:{other}", device="cpu").identity == encoder.identity
    head = next(other.glob("2_*/model.safetensors"))
    data = bytearray(head.read_bytes())
    data[-1] ^= 1
    head.write_bytes(data)
    assert load_encoder(f"text:{other}", device="cpu").identity != encoder.identity


def test_images_and_texts_of_one_model(pictures: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"sentence-transformers:{pictures}", device="cpu")
    assert encoder.modalities == ("image", "text")
    clip = load_encoder(f"clip:{save_clip(tmp_path / 'clip')}", device="cpu")
    items = []
    for number, size in enumerate([(40, 60), (70, 33)]):
        noise = np.random.default_rng(number).integers(0, 256, size=(*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        items.append(Item(str(number), path=str(tmp_path / f"{number}.png")))
    ours = encoder.encode([encoder.decode(item, "image") for item in items], modality="image")
    theirs = clip.encode([clip.decode(item, "image") for item in items], modality="image")
    assert ((ours * theirs).sum(axis=1) > 1 - 1e-5).all()
    # A caption that is the path of a picture is a caption all the same.
    texts = ["a dog", str(tmp_path / "0.png")]
    ours, theirs = encoder.encode(texts, modality="text"), clip.encode(texts, modality="text")
    assert ((ours * theirs).sum(axis=1) > 1 - 1e-5).all()


def test_sounds_are_cut_into_windows(tmp_path: Path) -> None:
    folder = save_sounding_sentence_transformer(tmp_path / "sounds")
    encoder = load_encoder(f"sentence-transformers:{folder}", device="cpu")
    assert encoder.modalities == ("text", "audio")
    sound = 0.3 * np.sin(np.arange(23 * 16_000) / 16_000 * 2000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    decoded = encoder.decode(Item("a", path=str(tmp_path / "a.wav")), "audio")
    assert decoded.shape == (3, 480_000)
    clap = load_encoder(f"clap:{save_clap(tmp_path / 'clap', fused=False)}", device="cpu")
    ours, theirs = (each.encode([decoded], modality="audio")[0] for each in (encoder, clap))
    assert ours @ theirs > 1 - 1e-5
    assert encoder.preprocessing("audio")["sample_rate"] == 48_000


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(EncoderError, match=r"cannot be loaded as a sentence-transformers model"):
        load_encoder(f"text:{tmp_path}", device="cpu")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DependencyError, match=r"Run: pip install 'isthmus\[text\]'"):
        load_encoder(f"text:{tmp_path}", device="cpu")
