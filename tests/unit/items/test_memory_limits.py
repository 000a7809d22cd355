"""What small files may take once unpacked: each case in a process of its own, whose peak is measured."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resource")
sf = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")

LIMIT_MB = 1_000

HEAD = """
import sys
from pathlib import Path
from isthmus.errors import IsthmusError
from isthmus.items import Item, Rejected
path = Path(sys.argv[1])
try:
    %s
except (Rejected, IsthmusError) as fault:
    print(fault)
else:
    print("done")
# Not ru_maxrss: that is at least what the process that started this one had.
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""


def peak(work: str, path: Path, **env: str) -> tuple[str, int]:
    """What a piece of work says, and the most megabytes that its process took."""
    code = HEAD % work.replace("\n", "\n    ")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )
    *said, megabytes = done.stdout.strip().splitlines()
    return "\n".join(said), int(megabytes)


IMAGE = "from isthmus.items.decoding.image import decode_image; decode_image(path)"
SOUND = "from isthmus.items.decoding.audio import decode_audio; decode_audio(path, rate=48000)"
CLOUD = "from isthmus.items.decoding.point_cloud import decode_point_cloud; decode_point_cloud(path)"
FIT = """from isthmus.items.decoding.image import open_image
from isthmus.encoders.item_decoders import ImageFit
assert ImageFit()(open_image(path)).shape == (224, 224, 3)"""
IMPORT = "import isthmus; isthmus.import_embeddings(path, path.parent / 's.space', modality='image')"


def png(path: Path, size: tuple[int, int], depth: int, colour: int) -> Path:
    """A picture of one colour, written without holding its pixels."""
    width, height = size
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(1)
    row = b"\0" + bytes(width * channels * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    out = b"\x89PNG\r\n\x1a\n"
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    for name, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        out += len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
    path.write_bytes(out)
    assert len(out) < 10_000_000
    return path


@pytest.mark.parametrize(
    ("size", "depth", "colour", "says"),
    [
        ((8_500, 8_500), 8, 6, "done"),
        ((10_000, 10_000), 16, 0, "done"),
        ((9_900, 9_900), 8, 6, "too large: 9,900 x 9,900 pixels; it takes"),
        ((9_900, 9_900), 16, 2, "too large: 9,900 x 9,900 pixels; it takes"),
    ],
)
def test_large_pictures(tmp_path: Path, size: tuple[int, int], depth: int, colour: int, says: str):
    said, megabytes = peak(IMAGE, png(tmp_path / "a.png", size, depth, colour))
    assert said.startswith(says)
    assert megabytes < LIMIT_MB


@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1), (3, 90_000)])
def test_a_line_of_pixels_is_cut_before_it_is_blown_up(tmp_path: Path, size: tuple[int, int]):
    Image.new("RGB", size).save(tmp_path / "a.png")
    said, megabytes = peak(FIT, tmp_path / "a.png")
    assert (said, megabytes < 400) == ("done", True)


def test_a_middle_that_is_cut_first_is_the_same(monkeypatch: pytest.MonkeyPatch):
    import isthmus.encoders.item_decoders as images

    # Smooth, since Pillow rounds between its two passes and takes them in another order for a part.
    rows, columns = np.mgrid[0:40, 0:900]
    pixels = np.stack([rows * 6, columns // 4, 128 + 100 * np.sin(columns / 9.0)], axis=2).astype(np.uint8)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2))):
        for rounding in ("floor", "nearest"):
            fit = images.ImageFit(64, (64, 64), rounding=rounding)
            whole = fit(image).astype(int)
            with monkeypatch.context() as patch:
                patch.setattr(images, "_MANY_PIXELS", 1)
                assert np.abs(fit(image).astype(int) - whole).max() <= 1


def test_an_hour_at_192_kilohertz(tmp_path: Path):
    """Two minutes are decoded in a stream; of an hour the header says enough."""
    x = np.tile((np.sin(np.arange(19_200) / 30.0) * 0.3).astype(np.float32), 10)
    with sf.SoundFile(tmp_path / "a.flac", "w", 192_000, 1, format="FLAC", subtype="PCM_16") as out:
        for _ in range(120):
            out.write(x)
    said, megabytes = peak(SOUND, tmp_path / "a.flac")
    assert (said, megabytes < 400) == ("done", True)
    data = bytearray((tmp_path / "a.flac").read_bytes()[:500_000])
    samples = 3_600 * 192_000  # 36 bits behind the sample rate, channels and depth
    data[21] = (data[21] & 0xF0) | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    (tmp_path / "h.flac").write_bytes(data)
    said, megabytes = peak(SOUND, tmp_path / "h.flac")
    assert said.startswith("too long: 3,600 s at 48,000 samples a second takes 1,382,400,000 bytes once unpacked")
    assert megabytes < 400


def deflated(path: Path, **arrays: tuple[str, tuple[int, ...]]) -> Path:
    """An .npz of arrays of zeros by type and shape, written without holding them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (kind, shape) in arrays.items():
            head = io.BytesIO()
            described = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(head, described)
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                out.write(head.getvalue())
                block = np.full(1 << 18, 0.5, np.float16).tobytes() if kind == "<f2" else bytes(1 << 19)
                for start in range(0, size, len(block)):
                    out.write(block[: size - start])
    assert path.stat().st_size < 10_000_000
    return path


def test_arrays_that_nobody_asked_for_stay_packed(tmp_path: Path):
    path = deflated(tmp_path / "a.npz", embeddings=("<f2", (500, 64)), other=("<f4", (700, 500_000)))
    said, megabytes = peak(IMPORT, path)
    assert (said, megabytes < 600) == ("done", True)


def test_ids_of_huge_width(tmp_path: Path):
    path = deflated(tmp_path / "a.npz", embeddings=("<f2", (500, 64)), ids=("<U700000", (500,)))
    said, megabytes = peak(IMPORT, path)
    assert "array 'ids' of type <U700000 takes 1,400,000,128 bytes once unpacked, the limit is 536,870,912" in said
    assert megabytes < 600


def test_a_cloud_that_unpacks_to_gigabytes(tmp_path: Path):
    path = deflated(tmp_path / "a.npz", xyz=("<f4", (30_000_000, 3)))
    said, megabytes = peak(CLOUD, path)
    assert said.startswith("a cloud that takes 1,440,000")
    assert megabytes < 400
    path = deflated(tmp_path / "b.npz", xyz=("<f4", (10, 3)), other=("<f8", (60_000_000,)))
    said, megabytes = peak(CLOUD, path)
    assert "no extent" in said
    assert megabytes < 400


def test_the_setting_raises_the_limit(tmp_path: Path):
    path = png(tmp_path / "a.png", (4_000, 4_000), 8, 2)
    assert peak(IMAGE, path, ISTHMUS_MAX_UNPACKED="10MB")[0].startswith("too large: 4,000 x 4,000 pixels; it takes")
    assert peak(IMAGE, path, ISTHMUS_MAX_UNPACKED="1GB")[0] == "done"
