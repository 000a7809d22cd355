"""Meshes and clouds of every kind: sampled alike each time, centred, scaled, turned, or refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from isthmus.errors import ConfigError
from isthmus.items import Rejected
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.shapes import NO_COLOUR, Shape, rotation, sample_surface, unit_sphere

SUFFIXES = [".ply", ".obj", ".stl", ".off", ".glb"]


def box(extents: tuple[float, float, float] = (1.0, 2.0, 4.0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=extents)
    mesh.apply_translation([5.0, 6.0, 7.0])
    return mesh


def exported(mesh: trimesh.Trimesh, suffix: str) -> bytes:
    data = mesh.export(file_type=suffix[1:])
    return data.encode() if isinstance(data, str) else data


def saved(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    if list(arrays) == ["npy"]:
        np.save(stream, arrays["npy"])
    else:
        np.savez(stream, **arrays)
    return stream.getvalue()


def cloud(count: int = 50) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_meshes(suffix: str, tmp_path: Path):
    path = tmp_path / f"box{suffix}"
    path.write_bytes(exported(box(), suffix))
    points = decode_point_cloud(path, points=2000)
    assert points.shape == (2000, 3)
    assert points.dtype == np.float32
    assert np.abs(points.mean(axis=0)).max() < 1e-6
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1.0, abs=1e-6)
    spread = np.ptp(points, axis=0)
    assert spread / spread[0] == pytest.approx([1.0, 2.0, 4.0], rel=0.03)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_bytes_give_equal_points(suffix: str, tmp_path: Path):
    data = exported(box(), suffix)
    (tmp_path / f"other{suffix}").write_bytes(data)
    a = decode_point_cloud(data, suffix=suffix, points=256)
    b = decode_point_cloud(tmp_path / f"other{suffix}", points=256)
    assert np.array_equal(a, b)


def test_other_bytes_give_other_draws():
    a = decode_point_cloud(exported(box(), ".ply"), suffix=".ply", points=64)
    b = decode_point_cloud(exported(box(), ".off"), suffix=".off", points=64)
    assert not np.allclose(a, b)


def test_surface_sampling_is_uniform_by_area():
    """Two triangles of areas 1 and 3: a quarter of the points on the first, and each triangle evenly covered."""
    xyz = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0], [10, 0, 0], [13, 0, 0], [10, 2, 0]], dtype=float)
    shape = Shape(xyz, np.array([[0, 1, 2], [3, 4, 5]]))
    points = sample_surface(shape, 40_000, np.random.default_rng(0)).xyz
    first = points[points[:, 0] < 5]
    assert len(first) / len(points) == pytest.approx(0.25, abs=0.01)
    assert first.mean(axis=0) == pytest.approx([2 / 3, 1 / 3, 0], abs=0.02)
    assert (first[:, 0] / 2 + first[:, 1] <= 1 + 1e-9).all()


def test_scene_of_several_meshes_keeps_their_places():
    a, b = trimesh.creation.box(extents=[1, 1, 1]), trimesh.creation.box(extents=[1, 1, 1])
    scene = trimesh.Scene()
    scene.add_geometry(a, transform=trimesh.transformations.translation_matrix([-10, 0, 0]))
    scene.add_geometry(b, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    points = decode_point_cloud(scene.export(file_type="glb"), suffix=".glb", points=500)
    assert np.abs(points[:, 0]).min() > 0.7
    assert (points[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_point_clouds_in_ply_and_obj():
    ply = trimesh.PointCloud(cloud()).export(file_type="ply")
    assert decode_point_cloud(ply, suffix=".ply", points=None).shape == (50, 3)
    obj = "".join(f"v {x} {y} {z}\n" for x, y, z in cloud()).encode()
    assert decode_point_cloud(obj, suffix=".obj", points=None) == pytest.approx(unit_sphere(cloud()), abs=1e-5)


@pytest.mark.parametrize("key", ["xyz", "points", "pos", "pc"])
def test_npz(key: str):
    rgb = np.random.default_rng(1).uniform(0, 1, (50, 3))
    decoded = decode_point_cloud(saved(**{key: cloud(), "rgb": rgb}), suffix=".npz", points=None, colours=True)
    assert decoded[:, :3] == pytest.approx(unit_sphere(cloud()), abs=1e-6)
    assert decoded[:, 3:] == pytest.approx(rgb, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_npy_types(dtype: type):
    xyz = (cloud() * 100).astype(dtype)
    decoded = decode_point_cloud(saved(npy=xyz), suffix=".npy", points=None)
    assert decoded == pytest.approx(unit_sphere(xyz.astype(np.float64)), abs=1e-6)


def test_npy_with_colours_of_eight_bits():
    rgb = np.random.default_rng(1).integers(0, 256, (50, 3))
    decoded = decode_point_cloud(saved(npy=np.hstack([cloud(), rgb])), suffix=".npy", points=None, colours=True)
    assert decoded[:, 3:] == pytest.approx(rgb / 255, abs=1e-6)


def test_missing_colours_are_grey():
    decoded = decode_point_cloud(saved(npy=cloud()), suffix=".npy", points=None, colours=True)
    assert (decoded[:, 3:] == np.float32(NO_COLOUR)).all()
    mesh = decode_point_cloud(exported(box(), ".stl"), suffix=".stl", points=20, colours=True)
    assert (mesh[:, 3:] == np.float32(NO_COLOUR)).all()


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".obj"])
def test_colours_of_corners(suffix: str):
    mesh = box()
    mesh.visual.vertex_colors = np.tile([255, 128, 0, 255], (len(mesh.vertices), 1)).astype(np.uint8)
    decoded = decode_point_cloud(exported(mesh, suffix), suffix=suffix, points=30, colours=True)
    assert decoded[:, 3:] == pytest.approx(np.tile([1.0, 128 / 255, 0.0], (30, 1)), abs=0.01)


def test_more_points_than_wanted_are_a_subset():
    decoded = decode_point_cloud(saved(npy=cloud(500)), suffix=".npy", points=100)
    again = decode_point_cloud(saved(npy=cloud(500)), suffix=".npy", points=100)
    assert decoded.shape == (100, 3)
    assert np.array_equal(decoded, again)
    assert len(np.unique(decoded, axis=0)) == 100


def test_fewer_points_than_wanted_repeat_or_stay():
    data = saved(npy=cloud(30))
    repeated = decode_point_cloud(data, suffix=".npy", points=70)
    assert repeated.shape == (70, 3)
    assert np.array_equal(repeated[:30], repeated[30:60])
    assert decode_point_cloud(data, suffix=".npy", points=70, repeat=False).shape == (30, 3)


def test_normalising_twice_changes_nothing():
    once = unit_sphere(cloud() * 3 + 8)
    assert unit_sphere(once) == pytest.approx(once, abs=1e-15)


AXES = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "-x": [-1, 0, 0], "-y": [0, -1, 0], "-z": [0, 0, -1]}


@pytest.mark.parametrize("up", AXES)
@pytest.mark.parametrize("wanted", AXES)
def test_up_axis_is_rotated_and_never_mirrored(up: str, wanted: str):
    turn = rotation(up, wanted)
    assert turn @ AXES[up] == pytest.approx(AXES[wanted])
    assert turn @ turn.T == pytest.approx(np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1.0)


def test_z_up_file_to_y_up():
    xyz = cloud()
    decoded = decode_point_cloud(saved(npy=xyz), suffix=".npy", points=None, up="z")
    x, y, z = xyz.T
    assert decoded == pytest.approx(unit_sphere(np.stack([x, z, -y], axis=1)), abs=1e-6)
    with pytest.raises(ConfigError, match="unknown up axis 'up'"):
        decode_point_cloud(saved(npy=xyz), suffix=".npy", up="up")


def pickled_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"xyz": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def nan_cloud() -> np.ndarray:
    xyz = cloud()
    xyz[3, 1] = np.nan
    return xyz


@pytest.mark.parametrize(
    ("data", "suffix", "reason"),
    [
        (saved(npy=nan_cloud()), ".npy", "NaN"),
        (saved(xyz=cloud(), rgb=nan_cloud()), ".npz", "NaN"),
        (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\nnan 0 0\n",
            ".ply",
            "NaN",
        ),
        (saved(npy=np.ones((9, 3))), ".npy", "no extent"),
        (saved(npy=np.ones((1, 3))), ".npy", "no extent"),
        (saved(npy=np.full((9, 3), 0.1) * 3), ".npy", "no extent"),
        (saved(npy=np.zeros((0, 3))), ".npy", "no points"),
        (saved(npy=np.zeros((5, 2))), ".npy", r"shape \(5, 2\)"),
        (saved(npy=np.array(["a", "b"])), ".npy", "expected numbers"),
        (saved(other=cloud()), ".npz", "no array named xyz"),
        (saved(xyz=cloud(), rgb=cloud(3)), ".npz", "colours of shape"),
        (pickled_npy(), ".npy", "pickled"),
        (saved(npy=cloud())[:-40], ".npy", "damaged"),
        (saved(xyz=cloud())[:-40], ".npz", "damaged"),
        (b"", ".ply", "an empty file"),
        (b"not a mesh at all", ".ply", "damaged"),
        (b"not a mesh at all", ".glb", "damaged"),
        (b"not a mesh at all", ".off", "damaged"),
        (b"# nothing\n", ".obj", "no points|damaged"),
        (b"solid x\nendsolid x\n", ".stl", "no points|no surface|damaged"),
        (b"v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n", ".obj", "no surface"),
        (b"whatever", ".fbx", "no shape that isthmus reads"),
    ],
)
def test_what_is_refused(data: bytes, suffix: str, reason: str):
    with pytest.raises(Rejected, match=reason):
        decode_point_cloud(data, suffix=suffix, colours=True)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".off", ".glb"])
def test_truncated_meshes_are_never_passed_off_as_whole_binary(suffix: str):
    """A file that ends early can be told where the format announces its sizes; obj, which is text, announces none."""
    data = exported(trimesh.creation.icosphere(subdivisions=3), suffix)
    with pytest.raises(Rejected):
        decode_point_cloud(data[: len(data) // 2], suffix=suffix)


def test_glb_with_a_foreign_file_is_refused_not_fetched():
    text = json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": 4, "uri": "/etc/hostname"}]}).encode()
    text += b" " * (-len(text) % 4)
    glb = struct.pack("<III", 0x46546C67, 2, 20 + len(text)) + struct.pack("<II", len(text), 0x4E4F534A) + text
    with pytest.raises(Rejected):
        decode_point_cloud(glb, suffix=".glb")


def test_size_limit(tmp_path: Path):
    path = tmp_path / "a.npy"
    path.write_bytes(saved(npy=cloud()))
    with pytest.raises(Rejected, match="too large"):
        decode_point_cloud(path, max_bytes=100)
    with pytest.raises(Rejected, match="No such file"):
        decode_point_cloud(tmp_path / "none.npy")


def test_loose_points_beside_a_mesh_do_not_count():
    mesh = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nv 500 500 500\n"
    points = decode_point_cloud(mesh, suffix=".obj", points=500)
    assert np.linalg.norm(points, axis=1).mean() > 0.3


def test_real_shapes(shared: Path):
    for name in ("cow", "spot", "teapot"):
        points = decode_point_cloud(shared / f"data/raw/shapes/{name}.obj")
        assert points.shape == (8192, 3)
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1.0, abs=1e-6)
    for path in (shared / "data/official").glob("*.npz"):
        points = decode_point_cloud(path, points=10_000, colours=True)
        assert points.shape == (10_000, 6)
        with np.load(path) as arrays:
            assert points[:, 3:] == pytest.approx(arrays["rgb"].astype(np.float64), abs=1e-3)
