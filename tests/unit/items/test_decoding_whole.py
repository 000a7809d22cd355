"""A file is embedded whole, upright and on a known scale, or it is rejected with the reason."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from isthmus.items import Item, Rejected
from isthmus.items.decoding.audio import decode_audio
from isthmus.items.decoding.image import decode_image, open_image
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.video import middle_frame

av = pytest.importorskip("av")
sf = pytest.importorskip("soundfile")
trimesh = pytest.importorskip("trimesh")
Image = pytest.importorskip("PIL.Image")

RATE = 48_000
SOUND = (np.random.default_rng(0).normal(size=RATE * 2) * 0.1).astype(np.float32)


def sound(kind: str, subtype: str = "PCM_16", x: np.ndarray = SOUND, rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    sf.write(stream, x, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def av_sound(kind: str, codec: str) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=kind) as out:
        track = out.add_stream(codec, rate=RATE)
        track.layout = "mono"
        for start in range(0, len(SOUND) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(SOUND[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return stream.getvalue()


# C. scales


@pytest.mark.parametrize("white", [32768.0, 127.0, 2.0**31, 8_388_608.0])
def test_float_samples_of_another_scale_are_rejected_with_their_range(white: float):
    x = SOUND / np.abs(SOUND).max() * white
    with pytest.raises(Rejected, match=r"samples from -.*, far beyond full scale, which is 1"):
        decode_audio(sound("WAV", "FLOAT", x), rate=RATE)
    with pytest.raises(Rejected, match="far beyond full scale"):
        decode_audio(sound("AU", "DOUBLE", x), rate=16_000)


def test_a_little_beyond_full_scale_is_a_loud_sound():
    x = SOUND / np.abs(SOUND).max() * 1.8
    assert np.abs(decode_audio(sound("WAV", "FLOAT", x), rate=RATE)).max() == pytest.approx(1.8, rel=1e-3)


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


XYZ = np.random.default_rng(1).normal(size=(50, 3))
WANTED = (0.8, 0.4, 0.2)


def colours_of(data: bytes, suffix: str) -> list[float]:
    return decode_point_cloud(data, suffix=suffix, colours=True, points=200)[:, 3:].mean(axis=0).round(2).tolist()


@pytest.mark.parametrize(
    "rgb",
    [
        np.full((50, 3), WANTED),
        np.full((50, 3), WANTED) * 255.0,
        (np.full((50, 3), WANTED) * 255).astype(np.uint8),
        (np.full((50, 3), WANTED) * 65535).astype(np.uint16),
        (np.full((50, 3), WANTED) * 255).astype(np.int64),
    ],
    ids=["unit", "float-255", "uint8", "uint16", "int64"],
)
def test_colours_on_every_scale(rgb: np.ndarray):
    assert colours_of(npz(xyz=XYZ, rgb=rgb), ".npz") == pytest.approx(WANTED, abs=0.01)


def test_a_dark_cloud_of_8_bit_stays_dark():
    assert colours_of(npz(xyz=XYZ, rgb=np.ones((50, 3), np.uint8)), ".npz") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rgb", [XYZ, np.full((50, 3), 300.0), np.full((50, 3), 900, np.int32)])
def test_colours_on_no_known_scale_are_rejected(rgb: np.ndarray):
    with pytest.raises(Rejected, match=r"colours from .*; expected 0 to 1 or 0 to 255\. Are they normals"):
        colours_of(npz(xyz=XYZ, rgb=rgb), ".npz")
    assert decode_point_cloud(npz(xyz=XYZ, rgb=rgb), suffix=".npz", points=50).shape == (50, 3)


def test_further_columns_with_negative_values_are_normals():
    stream = io.BytesIO()
    np.save(stream, np.concatenate([XYZ, XYZ], axis=1))
    assert colours_of(stream.getvalue(), ".npy") == pytest.approx([0.4, 0.4, 0.4])


CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))


@pytest.mark.parametrize("colour", ["0.8 0.4 0.2", "204 102 51"])
def test_colours_of_corners_of_an_obj(colour: str):
    text = "".join(f"v {x} {y} {z} {colour}\n" for x, y, z in CORNERS) + "f 1 2 3\nf 1 2 4\n"
    assert colours_of(text.encode(), ".obj") == pytest.approx(WANTED, abs=0.01)


def ply(kind: str, colour: tuple[float, ...], faces: tuple[tuple[int, ...], ...], order: str = "ascii") -> bytes:
    header = (
        f"ply\nformat {order} 1.0\nelement vertex {len(CORNERS)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"property {kind} red\nproperty {kind} green\nproperty {kind} blue\nelement face {len(faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if order == "ascii":
        rows = [f"{x} {y} {z} {' '.join(map(str, colour))}" for x, y, z in CORNERS]
        rows += [f"{len(face)} {' '.join(map(str, face))}" for face in faces]
        return (header + "\n".join(rows) + "\n").encode()
    mark = "<" if "little" in order else ">"
    code = {"float": "f", "uchar": "B", "ushort": "H"}[kind]
    data = b"".join(struct.pack(f"{mark}3f3{code}", *corner, *colour) for corner in CORNERS)
    data += b"".join(struct.pack(f"{mark}B{len(face)}i", len(face), *face) for face in faces)
    return header.encode() + data


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("kind", "colour"),
    [("float", (204.0, 102.0, 51.0)), ("float", WANTED), ("uchar", (204, 102, 51)), ("ushort", (52428, 26214, 13107))],
)
@pytest.mark.parametrize("faces", [((0, 1, 2), (0, 1, 3)), ((0, 1, 2), (0, 1, 3, 2))], ids=["triangles", "mixed"])
def test_colours_of_a_ply_by_the_type_that_it_gives_them(order: str, kind: str, colour: tuple, faces: tuple):
    assert colours_of(ply(kind, colour, faces, order), ".ply") == pytest.approx(WANTED, abs=0.01)


# D. the whole or nothing


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", "PCM_16"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
        *(("CAF", "PCM_16"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_sound_that_was_cut_is_rejected(kind: str, subtype: str):
    data = sound(kind, subtype)
    assert len(decode_audio(data, rate=RATE)) / RATE == pytest.approx(2.0, abs=0.1)
    for share in (0.5, 0.9):
        with pytest.raises(Rejected, match=r"truncated|damaged"):
            decode_audio(data[: int(len(data) * share)], rate=RATE)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("mp4", "aac"), ("mov", "aac"), ("matroska", "aac"), ("webm", "libopus"), ("avi", "mp3")],
)
def test_a_sound_track_that_was_cut_is_rejected(kind: str, codec: str):
    data = av_sound(kind, codec)
    assert len(decode_audio(data, rate=RATE)) / RATE == pytest.approx(2.0, abs=0.1)
    for share in (0.5, 0.9):
        with pytest.raises(Rejected, match="truncated"):
            decode_audio(data[: int(len(data) * share)], rate=RATE)


def fmt(tag: int, channels: int, block: int, bits: int, size: int = 16) -> bytes:
    data = SOUND[:8000]
    samples = (data * 32767).astype("<i2").tobytes()
    body = struct.pack("<HHIIHH", tag, channels, RATE, RATE * block, block, bits)[:size]
    chunks = b"fmt " + struct.pack("<I", size) + body + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_a_description_of_samples_that_contradicts_itself_is_rejected():
    assert len(decode_audio(fmt(1, 1, 2, 16), rate=RATE)) == 8000
    for data in (fmt(1, 1, 2, 16, size=14), fmt(1, 1, 1, 16), fmt(1, 2, 2, 16), fmt(1, 1, 2, 8)):
        with pytest.raises(Rejected, match="a malformed header"):
            decode_audio(data, rate=RATE)


@pytest.mark.parametrize("kind", ["WAV", "AU", "AIFF"])
def test_a_header_that_was_never_finished_is_told_as_that(kind: str):
    data = bytearray(sound(kind))
    at, mark = {"WAV": (data.find(b"data") + 4, "<I"), "AU": (8, ">I"), "AIFF": (data.find(b"SSND") + 4, ">I")}[kind]
    data[at : at + 4] = struct.pack(mark, 8 if kind == "AIFF" else 0)
    with pytest.raises(
        Rejected, match=r"its header was never finished: it says 0 bytes of samples, and \d+,\d+ follow"
    ):
        decode_audio(bytes(data), rate=RATE)


def glb(*, required: tuple[str, ...] = (), primitive: dict | None = None, accessor: dict | None = None) -> bytes:
    positions = np.array(CORNERS[:3], "<f4").tobytes()
    scene = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, **(primitive or {})}]}],
        "buffers": [{"byteLength": len(positions)}],
        "bufferViews": [{"buffer": 0, "byteLength": len(positions)}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", **(accessor or {})}],
        "extensionsRequired": list(required),
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(positions), b"BIN\0") + positions
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"required": ("KHR_draco_mesh_compression",)}, r"requires KHR_draco_mesh_compression\. Draco and meshopt"),
        ({"required": ("EXT_meshopt_compression",)}, r"requires EXT_meshopt_compression\. Draco and meshopt"),
        ({"required": ("ACME_secret_geometry",)}, "requires ACME_secret_geometry"),
        ({"primitive": {"mode": 6}}, "triangle fans"),
        ({"accessor": {"sparse": {"count": 1}}}, "sparse positions"),
        ({"accessor": {"normalized": True}}, "normalised integers"),
        ({"accessor": {"count": 10**9}}, "a scene that takes .* once unpacked, the limit is"),
    ],
)
def test_a_scene_of_which_a_part_cannot_be_read_is_rejected(options: dict, reason: str):
    assert decode_point_cloud(glb(required=("KHR_materials_unlit",)), suffix=".glb", points=10).shape == (10, 3)
    with pytest.raises(Rejected, match=reason):
        decode_point_cloud(glb(**options), suffix=".glb", points=10)


@pytest.mark.parametrize("kind", ["ply", "ply-ascii", "stl", "stl_ascii", "off", "glb"])
def test_a_mesh_that_was_cut_is_rejected(kind: str):
    mesh = trimesh.creation.icosphere(subdivisions=2)
    name, _, encoding = kind.partition("-")
    data = mesh.export(file_type=name, **({"encoding": encoding} if encoding else {}))
    data = data.encode() if isinstance(data, str) else data
    suffix = f".{name.partition('_')[0]}"
    assert decode_point_cloud(data, suffix=suffix, points=10).shape == (10, 3)
    for share in (0.5, 0.9):
        part = data[: int(len(data) * share)]
        with pytest.raises(Rejected, match=r"truncated|damaged"):
            decode_point_cloud(part[: part.rfind(b"\n") + 1] if b"\0" not in data else part, suffix=suffix)


@pytest.mark.parametrize("suffix", [".off", ".ply", ".obj"])
def test_a_triangle_that_names_a_corner_that_is_not_there_is_rejected(suffix: str):
    text = {
        ".off": "OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 1 7\n",
        ".obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 8\n",
        ".ply": ply("uchar", (1, 2, 3), ((0, 1, 2), (0, 1, 7))).decode(),
    }[suffix]
    with pytest.raises(Rejected, match="damaged"):
        decode_point_cloud(text.encode(), suffix=suffix)


@pytest.mark.parametrize("order", ["binary_little_endian", "binary_big_endian"])
def test_polygons_of_several_sizes(order: str):
    faces = ((0, 1, 2), (0, 1, 3, 2), (0, 1, 2))
    data = ply("uchar", (1, 2, 3), faces, order)
    assert np.array_equal(np.unique(decode_point_cloud(data, suffix=".ply", points=500) > 0), [False, True])
    with pytest.raises(Rejected, match="truncated"):
        decode_point_cloud(data[:-6], suffix=".ply")
    off = b"OFF\n5 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n.5 .5 1\n3 0 1 2\n5 0 1 2 3 4\n"
    extent = np.ptp(decode_point_cloud(off, suffix=".off", points=5000), axis=0)
    assert extent.min() > 0.5


# E. orientation


def picture(turn: int, kind: str) -> bytes:
    """A picture whose upper half is red and lower half blue once its turn is applied."""
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:20, :, 0], upright[20:, :, 2] = 255, 255
    image = Image.fromarray(upright)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(turn)  # the way back from each turn
    stored = image if back is None else image.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    stored.save(stream, kind, exif=exif, **({"quality": 95} if kind != "PNG" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_upright(turn: int, kind: str):
    pixels = decode_image(picture(turn, kind)).astype(int)
    assert pixels.shape == (40, 20, 3)
    assert pixels[5, 10, 0] > 200 > 60 > pixels[5, 10, 2]
    assert pixels[35, 10, 2] > 200 > 60 > pixels[35, 10, 0]


def test_a_box_of_a_turned_picture_is_of_the_upright_one(tmp_path: Path):
    (tmp_path / "p.jpg").write_bytes(picture(6, "JPEG"))
    top = open_image(Item("a", str(tmp_path / "p.jpg"), box=(0.0, 0.0, 1.0, 0.4)))
    assert (top.size, top.getpixel((10, 5))[0] > 200) == ((20, 16), True)


MATRICES = {
    "quarter": ((0, 1, -1, 0), (20, 40)),
    "half": ((-1, 0, 0, -1), (40, 20)),
    "three-quarters": ((0, -1, 1, 0), (20, 40)),
    "mirrored": ((-1, 0, 0, 1), (40, 20)),
    "upright": ((1, 0, 0, 1), (40, 20)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_videos_are_upright(tmp_path: Path, name: str):
    """The matrix in the track's header of an mp4 is changed; the frame has a red corner at its upper left."""
    (a, b, c, d), size = MATRICES[name]
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[..., 2], pixels[:10, :20] = 255, (255, 0, 0)
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        track = out.add_stream("mpeg4", rate=10)
        track.width, track.height, track.pix_fmt = 40, 20, "yuv420p"
        for _ in range(4):
            out.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(track.encode(None))
    data = (tmp_path / "v.mp4").read_bytes()
    at = data.find(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    (tmp_path / "v.mp4").write_bytes(data[:at] + matrix + data[at + 36 :])
    image = middle_frame(tmp_path / "v.mp4")
    assert image.size == size
    corner = np.array([0.0, 0.0]) - [0.5, 0.5]  # of the stored frame, from its middle; x and y downwards
    x, y = np.array([a * corner[0] + c * corner[1], b * corner[0] + d * corner[1]])
    where = (3 if x < 0 else size[0] - 4, 3 if y < 0 else size[1] - 4)
    assert image.getpixel(where)[0] > 180


# I. reasons


def test_an_empty_file_is_called_empty(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"")
    for decode in (
        lambda: decode_image(tmp_path / "a"),
        lambda: decode_image(b""),
        lambda: decode_audio(b"", rate=RATE),
        lambda: decode_point_cloud(b"", suffix=".ply"),
    ):
        with pytest.raises(Rejected, match="an empty file"):
            decode()
