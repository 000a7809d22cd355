"""Images, and parts of them, to 8-bit RGB, upright, on white, the first frame of an animation."""

from __future__ import annotations

import functools
import io
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.limits import excess
from isthmus.core.messages import one_line
from isthmus.items import Item, Rejected
from isthmus.items.decoding import Source, require

MAX_PIXELS = 100_000_000

# Formats that Pillow decodes by itself. PostScript (which starts Ghostscript) and the like stay out.
_FORMATS = (
    *(
        "PNG",
        "JPEG",
        "WEBP",
        "GIF",
        "BMP",
        "DIB",
        "TIFF",
        "PPM",
        "TGA",
        "ICO",
        "ICNS",
        "JPEG2000",
        "AVIF",
        "MPO",
        "PCX",
    ),
    *("QOI", "SGI", "DDS", "PSD"),
)


_DEPTHS = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2, "RGB": 4}
"""Bytes that Pillow takes for a pixel, by mode; 4 for all others."""

_BAND = 1 << 22
"""Pixels that are converted at a time."""

# A corner that stands on a pixel's edge but for rounding is taken to stand on it.
_EDGE = 1e-6


def decode_image(source: Source | Item, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image to (height, width, 3) uint8; see `open_image`."""
    return np.asarray(open_image(source, max_pixels=max_pixels), dtype=np.uint8)


def open_image(source: Source | Item, *, max_pixels: int = MAX_PIXELS) -> Any:
    """Decode an image to a `PIL.Image.Image` of mode RGB.

    Of an item with a box only that part is given, cut from the upright picture.

    The EXIF orientation is applied; palettes are resolved; transparency is composited on white; CMYK is converted;
    16-bit greys are scaled to 8 bit; of an animation the first frame is taken. Colour profiles are not applied, as
    the training of CLIP did not apply them.

    Args:
        source: Bytes, a path or an item, in any format that Pillow reads by itself (no PostScript).
        max_pixels: Larger images are refused before their pixels are read.

    Raises:
        Rejected: It is no image, is truncated or damaged, is too large, has pixels without a fixed white, or the item's
            box holds no part of it.
    """
    if isinstance(source, Item):
        return _whole(source.read_bytes(), max_pixels) if source.box is None else _part(source, max_pixels)
    return _whole(source, max_pixels)


def _part(item: Item, max_pixels: int) -> Any:
    """The box of an item. Boxes of one picture come one after another, so the last picture is kept decoded."""
    assert item.box is not None
    try:
        stamp = os.stat(item.path or "")
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror or error}") from error
    picture = _kept(Item("", item.path, member=item.member), (stamp.st_mtime_ns, stamp.st_size), max_pixels)
    return picture.crop(_pixels(item.box, *picture.size))


@functools.lru_cache(maxsize=1)
def _kept(item: Item, stamp: tuple[int, int], max_pixels: int) -> Any:
    """A decoded picture; `stamp` tells a file that was changed since."""
    return _whole(item.read_bytes(), max_pixels)


def _pixels(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """A box in pixels: all those that it touches, at least one."""
    xmin, ymin, xmax, ymax = box
    if not (0.0 <= xmin < xmax <= 1.0 and 0.0 <= ymin < ymax <= 1.0):
        raise Rejected(f"a box of {box}; expected 0 <= xmin < xmax <= 1 and the same of y, as fractions")
    (left, right), (top, bottom) = _span(xmin, xmax, width), _span(ymin, ymax, height)
    return left, top, right, bottom


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel and end of a box along one side of a picture."""
    first = min(math.floor(low * size + _EDGE), size - 1)
    return first, max(math.ceil(high * size - _EDGE), first + 1)


def _whole(source: Source, max_pixels: int) -> Any:
    """Pixels of a whole picture, as RGB."""
    image_module = require("PIL.Image", extra="image", purpose="decoding images")
    packed = len(source) if isinstance(source, bytes) else _size(source)
    if not packed:
        raise Rejected("an empty file")
    stream = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images, which are counted below, and of odd metadata
        try:
            image = image_module.open(stream, formats=_known_formats())
        except image_module.DecompressionBombError as error:
            raise Rejected(f"too large: more than {max_pixels:,} pixels") from error
        except image_module.UnidentifiedImageError as error:
            raise Rejected("no image format that Pillow reads") from error
        except OSError as error:
            # Pillow raises it without a number for headers that end too early.
            fault = f"cannot be read: {error.strerror}" if error.errno else f"truncated or damaged ({error})"
            raise Rejected(fault) from error
        except Exception as error:  # parsers of damaged headers raise struct, value, syntax and overflow errors
            raise Rejected(f"damaged header ({type(error).__name__}: {error})") from error
        with image:
            return _to_rgb(image, max_pixels, packed)


def _size(path: str | Path) -> int:
    """Bytes of a file of a picture."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror or error}") from error


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Picture formats that this Pillow reads, of those that are taken."""
    image_module = require("PIL.Image", extra="image", purpose="decoding images")
    image_module.init()
    return tuple(name for name in _FORMATS if name in image_module.OPEN)


def _to_rgb(image: Any, max_pixels: int, packed: int) -> Any:
    """A picture as RGB, transparency on white, within the limit of pixels."""
    width, height = image.size
    if width * height == 0:
        raise Rejected(f"no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise Rejected(f"too large: {width:,} x {height:,} pixels, the limit is {max_pixels:,}")
    # The pixels as they are stored, and again as RGB.
    if fault := excess(width * height * (_DEPTHS.get(image.mode, 4) + 3), packed):
        raise Rejected(f"too large: {width:,} x {height:,} pixels; it {fault}")
    try:
        image.load()
    except MemoryError as error:
        raise Rejected(f"too large for memory: {width:,} x {height:,} pixels") from error
    except Exception as error:
        raise Rejected(f"truncated or damaged ({one_line(error)})") from error
    return _flatten(_upright(image))


def _upright(image: Any) -> Any:
    """Apply the EXIF orientation; metadata too damaged to be parsed leaves the pixels as they are."""
    ops = require("PIL.ImageOps", extra="image", purpose="decoding images")
    try:
        return ops.exif_transpose(image)
    except Exception:
        return image


def _flatten(image: Any) -> Any:
    """Any mode to RGB, transparency on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_deep(image)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    try:
        if not transparent:
            return image if image.mode == "RGB" else image.convert("RGB")
        if image.mode in ("La", "RGBa"):  # premultiplied
            image = image.convert("LA" if image.mode == "La" else "RGBA")
        image = image.convert("RGBA")
    except (ValueError, OSError) as error:
        raise Rejected(f"colours of mode {image.mode} cannot be converted ({one_line(error)})") from error
    return _in_bands(image, _on_white)


def _on_white(band: Any) -> Any:
    """A picture with transparency on white."""
    image_module = require("PIL.Image", extra="image", purpose="decoding images")
    white = image_module.new("RGBA", band.size, (255, 255, 255, 255))
    return image_module.alpha_composite(white, band).convert("RGB")


def _in_bands(image: Any, convert: Callable[[Any], Any]) -> Any:
    """What `convert` makes of an image, band after band of rows, so that copies on the way stay small."""
    image_module = require("PIL.Image", extra="image", purpose="decoding images")
    width, height = image.size
    rows = max(_BAND // width, 1)
    if rows >= height:
        return convert(image)
    whole = None
    for top in range(0, height, rows):
        band = convert(image.crop((0, top, width, min(top + rows, height))))
        whole = whole or image_module.new(band.mode, image.size)
        whole.paste(band, (0, top))
    return whole


def _scale_deep(image: Any) -> Any:
    """Greys of 16 bit, of 32-bit integers that hold 16 bits, or of floats from 0 to 1 or to 255, to 8 bit."""
    grey = np.asarray(image)
    low, high = float(grey.min()), float(grey.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Rejected("pixels that are NaN or infinite")
    white = (1.0 if high <= 1.0 else 255.0) if image.mode == "F" else 65535.0
    if low < 0.0 or high > white:
        raise Rejected(f"grey values from {low:g} to {high:g} have no fixed white; save it with 8 or 16 bits")
    image_module = require("PIL.Image", extra="image", purpose="decoding images")
    bytes_ = np.empty(grey.shape, np.uint8)
    rows = max(_BAND // max(grey.shape[1], 1), 1)
    for top in range(0, len(grey), rows):
        band = grey[top : top + rows].astype(np.float64)
        bytes_[top : top + rows] = np.rint(band * (255.0 / white))
    return image_module.fromarray(bytes_)
