"""Bad input through the command line: one line that says what to do, exit code 2, and nothing changed on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.cli import main

Prepare = Callable[[Path], list[str]]
N, ONE, TWO = 40, 8, 6


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small spaces that share texts, a closed-form bridge, and good files to spoil."""
    rng = np.random.default_rng(0)
    ids = [f"t{i}" for i in range(N)]

    def rows(dim: int) -> np.ndarray:
        return rng.normal(size=(N, dim)).astype(np.float32)

    monkeypatch.chdir(tmp_path)
    clip = isthmus.make_space("clip.space", {"text": (ids, rows(ONE)), "image": (ids, rows(ONE))})
    clap = isthmus.make_space("clap.space", {"text": (ids, rows(TWO)), "audio": (ids, rows(TWO))})
    isthmus.extend(base=clip, leaf=clap, via="text", method="ridge", quiet=True).save("good.bridge")
    np.save("good.npy", rows(ONE))
    Path("pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"t{i},t{i}\n" for i in range(N)))
    return tmp_path


def digest(folder: Path) -> dict[str, str]:
    """Hash every file and name every folder below a folder, the hidden ones too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def check(folder: Path, arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(folder)
    capsys.readouterr()
    code = main([*arguments, "--json", "--quiet"])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert re.match(rf"\w+Error: .*{match}", captured.err), captured.err
    assert digest(folder) == before


def import_into_clip(source: str) -> list[str]:
    return ["import", source, "--into", "clip.space", "--modality", "audio"]


def save(name: str, array: Any, **options: Any) -> str:
    np.save(name, array, **options)
    return name


def wrong_dims(folder: Path) -> list[str]:
    return import_into_clip(save("bad.npy", np.ones((5, ONE + 1), np.float32)))


def not_a_matrix(folder: Path) -> list[str]:
    return import_into_clip(save("bad.npy", np.ones(5, np.float32)))


def nan(folder: Path) -> list[str]:
    array = np.ones((5, ONE), np.float32)
    array[3, 2] = np.nan
    return import_into_clip(save("bad.npy", array))


def zero_row(folder: Path) -> list[str]:
    array = np.ones((5, ONE), np.float32)
    array[2] = 0
    return import_into_clip(save("bad.npy", array))


def duplicate_ids(folder: Path) -> list[str]:
    (folder / "ids.txt").write_text("a\nb\na\nc\nd\n")
    return [*import_into_clip(save("bad.npy", np.ones((5, ONE), np.float32))), "--ids", "ids.txt"]


def no_overlap(folder: Path) -> list[str]:
    rows = np.random.default_rng(1).normal(size=(N, TWO))
    isthmus.make_space(
        "other.space", {"text": ([f"x{i}" for i in range(N)], rows), "audio": ([f"a{i}" for i in range(N)], rows)}
    )
    return ["extend", "clip.space", "other.space", "--via", "text", "--out", "new.bridge"]


def overlap_absent(folder: Path) -> list[str]:
    return ["extend", "clip.space", "clap.space", "--via", "audio", "--out", "new.bridge"]


def empty_array(folder: Path) -> list[str]:
    return import_into_clip(save("bad.npy", np.ones((0, ONE), np.float32)))


def empty_file(folder: Path) -> list[str]:
    (folder / "bad.npy").write_bytes(b"")
    return import_into_clip("bad.npy")


def pickled(folder: Path) -> list[str]:
    return import_into_clip(save("bad.npy", np.array([{"evil": 1}], dtype=object), allow_pickle=True))


def truncated_shard(folder: Path) -> list[str]:
    (shard,) = (folder / "clap.space" / "audio").glob("*/audio_emb_*.npy")
    shard.write_bytes(shard.read_bytes()[:-40])
    return ["inspect", "clap.space"]


def shard_without_marker(folder: Path) -> list[str]:
    (marker,) = (folder / "clap.space" / "audio" / "_done").glob("*.json")
    marker.unlink()
    return ["extend", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge"]


def newer(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "format_version": 99}))

    return spoil


def newer_space(folder: Path) -> list[str]:
    newer("clap.space/space.json")(folder)
    return ["inspect", "clap.space"]


def newer_bridge(folder: Path) -> list[str]:
    newer("good.bridge/bridge.json")(folder)
    return ["project", "good.bridge", "clap.space", "--into", "new.space"]


def unknown_key_in_file(folder: Path) -> list[str]:
    (folder / "c.toml").write_text("epochs = 2\nbatchsize = 8\n")
    return ["connect", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge", "--config", "c.toml"]


def unknown_key_in_set(folder: Path) -> list[str]:
    return ["extend", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge", "--set", "epoch=3"]


def value_out_of_range(folder: Path) -> list[str]:
    return ["extend", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge", "--set", "epochs=0"]


def evaluate(pairs: str) -> list[str]:
    return ["evaluate", "good.bridge", "--query", "clap.space/audio", "--gallery", "clip.space/image", "--pairs", pairs]


def missing_ids(folder: Path) -> list[str]:
    (folder / "bad.csv").write_text("query_id,gallery_id\nt0,t0\nnobody,t1\n")
    return evaluate("bad.csv")


def missing_column(folder: Path) -> list[str]:
    (folder / "bad.csv").write_text("query,gallery\nt0,t0\n")
    return evaluate("bad.csv")


def garbage(folder: Path) -> list[str]:
    (folder / "bad.parquet").write_bytes(b"this is no parquet at all" * 20)
    return import_into_clip("bad.parquet")


def absent(folder: Path) -> list[str]:
    return import_into_clip("nowhere.npy")


def unknown_suffix(folder: Path) -> list[str]:
    (folder / "bad.xyz").write_text("words")
    return import_into_clip("bad.xyz")


def no_space(folder: Path) -> list[str]:
    return ["inspect", "nowhere.space"]


def no_bridge(folder: Path) -> list[str]:
    return ["project", "nowhere.bridge", "clap.space", "--into", "new.space"]


def out_is_there(folder: Path) -> list[str]:
    return ["extend", "clip.space", "clap.space", "--via", "text", "--out", "good.bridge"]


def other_encoder(folder: Path) -> list[str]:
    rows = np.random.default_rng(1).normal(size=(N, TWO))
    isthmus.make_space("stranger.space", {"audio": ([f"a{i}" for i in range(N)], rows)})
    return ["project", "good.bridge", "stranger.space", "--into", "new.space"]


def no_modality_named(folder: Path) -> list[str]:
    return ["evaluate", "good.bridge", "--query", "clap.space", "--gallery", "clip.space/image", "--pairs", "pairs.csv"]


def modality_absent(folder: Path) -> list[str]:
    return ["search", "good.bridge", "--id", "clap.space/image/t0", "--gallery", "clip.space/image"]


def id_absent(folder: Path) -> list[str]:
    return ["search", "good.bridge", "--id", "clap.space/audio/nobody", "--gallery", "clip.space/image"]


def two_queries(folder: Path) -> list[str]:
    return ["search", "good.bridge", "--id", "clap.space/audio/t0", "--text", "dog", "--gallery", "clip.space/image"]


def half_a_task(folder: Path) -> list[str]:
    return ["evaluate", "good.bridge", "--query", "clap.space/audio", "--gallery", "clip.space/image"]


def unknown_encoder(folder: Path) -> list[str]:
    (folder / "words.txt").write_text("a dog\n")
    return ["encode", "words.txt", "--encoder", "nothing:at-all", "--into", "new.space", "--modality", "text"]


CASES: list[tuple[Prepare, str]] = [
    (wrong_dims, r"clip\.space.*dim 9.*dim 8"),
    (not_a_matrix, r"bad\.npy"),
    (nan, r"bad\.npy.*row 3"),
    (zero_row, r"bad\.npy.*row 2"),
    (duplicate_ids, r".*'a'"),
    (no_overlap, r"spaces 'clip' and 'other' share 0 of .*text ids"),
    (overlap_absent, r".*audio"),
    (empty_array, r"bad\.npy"),
    (empty_file, r"bad\.npy"),
    (pickled, r"bad\.npy.*(object|pickle)"),
    (truncated_shard, r"audio_emb_00000\.npy"),
    (shard_without_marker, r".*audio"),
    (newer_space, r".*clap\.space.*99"),
    (newer_bridge, r".*good\.bridge.*99"),
    (unknown_key_in_file, r"--config c\.toml has the unknown key 'batchsize'\. Did you mean batch_size\?"),
    (unknown_key_in_set, r"--set has the unknown key 'epoch'\. Did you mean epochs\?"),
    (value_out_of_range, r"config key 'epochs' got 0"),
    (missing_ids, r"bad\.csv.*'nobody'"),
    (missing_column, r"bad\.csv.*query_id"),
    (garbage, r"bad\.parquet"),
    (absent, r"nowhere\.npy"),
    (unknown_suffix, r"bad\.xyz"),
    (no_space, r"nowhere\.space"),
    (no_bridge, r"nowhere\.bridge"),
    (out_is_there, r"--out good\.bridge exists already"),
    (other_encoder, r"stranger"),
    (no_modality_named, r"--query got the space 'clap\.space'"),
    (modality_absent, r"space 'clap\.space' has no modality 'image'"),
    (id_absent, r".*'nobody'"),
    (two_queries, r"search needs one query"),
    (half_a_task, r"evaluate got --gallery, expected"),
    (unknown_encoder, r".*nothing"),
]


@pytest.mark.parametrize(("prepare", "match"), CASES, ids=[prepare.__name__ for prepare, _ in CASES])
def test_bad_input_is_one_line_and_changes_nothing(
    prepare: Prepare, match: str, world: Path, capsys: pytest.CaptureFixture[str]
):
    check(world, prepare(world), match, capsys)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(world: Path, capsys: pytest.CaptureFixture[str]):
    (world / "good.npy").chmod(0)
    before = sorted(world.rglob("*"))
    assert main(import_into_clip("good.npy")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(world.rglob("*")) == before


def test_a_file_that_may_not_be_read_or_written_is_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "clip.space/space.json")

    monkeypatch.setattr(os, "replace", refuse)
    check(world, import_into_clip("good.npy"), r"clip\.space/space\.json may not be read or written", capsys)


FULL = {
    "import": ["import", "good.npy", "--into", "new.space", "--modality", "audio"],
    "import more": import_into_clip("good.npy"),
    "extend": ["extend", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge", "--method", "ridge"],
    "train": ["extend", "clip.space", "clap.space", "--via", "text", "--out", "new.bridge", "--set", "epochs=1"],
    "project": ["project", "good.bridge", "clap.space", "--into", "new.space"],
}


@pytest.mark.parametrize("verb", list(FULL))
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    verb: str, after: int, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The disk is full at the n-th file that is flushed; what is removed then makes room for the cleaning up."""
    flush, flushed = os.fsync, [0]

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flushed[0] += 1
            if flushed[0] == after + 1:
                raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    before = digest(world)
    code = main([*FULL[verb], "--quiet"])
    error = capsys.readouterr().err
    if flushed[0] <= after:
        pytest.skip("the verb flushes less often")
    assert code == 2, error
    assert error.count("\n") == 1
    assert error.startswith("OSError: no space left on the device of somewhere")
    assert digest(world) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_a_real_limit_on_file_size_is_one_line(world: Path):
    """Where the system itself refuses to write more, as a quota does."""
    np.save(world / "big.npy", np.random.default_rng(0).normal(size=(20_000, ONE)).astype(np.float32))
    before = digest(world)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from isthmus.cli import main\n"
        "sys.exit(main(['import', 'big.npy', '--into', 'new.space', '--modality', 'audio', '--quiet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=world, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("OSError: ")
    assert digest(world) == before


def test_the_hash_of_the_tree_sees_a_change(world: Path):
    before = digest(world)
    (world / ".hidden").write_text("x")
    assert digest(world) != before
