"""Items as they are seen and heard: decoded anew, small, and never the file itself.

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

from isthmus.core.geometry import Array
from isthmus.items.item import Item, Rejected

TYPES = {"image": "image/webp", "video": "image/webp", "audio": "audio/wav", "point_cloud": "application/octet-stream"}
"""What `Preview` gives for each modality; `Preview(still=True)` gives webp for shapes and mp3 for sounds."""
STILL_TYPES = TYPES | {"audio": "audio/mpeg", "point_cloud": "image/webp"}
RATES = {False: 22_050, True: 16_000}
"""Sample rate of a sound as it is played."""


@dataclass(frozen=True)
class Preview:
    """Decoder of one modality to the bytes that a page shows; picklable, so that a process of its own can run it.

    Attributes:
        modality: image, video, audio or point_cloud.
        max_bytes: Largest file that is opened.
        pixels: Longest side of a picture.
        seconds: Longest stretch of a sound.
        points: Points of a shape.
        still: For a document: a shape as a picture, a sound as mp3.
    """

    modality: str
    max_bytes: int = 256 * 2**20
    pixels: int = 480
    seconds: float = 30.0
    points: int = 2_048
    still: bool = False

    def __call__(self, item: Item) -> bytes:
        """The item as bytes of `TYPES[modality]`.

        Raises:
            Rejected: It cannot be decoded, is no plain file, or is too large.
        """
        check_file(item, self.max_bytes)
        path = item.path or ""
        if self.modality == "image":
            from isthmus.items.decoding.image import open_image

            return _webp(open_image(item), self.pixels)
        if self.modality == "video":
            from isthmus.items.decoding.video import middle_frame

            return _webp(middle_frame(path), self.pixels)
        return self._sound(path) if self.modality == "audio" else self._shape(path)

    def _sound(self, path: str) -> bytes:
        """First seconds of a sound, as MP3 or WAV."""
        from isthmus.items.decoding.audio import decode_audio

        rate = RATES[self.still]
        signal = np.clip(decode_audio(path, rate=rate)[: int(rate * self.seconds)], -1.0, 1.0)
        return _mp3(signal, rate) if self.still else _wav(signal, rate)

    def _shape(self, path: str) -> bytes:
        """Points of a shape, as a picture or as bytes that the page draws."""
        from isthmus.items.decoding.point_cloud import decode_point_cloud

        shape = decode_point_cloud(path, points=self.points, colours=True)
        if self.still:
            return _drawn(shape, self.pixels)
        # A count, then float32 xyz and bytes rgb, little-endian; grey where the file has no colours.
        rgb = (np.clip(shape[:, 3:], 0.0, 1.0) * 255.0).astype(np.uint8)
        return struct.pack("<I", len(shape)) + shape[:, :3].astype("<f4").tobytes() + rgb.tobytes()


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


def _webp(image: Any, pixels: int) -> bytes:
    """A picture as WebP, no larger than so many pixels."""
    out = io.BytesIO()
    image = image.convert("RGB")
    image.thumbnail((pixels, pixels))
    image.save(out, format="WEBP", quality=82)
    return out.getvalue()


def _wav(signal: Array, rate: int) -> bytes:
    """Samples as WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((signal * 32767.0).astype("<i2").tobytes())
    return out.getvalue()


def _mp3(signal: Array, rate: int) -> bytes:
    """Samples as MP3."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, signal, rate, format="MP3", subtype="MPEG_LAYER_III")
    return out.getvalue()


def _drawn(shape: Array, pixels: int) -> bytes:
    """A shape seen from above its front, near points over far ones and darker."""
    from PIL import Image, ImageDraw

    turn, tilt = 0.6, 0.35
    x, y, z = shape[:, 0], shape[:, 1], shape[:, 2]
    depth = -x * np.sin(turn) + z * np.cos(turn)
    across, up = x * np.cos(turn) + z * np.sin(turn), y * np.cos(tilt) - depth * np.sin(tilt)
    near = depth * np.cos(tilt) + y * np.sin(tilt)
    image = Image.new("RGB", (pixels, pixels), (244, 243, 239))
    pen = ImageDraw.Draw(image)
    size = max(1.0, pixels / 120)
    grey = np.ptp(shape[:, 3:], axis=1).max(initial=0.0) < 1e-6
    for i in np.argsort(near):
        shade = float(0.75 - 0.5 * (near[i] + 1) / 2)
        rgb = (0.25 * shade, 0.75 * shade, 0.65 * shade) if grey else shape[i, 3:6]
        left, top = pixels * (0.5 + 0.44 * across[i]), pixels * (0.5 - 0.44 * up[i])
        colour = tuple(int(255 * min(1.0, max(0.0, float(part)))) for part in rgb)
        pen.ellipse((left - size, top - size, left + size, top + size), fill=colour)
    return _webp(image, pixels)
