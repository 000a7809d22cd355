"""Sounds, and the sound tracks of videos, to mono float32 at one rate; fixed windows of them, and their mean."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import normalize
from isthmus.items import Rejected
from isthmus.items.decoding import Source, require

MAX_SECONDS = 3600.0
SILENCE = 1e-4
"""Swing around the mean, of full scale, below which a sound is silence: -80 dB, three steps of 16 bit."""

_BLOCK = 1 << 18
_TAIL = 0.05
_UNKNOWN_LENGTH = 1 << 50

Signal = NDArray[np.float32]


def decode_audio(source: Source, *, rate: int, max_seconds: float = MAX_SECONDS) -> Signal:
    """Decode a sound, or a video's first sound track, to mono at `rate` samples a second.

    wav, flac, ogg, opus, mp3, aiff and the like are read by soundfile, everything else (m4a, mp4, webm ...) by
    PyAV. All channels are averaged; resampling is soxr's high quality, applied to the whole signal at once.

    Args:
        source: Bytes or a path.
        rate: Samples a second wanted.
        max_seconds: Longer sounds are refused.

    Returns:
        (samples,) float32, full scale at 1.

    Raises:
        Rejected: It holds no sound, is truncated, silent, of zero length, too long, or has samples that are not finite.
    """
    signal, own_rate = _read(source, max_seconds)
    if signal.size == 0:
        raise Rejected("zero length")
    if not np.isfinite(signal).all():
        raise Rejected("samples that are NaN or infinite")
    if float(signal.max() - signal.min()) / 2.0 < SILENCE:
        raise Rejected("silent (below -80 dB once mixed to mono)")
    if own_rate != rate:
        soxr = require("soxr", extra="audio", purpose="resampling sounds")
        signal = np.asarray(soxr.resample(signal, own_rate, rate, quality="HQ"), dtype=np.float32)
    if signal.size == 0:
        raise Rejected(f"too short: less than one sample at {rate} a second")
    return signal


def windows(signal: Signal, rate: int, seconds: float, hop: float, *, pad: str = "repeat") -> Signal:
    """Cut a signal into windows of one length, always the same ones.

    Windows start every `hop` seconds while they fit; what is left at the end gets a last window that ends with the
    signal, unless it is shorter than a twentieth of a window (the padding that mp3 and aac leave behind a clip of
    ten seconds must not double its cost). A signal shorter than a window gives one window.

    Args:
        signal: (samples,) mono.
        rate: Samples a second.
        seconds: Length of a window.
        hop: Seconds from one start to the next.
        pad: What fills a window beyond a short signal: "repeat" the signal (as CLAP was trained), or "zero".

    Returns:
        (windows, round(seconds * rate)) float32.
    """
    length, step = round(seconds * rate), max(round(hop * rate), 1)
    if pad not in ("repeat", "zero"):
        raise ValueError(f'pad must be "repeat" or "zero", got {pad!r}')
    if signal.size <= length:
        return _padded(signal, length, pad)[None]
    starts = list(range(0, signal.size - length + 1, step))
    if signal.size - (starts[-1] + length) >= max(_TAIL * length, 1.0):
        starts.append(signal.size - length)
    return np.stack([signal[start : start + length] for start in starts])


def _padded(signal: Signal, length: int, pad: str) -> Signal:
    """Whole repetitions of the signal, as CLAP's `repeatpad`, then zeros."""
    if pad == "repeat" and signal.size:
        signal = np.tile(signal, length // signal.size)
    return np.pad(signal, (0, length - signal.size)).astype(np.float32)


def pool_windows(embeddings: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """Average the windows of each sound.

    Args:
        embeddings: (sum of counts, dim) embeddings of all windows, one sound after another.
        counts: Windows of each sound, each at least 1.

    Returns:
        (sounds, dim) float32 unit rows: the mean of the unit embeddings of a sound's windows, scaled to unit length.
    """
    starts = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])
    unit = normalize(embeddings)
    means = [unit[a:b].mean(axis=0, dtype=np.float64) for a, b in itertools.pairwise(starts)]
    return normalize(np.asarray(means, dtype=np.float32).reshape(len(counts), embeddings.shape[1]))


def _read(source: Source, max_seconds: float) -> tuple[Signal, int]:
    """Mono signal and its rate, by the first library that knows the format."""
    soundfile = require("soundfile", extra="audio", purpose="decoding sounds")
    stream: BinaryIO
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror or error}") from error
    with stream:
        head = stream.read(12)
        if not head:
            raise Rejected("zero length (an empty file)")
        if head[4:8] != b"ftyp":  # mp4 and its kin: not soundfile's
            _refuse_short_riff(stream, head)
            stream.seek(0)
            try:
                file = soundfile.SoundFile(stream)
            except (soundfile.LibsndfileError, TypeError, ValueError):
                pass
            else:
                with file:
                    return _read_soundfile(file, max_seconds)
        stream.seek(0)
        return _read_av(stream, max_seconds)


def _read_soundfile(file: Any, max_seconds: float) -> tuple[Signal, int]:
    rate, frames = int(file.samplerate), int(file.frames)
    if frames > _UNKNOWN_LENGTH:
        frames = 0
    if rate <= 0:
        raise Rejected(f"a sample rate of {rate}")
    _refuse_long(frames, rate, max_seconds)
    blocks: list[Signal] = []
    read = 0
    try:
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block.mean(axis=1, dtype=np.float32))
            read += len(block)
            _refuse_long(read, rate, max_seconds)
    except RuntimeError as error:
        raise Rejected(f"damaged after {read / rate:.2f} s ({error})") from error
    # Of mp3 the number of frames is an estimate; everywhere else fewer than announced means that the end is missing.
    if read < frames and file.format != "MP3":
        raise Rejected(f"truncated: {read:,} of {frames:,} samples")
    return _joined(blocks), rate


def _read_av(stream: BinaryIO, max_seconds: float) -> tuple[Signal, int]:
    av = require("av", extra="audio", purpose="decoding m4a and the sound tracks of videos")
    blocks: list[Signal] = []
    rate, read = 1, 0
    try:
        with av.open(stream, mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise Rejected("no sound track")
            track = container.streams.audio[0]
            rate = int(track.codec_context.sample_rate or 0)
            if rate <= 0:
                raise Rejected(f"a sample rate of {rate}")
            for block in _track_blocks(av, container, track, rate):
                blocks.append(block.mean(axis=0, dtype=np.float32))
                read += blocks[-1].size
                _refuse_long(read, rate, max_seconds)
    except av.error.FFmpegError as error:
        if not blocks:
            raise Rejected("no sound that soundfile or PyAV reads") from error
        raise Rejected(f"damaged after {read / rate:.2f} s ({error.strerror})") from error
    return _joined(blocks), rate


def _track_blocks(av: Any, container: Any, track: Any, rate: int) -> Iterator[Signal]:
    """(channels, samples) float32 blocks of a track, whatever its sample format, and at its first rate throughout."""
    to_float = av.AudioResampler(format="fltp", rate=rate)
    for frame in container.decode(track):
        for part in to_float.resample(frame):
            yield part.to_ndarray()


def _joined(blocks: list[Signal]) -> Signal:
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _refuse_long(samples: int, rate: int, max_seconds: float) -> None:
    if samples / rate > max_seconds:
        raise Rejected(f"too long: {samples / rate:,.0f} s or more, the limit is {max_seconds:,.0f} s")


def _refuse_short_riff(stream: BinaryIO, head: bytes) -> None:
    """Refuse a wav whose end is missing, which soundfile reads without a word. Streamed files announce no true size."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return
    end = stream.seek(0, io.SEEK_END)
    position = 12
    while position + 8 <= end:
        stream.seek(position)
        name, size = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            if size < 0x7FFFF000 and position + 8 + size > end:
                raise Rejected(f"truncated: {end - position - 8:,} of {size:,} bytes of samples")
            return
        position += 8 + size + size % 2
