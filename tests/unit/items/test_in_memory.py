"""Items that a program holds: what they become, and what is said of those that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import FormatError
from isthmus.items import Item, as_items
from isthmus.items.decoding.audio import decode_audio
from isthmus.items.decoding.image import decode_image
from isthmus.items.decoding.point_cloud import decode_point_cloud

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize("one", ["dog", "a b\nc"])
def test_one_text_is_one_item(one: str):
    assert [item.text for item in as_items(one, "text")] == [one]
    assert [item.text for item in as_items([one, one], "text")] == [one, one]


def test_one_path_is_one_item(tmp_path: Path):
    assert as_items("a/b.png", "image")[0].path == "a/b.png"
    assert as_items(tmp_path / "b.wav", "audio")[0].suffix == ".wav"
    assert as_items(Item("x", "p.png"), "image") == [Item("x", "p.png")]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
def test_pictures_of_pillow_are_decoded_as_their_files_are(mode: str, tmp_path: Path):
    image = Image.fromarray(PIXELS).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image.save(tmp_path / "a.tif")
    (item,) = as_items(image, "image")
    assert np.array_equal(decode_image(item), decode_image(tmp_path / "a.tif"))
    assert len(as_items([image, image], "image")) == 2


def test_arrays_and_tensors_are_pictures():
    torch = pytest.importorskip("torch")
    for one in (PIXELS, torch.tensor(PIXELS), PIXELS.astype(np.float64) / 255.0, [PIXELS][0]):
        (item,) = as_items(one, "image")
        assert np.array_equal(decode_image(item), PIXELS)
    assert len(as_items(np.stack([PIXELS] * 3), "image")) == 3
    assert decode_image(as_items(PIXELS[:, :, 0], "image")[0]).shape == (12, 10, 3)


def test_orientation_of_a_picture_in_memory_is_kept():
    image, exif, stream = Image.fromarray(PIXELS), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(stream, "PNG", exif=exif)
    (item,) = as_items(Image.open(io.BytesIO(stream.getvalue())), "image")
    assert decode_image(item).shape == (10, 12, 3)


def test_sounds_with_their_rate():
    x = (np.random.default_rng(0).normal(size=8000) * 0.1).astype(np.float32)
    for one in ({"array": x, "sampling_rate": 8000}, (x, 8000), (np.stack([x, x]), 8000)):
        (item,) = as_items(one, "audio")
        assert np.allclose(decode_audio(item.content(), rate=8000), x)
    (item,) = as_items((np.round(x * 32768).astype(np.int16), 8000), "audio")
    assert np.allclose(decode_audio(item.content(), rate=8000), x, atol=1e-4)


def test_points_in_memory():
    x = np.random.default_rng(0).normal(size=(60, 3))
    (item,) = as_items(x, "point_cloud")
    assert decode_point_cloud(item.read_bytes(), suffix=item.suffix, points=50).shape == (50, 3)


@pytest.mark.parametrize(
    ("items", "modality", "fault"),
    [
        (None, "image", r"nothing to encode: got None"),
        (["a.png", None], "image", r"item 1 is None, expected a path, a PIL image"),
        ([3.5], "image", r"item 0 is a builtins\.float, expected a path"),
        ([PIXELS], "text", r"item 0 is a numpy\.ndarray, expected a text\."),
        (["a", b"b"], "text", r"item 1 is a builtins\.bytes, expected a text\."),
        ([PIXELS.transpose(2, 0, 1)], "image", r"array of shape \(3, 12, 10\), .*move the channels to the end"),
        ([PIXELS.astype(np.float32)], "image", r"array of float32, expected uint8, or floats from 0 to 1"),
        ([np.zeros(5)], "audio", r"item 0 is a numpy\.ndarray, expected a path, \{\"array\""),
    ],
)
def test_what_is_no_item_is_named_by_type_and_number(items: object, modality: str, fault: str):
    with pytest.raises(FormatError, match=fault) as caught:
        as_items(items, modality)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
