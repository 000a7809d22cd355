"""Files: written whole or not at all, hashed, read with one-line faults, found in natural order."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from isthmus.core import files
from isthmus.errors import FormatError


def test_atomic_file_shows_nothing_before_it_is_whole(tmp_path: Path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with files.atomic_file(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
        assert aside.parent == target.parent
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_atomic_file_leaves_the_old_file_after_a_fault(tmp_path: Path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with suppress(OSError), files.atomic_file(target) as aside:
        aside.write_text("half")
        raise OSError(28, "disk full")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_atomic_folder_is_renamed_whole(tmp_path: Path):
    target = tmp_path / "deep" / "x.space"
    with files.atomic_folder(target) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "a").write_text("1")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["x.space"]


def test_atomic_folder_is_removed_after_a_fault_and_keeps_the_old(tmp_path: Path):
    target = tmp_path / "x"
    with suppress(RuntimeError), files.atomic_folder(target) as aside:
        (aside / "a").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    target.mkdir()
    (target / "old").write_text("kept")
    with pytest.raises(RuntimeError), files.atomic_folder(target, overwrite=True):
        raise RuntimeError
    assert (target / "old").read_text() == "kept"
    with pytest.raises(FileExistsError), files.atomic_folder(target):
        pass
    with files.atomic_folder(target, overwrite=True) as aside:
        (aside / "new").write_text("1")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


def test_hashes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert files.sha256_json({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.sha256_json(float("nan"))


def test_json_round_trip_and_faults(tmp_path: Path):
    path = tmp_path / "a.json"
    files.write_json(path, {"é": [1, None]})
    assert files.read_json(path, kind="thing") == {"é": [1, None]}
    for text, fault in (
        ("{", "read as the json of a thing"),
        ("[1]", "object, got a list"),
        ("[" * 100_000, "read as the json"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=fault) as caught:
            files.read_json(path, kind="thing")
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(FormatError, match="read as the json"):
        files.read_json(path, kind="thing")


def test_json_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ISTHMUS_MAX_JSON", "10")
    (tmp_path / "a.json").write_text(json.dumps({"a": "long enough"}))
    with pytest.raises(FormatError, match="at most 10 bytes, got 20"):
        files.read_json(tmp_path / "a.json", kind="thing")


def test_paths_are_found_once_in_natural_order(tmp_path: Path):
    for name in ("a_10.npy", "a_2.npy", "b.NPY", ".hidden.npy", "c.txt", "sub/d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = files.expand_paths([tmp_path, tmp_path / "a_2.npy", str(tmp_path / "*.npy")], (".npy",))
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a_2.npy", "a_10.npy", "b.NPY", "sub/d.npy"]


def test_faults_of_paths(tmp_path: Path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(FormatError, match="no such file or folder"):
        files.expand_paths(tmp_path / "none", (".npy",))
    with pytest.raises(FormatError, match=r"the suffix '.txt' is not known here. Expected one of .npy"):
        files.expand_paths(tmp_path / "a.txt", (".npy",))
    with pytest.raises(FormatError, match=r"no file with one of the suffixes .npy"):
        files.expand_paths(tmp_path, (".npy",))
    with pytest.raises(FormatError, match="no path: no file"):
        files.expand_paths([], (".npy",))


def test_one_line():
    assert files.one_line(ValueError("  a\nb")) == "a"
    assert files.one_line(ValueError()) == "ValueError"
    assert len(files.one_line(ValueError("x" * 500))) == 160


def test_leftovers_of_killed_processes_are_swept(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    dead = process.pid
    (tmp_path / f".a.json.partial-{dead}").write_text("half")
    (tmp_path / f".x.space.partial-{dead}").mkdir()
    (tmp_path / f".b.json.partial-{dead}").touch()
    (tmp_path / f".a.json.partial-{os.getppid()}").touch()
    files.write_json(tmp_path / "a.json", {})
    with files.atomic_folder(tmp_path / "x.space"):
        pass
    left = {f".b.json.partial-{dead}", f".a.json.partial-{os.getppid()}"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "x.space", *left}
    files.sweep(tmp_path / "a.json", held=True)
    assert not (tmp_path / f".a.json.partial-{os.getppid()}").exists()
