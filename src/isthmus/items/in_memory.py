"""Items that a program holds: pictures of Pillow, arrays, sounds with their rate, bytes, texts and paths."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.arrays import to_numpy
from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, TEXT
from isthmus.errors import FormatError
from isthmus.items.item import Item

_EXPECTED = {
    TEXT: "a text",
    IMAGE: "a path, a PIL image, an array (height, width, 3) of uint8, or bytes",
    AUDIO: 'a path, {"array": samples, "sampling_rate": rate}, (samples, rate), or bytes',
    POINT_CLOUD: "a path, an array (points, 3 or 6), or bytes",
}


def as_items(items: Any, modality: str) -> list[Item]:
    """Items of what a program holds in memory; one thing alone is one item.

    Args:
        items: A sequence of, or a single: path or text; PIL image; array; sound as {"array", "sampling_rate"} or
            (samples, rate); the bytes of a file; `Item`.
        modality: What they are.

    Raises:
        FormatError: One is None or of another type; its number and type are named, never its content.
    """
    return [as_item(value, modality, number) for number, value in enumerate(_several(items, modality))]


def _several(items: Any, modality: str) -> list[Any]:
    """Items as a list, one alone being a list of one."""
    if items is None:
        raise FormatError(f"nothing to encode: got None, expected a list of which each is {_expected(modality)}.")
    single = isinstance(items, str | bytes | Path | Mapping | Item) or _is_picture(items)
    if not single and modality == IMAGE and _is_array(items):
        single = len(items.shape) in (2, 3)
    if not single and modality == POINT_CLOUD and _is_array(items):
        single = len(items.shape) == 2
    if not single and modality == AUDIO and isinstance(items, tuple) and len(items) == 2:
        single = _is_array(items[0]) and isinstance(items[1], int)
    return [items] if single else list(items)


def as_item(value: Any, modality: str, number: int = 0) -> Item:
    """Item of one thing in memory, its number as id; see `as_items`."""
    name = str(number)
    if isinstance(value, Item):
        return value
    if modality == TEXT:
        if isinstance(value, str):
            return Item(name, text=value)
    elif isinstance(value, str | Path):
        return Item(name, str(value))
    elif isinstance(value, bytes):
        return Item(name, data=value)
    elif modality == IMAGE and (_is_picture(value) or _is_array(value)):
        return Item(name, data=_png(value, number), kind=".png")
    elif modality == AUDIO and (sound := _sound(value)) is not None:
        return Item(name, data=_wav(*sound, number), kind=".wav")
    elif modality == POINT_CLOUD and _is_array(value):
        return Item(name, data=_npy(to_numpy(value)), kind=".npy")
    got = "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"
    raise FormatError(f"item {number} is {got}, expected {_expected(modality)}.")


def _expected(modality: str) -> str:
    """What an item of a modality may be, in words."""
    return _EXPECTED.get(modality, "a path or bytes")


def _is_picture(value: Any) -> bool:
    """Whether a value is a picture of PIL."""
    return hasattr(value, "save") and hasattr(value, "mode") and hasattr(value, "size")


def _is_array(value: Any) -> bool:
    """Whether a value is an array."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _png(value: Any, number: int) -> bytes:
    """A picture without loss; arrays of floats from 0 to 1 become 8 bit."""
    from isthmus.items.decoding import require

    image_module = require("PIL.Image", extra="image", purpose="encoding pictures in memory")
    if not _is_picture(value):
        value = image_module.fromarray(_pixels(to_numpy(value), number))
    stream = io.BytesIO()
    kind = "PNG" if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    value.save(stream, kind, **({"exif": value.getexif()} if len(value.getexif()) else {}))
    return stream.getvalue()


def _pixels(array: NDArray[Any], number: int) -> NDArray[np.uint8]:
    """Array of a picture as bytes from 0 to 255."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise FormatError(
            f"item {number} is an array of shape {array.shape}, expected (height, width), (height, width, 3) or "
            "(height, width, 4); move the channels to the end, or give a path."
        )
    if array.dtype.kind == "f" and array.size and float(array.min()) >= 0.0 and float(array.max()) <= 1.0:
        array = np.rint(array * 255.0).astype(np.uint8)
    if array.dtype != np.uint8:
        raise FormatError(
            f"item {number} is an array of {array.dtype}, expected uint8, or floats from 0 to 1; convert it, or give a "
            "path."
        )
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _sound(value: Any) -> tuple[NDArray[Any], int] | None:
    """Samples and rate of a sound in memory, or None."""
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        return to_numpy(value["array"]), int(value["sampling_rate"])
    if isinstance(value, tuple) and len(value) == 2 and _is_array(value[0]):
        return to_numpy(value[0]), int(value[1])
    return None


def _wav(samples: NDArray[Any], rate: int, number: int) -> bytes:
    """Samples as the bytes of a WAV file."""
    from isthmus.items.decoding import require

    soundfile = require("soundfile", extra="audio", purpose="encoding sounds in memory")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:  # channels first, as torchaudio has it
        samples = samples.T
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or rate <= 0:
        raise FormatError(
            f"item {number} is a sound of shape {samples.shape} of {samples.dtype} at {rate} a second, expected "
            "(samples,) of floats up to 1, or of int16 or int32."
        )
    if samples.dtype.kind == "i":
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    """Array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
