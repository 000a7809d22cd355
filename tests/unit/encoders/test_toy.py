"""The demo's encoders: their identity, what they read, and that the shipped weights read numbers they never saw."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.demo import raw, world
from isthmus.encoders import Item, Rejected, embed_items, load_encoder
from isthmus.encoders.toy.decoders import ToyDecoder
from isthmus.encoders.toy.encoder import DIMS, WEIGHTS, load_space
from isthmus.errors import EncoderError

ROOT = Path(__file__).resolve().parents[3]
MODALITIES = {"picture": ("image", "text"), "sound": ("audio", "text"), "shape": ("point_cloud", "image")}
LEAST = {"picture": 0.8, "sound": 0.8, "shape": 0.7}
"""Recall at 1 on 240 unseen numbers that the shipped weights must reach; strokes of other writers are the hardest."""


@pytest.fixture(scope="module")
def encoders():
    return {name: load_encoder(f"toy:{name}") for name in DIMS}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return raw.write_test(tmp_path_factory.mktemp("raw"), seed=5)


def items(drawn: raw.Drawn, modality: str, count: int | None = None) -> list[Item]:
    if modality == "text":
        lines = drawn.source("text").read_text(encoding="utf-8").splitlines()[:count]
        return [Item(id=str(row), text=line) for row, line in enumerate(lines)]
    return [Item(id=name, path=str(drawn.source(modality) / name)) for name in drawn.ids[modality][:count]]


def test_the_weights_are_small_and_read_only_numbers():
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) < 8e6
    assert sorted(file.stem for file in WEIGHTS.glob("*.safetensors")) == sorted(DIMS)


@pytest.mark.parametrize("name", DIMS)
def test_identity(encoders, name):
    encoder = encoders[name]
    assert encoder.name == encoder.identity["id"] == f"toy:{name}"
    assert encoder.identity["library"] == "isthmus"
    assert encoder.identity["revision"] == "1"
    assert len(encoder.identity["weights_sha256"]) == 64
    assert (encoder.modalities, encoder.dim) == (MODALITIES[name], DIMS[name])
    for modality in encoder.modalities:
        assert json.loads(json.dumps(encoder.preprocessing(modality)))


def test_no_two_encoders_share_weights(encoders):
    assert len({encoder.identity["weights_sha256"] for encoder in encoders.values()}) == 3


@pytest.mark.parametrize("name", DIMS)
def test_the_shipped_weights_read_numbers_and_writers_they_never_saw(encoders, drawn, name):
    first, second = (embed_items(encoders[name], items(drawn, m), modality=m, batch_size=64) for m in MODALITIES[name])
    similarity = first @ second.T
    one_way, other_way = ((s.argmax(axis=1) == np.arange(len(s))).mean() for s in (similarity, similarity.T))
    assert min(one_way, other_way) > LEAST[name]


def test_the_recorded_scores_are_those_of_the_shipped_weights(encoders):
    recorded = json.loads((ROOT / "bench/results/demo_encoders.json").read_text())
    for name, encoder in encoders.items():
        row = recorded[name]
        assert row["dim"] == encoder.dim
        assert row["weights_sha256"] == encoder.identity["weights_sha256"]
        assert min(value for key, value in row.items() if "_to_" in key) > LEAST[name]


@pytest.mark.parametrize("name", DIMS)
def test_company_changes_no_embedding(encoders, drawn, name):
    for modality in MODALITIES[name]:
        some = items(drawn, modality, 9)
        together = embed_items(encoders[name], some, modality=modality)
        alone = np.concatenate([embed_items(encoders[name], [item], modality=modality) for item in some])
        assert np.allclose(together, alone, atol=2e-5)
        assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_any_size_rate_and_case_will_do(encoders, tmp_path):
    import soundfile
    from PIL import Image

    rng, split = np.random.default_rng(3), world.SPLITS["test"]
    pixels = world.draw_images(np.array([305]), split.image_writers, rng)[0]
    Image.fromarray(pixels).resize((216, 84), Image.Resampling.BICUBIC).convert("RGB").save(tmp_path / "large.jpg")
    samples = world.dial(305, rng)
    soundfile.write(tmp_path / "stereo.flac", np.stack([np.repeat(samples, 2)] * 2, axis=1), 2 * world.RATE)
    picture, sound = encoders["picture"], encoders["sound"]
    near = (
        picture.encode([pixels], modality="image")
        @ embed_items(picture, [Item(id="a", path=str(tmp_path / "large.jpg"))], modality="image").T
    )
    assert near > 0.9
    texts = [Item(id="a", text="Three Hundred And FIVE"), Item(id="b", text="three hundred and five")]
    assert np.ptp(embed_items(sound, texts, modality="text"), axis=0).max() < 1e-6
    heard = embed_items(sound, [Item(id="a", path=str(tmp_path / "stereo.flac"))], modality="audio")
    said = embed_items(sound, [Item(id="a", text="305"), Item(id="b", text="816")], modality="text")
    assert heard[0] @ said[0] > heard[0] @ said[1] + 0.2


def test_decoders_are_picklable_and_need_no_torch():
    code = (
        "import pickle, sys\n"
        "from isthmus.encoders.toy.decoders import ToyDecoder\n"
        "pickle.loads(pickle.dumps(ToyDecoder('image')))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert pickle.loads(pickle.dumps(ToyDecoder("audio"))) == ToyDecoder("audio")


def test_a_damaged_file_is_rejected(encoders, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(Rejected):
        encoders["picture"].decode(Item(id="a", path=str(tmp_path / "broken.png")), "image")
    with pytest.raises(Rejected, match="empty text"):
        encoders["picture"].decode(Item(id="a", text="  "), "text")


def test_unknown_names_and_modalities():
    with pytest.raises(EncoderError, match=r"no encoder 'toy:smell'. Expected one of toy:picture, toy:sound"):
        load_encoder("toy:smell")
    with pytest.raises(EncoderError, match=r"'toy:sound' has no modality 'image'. Expected one of: audio, text"):
        load_encoder("toy:sound").encode([], modality="image")


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"does not hold the weights of toy:sound"):
        load_space("sound", WEIGHTS / "picture.safetensors")
    (tmp_path / "sound.safetensors").write_bytes(b"no")
    with pytest.raises(EncoderError, match=r"does not hold the weights of toy:sound .* Reinstall isthmus"):
        load_space("sound", tmp_path / "sound.safetensors")
    with pytest.raises(EncoderError, match=r"does not hold the weights of toy:sound"):
        load_space("sound", tmp_path / "missing.safetensors")


def test_the_training_script_trains_and_scores(tmp_path):
    script = [sys.executable, str(ROOT / "scripts/train_demo_encoders.py"), "--only", "picture", "--out", str(tmp_path)]
    subprocess.run([*script, "--steps", "2", "--batch", "8"], check=True, capture_output=True)
    row = json.loads((tmp_path / "demo_encoders.json").read_text())["picture"]
    assert row["gallery"] == 240
    assert 0.0 <= row["image_to_text_r@1"] <= 0.2
    assert load_space("picture", tmp_path / "picture.safetensors").modalities == ("image", "text")
