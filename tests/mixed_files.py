"""Good and bad files of each modality, each bad one with the reason that it must be rejected for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import trimesh
from PIL import Image

COUNT = 200


def picture(number: int) -> tuple[str, bytes, str]:
    """Suffix, bytes, and the reason that it must be rejected for; empty for a good one."""
    rng, stream = np.random.default_rng(number), io.BytesIO()
    image = Image.fromarray(rng.integers(0, 256, (21, 17, 4), dtype=np.uint8), "RGBA")
    kinds = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]
    kind = kinds[number % len(kinds)]
    (image if kind in ("PNG", "WEBP", "TIFF") else image.convert("RGB")).save(stream, kind)
    data, suffix = stream.getvalue(), f".{kind.lower()}"
    match number % 10:
        case 7:
            return suffix, data[: len(data) // 3], "truncated|damaged|no image"
        case 9:
            return suffix, b"", "an empty file"
    return suffix, data, ""


def sound(number: int) -> tuple[str, bytes, str]:
    rng, stream = np.random.default_rng(number), io.BytesIO()
    kind = ["WAV", "FLAC", "OGG", "MP3"][number % 4]
    rate = [8_000, 16_000, 22_050, 44_100][number // 4 % 4]
    signal = rng.uniform(-0.5, 0.5, (rate * (1 + number % 3), 1 + number % 2)).astype(np.float32)
    reason = ""
    match number % 10:
        case 5:
            signal, reason = signal * 0, "silent"
        case 7:
            signal, kind, reason = signal * np.nan, "WAV", "NaN"
        case 8:
            signal, kind, reason = signal[:0], "WAV", "zero length"
        case 9:
            return ".wav", b"RIFF no more", "truncated: 12 of"
    soundfile.write(stream, signal, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return f".{kind.lower()}", stream.getvalue(), reason


def shape(number: int) -> tuple[str, bytes, str]:
    suffix = [".ply", ".obj", ".stl", ".off", ".glb", ".npy", ".npz"][number % 7]
    mesh = trimesh.creation.box(extents=[1, 2, 1 + number / COUNT])
    points, reason = np.array(mesh.sample(300, seed=number)), ""
    match number % 10:
        case 5:
            points, suffix, reason = points * np.nan, ".npy", "NaN"
        case 7:
            points, suffix, reason = points * 0 + 1, ".npz", "no extent"
        case 9:
            return suffix, b"broken", "damaged|no points|no surface"
    if suffix not in (".npy", ".npz"):
        data = mesh.export(file_type=suffix[1:])
        return suffix, data.encode() if isinstance(data, str) else data, reason
    stream = io.BytesIO()
    np.save(stream, points) if suffix == ".npy" else np.savez(stream, xyz=points)
    return suffix, stream.getvalue(), reason


MAKERS = {"image": picture, "audio": sound, "point_cloud": shape}


def make_files(folder: Path, modality: str) -> dict[str, str]:
    """Write the files; returns the expected reason by id."""
    folder.mkdir()
    expected = {}
    for number in range(COUNT):
        suffix, data, reason = MAKERS[modality](number)
        name = f"{number:03d}{suffix}"
        (folder / name).write_bytes(data)
        expected[name] = reason
    return expected
