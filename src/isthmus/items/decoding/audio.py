"""Sounds, and the sound tracks of videos, to mono float32 at one rate; fixed windows of them, and their mean."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import normalize
from isthmus.core.limits import excess
from isthmus.items import Rejected
from isthmus.items.decoding import Source, require
from isthmus.items.decoding.containers import check_container, open_container

MAX_SECONDS = 3600.0
SILENCE = 1e-4
"""Swing around the mean, of full scale, below which a sound is silence: -80 dB, three steps of 16 bit."""

BEYOND_FULL_SCALE = 4.0
"""Loud recordings and lossy codecs overshoot full scale a little; samples beyond this are of another scale."""

_BLOCK = 1 << 18
_TAIL = 0.05
_UNKNOWN_LENGTH = 1 << 50

Signal = NDArray[np.float32]


def decode_audio(source: Source, *, rate: int, max_seconds: float = MAX_SECONDS) -> Signal:
    """Decode a sound, or a video's first sound track, to mono at `rate` samples a second.

    wav, flac, ogg, opus, mp3, aiff and the like are read by soundfile, everything else (m4a, mp4, webm ...) by
    PyAV. All channels are averaged; resampling is soxr's high quality, in a stream, so that no more is in memory than
    what is returned.

    Args:
        source: Bytes or a path.
        rate: Samples a second wanted.
        max_seconds: Longer sounds are refused.

    Returns:
        (samples,) float32, full scale at 1.

    Raises:
        Rejected: It holds no sound, is truncated, silent, of zero length, too long or too large once decoded, or has
            samples that are not finite or far beyond full scale.
    """
    packed = len(source) if isinstance(source, bytes) else _size(source)
    with _opened(source) as track:
        signal = _Signal(track, rate, packed, max_seconds)
        for block in track.blocks:
            signal.add(block)
    return signal.whole()


def _size(path: str | Path) -> int:
    """Bytes of a file of sound."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Track:
    """A sound as it is decoded.

    Attributes:
        rate: Samples a second in the file.
        frames: Number of samples that the file announces; 0 where it is not known.
        blocks: Stretches of the mono signal, (samples,) float32.
    """

    rate: int
    frames: int
    blocks: Iterator[Signal]


class _Signal:
    """A mono signal at the wanted rate, gathered from blocks, checked as it grows."""

    def __init__(self, track: _Track, rate: int, packed: int, max_seconds: float) -> None:
        self._own, self._rate, self._packed, self._max_seconds = track.rate, rate, packed, max_seconds
        self._parts: list[Signal] = []
        self._read, self._low, self._high = 0, math.inf, -math.inf
        self._resampler: Any = None
        if track.rate != rate:
            soxr = require("soxr", extra="audio", purpose="resampling sounds")
            self._resampler = soxr.ResampleStream(track.rate, rate, 1, dtype="float32", quality="HQ")
        self._check_length(track.frames)

    def add(self, block: Signal) -> None:
        """Check a block, resample it and keep it."""
        self._read += block.size
        self._check_length(self._read)
        if not np.isfinite(block).all():
            raise Rejected("samples that are NaN or infinite")
        if block.size:
            self._low, self._high = min(self._low, float(block.min())), max(self._high, float(block.max()))
        if max(-self._low, self._high) > BEYOND_FULL_SCALE:
            raise Rejected(
                f"samples from {self._low:g} to {self._high:g}, far beyond full scale, which is 1: integers that were "
                "written as floats? Scale them, or save them as 16 bit"
            )
        self._parts.append(self._resampler.resample_chunk(block) if self._resampler else block)

    def whole(self) -> Signal:
        """The signal; Rejected where there is nothing in it."""
        if not self._read:
            raise Rejected("zero length")
        if (self._high - self._low) / 2.0 < SILENCE:
            raise Rejected("silent (below -80 dB once mixed to mono)")
        if self._resampler:
            self._parts.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        signal = np.concatenate(self._parts)
        self._parts.clear()
        if signal.size == 0:
            raise Rejected(f"too short: less than one sample at {self._rate} a second")
        return signal

    def _check_length(self, samples: int) -> None:
        """Seconds, and bytes at the wanted rate: of the signal and of the windows that are cut from it."""
        seconds = samples / self._own
        if seconds > self._max_seconds:
            raise Rejected(f"too long: {seconds:,.0f} s or more, the limit is {self._max_seconds:,.0f} s")
        if fault := excess(round(seconds * self._rate * 8), self._packed):
            raise Rejected(f"too long: {seconds:,.0f} s at {self._rate:,} samples a second {fault}")


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
    elif step == length:  # windows that lie side by side need no copy
        return signal[: len(starts) * length].reshape(len(starts), length)
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


@contextmanager
def _opened(source: Source) -> Iterator[_Track]:
    """A sound by the first library that knows its format."""
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
        check_container(stream)
        file = None
        if head[4:8] != b"ftyp":  # mp4 and its kin: not soundfile's
            with suppress(soundfile.LibsndfileError, TypeError, ValueError):
                file = soundfile.SoundFile(stream)
        if file is not None:
            with file:
                yield _soundfile_track(file)
            return
        stream.seek(0)
        with _av_track(stream) as track:
            yield track


def _soundfile_track(file: Any) -> _Track:
    """Track of a file that soundfile reads, its samples still to come."""
    rate, frames = int(file.samplerate), int(file.frames)
    if rate <= 0:
        raise Rejected(f"a sample rate of {rate}")
    frames = 0 if frames > _UNKNOWN_LENGTH else frames
    # Of mp3 the number of frames is an estimate; everywhere else fewer than announced means that the end is missing.
    return _Track(rate, frames, _soundfile_blocks(file, rate, 0 if file.format == "MP3" else frames))


def _soundfile_blocks(file: Any, rate: int, frames: int) -> Iterator[Signal]:
    """Mono blocks of samples by soundfile; an end that is missing is refused."""
    size, read = max(_BLOCK // max(int(file.channels), 1), 1024), 0
    try:
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            read += len(block)
            yield block.mean(axis=1, dtype=np.float32)
    except RuntimeError as error:
        raise Rejected(f"damaged after {read / rate:.2f} s ({error})") from error
    if read < frames:
        raise Rejected(f"truncated: {read:,} of {frames:,} samples")


@contextmanager
def _av_track(stream: BinaryIO) -> Iterator[_Track]:
    """Sound track of a container that PyAV reads."""
    av = require("av", extra="audio", purpose="decoding m4a and the sound tracks of videos")
    try:
        container = open_container(av, stream)
    except av.error.FFmpegError as error:
        raise Rejected("no sound that soundfile or PyAV reads") from error
    with container:
        if not container.streams.audio:
            raise Rejected("no sound track")
        track = container.streams.audio[0]
        if track.codec_context is None:
            raise Rejected("a sound track of a kind that PyAV does not know")
        rate = int(track.codec_context.sample_rate or 0)
        if rate <= 0:
            raise Rejected(f"a sample rate of {rate}")
        yield _Track(rate, 0, _av_blocks(av, container, track, rate))


def _av_blocks(av: Any, container: Any, track: Any, rate: int) -> Iterator[Signal]:
    """Mono blocks of a track, whatever its sample format, and at its first rate throughout."""
    to_float = av.AudioResampler(format="fltp", rate=rate)
    read = 0
    try:
        for frame in container.decode(track):
            for part in to_float.resample(frame):
                block = part.to_ndarray().mean(axis=0, dtype=np.float32)
                read += block.size
                yield block
    except av.error.FFmpegError as error:
        if not read:
            raise Rejected("no sound that soundfile or PyAV reads") from error
        raise Rejected(f"damaged after {read / rate:.2f} s ({error.strerror})") from error
