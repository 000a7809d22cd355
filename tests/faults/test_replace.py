"""Ways to point `--into`, `--out`, `--overwrite` and checkpoints at what must live: nothing is lost.

Each way runs the command line in a small home folder, and every file, folder and link of it is hashed before and after.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import isthmus
from isthmus.cli.app import run
from isthmus.core.files import atomic_folder
from isthmus.core.replace import replaced_folder
from isthmus.demo import run_demo
from isthmus.errors import BridgeError, ConfigError, IsthmusError, SpaceError
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.product import SPACE
from isthmus.spaces.space import open_space
from worlds import meanings, write_space

PROJECT = ["project", "d.bridge", "pic.space", "--overwrite"]
EXTEND = ["extend", "pic.space", "snd.space", "--via", "text", "--method", "ridge", "--overwrite"]
AGAIN = ["extend", "d.bridge", "third.space", "--via", "text", "--method", "ridge", "--overwrite"]
TRAIN = ["connect", "pic.space", "snd.space", "--via", "text", "--set", "epochs=1", "--set", "batch_size=16"]
EXPORT = ["export", "d.bridge", "--format", "safetensors"]
ROWS = ["export", "d.bridge", "--format", "parquet", "--gallery", "pic.space/image"]
JOIN = ["join", "pic.space", "snd.space"]
GRID = """via = "text"
method = "ridge"
[spaces]
base = "pic.space"
leaf = "snd.space"
[[evaluate]]
query = "snd.space/audio"
gallery = "pic.space/image"
pairs = "pairs.csv"
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with spaces, bridges, projections and a person's own files."""
    home = tmp_path_factory.mktemp("original") / "home"
    home.mkdir()
    texts, things = meanings(60, 1), meanings(60, 2)
    pic = write_space(home, "pic", 12, 1, {"text": ("t", texts), "image": ("i", things)})
    snd = write_space(home, "snd", 10, 2, {"text": ("t", texts), "audio": ("a", things)})
    write_space(home, "third", 8, 3, {"text": ("t", texts), "point_cloud": ("p", things)})
    fit_closed_form_bridge(pic, snd, via="text", method="ridge").save(home / "d.bridge")
    fit_closed_form_bridge(pic, snd, via="text", method="procrustes").save(home / "other.bridge")
    (home / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"a{i},i{i}\n" for i in range(60)))
    (home / "grid.toml").write_text(GRID)
    (home / "c.toml").write_text("seed = 1\n")
    (home / "thesis").mkdir()
    (home / "thesis" / "chapter1.tex").write_text("years of work")
    (home / "thesis" / "figures").mkdir()
    (home / "thesis" / "figures" / "1.png").write_bytes(b"png")
    (home / "notes.txt").write_text("notes")
    (home / "empty").mkdir()
    for name, extra in (("notes.space", "notes.txt"), ("shard.space", "text/text_emb/text_emb_00009.npy")):
        shutil.copytree(home / "pic.space", home / name)
        (home / name / extra).write_bytes(b"mine")
    shutil.copytree(home / "d.bridge", home / "plots.bridge")
    (home / "plots.bridge" / "plots").mkdir()
    (home / "plots.bridge" / "plots" / "gap.png").write_bytes(b"png")
    shutil.copytree(home / "d.bridge", home / "card.bridge")
    with open(home / "card.bridge" / "README.md", "a") as stream:
        stream.write("\nWhat I found out by myself.\n")
    shutil.copytree(home / "pic.space", home / "half.space")
    (home / "half.space" / "image" / "_done" / "00000.json").unlink()
    shutil.copytree(home / "pic.space", home / "manifest.space")
    for file in sorted((home / "manifest.space").rglob("*")):
        if file.is_file() and file.name != "space.json":
            file.unlink()
    (home / "album").mkdir()
    shutil.copytree(home / "pic.space", home / "album" / "inner.space")
    for name, target in (
        ("link", "thesis"),
        ("link.space", "pic.space"),
        ("dangling", "nowhere"),
        ("file", "notes.txt"),
    ):
        (home / name).symlink_to(target)
    shutil.copytree(home / "d.bridge", home / "linked.bridge")
    (home / "linked.bridge" / "more").symlink_to("../thesis")
    (home / "work").mkdir()
    (home / "work" / "pairs").mkdir()
    (home / "work" / "pairs" / "list.csv").write_text("mine")
    (home / "table").mkdir()
    (home / "table" / "table.md").write_text("my own table")
    (home / "isthmus-demo").mkdir()
    (home / "isthmus-demo" / "thesis.tex").write_text("words")
    (home / ".x.bridge.checkpoints").mkdir()
    (home / ".x.bridge.checkpoints" / "precious.txt").write_text("mine")
    (home / "words.csv").write_text("my,own,table\n")
    return home


@pytest.fixture
def home(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(original, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def disk(folder: Path) -> dict[str, str]:
    """Every path below a folder with what it is: a link's target, a file's hash, or a folder."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent) / name
            if path.is_symlink():
                found[str(path)] = f"link {os.readlink(path)}"
            else:
                found[str(path)] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


REFUSED: dict[str, list[str]] = {
    # a folder or a file of a person
    "a folder of other files": [*PROJECT, "--into", "thesis"],
    "a folder in it": [*PROJECT, "--into", "thesis/figures"],
    "a file": [*PROJECT, "--into", "notes.txt"],
    "a file in a folder": [*PROJECT, "--into", "thesis/chapter1.tex"],
    "an empty folder": [*PROJECT, "--into", "empty"],
    "a folder with a slash": [*PROJECT, "--into", "thesis/"],
    "a folder of other files for a bridge": [*EXTEND, "--out", "thesis"],
    "a file for a bridge": [*EXTEND, "--out", "notes.txt"],
    "a folder that holds a space": [*PROJECT, "--into", "album"],
    # where one stands
    "the current folder": [*PROJECT, "--into", "."],
    "the current folder by its name": [*PROJECT, "--into", "../home"],
    "the folder above": [*PROJECT, "--into", ".."],
    "the folder above for a bridge": [*EXTEND, "--out", "../../"],
    "the root": [*PROJECT, "--into", "/"],
    "the home folder": [*PROJECT, "--into=~"],
    "the home folder with a slash": [*EXTEND, "--out=~/"],
    "a folder of the home": [*PROJECT, "--into=~/thesis"],
    # another kind
    "a bridge for a space": [*PROJECT, "--into", "other.bridge"],
    "a space for a bridge": [*EXTEND, "--out", "third.space"],
    "a modality of a space": [*PROJECT, "--into", "third.space/text"],
    # inputs of the command
    "the space that is projected": [*PROJECT, "--into", "pic.space"],
    "the same by another way": [*PROJECT, "--into", "thesis/../pic.space"],
    "the same in capitals of a link": [*PROJECT, "--into", "link.space"],
    "the bridge that projects": [*PROJECT, "--into", "d.bridge"],
    "a space that the bridge was made of": [*PROJECT, "--into", "snd.space"],
    "inside the space that is projected": [*PROJECT, "--into", "pic.space/new.space"],
    "the base": [*EXTEND, "--out", "pic.space"],
    "the bridge that is extended": [*AGAIN, "--out", "d.bridge"],
    "a space of the bridge that is extended": [*AGAIN, "--out", "snd.space"],
    "inside the leaf": [*EXTEND, "--out", "snd.space/x.bridge"],
    "the configuration": [*TRAIN, "--config", "c.toml", "--out", "c.toml", "--overwrite"],
    # products that hold more, or less
    "a space with a person's notes": [*PROJECT, "--into", "notes.space"],
    "a space with a shard that it does not count": [*PROJECT, "--into", "shard.space"],
    "a bridge with a folder of plots": [*EXTEND, "--out", "plots.bridge"],
    "a bridge whose card was written on": [*EXTEND, "--out", "card.bridge"],
    "a bridge with a link to a folder": [*EXTEND, "--out", "linked.bridge"],
    "a space that is not whole": [*PROJECT, "--into", "half.space"],
    "a manifest alone": [*PROJECT, "--into", "manifest.space"],
    # links
    "a link to a folder": [*PROJECT, "--into", "link"],
    "a link to a file": [*PROJECT, "--into", "file"],
    "a link to nowhere": [*PROJECT, "--into", "dangling"],
    "through a link": [*PROJECT, "--into", "link/figures"],
    # without --overwrite
    "what exists": [*PROJECT[:-1], "--into", "third.space"],
    "what exists, for a bridge": [*EXTEND[:-1], "--out", "other.bridge"],
    "what exists, for connect": [*TRAIN, "--out", "other.bridge"],
    # folders of work
    "checkpoints in a folder of files": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "thesis"],
    "checkpoints in the current folder": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "."],
    "checkpoints beside a person's pairs": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "work"],
    "checkpoints in a space": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "third.space"],
    "checkpoints in an input": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "snd.space"],
    "checkpoints in a file": [*TRAIN, "--out", "x2.bridge", "--checkpoint-dir", "notes.txt"],
    "the checkpoints' own place taken": [*TRAIN, "--out", "x.bridge"],
    "a grid in a folder of files": ["ablate", "--config", "grid.toml", "--out", "thesis"],
    "a grid over a person's pairs": ["ablate", "--config", "grid.toml", "--out", "work"],
    "a grid over a person's table": ["ablate", "--config", "grid.toml", "--out", "table"],
    "a grid into a space": ["ablate", "--config", "grid.toml", "--out", "pic.space"],
    "a grid over its file": ["ablate", "--config", "grid.toml", "--out", "grid.toml"],
    "a demo in a folder of files": ["demo", "--out", "thesis"],
    "a demo where none was": ["demo"],
    "a demo in a file": ["demo", "--out", "notes.txt"],
    # exports are never written over, whatever they are
    "an export over a folder of files": [*EXPORT, "--out", "thesis"],
    "an export over the current folder": [*EXPORT, "--out", "."],
    "an export over its bridge": [*EXPORT, "--out", "d.bridge"],
    "an export inside its bridge": [*EXPORT, "--out", "d.bridge/weights"],
    "an export over the home": [*EXPORT, "--out", "../home"],
    "an export through a link": [*EXPORT, "--out", "link"],
    "an export through a link to nowhere": [*EXPORT, "--out", "dangling"],
    "rows over a file": [*ROWS, "--out", "notes.txt"],
    "rows over a folder": [*ROWS, "--out", "empty"],
    "rows inside their space": [*ROWS, "--out", "pic.space/rows.parquet"],
    "rows through a link": [*ROWS, "--out", "file"],
    # worlds
    "a world in a folder of files": [*JOIN, "--out", "thesis"],
    "a world over a file": [*JOIN, "--out", "notes.txt"],
    "a world over a space": [*JOIN, "--out", "third.space"],
    "a table of names over a person's": ["vocabulary", "--out", "words.csv", "--overwrite"],
    "a table of names over what exists": ["vocabulary", "--out", "words.csv"],
}  # fmt: skip


@pytest.mark.parametrize("way", REFUSED)
def test_nothing_is_lost(way: str, home: Path, capsys: pytest.CaptureFixture[str]):
    before = disk(home)
    code = run(REFUSED[way])
    told = capsys.readouterr().err.strip().splitlines()
    assert disk(home) == before
    assert code == 2
    assert "Error: " in told[-1], told
    assert "InternalError" not in told[-1]
    assert len(told[-1]) <= 430


def test_the_files_are_named(home: Path, capsys: pytest.CaptureFixture[str]):
    run([*PROJECT, "--into", "notes.space"])
    assert "did not write there, so it is not overwritten: notes.txt. Move that away" in capsys.readouterr().err
    run([*EXTEND, "--out", "plots.bridge"])
    assert "plots/gap.png" in capsys.readouterr().err


ALLOWED: dict[str, tuple[list[str], str]] = {
    "a new space": ([*PROJECT, "--into", "u.space"], "u.space"),
    "a space of its kind": ([*PROJECT, "--into", "third.space"], "third.space"),
    "a bridge of its kind": ([*EXTEND, "--out", "other.bridge"], "other.bridge"),
    "a new folder of the home": ([*PROJECT, "--into=~/new.space"], "new.space"),
    "a new export": ([*EXPORT, "--out", "weights"], "weights"),
    "an export in an empty folder": ([*EXPORT, "--out", "empty"], "empty"),
    "an export in a new folder": ([*EXPORT, "--out", "a/b/weights"], "a/b/weights"),
    "new rows": ([*ROWS, "--out", "a/rows.parquet"], "a"),
    "a space in a new folder": ([*PROJECT, "--into", "a/b/u.space"], "a/b/u.space"),
}


@pytest.mark.parametrize("way", ALLOWED)
def test_what_may_be_replaced_is(way: str, home: Path):
    arguments, place = ALLOWED[way]
    before = disk(home)
    assert run(arguments) == 0
    after = disk(home)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    top = home / place.split("/")[0]
    assert changed
    assert all(Path(path) == top or top in Path(path).parents for path in changed)
    assert not list(home.rglob(".*.partial-*")) + list(home.rglob(".*.old-*"))
    assert not (home / "~").exists()


def test_a_link_is_replaced_in_place(home: Path):
    (home / "latest.bridge").symlink_to("other.bridge")
    assert run([*EXTEND, "--out", "latest.bridge"]) == 0
    assert (home / "latest.bridge").is_symlink()
    assert isthmus.load_bridge(home / "other.bridge").method == "ridge"


def test_the_old_one_is_there_until_the_new_one_is_whole(home: Path):
    kept = disk(home / "third.space")

    def fail() -> None:
        with replaced_folder("third.space", SPACE, overwrite=True) as aside:
            (aside / "space.json").write_text("{")
            assert disk(home / "third.space") == kept
            raise OSError("no space left")

    with pytest.raises(OSError, match="No space left on device"):
        fail()
    assert disk(home / "third.space") == kept


def test_what_comes_while_the_new_one_is_made_is_kept(home: Path):
    """A person puts a file there during the work: the old folder stays, and the work is refused at the end."""

    def replace() -> None:
        with replaced_folder("third.space", SPACE, overwrite=True) as aside:
            shutil.copytree(home / "pic.space", aside, dirs_exist_ok=True)
            (home / "third.space" / "late.txt").write_text("mine")

    with pytest.raises(SpaceError, match=r"late\.txt"):
        replace()
    assert (home / "third.space" / "late.txt").read_text() == "mine"
    assert open_space("third.space").dim == 8


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_with_and_without_an_exchange(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not exchange:
        monkeypatch.setattr("isthmus.core.files._exchange", lambda *_: False)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").write_text("old")
    with atomic_folder(tmp_path / "x", overwrite=True) as aside:
        (aside / "new").write_text("new")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert [each.name for each in (tmp_path / "x").iterdir()] == ["new"]


def test_what_a_kill_between_two_steps_left_is_put_back(tmp_path: Path):
    """A process moved the old one aside and was killed: the next writer finds it where it was."""
    dead = tmp_path / ".x.old-999999999"
    dead.mkdir()
    (dead / "old").write_text("old")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "x"):
        pass
    assert (tmp_path / "x" / "old").read_text() == "old"


def test_a_demo_keeps_what_a_person_put_into_it(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "demo").mkdir()
    (home / "demo" / "demo.json").write_text('{"isthmus_demo": 1, "state": "running"}')
    (home / "demo" / "raw" / "memory" / "image").mkdir(parents=True)
    (home / "demo" / "raw" / "memory" / "image" / "0001.png").write_bytes(b"png")
    (home / "demo" / "spaces").mkdir()
    (home / "demo" / "spaces" / "mine.txt").write_text("mine")
    before = disk(home)
    with pytest.raises(ConfigError, match=r"it holds mine\.txt"):
        run_demo(home / "demo", quiet=True)
    assert disk(home) == before


def _save(home: Path) -> None:
    isthmus.load_bridge("d.bridge").save("plots.bridge", overwrite=True)


def _make(home: Path) -> None:
    isthmus.make_space("thesis", {"text": (["a"], [[1.0, 0.0]])}, overwrite=True)


def _make_over_current(home: Path) -> None:
    isthmus.make_space(home, {"text": (["a"], [[1.0, 0.0]])}, overwrite=True)


def _train_there(home: Path) -> None:
    isthmus.connect(open_space("pic.space"), open_space("snd.space"), via="text", checkpoint_dir="thesis")


@pytest.mark.parametrize(
    ("call", "fault"),
    [(_save, BridgeError), (_make, SpaceError), (_make_over_current, SpaceError), (_train_there, ConfigError)],
)
def test_the_python_door_is_the_same(call: Callable[[Path], None], fault: type[IsthmusError], home: Path):
    before = disk(home)
    with pytest.raises(fault):
        call(home)
    assert disk(home) == before


def test_a_grid_that_was_killed_before_its_first_checkpoint_goes_on(home: Path):
    """What a kill left there is an empty folder and the file of a lock: neither is anybody's."""
    (home / "g" / "checkpoints" / ("0" * 32)).mkdir(parents=True)
    (home / "g" / "checkpoints" / f".{'0' * 32}.isthmus.lock").write_text("{}")
    assert run(["ablate", "--config", "grid.toml", "--out", "g", "--quiet"]) == 0
    assert not (home / "g" / "checkpoints").exists()
