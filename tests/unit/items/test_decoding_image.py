"""Images as people have them: sideways, with palettes, alpha, inks, deep greys, many frames, or only half there."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.encoders.pipeline.duplicates import content_hash
from isthmus.items import Item, Rejected
from isthmus.items.decoding.image import decode_image


def gradient(width: int = 24, height: int = 16) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 10, rows * 15, (rows + columns) * 6], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_plain_image_from_bytes_and_path(tmp_path: Path):
    data = encoded(Image.fromarray(gradient()))
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png", str(tmp_path / "a.png")):
        decoded = decode_image(source)
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, gradient())


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x.transpose(1, 0, 2), 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, undo, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient()), kind, exif=exif)
    assert np.array_equal(decode_image(data), undo(gradient()))


def test_jpeg_orientation_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=exif, quality=95)
    assert decode_image(data).shape == (24, 16, 3)


def test_damaged_exif_leaves_the_pixels():
    data = encoded(Image.fromarray(gradient()), "JPEG", quality=95)
    broken = data[:2] + b"\xff\xe1\x00\x12Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00\x00" + data[2:]
    assert decode_image(broken).shape == (16, 24, 3)


def test_palette():
    image = Image.fromarray(gradient()).quantize(64)
    assert image.mode == "P"
    assert np.array_equal(decode_image(encoded(image)), np.asarray(image.convert("RGB")))


def test_palette_with_one_transparent_colour_is_white_there():
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    decoded = decode_image(encoded(image, transparency=1))
    assert decoded[0, 1].tolist() == [255, 255, 255]
    assert decoded[0, 0].tolist() == [10, 20, 30]


def test_palette_with_alpha_of_each_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putpixel((1, 0), 1)
    decoded = decode_image(encoded(image, transparency=bytes([0, 255])))
    assert decoded[0].tolist() == [[255] * 3, [100] * 3]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(kind: str):
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[:, 0] = (200, 0, 0, 255)
    pixels[:, 1] = (0, 0, 0, 0)  # black where nobody sees it
    pixels[:, 2] = (0, 0, 0, 128)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode_image(encoded(Image.fromarray(pixels, "RGBA"), kind, **options))
    assert decoded[0].tolist() == [[200, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_grey_with_alpha_and_colour_key():
    pixels = np.array([[[50, 255], [50, 0]]], dtype=np.uint8)
    assert decode_image(encoded(Image.fromarray(pixels, "LA")))[0].tolist() == [[50] * 3, [255] * 3]
    key = encoded(Image.fromarray(np.array([[7, 9]], dtype=np.uint8)), transparency=7)
    assert decode_image(key)[0].tolist() == [[255] * 3, [9] * 3]


def test_bilevel_and_grey():
    assert decode_image(encoded(Image.new("1", (2, 2), 1))).tolist() == [[[255] * 3] * 2] * 2
    assert decode_image(encoded(Image.new("L", (2, 2), 77))).max() == 77


def test_cmyk():
    white = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    ink = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert decode_image(white).min() >= 250
    assert decode_image(ink)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_greys_are_scaled_not_clipped(kind: str):
    deep = np.array([[0, 257, 32_768, 65_535]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(deep), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def png16_rgb(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_sixteen_bit_colour():
    decoded = decode_image(png16_rgb(np.array([[[0, 32_768, 65_535]]], dtype=np.uint16)))
    assert decoded[0, 0].tolist() == [0, 128, 255]


def test_float_greys_from_zero_to_one():
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert decode_image(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [([-1.0, 0.5], "no fixed white"), ([0.0, 4000.0], "no fixed white"), ([0.0, np.nan], "NaN")],
)
def test_greys_without_a_white_are_rejected(values: list[float], reason: str):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    with pytest.raises(Rejected, match=reason):
        decode_image(encoded(image, "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_images_are_rejected(kind: str, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(Rejected):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\0" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image(data: bytes):
    with pytest.raises(Rejected):
        decode_image(data)


def test_postscript_never_starts_an_interpreter():
    eps = encoded(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(Rejected, match="no image format"):
        decode_image(eps)


def test_missing_file(tmp_path: Path):
    with pytest.raises(Rejected, match="No such file"):
        decode_image(tmp_path / "none.png")


def test_too_many_pixels():
    data = encoded(Image.new("L", (100, 50)))
    with pytest.raises(Rejected, match=r"100 x 50 pixels, the limit is 4,999"):
        decode_image(data, max_pixels=4_999)
    assert decode_image(data, max_pixels=5_000).shape == (50, 100, 3)


def test_decompression_bomb_is_refused_by_its_header():
    bomb = encoded(Image.new("1", (1, 1)))
    huge = struct.pack(">IIBBBBB", 200_000, 200_000, 1, 0, 0, 0, 0)
    header = b"IHDR" + huge
    bomb = bomb[:12] + header + struct.pack(">I", zlib.crc32(header)) + bomb[33:]
    with pytest.raises(Rejected, match="too large"):
        decode_image(bomb)


def saved(path: Path, pixels: np.ndarray, **options: object) -> str:
    Image.fromarray(pixels).save(path, **options)
    return str(path)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0.0, 0.0, 1.0, 1.0), slice(0, 16), slice(0, 24)),
        ((0.25, 0.5, 0.75, 1.0), slice(8, 16), slice(6, 18)),
        ((0.3, 0.3, 0.7, 0.7), slice(4, 12), slice(7, 17)),  # every pixel that the box touches
        ((1 / 3, 0.125, 2 / 3, 0.25), slice(2, 4), slice(8, 16)),  # an edge but for rounding is an edge
        ((0.999, 0.999, 1.0, 1.0), slice(15, 16), slice(23, 24)),
        ((0.5, 0.5, 0.5 + 1e-12, 0.5 + 1e-12), slice(8, 9), slice(12, 13)),  # never less than a pixel
    ],
)
def test_a_box_is_cut_out_in_fractions(tmp_path: Path, box, rows: slice, columns: slice):
    path = saved(tmp_path / "a.png", gradient())
    assert np.array_equal(decode_image(Item("a", path, box=box)), gradient()[rows, columns])


def test_a_box_counts_from_the_upright_picture(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: the viewer turns it clockwise
    path = saved(tmp_path / "a.png", gradient(), exif=exif)
    upright = np.rot90(gradient(), -1)
    assert upright.shape[:2] == (24, 16)
    assert np.array_equal(decode_image(Item("a", path, box=(0.0, 0.25, 0.5, 0.5))), upright[6:12, :8])


def test_boxes_of_a_picture_that_changes_and_of_a_tar(tmp_path: Path):
    path = saved(tmp_path / "a.png", gradient())
    half = Item("a", path, box=(0.0, 0.0, 0.5, 1.0))
    first = decode_image(half)
    saved(tmp_path / "a.png", 255 - gradient(48, 32))
    assert np.array_equal(decode_image(half), (255 - gradient(48, 32))[:, :24])
    assert not np.array_equal(decode_image(half)[:16, :12], first)
    data = Path(path).read_bytes()
    Path(tmp_path / "t.tar").write_bytes(b"head" + data)
    inside = Item("a", str(tmp_path / "t.tar"), member=("a.png", 4, len(data)), box=half.box)
    assert np.array_equal(decode_image(inside), decode_image(half))


@pytest.mark.parametrize(
    "box", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.9, 1.0, 0.1), (-0.1, 0.0, 1.0, 1.0), (0, 0, 1, 256), (float("nan"), 0, 1, 1)]
)
def test_a_box_that_holds_no_part_of_the_picture(tmp_path: Path, box):
    with pytest.raises(Rejected, match=r"a box of .*expected 0 <= xmin < xmax <= 1 and the same of y, as fractions"):
        decode_image(Item("a", saved(tmp_path / "a.png", gradient()), box=box))


def test_a_box_of_a_missing_picture(tmp_path: Path):
    with pytest.raises(Rejected, match="cannot be read: No such file"):
        decode_image(Item("a", str(tmp_path / "none.png"), box=(0, 0, 1, 1)))


def test_parts_of_one_picture_are_no_duplicates(tmp_path: Path):
    path = saved(tmp_path / "a.png", gradient())
    boxes = [None, (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    assert len({content_hash(Item(str(i), path, box=box)) for i, box in enumerate(boxes)}) == 3
    assert content_hash(Item("x", path, box=boxes[1])) == content_hash(Item("y", path, box=boxes[1]))


def test_lab_is_converted_or_rejected():
    """Pillow learned the conversion with time; an older one must not pass the numbers off as colours."""
    data = encoded(Image.new("LAB", (4, 4), (136, 208, 195)), "TIFF")
    try:
        Image.new("LAB", (1, 1)).convert("RGB")
    except ValueError:
        with pytest.raises(Rejected, match="mode LAB"):
            decode_image(data)
        return
    red, green, blue = decode_image(data)[0, 0].tolist()
    assert red > 240
    assert max(green, blue) < 20


def test_real_emoji_and_photographs(shared: Path):
    emoji = sorted((shared / "data/raw/emoji").glob("*.png"))
    assert len(emoji) == 500
    for path in emoji:
        decoded = decode_image(path)
        with Image.open(path) as image:
            assert decoded.shape == (image.height, image.width, 3)
        assert decoded[0, 0].min() >= 250, f"{path.name}: the corner is transparent and must be white"
    for path in (shared / "data/official").glob("*.jpeg"):
        assert decode_image(path).std() > 10
