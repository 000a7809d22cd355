"""From an item to what a model takes (a text, pixels, windows of sound, points), in a worker process, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.items import Item, Rejected
from isthmus.items.decoding.audio import decode_audio, windows
from isthmus.items.decoding.image import open_image
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.text import decode_text

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
_MANY_PIXELS = 1 << 24
"""An image that is resized to more pixels is cut first; smaller ones are resized and cut as the models' authors do."""

RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Pillow's filters by name; the numbers are those in the preprocessor files of transformers."""


@dataclass(frozen=True)
class TextDecoder:
    """A text to itself, checked; of an item with a file the file's whole text. Tokenizing is the model's business."""

    def __call__(self, item: Item) -> str:
        """The text of an item.

        Raises:
            Rejected: It is empty or no UTF-8.
        """
        if item.text is not None:
            return decode_text(item.text)
        try:
            return decode_text(item.read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Rejected("not valid UTF-8") from error


@dataclass(frozen=True)
class ImageFit:
    """Resize, then cut out the middle.

    Attributes:
        resize: Length of the shorter side, or (height, width) whatever the shape was; None leaves the size.
        crop: (height, width) of the middle that is kept, black where the image is smaller; None keeps all.
        resample: Pillow's filter.
        rounding: Where the middle of an odd rest is: "floor" as transformers has it, "nearest" as torchvision has it.
    """

    resize: int | tuple[int, int] | None = 224
    crop: tuple[int, int] | None = (224, 224)
    resample: str = "bicubic"
    rounding: Literal["floor", "nearest"] = "floor"

    def __call__(self, image: Image) -> Pixels:
        """Fit an RGB image: (height, width, 3) uint8.

        Raises:
            Rejected: It is so long and thin that resized it would take too much memory, and nothing is cut off it.
        """
        if self.resize is not None:
            target = self._target(image.width, image.height)
            if target[0] * target[1] > _MANY_PIXELS:
                return np.asarray(self._resized_middle(image, target), dtype=np.uint8)
            image = image.resize(target, RESAMPLING[self.resample])
        if self.crop is not None:
            image = self._cropped(image, *self.crop)
        return np.asarray(image, dtype=np.uint8)

    def _resized_middle(self, image: Image, target: tuple[int, int]) -> Image:
        """The middle alone of what a very long image becomes: a line of pixels must not be blown up to gigabytes.

        The filter still sees the pixels beside the middle, so this is what resizing all and then cutting gives.
        """
        if self.crop is None or self.crop[0] > target[1] or self.crop[1] > target[0]:
            raise Rejected(f"too long and thin: {image.width:,} x {image.height:,} pixels")
        height, width = self.crop
        left, top = self._middle(target[0] - width), self._middle(target[1] - height)
        x, y = image.width / target[0], image.height / target[1]
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        return image.resize((width, height), RESAMPLING[self.resample], box=box)

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image is resized to."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def _cropped(self, image: Image, height: int, width: int) -> Image:
        """Middle of an image."""
        left, top = self._middle(image.width - width), self._middle(image.height - height)
        return image.crop((left, top, left + width, top + height))

    def _middle(self, rest: int) -> int:
        """First pixel of the middle."""
        # round() settles halves to even, as torchvision's does.
        return rest // 2 if self.rounding == "floor" else round(rest / 2)

    def describe(self) -> dict[str, Any]:
        """Settings for a space's record of preprocessing."""
        resize = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        crop = list(self.crop) if self.crop else None
        return {"resize": resize, "crop": crop, "resample": self.resample, "crop_rounding": self.rounding}


@dataclass(frozen=True)
class ImageDecoder:
    """An image file to pixels, (height, width, 3) uint8.

    Attributes:
        fit: Resizing and cropping; None keeps the image as it is.
    """

    fit: ImageFit | None = None

    def __call__(self, item: Item) -> Pixels:
        """The pixels of an item.

        Raises:
            Rejected: It is no image, damaged, or too large.
        """
        image = open_image(item)
        return np.asarray(image, dtype=np.uint8) if self.fit is None else self.fit(image)


@dataclass(frozen=True)
class AudioDecoder:
    """A sound file, or a video's sound track, to windows of equal length: always the same ones.

    Attributes:
        rate: Samples a second.
        seconds: Length of a window.
        hop: Seconds from one window to the next; the last one ends with the sound.
        pad: What fills the window of a short sound, "repeat" or "zero".
    """

    rate: int
    seconds: float
    hop: float
    pad: str = "repeat"

    def __call__(self, item: Item) -> NDArray[np.float32]:
        """The (windows, samples) of an item.

        Raises:
            Rejected: It holds no sound, is silent, or damaged.
        """
        return self.cut(decode_audio(item.content(), rate=self.rate))

    def cut(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """The windows of a mono signal at this rate."""
        return windows(signal, self.rate, self.seconds, self.hop, pad=self.pad)

    def describe(self) -> dict[str, Any]:
        """For a space's preprocessing record."""
        cut = {"sample_rate": self.rate, "window_seconds": self.seconds, "hop_seconds": self.hop}
        return {**cut, "channels": "mean", "padding": self.pad, "pooling": "mean"}


@dataclass(frozen=True)
class PointDecoder:
    """A mesh or a point cloud to points: mean at the origin, the farthest at distance 1.

    Attributes:
        points: Points sampled from a mesh, and kept of a larger cloud.
        colours: Add red, green and blue from 0 to 1.
        up: The axis that points up in the files.
        fewest: Clouds with fewer points are rejected.
        repeat: Repeat the points of a smaller cloud until there are enough; else it stays small.
    """

    points: int
    colours: bool = False
    up: str = "y"
    fewest: int = 1
    repeat: bool = True

    def __call__(self, item: Item) -> NDArray[np.float32]:
        """The (points, 3) of an item, (points, 6) with colours.

        Raises:
            Rejected: It is no shape, is damaged, or has too few points.
        """
        cloud = decode_point_cloud(
            item.read_bytes(),
            suffix=item.suffix,
            points=self.points,
            colours=self.colours,
            up=self.up,
            repeat=self.repeat,
        )
        if len(cloud) < self.fewest:
            raise Rejected(f"{len(cloud)} points; at least {self.fewest} are needed")
        return cloud

    def describe(self) -> dict[str, Any]:
        """For a space's preprocessing record."""
        smaller = "repeated" if self.repeat else "kept"
        return {
            "points": self.points,
            "smaller_clouds": smaller,
            "colours": self.colours,
            "up_axis": self.up,
            "scale": "unit sphere",
        }
