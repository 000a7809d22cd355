"""From an item to pixels of a model's input size with Pillow, in a worker process. No torch, no torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.items import Item, Rejected
from isthmus.items.decoding.image import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
_MANY_PIXELS = 1 << 24
"""An image that is resized to more pixels is cut first; smaller ones are resized and cut as the models' authors do."""

RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Pillow's filters by name; the numbers are those in the preprocessor files of transformers."""


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
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def _cropped(self, image: Image, height: int, width: int) -> Image:
        left, top = self._middle(image.width - width), self._middle(image.height - height)
        return image.crop((left, top, left + width, top + height))

    def _middle(self, rest: int) -> int:
        # round() settles halves to even, as torchvision's does.
        return rest // 2 if self.rounding == "floor" else round(rest / 2)

    def describe(self) -> dict[str, Any]:
        """For a space's preprocessing record."""
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
