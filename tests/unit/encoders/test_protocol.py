"""The protocol, its base class, and the registry."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.encoders import (
    BaseEncoder,
    Encoder,
    Item,
    embed_items,
    list_encoders,
    load_encoder,
    registry,
    weights_sha256,
)
from isthmus.errors import DependencyError, EncoderError
from tiny_encoder import PlainEncoder, TinyEncoder


class Lengths(BaseEncoder):
    """Embeds a text by its length; records batches."""

    name, modalities, dim = "lengths", ("text", "image"), 2
    identity = {"library": "tests", "id": "lengths", "revision": "", "weights_sha256": ""}  # noqa: RUF012

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def size(self, decoded: str) -> int:
        return len(decoded)

    def encode_batch(self, batch, modality):
        self.batches.append(list(batch))
        return np.array([[len(text), 1.0] for text in batch])


def test_encode_keeps_the_order_and_batches_by_size():
    encoder = Lengths()
    texts = ["a", "cccc", "bb", "dddd", "e"]
    rows = encoder.encode(texts, modality="text", batch_size=2, normalize_embeddings=False)
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [1, 4, 2, 4, 1]
    assert encoder.batches == [["cccc", "dddd"], ["bb", "a"], ["e"]]


def test_rows_are_of_length_one_unless_asked():
    rows = Lengths().encode(["a", "bbb"], modality="text")
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1.0, 1.0])
    assert Lengths().encode([], modality="text").shape == (0, 2)


def test_modality_may_be_left_out_only_when_there_is_one():
    with pytest.raises(EncoderError, match=r"no modality None\. Expected one of: text, image"):
        Lengths().encode(["a"])
    with pytest.raises(EncoderError, match="no modality 'audio'"):
        Lengths().decode(Item("a"), "audio")


def test_wrong_shape_of_a_model():
    encoder = Lengths()
    encoder.dim = 3
    with pytest.raises(EncoderError, match=r"shape \(1, 2\) for 1 items\. Expected \(1, 3\)"):
        encoder.encode(["a"], modality="text")


def test_torch_tensors_of_any_kind_are_taken():
    torch = pytest.importorskip("torch")
    encoder = Lengths()
    encoder.encode_batch = lambda batch, modality: torch.ones(len(batch), 2, dtype=torch.bfloat16, requires_grad=True)
    assert encoder.encode(["a"], modality="text") == pytest.approx(np.full((1, 2), 0.5**0.5), abs=1e-6)


@pytest.mark.parametrize("make", [TinyEncoder, PlainEncoder])
def test_what_counts_as_an_encoder(make: type):
    assert isinstance(make(), Encoder)


def test_embed_items_names_the_item_that_fails(tmp_path: Path):
    encoder = TinyEncoder()
    rows = embed_items(encoder, [Item("a", text="one"), Item("b", text="two")], modality="text")
    assert rows.shape == (2, 16)
    with pytest.raises(EncoderError, match=r"none\.png' cannot be encoded as image: cannot be read: No such file"):
        embed_items(encoder, [Item("a", path=str(tmp_path / "none.png"))], modality="image")


def test_load_user_class_with_options():
    encoder = load_encoder("tiny_encoder:TinyEncoder", dim=8)
    assert encoder.dim == 8
    assert load_encoder("tiny_encoder:PlainEncoder").name == "tiny_encoder:PlainEncoder"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("klip", {}, "there is no encoder 'klip'. Expected one of clip, clap"),
        ("", {}, "there is no encoder ''"),
        ("no_such_module_here:Class", {}, "there is no module 'no_such_module_here'"),
        ("tiny_encoder:Missing", {}, "module 'tiny_encoder' has no 'Missing'"),
        ("tiny_encoder:NotAnEncoder", {}, "is not an encoder: it lacks name, modalities, dim"),
        ("tiny_encoder:TinyEncoder", {"depth": 3}, "cannot be made with depth: .*depth"),
        ("tiny_encoder:PlainEncoder", {"device": "cpu"}, "cannot be made with device"),
    ],
)
def test_what_cannot_be_loaded(name: str, options: dict, message: str):
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, **options)


def test_missing_packages_name_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_importable", lambda module: module != "transformers")
    with pytest.raises(DependencyError, match=r"encoder 'clip' needs transformers.*pip install 'isthmus\[hf\]'"):
        load_encoder("clip")
    rows = {row["name"]: row for row in list_encoders()}
    assert not rows["clip"]["installed"]


def test_list_of_encoders():
    rows = {row["name"]: row for row in list_encoders()}
    assert {"clip", "clap", "ulip", "text", "openclip", "sentence-transformers", "toy"} <= set(rows)
    assert rows["clip"]["checkpoint"] == "openai/clip-vit-base-patch32"
    assert rows["clap"]["checkpoint"] == "laion/clap-htsat-fused"
    assert rows["ulip"]["checkpoint"] == "pointbert_ULIP-2.pt"
    assert rows["toy"]["installed"]
    for row in rows.values():
        assert set(row) >= {"name", "modalities", "dim", "extra", "installed", "cached", "checkpoint"}


def test_cached_looks_into_the_hugging_face_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert {row["name"]: row["cached"] for row in list_encoders()}["clip"] is False
    (tmp_path / "models--openai--clip-vit-base-patch32/snapshots/abc").mkdir(parents=True)
    assert {row["name"]: row["cached"] for row in list_encoders()}["clip"] is True


def test_listing_loads_no_model_library():
    code = "import sys; from isthmus.encoders import list_encoders; list_encoders(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False"


def test_hash_of_weights(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "b.bin").write_bytes(b"b")
    assert weights_sha256([tmp_path / "a.bin"]) == hashlib.sha256(b"a").hexdigest()
    both = weights_sha256([tmp_path / "a.bin", tmp_path / "b.bin"])
    assert both == weights_sha256([tmp_path / "b.bin", tmp_path / "a.bin"])
    assert both != weights_sha256([tmp_path / "a.bin"])
    with pytest.raises(EncoderError, match="without weight files"):
        weights_sha256([])


def test_blobs_of_the_cache_are_named_by_their_hash(tmp_path: Path):
    (tmp_path / ("e" * 64)).write_bytes(b"not hashed again")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / ("e" * 64))
    assert weights_sha256([tmp_path / "model.safetensors"]) == "e" * 64
