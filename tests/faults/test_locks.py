"""Two writers of one place: the second is told at once who is there, and a killed one lets go by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from isthmus.core.locks import hold, one_writer
from isthmus.errors import ConfigError, IsthmusError, SpaceError
from isthmus.pairs.cache import Block, PairStore
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.space import make_space, open_space
from worlds import meanings, write_space

HOLDER = """
import sys, time
from isthmus.core.locks import hold
with hold(sys.argv[1], what=sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    texts, things = meanings(40, 1), meanings(40, 2)
    a = write_space(tmp_path, "a", 8, 1, {"text": ("t", texts), "image": ("i", things)})
    b = write_space(tmp_path, "b", 6, 2, {"text": ("t", texts), "audio": ("s", things)})
    fit_closed_form_bridge(a, b, via="text", method="ridge").save(tmp_path / "d.bridge")
    np.save(tmp_path / "more.npy", np.eye(6, dtype=np.float32))
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\ns0,i0\n")
    grid = 'via = "text"\nmethod = "ridge"\n[spaces]\nbase = "a.space"\nleaf = "b.space"\n[[evaluate]]\n'
    grid += 'query = "b.space/audio"\ngallery = "a.space/image"\npairs = "pairs.csv"\n'
    (tmp_path / "grid.toml").write_text(grid)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def holder(world: Path):
    """A function that starts a process which holds a place."""
    started: list[subprocess.Popen[str]] = []

    def start(place: str, what: str = "") -> subprocess.Popen[str]:
        one = subprocess.Popen([sys.executable, "-c", HOLDER, place, what], stdout=subprocess.PIPE, text=True)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        return one

    yield start
    for one in started:
        one.kill()
        one.wait()


WRITERS = {
    "connect": (["connect", "a.space", "b.space", "--via", "text", "--out", "x.bridge"], "x.bridge", ""),
    "extend": (["extend", "a.space", "b.space", "--via", "text", "--out", "x.bridge"], "x.bridge", ""),
    "a closed form": (
        ["extend", "a.space", "b.space", "--via", "text", "--method", "ridge", "--out", "x.bridge"], "x.bridge", "",
    ),
    "checkpoints": (
        ["connect", "a.space", "b.space", "--via", "text", "--out", "x.bridge", "--checkpoint-dir", "work"], "work", "",
    ),
    "project": (["project", "d.bridge", "a.space", "--into", "u.space"], "u.space", ""),
    "import": (["import", "more.npy", "--into", "n.space", "--modality", "image"], "n.space", "image"),
    "encode": (["encode", "photos", "--encoder", "clip", "--into", "n.space", "--modality", "text"], "n.space", "text"),
    "export": (["export", "d.bridge", "--format", "safetensors", "--out", "w"], "w", ""),
    "rows": (
        ["export", "d.bridge", "--format", "parquet", "--gallery", "a.space/image", "--out", "w.pq"], "w.pq", "",
    ),
    "ablate": (["ablate", "--config", "grid.toml", "--out", "g"], "g", ""),
    "demo": (["demo", "--out", "demo"], "demo", ""),
    "suite": (["suite", "d.bridge", "--benchmark", "esc-50", "--data", ".", "--cache", "cache"], "cache", ""),
}  # fmt: skip


@pytest.mark.parametrize("verb", WRITERS)
def test_the_second_is_told_at_once(verb: str, holder, capsys: pytest.CaptureFixture[str]):
    from isthmus.cli.app import run

    arguments, place, what = WRITERS[verb]
    first = holder(place, what)
    before = sorted(Path().rglob("*"))
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert f"process {first.pid} on " in told
    assert "since 20" in told
    assert "is writing" in told
    assert sorted(Path().rglob("*")) == before


def test_a_crash_lets_go(holder, world: Path):
    first = holder("x.bridge")
    with pytest.raises(ConfigError, match=rf"process {first.pid} on .* is writing it now\. Wait"), hold("x.bridge"):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with hold("x.bridge"):
        assert (world / ".x.bridge.isthmus.lock").is_file()
    assert not list(world.glob(".*.lock"))


def test_a_place_may_be_held_twice_by_one_thread_and_by_no_other(world: Path):
    faults: list[Exception] = []

    def other() -> None:
        try:
            with hold("x"):
                pass
        except ConfigError as error:
            faults.append(error)

    with hold("x"), hold(world / "x"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread of this process is writing it" in str(faults[0])
    with hold("x"):
        pass


def test_modalities_of_one_space_are_written_side_by_side(holder, world: Path):
    holder("n.space", "text")
    with hold("n.space", what="image", fault=SpaceError):
        pass


def test_a_folder_that_was_made_for_the_lock_goes(world: Path):
    with pytest.raises(ZeroDivisionError), hold("new/deep/x.bridge"):
        1 / 0  # noqa: B018
    assert not (world / "new").exists()


def test_no_lock_where_none_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path / "x"):
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(world: Path):
    (world / "mine.txt").write_text("mine")
    (world / ".x.isthmus.lock").symlink_to("mine.txt")
    with hold("x"):
        pass
    assert (world / "mine.txt").read_text() == "mine"


def test_one_writer_keeps_the_signature():
    @one_writer("into", what="modality", fault=SpaceError)
    def write(into: str, *, modality: str | None = None) -> str:
        """Write."""
        return into

    assert (write.__doc__, write("x", modality=None)) == ("Write.", "x")


TRAIN = "import sys; from isthmus.cli import main; sys.exit(main())"


def test_two_trainings_to_one_out(world: Path):
    """Other seeds, one --out: one ends well and whole, the other leaves at once and takes nothing away."""
    command = ["connect", "a.space", "b.space", "--via", "text", "--out", "x.bridge", "--set", "epochs=400"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, "-c", TRAIN, *command, "--seed", "1"], stderr=subprocess.PIPE, env=env)
    for _ in range(600):
        if (world / ".x.bridge.isthmus.lock").exists():
            break
        time.sleep(0.05)
    started = time.monotonic()
    second = subprocess.run(
        [sys.executable, "-c", TRAIN, *command, "--seed", "2"], capture_output=True, env=env, text=True
    )
    took = time.monotonic() - started
    _, told = first.communicate()
    assert first.returncode == 0, told
    if second.returncode == 2:  # the first may have ended before
        assert f"process {first.pid}" in second.stderr or "exists already" in second.stderr
    assert took < 60
    from isthmus import load_bridge

    assert load_bridge("x.bridge").config["seed"] == 1
    assert not list(world.glob(".x.bridge*"))


def test_a_space_is_made_by_one(holder, world: Path):
    holder("s.space")
    with pytest.raises(IsthmusError, match="is writing it now"):
        make_space("s.space", {"text": (["a"], [[1.0, 0.0]])})
    assert open_space("a.space").dim == 8


def block() -> Block:
    return Block({"x": np.ones((3, 2), np.float32)}, {}, {})


def test_two_writers_of_one_block_of_pairs(holder, world: Path):
    store = PairStore(world / "pairs")
    first = holder("pairs/abc")
    with pytest.raises(ConfigError, match=rf"process {first.pid} on .* is writing"), store.fill("abc", {"x": (3, 2)}):
        raise AssertionError("the work began")
    store.save("abc", block())  # the other one writes the same block: a key stands for all that it depends on
    assert store.load("abc") is None
    store.save("def", block())
    assert store.load("def") is not None
    first.kill()
    first.wait()
    store.save("abc", block())
    loaded = store.load("abc")
    assert loaded is not None
    np.testing.assert_array_equal(loaded.columns["x"], np.ones((3, 2), np.float32))


def test_many_writers_of_one_folder_of_pairs(world: Path):
    script = """
import sys, numpy as np
from isthmus.pairs.cache import Block, PairStore
store = PairStore("pairs")
for n in range(40):
    store.save(f"{n % 4:x}", Block({"x": np.full((200, 8), n % 4, np.float32)}, {}, {}))
"""
    several = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [one.wait() for one in several] == [0, 0, 0]
    for n in range(4):
        loaded = PairStore("pairs").load(f"{n:x}")
        assert loaded is not None
        assert (loaded.columns["x"] == n).all()
    assert sorted(path.name for path in (world / "pairs").iterdir()) == ["0", "1", "2", "3"]


def test_a_block_of_pairs_is_not_written_over_files_of_a_person(world: Path):
    place = world / "pairs" / "abc"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is no block of pseudo pairs alone: it holds notes\.txt"):
        PairStore(world / "pairs").save("abc", block())
    assert (place / "notes.txt").read_text() == "mine"
