"""200 good and bad files of each modality by command line: good ones are embedded, bad ones have a reason."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import trimesh
from PIL import Image

from isthmus.space import open_space

COUNT = 200
TESTS = Path(__file__).resolve().parents[1]


def isthmus(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "isthmus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=300)


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
            return suffix, b"", "no image"
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
            return ".wav", b"RIFF no more", "no sound"
    soundfile.write(stream, signal, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return f".{kind.lower()}", stream.getvalue(), reason


def shape(number: int) -> tuple[str, bytes, str]:
    suffix = [".ply", ".obj", ".stl", ".off", ".glb", ".npy", ".npz"][number % 7]
    mesh = trimesh.creation.box(extents=[1, 2, 1 + number / COUNT])
    points, reason = np.array(mesh.vertices), ""
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


def check(space: Path, modality: str, expected: dict[str, str]) -> None:
    good = [name for name, reason in expected.items() if not reason]
    assert open_space(space)[modality].ids == good
    rejected = pq.read_table(space / modality / "rejected.parquet").to_pylist()
    assert [row["id"] for row in rejected] == [name for name, reason in expected.items() if reason]
    for row in rejected:
        assert re.search(expected[row["id"]], row["reason"]), row


@pytest.mark.parametrize("modality", list(MAKERS))
def test_good_are_embedded_bad_have_a_reason(tmp_path: Path, modality: str):
    expected = make_files(tmp_path / "raw", modality)
    bad = sum(map(bool, expected.values()))
    command = ("encode", "raw", "--encoder", "tiny_encoder:TinyEncoder", "--into", "s.space")
    strict = isthmus(*command, "--workers", 2, cwd=tmp_path)
    assert strict.returncode == 1, strict.stderr
    assert f"{bad} of {COUNT} {modality} items ({bad / COUNT:.1%}) were rejected" in strict.stderr
    check(tmp_path / "s.space", modality, expected)
    lenient = isthmus(*command, "--max-rejected", 0.5, "--json", "--workers", 0, cwd=tmp_path)
    assert lenient.returncode == 0, lenient.stderr
    report = json.loads(lenient.stdout)
    assert (report["rows"], report["rejected"], report["encoded"]) == (COUNT - bad, bad, 0)


def test_captions(tmp_path: Path):
    lines = ["" if number % 10 == 7 else f"caption {number}" for number in range(COUNT)]
    (tmp_path / "c.txt").write_text("\n".join(lines) + "\n")
    command = ("encode", "c.txt", "--encoder", "tiny_encoder:TinyEncoder", "--into", "s.space")
    assert isthmus(*command, cwd=tmp_path).returncode == 1
    check(tmp_path / "s.space", "text", {f"c.txt:{n + 1}": "" if line else "empty" for n, line in enumerate(lines)})


@pytest.mark.parametrize("modality", ["image"])
def test_the_same_out_of_a_tar(tmp_path: Path, modality: str):
    expected = make_files(tmp_path / "raw", modality)
    with tarfile.open(tmp_path / "raw.tar", "w") as tar:
        for name in expected:
            tar.add(tmp_path / "raw" / name, name)
    command = ("encode", "raw.tar", "--encoder", "tiny_encoder:TinyEncoder", "--into", "s.space", "--workers", 0)
    done = isthmus(*command, "--modality", modality, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    check(tmp_path / "s.space", modality, {Path(name).stem: reason for name, reason in expected.items()})


def test_wrong_use_is_two(tmp_path: Path):
    done = isthmus("encode", "none", "--encoder", "tiny_encoder:TinyEncoder", "--into", "s.space", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such file or folder" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s.space").exists()
