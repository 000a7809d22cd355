"""CLAP: clips of any length give the same embedding every time, and the spectrogram is the extractor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from isthmus.encoders import load_encoder
from isthmus.encoders.clap import LogMel
from isthmus.errors import EncoderError
from isthmus.items import Item
from tiny_models import save_clap, save_clip

RATE = 48_000
SECONDS = [0.3, 4.0, 10.0, 15.0, 60.0]


def tones(seconds: float, rate: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (200 + 150 * seed + 40 * time) * time)
    return (0.4 * sweep + 0.05 * rng.normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    return {name: save_clap(home / name, fused=fused) for name, fused in (("fused", True), ("unfused", False))}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    home = tmp_path_factory.mktemp("sounds")
    items = []
    for number, seconds in enumerate(SECONDS):
        rate = (48_000, 16_000, 22_050)[number % 3]
        soundfile.write(home / f"{number}.wav", tones(seconds, rate, number), rate)
        items.append(Item(str(number), path=str(home / f"{number}.wav")))
    return items


@pytest.mark.parametrize("name", ["fused", "unfused"])
def test_a_clip_of_any_length_gives_one_embedding(name: str, models: dict[str, Path], files: list[Item]) -> None:
    encoder = load_encoder(f"clap:{models[name]}", device="cpu")
    assert encoder.modalities == ("audio", "text")
    decoded = [encoder.decode(item, "audio") for item in files]
    assert [len(windows) for windows in decoded] == [1, 1, 1, 2, 6]
    together = encoder.encode(decoded, modality="audio")
    assert together.shape == (5, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    for size in (1, 2):
        again = encoder.encode([encoder.decode(item, "audio") for item in files], modality="audio", batch_size=size)
        assert ((together * again).sum(axis=1) > 1 - 1e-6).all()
    state = np.random.get_state()[1].copy()
    encoder.encode(decoded[:1], modality="audio")
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("name", ["fused", "unfused"])
def test_a_clip_of_ten_seconds_is_embedded_as_the_library_does(name: str, models: dict[str, Path]) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    sound = tones(10.0, RATE, 3)
    extractor = ClapFeatureExtractor.from_pretrained(models[name])
    inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]))  # it draws one to be long
    with torch.inference_mode():
        expected = ClapModel.from_pretrained(models[name]).eval().get_audio_features(**inputs).pooler_output[0].numpy()
    encoder = load_encoder(f"clap:{models[name]}", device="cpu")
    got = encoder.encode([sound], modality="audio")[0]
    assert got @ expected / np.linalg.norm(expected) > 1 - 1e-5


def test_a_long_clip_is_the_mean_of_its_windows(models: dict[str, Path]) -> None:
    encoder = load_encoder(f"clap:{models['unfused']}", device="cpu")
    sound = tones(25.0, RATE, 1)
    cuts = [sound[: 10 * RATE], sound[10 * RATE : 20 * RATE], sound[15 * RATE :]]
    mean = encoder.encode(cuts, modality="audio").mean(axis=0)
    got = encoder.encode([sound], modality="audio")[0]
    assert got @ mean / np.linalg.norm(mean) > 1 - 1e-6
    closer: Any = load_encoder(f"clap:{models['unfused']}", device="cpu", hop_seconds=5.0)
    assert len(closer.cut.cut(sound)) == 4
    assert closer.preprocessing("audio")["hop_seconds"] == 5.0


@pytest.mark.parametrize("truncation", ["fusion", "rand_trunc"])
@pytest.mark.parametrize("seconds", [0.7, 3.4, 10.0])
def test_the_spectrogram_is_the_extractors(truncation: str, seconds: float) -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation=truncation)
    sound = tones(seconds, RATE, 2)
    expected = np.asarray(extractor(sound, sampling_rate=RATE, return_tensors="np")["input_features"])[0, 0]
    repeated = np.tile(sound, 10 * RATE // len(sound))
    padded = np.pad(repeated, (0, 10 * RATE - len(repeated)))
    got = LogMel.of(extractor)(torch.from_numpy(padded)[None])[0].numpy()
    assert got.shape == expected.shape == (1001, 64)
    assert np.abs(got - expected).max() < 1e-2  # decibels
    assert np.abs(got - expected).mean() < 1e-4


def test_captions_do_not_change_with_their_padding_and_long_ones_are_counted(models: dict[str, Path]) -> None:
    encoder: Any = load_encoder(f"clap:{models['fused']}", device="cpu")
    captions = ["rain", "a dog barks twice and then a door is closed", "wind in the trees"]
    together = encoder.encode(captions, modality="text")
    alone = np.concatenate([encoder.encode([caption], modality="text") for caption in captions])
    assert ((together * alone).sum(axis=1) > 1 - 1e-6).all()
    assert encoder.truncated == 0
    encoder.encode(["and on and on " * 20, "short"], modality="text")
    assert encoder.truncated == 1
    assert encoder.preprocessing("text") == {"max_tokens": 62}


def test_preprocessing_says_what_is_done_to_sounds(models: dict[str, Path]) -> None:
    seen = load_encoder(f"clap:{models['fused']}", device="cpu").preprocessing("audio")
    assert (seen["sample_rate"], seen["window_seconds"], seen["hop_seconds"]) == (48_000, 10.0, 10.0)
    assert (seen["pooling"], seen["padding"], seen["is_longer"], seen["mel"]) == ("mean", "repeat", False, "htk")
    assert load_encoder(f"clap:{models['unfused']}", device="cpu").preprocessing("audio")["mel"] == "slaney"


def test_other_models_are_refused(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    with pytest.raises(EncoderError, match=r"is a model of type 'clip'\. Expected a CLAP"):
        load_encoder(f"clap:{folder}", device="cpu")
