"""Items of a gallery as they are seen and heard: decoded anew, small, and never the file itself.

The path of an item stands in the metadata of a space, which may be anybody's. So a file is only ever decoded as what
its modality says, and what leaves is the decoder's result: a file that is no picture shows nothing.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.items import Item, Rejected

PIXELS = 480
"""Longest side of a thumbnail."""
RATE, SECONDS = 22_050, 30.0
"""Sample rate and longest stretch of a sound as it is played."""
POINTS = 2_048
"""Points of a shape as it is drawn."""
TYPES = {"image": "image/webp", "video": "image/webp", "audio": "audio/wav", "point_cloud": "application/octet-stream"}
"""What `preview` gives for each modality."""


@dataclass(frozen=True)
class Preview:
    """Decoder of one modality to the bytes that a page shows; picklable, so that a process of its own can run it.

    Attributes:
        modality: image, video, audio or point_cloud.
        max_bytes: Largest file that is opened.
    """

    modality: str
    max_bytes: int

    def __call__(self, item: Item) -> bytes:
        """The item as bytes of `TYPES[modality]`.

        Raises:
            Rejected: It cannot be decoded, is no plain file, or is too large.
        """
        check_file(item, self.max_bytes)
        return {"image": _picture, "video": _frame, "audio": _sound, "point_cloud": _points}[self.modality](item)


def item_of(metadata: Mapping[str, Any], modality: str, name: str) -> Item | None:
    """The item whose path the metadata of a gallery names, or None where it names none.

    A place such as `tar!member` is no plain path and shows nothing.
    """
    path = metadata.get(f"{modality}_path")
    return Item(id=name, path=path) if isinstance(path, str) and path and "!" not in path else None


def check_file(item: Item, max_bytes: int) -> None:
    """Refuse what is no plain file (a pipe or device may never end) or too large.

    Raises:
        Rejected: With the reason.
    """
    try:
        state = os.stat(item.path or "")
    except (OSError, ValueError) as error:
        raise Rejected("cannot be found") from error
    if not stat.S_ISREG(state.st_mode):
        raise Rejected("is no plain file")
    if state.st_size > max_bytes:
        raise Rejected(f"has {state.st_size:,} bytes, more than {max_bytes:,}")


def _picture(item: Item) -> bytes:
    from isthmus.items.decoding.image import open_image

    return _webp(open_image(item))


def _frame(item: Item) -> bytes:
    from isthmus.items.decoding.video import middle_frame

    return _webp(middle_frame(item.path or ""))


def _webp(image: Any) -> bytes:
    out = io.BytesIO()
    image = image.convert("RGB")
    image.thumbnail((PIXELS, PIXELS))
    image.save(out, format="WEBP", quality=82)
    return out.getvalue()


def _sound(item: Item) -> bytes:
    from isthmus.items.decoding.audio import decode_audio

    signal = decode_audio(item.path or "", rate=RATE)[: int(RATE * SECONDS)]
    samples = np.clip(np.asarray(signal, dtype=np.float32), -1.0, 1.0)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767.0).astype("<i2").tobytes())
    return out.getvalue()


def _points(item: Item) -> bytes:
    """A count, then float32 xyz and bytes rgb, little-endian; grey where the file has no colours."""
    from isthmus.items.decoding.point_cloud import decode_point_cloud

    shape = decode_point_cloud(item.path or "", points=POINTS, colours=True)
    rgb = (np.clip(shape[:, 3:], 0.0, 1.0) * 255.0).astype(np.uint8)
    return struct.pack("<I", len(shape)) + shape[:, :3].astype("<f4").tobytes() + rgb.tobytes()
