"""200 good and bad files of each modality by command line: good ones are embedded, bad ones have a reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isthmus.spaces.space import open_space
from mixed_files import COUNT, MAKERS, make_files

TESTS = Path(__file__).resolve().parents[1]


def isthmus(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "isthmus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=300)


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
