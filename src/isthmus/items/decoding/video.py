"""One frame of a video: the one at its middle."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from isthmus.core.limits import excess
from isthmus.items import Rejected
from isthmus.items.decoding import require
from isthmus.items.decoding.containers import check_container, open_container

_COPIES = 24
"""Bytes a pixel: the frames that a decoder keeps to predict from, and one in RGB."""

_TURNS = {
    (-1, 0, 0, -1): "ROTATE_180",
    (0, 1, -1, 0): "ROTATE_270",
    (0, -1, 1, 0): "ROTATE_90",
    (-1, 0, 0, 1): "FLIP_LEFT_RIGHT",
    (1, 0, 0, -1): "FLIP_TOP_BOTTOM",
    (0, 1, 1, 0): "TRANSPOSE",
    (0, -1, -1, 0): "TRANSVERSE",
}
"""Pillow's names of the turns, by the signs of a display matrix: where x and y of a stored pixel go."""


def middle_frame(path: str | Path) -> Any:
    """The first frame that is shown at or after half of a video's length, upright, as a `PIL.Image.Image` of mode RGB.

    The turn that phones write beside the frames (the display matrix) is applied, as EXIF orientation is to pictures.

    Raises:
        Rejected: It holds no picture, is truncated, too large, or cannot be decoded.
    """
    av = require("av", extra="audio", purpose="decoding videos")
    try:
        with open(path, "rb") as stream:
            check_container(stream)
        with open_container(av, str(path)) as container:
            if not container.streams.video:
                raise Rejected("no picture track")
            track = container.streams.video[0]
            if track.codec_context is None:
                raise Rejected("a picture track of a kind that PyAV does not know")
            if fault := excess(track.width * track.height * _COPIES, os.stat(path).st_size):
                raise Rejected(f"too large: {track.width:,} x {track.height:,} pixels; a frame {fault}")
            frame = _at_half(container, track)
    except (av.error.FFmpegError, OSError) as error:
        raise Rejected(f"no video that PyAV reads ({getattr(error, 'strerror', None) or error})") from error
    if frame is None:
        raise Rejected("no frame can be decoded")
    return _turned(frame)


def _turned(frame: Any) -> Any:
    """A frame as it is to be shown; one without a turn, or with one that is no quarter, as it is stored."""
    image_module = require("PIL.Image", extra="image", purpose="decoding videos")
    image = frame.to_image()
    for side in (frame.side_data[i] for i in range(len(frame.side_data))):  # an iterator gives types from PyAV 19 on
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("<9i", bytes(side)[:36])
            name = _TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)))
            return image if name is None else image.transpose(image_module.Transpose[name])
    return image


def _sign(value: int) -> int:
    """Value of a number of 16 bits before and 16 behind the point."""
    return 0 if abs(value) < 1 << 12 else (1 if value > 0 else -1)


def _at_half(container: Any, track: Any) -> Any:
    """The frame, or the last one before it where the video ends early; None where there is none."""
    half = float(container.duration or 0) / 2e6  # containers count microseconds
    if half > 0.0:
        container.seek(int((container.start_time or 0) + half * 1e6))
    start = float((container.start_time or 0) / 1e6)
    last = None
    for frame in container.decode(track):
        last = frame
        if frame.time is None or frame.time - start >= half - 1e-9:
            break
    return last
