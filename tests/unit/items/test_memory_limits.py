"""What small files may take once unpacked: each case in a process of its own, whose peak is measured."""

from __future__ import annotations

import io
import json
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


def packed_arrow(path: Path, compression: str, rows: int, dim: int = 500, *, stream: bool = True) -> Path:
    """An Arrow file of zeros of a few kilobytes that unpacks to gigabytes."""
    pa = pytest.importorskip("pyarrow")
    each = rows // 10
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(each * dim, np.float32)), dim)
    table = pa.table({"id": pa.array(np.arange(each)), "embedding": vectors})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        for _ in range(10):
            writer.write_table(table)
    assert path.stat().st_size < 10_000_000
    return path


@pytest.mark.parametrize(("name", "compression"), [("a.arrow", "zstd"), ("a.feather", "zstd"), ("b.feather", "lz4")])
def test_packed_arrow_files(name: str, compression: str, tmp_path: Path):
    path = packed_arrow(tmp_path / name, compression, 600_000, stream=name.endswith("arrow"))
    said, megabytes = peak(IMPORT, path)
    assert "bytes once unpacked, the limit is 536,870,912; set ISTHMUS_MAX_UNPACKED to allow more" in said
    assert megabytes < 400


def test_a_data_set_of_many_packed_files(tmp_path: Path):
    folder = tmp_path / "saved"
    folder.mkdir()
    first = packed_arrow(folder / "data-0.arrow", "zstd", 60_000)
    names = [first.name, *(f"data-{number}.arrow" for number in range(1, 12))]
    for name in names[1:]:
        (folder / name).write_bytes(first.read_bytes())
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    said, megabytes = peak(IMPORT, folder)
    assert "saved: up to data-4.arrow takes 602,400,000 bytes once unpacked, the limit is 536,870,912" in said
    assert megabytes < 900


@pytest.mark.parametrize("name", ["repeated.arrow", "repeated.parquet"])
def test_a_text_that_every_row_names(name: str, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.DictionaryArray.from_arrays(pa.array([0] * 900, pa.int32()), pa.array(["x" * 2_000_000]))
    table = pa.table({"id": text, "embedding": [[0.5, 1.5]] * 900})
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    said, megabytes = peak(IMPORT, path)
    assert "bytes once unpacked, the limit is 536,870,912" in said
    assert megabytes < 900


def test_a_table_of_lancedb_whose_pages_hold_a_text_once(tmp_path: Path):
    lancedb = pytest.importorskip("lancedb")
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1200, np.float32)), 2)
    batch = pa.record_batch([pa.array(["x" * 100_000] * 600), vectors], names=["id", "vector"])
    lancedb.connect(str(tmp_path)).create_table("a", data=(batch for _ in range(15)), schema=batch.schema)
    assert sum(file.stat().st_size for file in (tmp_path / "a.lance").rglob("*") if file.is_file()) < 16_000_000
    said, megabytes = peak(IMPORT, tmp_path / "a.lance")
    assert "a.lance: takes" in said
    assert "bytes once unpacked, the limit is 536,870,912" in said
    assert megabytes < LIMIT_MB
    rows = [{"id": f"y{number}", "vector": [0.5, 1.5]} for number in range(600)]
    lancedb.connect(str(tmp_path)).create_table("b", data=rows)
    assert peak(IMPORT, tmp_path / "b.lance")[0] == "done"


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_empty_lists_by_the_million(suffix: str, tmp_path: Path):
    lists = ",".join(["[]"] * 5_000_000)
    path = tmp_path / f"a.{suffix}"
    path.write_text(f'[{{"id": "a", "vector": [{lists}]}}]' if suffix == "json" else f'{{"id": "a", "v": [{lists}]}}\n')
    said, megabytes = peak(IMPORT, path)
    assert "bytes once unpacked, the limit is 536,870,912" in said
    assert megabytes < 400


PLY = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


def test_blank_lines_by_the_million(tmp_path: Path):
    """Nine megabytes of them take neither gigabytes nor minutes, wherever lines are read."""
    from time import process_time

    from isthmus.core.table_files import read_table
    from isthmus.errors import FormatError
    from isthmus.items.decoding.point_cloud import decode_point_cloud
    from isthmus.items.tables import list_items

    blank = "\n" * 9_000_000
    contents = {
        "a.jsonl": f'{blank[:3_000_000]}{{"id": "a"}}\n',
        "a.csv": f"id,x\n{blank[:3_000_000]}a,b\n",
        "a.tsv": f"id\tx\n{blank[:3_000_000].replace(chr(10), chr(13))}a\tb\n",
        "a.ply": f"{PLY}{blank}1 2 3\n\n4 5 6\n7 8 8\n",
        "a.txt": f"{blank}a\n",
    }
    begin = process_time()
    for name, content in contents.items():
        path = tmp_path / name
        path.write_text(content, newline="")
        if name == "a.ply":
            said, megabytes = peak(CLOUD, path)
            assert (said, megabytes < 600) == ("done", True)
            assert len(decode_point_cloud(path, points=None)) == 3
        elif name == "a.txt":
            with pytest.raises(FormatError, match=r"9,000,000 of its 9,000,001 lines are blank\."):
                list(list_items(path, name))
        else:
            assert read_table(path).num_rows == 1
    assert process_time() - begin < 20
