"""What people's files, names, disks and pipes do is never "a fault of isthmus"; nothing of it moves the terminal."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import isthmus
from isthmus.cli.app import describe, run
from isthmus.core.files import atomic_file, disk_faults, read_json
from isthmus.core.json_text import DEPTH_LIMIT, parse_json
from isthmus.core.terminal import one_cell, printable
from isthmus.core.text_table import value_table
from isthmus.errors import BridgeError, FormatError, SpaceError
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.space import make_space, open_space
from worlds import meanings, write_space

COMMAND = [sys.executable, "-c", "import sys; from isthmus.cli import main; sys.exit(main())"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    texts, things = meanings(40, 1), meanings(40, 2)
    a = write_space(tmp_path, "a", 8, 1, {"text": ("t", texts), "image": ("i", things)})
    b = write_space(tmp_path, "b", 6, 2, {"text": ("t", texts), "audio": ("s", things)})
    fit_closed_form_bridge(a, b, via="text", method="ridge").save(tmp_path / "d.bridge")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# closed outputs


def test_json_into_a_closed_pipe(world: Path):
    command = " ".join(f"'{part}'" for part in [*COMMAND, "inspect", "a.space", "--json"])
    ended = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert "InternalError" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ended.stdout.strip() in ("0", "2")


@pytest.mark.parametrize(
    ("where", "words"), [(">&-", "standard output: it is closed"), (">/dev/full", "no space left")]
)
def test_json_into_what_takes_none(where: str, words: str, world: Path):
    command = " ".join(f"'{part}'" for part in [*COMMAND, "inspect", "a.space", "--json"])
    ended = subprocess.run(["bash", "-c", f"{command} {where}"], stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    last = ended.stderr.strip().splitlines()[-1]
    assert "Error: " in last
    assert words in last
    assert "InternalError" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_closed_streams_take_no_part_of_a_file(world: Path):
    """A process without standard streams writes the same bytes: no file gets the number of one of them."""
    command = " ".join(f"'{part}'" for part in [*COMMAND, "project", "d.bridge", "a.space", "--into", "u.space"])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], check=True)
    open_space("u.space").verify()


def test_json_in_another_encoding(world: Path):
    make_space("é.space", {"text": (["ü", "\U0001f600"], np.eye(2))})
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    search = ["inspect", "é.space", "--json"]
    ended = subprocess.run([*COMMAND, *search], env=env, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)


# disks


def test_a_full_disk_is_told_whoever_finds_it(tmp_path: Path):
    class Foreign(Exception):
        pass

    for text in ("I/O error: No space left on device (os error 28)", "4096 requested and 12 written"):
        with pytest.raises(OSError, match="No space left") as fault, disk_faults(tmp_path / "x"):
            raise Foreign(text)
        assert fault.value.filename == str(tmp_path / "x")
        assert "Free some and give the same command again" in describe(fault.value)[0]
    with pytest.raises(Foreign), disk_faults(tmp_path):
        raise Foreign("something else")


VERBS = {
    "a bridge": ["extend", "a.space", "b.space", "--via", "text", "--method", "dictionary", "--out", "x.bridge"],
    "checkpoints": ["connect", "a.space", "b.space", "--via", "text", "--out", "x.bridge", "--set", "epochs=2"],
    "a space": ["project", "d.bridge", "a.space", "--into", "u.space"],
    "an import": ["import", "big.npy", "--into", "n.space", "--modality", "image"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_files_may_be_no_larger(verb: str, world: Path):
    """A limit of the account stands for a full disk: writes end in the middle, in every library that writes."""
    np.save("big.npy", np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    env = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(world / "numba"),
        "ISTHMUS_KERNELS": "0",
    }
    before = sorted(world.rglob("*"))
    ended = subprocess.run([*COMMAND, *VERBS[verb]], env=env, preexec_fn=limit, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert "OSError" in last, last
    assert "no space left" in last or "larger than this disk" in last, last
    assert [path for path in sorted(world.rglob("*")) if path not in before and not path.is_dir()] == []


# damaged files and odd names


def test_unicode_faults_are_the_files(tmp_path: Path):
    words, code = describe(UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid continuation byte"))
    assert code == 2
    assert words.startswith("FormatError: a file or a name is not UTF-8")
    assert describe(RuntimeError("Symlink loop from '/x'"))[0].startswith("FormatError: a link leads back to itself")
    assert "zero byte" in describe(ValueError("embedded null byte"))[0]
    assert describe(OSError(errno.ELOOP, "Too many levels", "/x"))[0].endswith("file or folder.")
    assert describe(KeyError("x"))[0].startswith("InternalError")


NAMES = [b"caf\xe9.npy", "caf\udce9".encode("utf-8", "surrogateescape") + b".npy", b"a\nb.npy", b"\x1b[31mred.npy"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_text(name: bytes, world: Path):
    path = os.fsencode(world) + b"/" + name
    try:
        with open(path, "wb") as stream:
            np.save(stream, np.eye(4, dtype=np.float32))
    except OSError:
        pytest.skip("this file system refuses the name")
    for more in ([], ["--json"]):
        arguments = [*COMMAND, "import", os.fsdecode(path), "--into", "n.space", "--modality", "image", *more]
        ended = subprocess.run(arguments, capture_output=True)
        assert b"InternalError" not in ended.stderr, ended.stderr
        assert b"\x1b" not in ended.stderr
        if ended.returncode == 0 and more:
            assert isinstance(json.loads(ended.stdout), dict)


def test_links_that_lead_back(world: Path, capsys: pytest.CaptureFixture[str]):
    Path("loop").symlink_to("loop")
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    for arguments in (
        ["inspect", "loop"],
        ["import", "loop", "--into", "n.space", "--modality", "image"],
        ["import", "one/x.npy", "--into", "n.space", "--modality", "image"],
        ["project", "loop", "a.space", "--into", "u.space"],
        ["project", "d.bridge", "a.space", "--into", "loop"],
        ["project", "d.bridge", "a.space", "--into", "one/u.space"],
        ["ablate", "--config", "loop"],
    ):
        assert run(arguments) == 2, arguments
        assert "InternalError" not in capsys.readouterr().err, arguments


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".safetensors"])
def test_damaged_arrays(content: bytes, suffix: str, world: Path, capsys: pytest.CaptureFixture[str]):
    Path("x" + suffix).write_bytes(content)
    assert run(["import", "x" + suffix, "--into", "n.space", "--modality", "image"]) == 2
    told = capsys.readouterr().err
    assert "InternalError" not in told
    assert "x" + suffix in told


def test_dims_above_the_limit_are_refused_before_anything_is_written(world: Path):
    np.save("wide.npy", np.zeros((1, 2**20 + 1), np.float16) + np.float16(1))
    before = sorted(world.rglob("*"))
    assert run(["import", "wide.npy", "--into", "n.space", "--modality", "image"]) == 2
    with pytest.raises(SpaceError, match=r"dim"):
        make_space("m.space", {"text": (["a"], np.ones((1, 2**20 + 1), np.float16))})
    assert sorted(world.rglob("*")) == before


# json


def deep(depth: int, kind: str = "[") -> bytes:
    return b"[" * depth + b"]" * depth if kind == "[" else b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("kind", ["[", "{"])
@pytest.mark.parametrize("depth", [DEPTH_LIMIT + 1, 8_000, 20_000, 1_000_000])
def test_json_is_not_parsed_where_it_is_deep(depth: int, kind: str):
    with pytest.raises(ValueError, match=r"nested 6\d deep or more|nested \d+ deep"):
        parse_json(deep(depth, kind))


def test_json_within_bounds_is_read():
    assert parse_json(deep(DEPTH_LIMIT)) is not None
    text = json.dumps({"a[[[[": ["]]]]", '\\"[[[', "\\\\"], "b": [[1, 2.5, -3]] * 100}).encode()
    assert parse_json(text) == json.loads(text)
    hidden = b'{"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]":' + deep(100) + b"}"
    with pytest.raises(ValueError, match="deep"):
        parse_json(hidden)
    escaped = b'["\\\\", ' + deep(100) + b"]"
    with pytest.raises(ValueError, match="deep"):
        parse_json(escaped)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[-Infinity]", "1e999", "1" * 30, '"\\udc80"', "{", '"\\ud800"'])
def test_json_that_is_none(text: str):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode())


def test_json_files_have_a_limit_that_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.json").write_text(json.dumps({"a": "b" * 2000}))
    monkeypatch.setenv("ISTHMUS_MAX_JSON", "1000")
    with pytest.raises(FormatError, match=r"at most 1,000 bytes.*ISTHMUS_MAX_JSON raises the limit"):
        read_json(tmp_path / "x.json", kind="list")
    monkeypatch.setenv("ISTHMUS_MAX_JSON", "100000")
    assert read_json(tmp_path / "x.json", kind="list")["a"]


@pytest.mark.parametrize("name", ["bridge.json", "history.jsonl"])
def test_a_bridge_of_deep_or_long_json(name: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    path = Path("d.bridge") / name
    whole = path.read_bytes()
    path.write_bytes(b'{"a":' + deep(20_000) + b"}")
    with pytest.raises(BridgeError, match="nested"):
        isthmus.load_bridge("d.bridge")
    path.write_bytes(whole + b"\n" * 3000)
    monkeypatch.setenv("ISTHMUS_MAX_JSON", str(len(whole) + 2000))
    with pytest.raises(BridgeError, match="ISTHMUS_MAX_JSON"):
        isthmus.load_bridge("d.bridge")


def test_a_space_of_deep_json(world: Path):
    Path("a.space/space.json").write_bytes(deep(20_000))
    with pytest.raises(SpaceError, match="nested"):
        open_space("a.space")


# terminals


def test_escapes_never_reach_the_terminal(world: Path, capsys: pytest.CaptureFixture[str]):
    evil = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\r"
    assert printable(evil) == "\\x1b]0;owned\\x07\\x9b31m\\u202egnp.exe\\r"
    assert one_cell("a\nb\tc") == "a\\nb\\tc"
    assert "\x1b" not in value_table(["id"], [[evil]])
    table = {"text": [evil, "b"], evil: ["x", "y"]}
    make_space("e.space", {"text": ([evil, "b"], np.eye(2), table)}, name=evil)
    run(["inspect", "e.space"])
    run(["inspect", f"{evil}.space"])
    run(["import", f"{evil}.npy", "--into", "n.space", "--modality", evil])
    run(["connect", "a.space", "b.space", "--via", evil, "--out", "x.bridge"])
    told = capsys.readouterr()
    assert "owned" in told.err + told.out
    for sign in ("\x1b", "\x07", "\x9b", "\u202e", "\r"):
        assert sign not in told.err + told.out


def test_atomic_files_leave_nothing_behind(tmp_path: Path):

    def write() -> None:
        with atomic_file(tmp_path / "x") as aside:
            aside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert list(tmp_path.iterdir()) == []
