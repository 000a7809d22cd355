"""Sounds of every rate, depth, channel count and container, and the windows that make their embeddings repeatable."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from isthmus.core.geometry import normalize
from isthmus.items import Rejected
from isthmus.items.decoding.audio import decode_audio, pool_windows, windows

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(signal: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, signal, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def film(signal: np.ndarray | None, rate: int = RATE, container: str = "mp4", codec: str = "aac") -> bytes:
    """A few frames of video with, or without, a sound track; or an m4a without video when the codec is aac in ipod."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        video = out.add_stream("mpeg4", rate=10) if container in ("mp4", "matroska") else None
        track = out.add_stream(codec, rate=rate, layout="mono") if signal is not None else None
        if video is not None:
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
                out.mux(video.encode(frame))
            out.mux(video.encode())
        if track is not None:
            for start in range(0, len(signal) - 1023, 1024):
                frame = av.AudioFrame.from_ndarray(signal[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                out.mux(track.encode(frame))
            out.mux(track.encode())
    return stream.getvalue()


def pitch(signal: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    return float(np.argmax(spectrum) * rate / len(signal))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_depths(subtype: str):
    decoded = decode_audio(encoded(tone(), subtype=subtype), rate=RATE)
    assert decoded.dtype == np.float32
    assert np.abs(decoded[:8000] - tone()).max() < 0.05


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_containers(kind: str, subtype: str | None):
    decoded = decode_audio(encoded(tone(1.0), kind=kind, subtype=subtype), rate=RATE)
    assert abs(len(decoded) - RATE) < 0.15 * RATE
    assert pitch(decoded, RATE) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("own", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_rates(own: int):
    decoded = decode_audio(encoded(tone(1.0, own), own), rate=RATE)
    assert abs(len(decoded) - RATE) <= 1
    assert pitch(decoded, RATE) == pytest.approx(440, abs=2)


def test_channels_are_averaged():
    left, right = tone(), tone(hertz=880.0)
    decoded = decode_audio(encoded(np.stack([left, right], axis=1), subtype="FLOAT"), rate=RATE)
    assert np.allclose(decoded, (left + right) / 2, atol=1e-6)
    six = np.stack([left] * 6, axis=1)
    assert np.allclose(decode_audio(encoded(six, subtype="FLOAT"), rate=RATE), left, atol=1e-6)


def test_bytes_and_path_agree(tmp_path: Path):
    (tmp_path / "a.flac").write_bytes(encoded(tone(), kind="FLAC"))
    a = decode_audio(tmp_path / "a.flac", rate=RATE)
    assert np.array_equal(a, decode_audio((tmp_path / "a.flac").read_bytes(), rate=RATE))


@pytest.mark.parametrize(
    ("container", "codec"), [("ipod", "aac"), ("mp4", "aac"), ("matroska", "pcm_s16le"), ("adts", "aac")]
)
def test_m4a_and_sound_tracks_of_video(container: str, codec: str, tmp_path: Path):
    signal = tone(1.0)
    if codec == "pcm_s16le":
        pytest.importorskip("av")
        data = film_pcm(signal)
    else:
        data = film(signal, container=container, codec=codec)
    (tmp_path / "film").write_bytes(data)
    for source in (data, tmp_path / "film"):
        decoded = decode_audio(source, rate=RATE)
        assert abs(len(decoded) - RATE) < 0.15 * RATE
        assert pitch(decoded, RATE) == pytest.approx(440, abs=5)


def film_pcm(signal: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as out:
        track = out.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        ints = np.repeat((signal * 32767).astype(np.int16), 2)[None]
        for start in range(0, len(signal) - 1023, 1024):
            part = ints[:, 2 * start : 2 * (start + 1024)]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(track.encode(frame))
        out.mux(track.encode())
    return stream.getvalue()


def test_video_without_sound():
    with pytest.raises(Rejected, match="no sound track"):
        decode_audio(film(None), rate=RATE)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (np.zeros(4000, dtype=np.float32), "silent"),
        (np.full(4000, 0.3, dtype=np.float32), "silent"),
        (np.full(4000, 2e-5, dtype=np.float32) * np.sign(np.sin(np.arange(4000))).astype(np.float32), "silent"),
        (np.zeros(0, dtype=np.float32), "zero length"),
        (np.array([0.1, np.nan, 0.2], dtype=np.float32), "NaN"),
        (np.array([0.1, np.inf, 0.2], dtype=np.float32), "NaN or infinite"),
    ],
)
def test_nothing_to_hear(signal: np.ndarray, reason: str):
    with pytest.raises(Rejected, match=reason):
        decode_audio(encoded(signal, subtype="FLOAT"), rate=RATE)


def test_channels_that_cancel_out_are_silent():
    both = np.stack([tone(), -tone()], axis=1)
    with pytest.raises(Rejected, match="silent"):
        decode_audio(encoded(both, subtype="FLOAT"), rate=RATE)


def test_a_quiet_sound_is_not_silence():
    assert decode_audio(encoded(tone() * 1e-3, subtype="FLOAT"), rate=RATE).size


@pytest.mark.parametrize("data", [b"", b"RIFF", b"hello, this is no sound at all", b"fLaC\0\0\0\x22" + b"\xff" * 60])
def test_what_is_no_sound(data: bytes):
    with pytest.raises(Rejected):
        decode_audio(data, rate=RATE)


def test_missing_file(tmp_path: Path):
    with pytest.raises(Rejected, match="No such file"):
        decode_audio(tmp_path / "none.wav", rate=RATE)


def test_truncated_wav_and_flac_are_rejected():
    wav = encoded(tone(1.0))
    with pytest.raises(Rejected, match="truncated"):
        decode_audio(wav[: len(wav) // 2], rate=RATE)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    flac = encoded(noise, kind="FLAC")
    with pytest.raises(Rejected, match=r"truncated|damaged"):
        decode_audio(flac[: len(flac) // 2], rate=RATE)


def test_streamed_wav_without_a_true_size_is_read():
    wav = bytearray(encoded(tone()))
    position = wav.index(b"data")
    for size in (0xFFFFFFFF, 0):
        wav[position + 4 : position + 8] = struct.pack("<I", size)
        if size:
            assert decode_audio(bytes(wav), rate=RATE).size == 8000


def test_too_long():
    with pytest.raises(Rejected, match=r"too long: 1 s or more"):
        decode_audio(encoded(tone(1.0)), rate=RATE, max_seconds=0.5)
    with pytest.raises(Rejected, match="too long"):
        decode_audio(film(tone(1.0)), rate=RATE, max_seconds=0.3)


def test_one_sample_at_a_high_rate():
    with pytest.raises(Rejected):
        decode_audio(encoded(np.array([0.5], dtype=np.float32), 48_000), rate=8_000)


def test_window_of_a_short_signal_repeats_it_then_pads():
    signal = np.arange(1, 5, dtype=np.float32)
    assert windows(signal, 10, 1.0, 1.0).tolist() == [[1, 2, 3, 4, 1, 2, 3, 4, 0, 0]]
    assert windows(signal, 10, 1.0, 1.0, pad="zero").tolist() == [[1, 2, 3, 4, 0, 0, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="pad"):
        windows(signal, 10, 1.0, 1.0, pad="mirror")


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (100, [0]),
        (104, [0]),  # a tail below a twentieth of a window is padding of the codec
        (105, [0, 5]),
        (150, [0, 50]),
        (200, [0, 100]),
        (230, [0, 100, 130]),
    ],
)
def test_windows_cover_the_signal(samples: int, starts: list[int]):
    signal = np.arange(samples, dtype=np.float32)
    cut = windows(signal, 10, 10.0, 10.0)
    assert cut.shape == (len(starts), 100)
    assert cut[:, 0].tolist() == starts


def test_hop_smaller_than_a_window():
    cut = windows(np.arange(200, dtype=np.float32), 10, 10.0, 5.0)
    assert cut[:, 0].tolist() == [0, 50, 100]


def test_pooling_is_the_mean_of_unit_rows():
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32) * 7
    pooled = pool_windows(x, [1, 3, 2])
    unit = normalize(x)
    expected = normalize(np.stack([unit[0], unit[1:4].mean(axis=0), unit[4:].mean(axis=0)]))
    assert np.allclose(pooled, expected, atol=1e-6)
    assert pool_windows(np.empty((0, 5), dtype=np.float32), []).shape == (0, 5)


def test_real_sounds(shared: Path):
    folders = {"sounds": ("*/*.flac", 100), "digits": ("*.wav", 300)}
    for folder, (pattern, count) in folders.items():
        paths = sorted((shared / "data/raw" / folder).glob(pattern))
        assert len(paths) == count
        for path in paths:
            info = soundfile.info(str(path))
            decoded = decode_audio(path, rate=16_000)
            assert len(decoded) == pytest.approx(info.duration * 16_000, abs=2)
    for path in (shared / "data/official").glob("*.wav"):
        assert windows(decode_audio(path, rate=48_000), 48_000, 10.0, 10.0).shape == (1, 480_000)
