"""One frame of a video: the one at its middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isthmus.items import Rejected
from isthmus.items.decoding import require


def middle_frame(path: str | Path) -> Any:
    """The first frame that is shown at or after half of a video's length, as a `PIL.Image.Image` of mode RGB.

    Raises:
        Rejected: It holds no picture, or cannot be decoded.
    """
    av = require("av", extra="audio", purpose="decoding videos")
    try:
        with av.open(str(path), mode="r", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise Rejected("no picture track")
            frame = _at_half(container, container.streams.video[0])
    except (av.error.FFmpegError, OSError) as error:
        raise Rejected(f"no video that PyAV reads ({getattr(error, 'strerror', None) or error})") from error
    if frame is None:
        raise Rejected("no frame can be decoded")
    return frame.to_image()


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
