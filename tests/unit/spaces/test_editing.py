"""A space that lives: rows removed and renamed, spaces merged, against plain dicts, and what a fault leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.errors import SpaceError
from isthmus.spaces.editing import merge_spaces, remove_items, remove_modality, rename_items, rename_space
from isthmus.spaces.space import Space, open_space


def make(folder: Path, ids: list[str], *, seed: int = 0, **options: Any) -> Space:
    x = np.random.default_rng(seed).standard_normal((len(ids), 4)).astype(np.float32)
    content: dict[str, Any] = {
        "image": (ids, x, {"label": [f"label of {name}" for name in ids]}),
        "text": (["a", "b"], np.eye(4)[:2]),
    }
    return isthmus.make_space(folder, content, dtype="float32", encoder="some/encoder", **options)


def rows(space: Space | Path, modality: str = "image") -> dict[str, tuple[float, ...]]:
    opened = open_space(space) if isinstance(space, Path) else space
    assert opened.verify()
    return dict(zip(opened[modality].ids, map(tuple, np.asarray(opened[modality])), strict=True))


@pytest.mark.parametrize("shard_rows", [3, 1000])
def test_removing_leaves_the_others_as_they_were(tmp_path: Path, shard_rows: int) -> None:
    ids = [f"i{n}" for n in range(10)]
    space = make(tmp_path / "s.space", ids, shard_rows=shard_rows)
    expected = rows(space)
    texts = rows(space, "text")
    gone = ["i3", "i4", "i5", "i9"]
    assert remove_items(space.path, "image", gone) == 4
    assert rows(space.path) == {name: row for name, row in expected.items() if name not in gone}
    labels = open_space(space.path)["image"].metadata.column("label").to_pylist()
    assert labels == [f"label of {name}" for name in ids if name not in gone]
    assert rows(space.path, "text") == texts
    assert remove_items(space.path, "image", ["never"], missing="pass") == 0
    # what is edited can be added to, and replaced
    again = isthmus.make_space(tmp_path / "t.space", {"image": (["x"], np.eye(4)[:1])}, encoder="some/encoder")
    merge_spaces([again.path], space.path)
    assert list(rows(space.path)) == [*[name for name in ids if name not in gone], "x"]
    make(space.path, ["new"], overwrite=True)


def test_untouched_shards_are_links_and_not_copies(tmp_path: Path) -> None:
    space = make(tmp_path / "s.space", [f"i{n}" for n in range(9)], shard_rows=3)
    before = space["image"].shards[2].embeddings.stat().st_ino
    remove_items(space.path, "image", ["i0", "i1", "i2"])
    assert open_space(space.path)["image"].shards[1].embeddings.stat().st_ino == before


def test_renaming(tmp_path: Path) -> None:
    space = make(tmp_path / "s.space", ["a", "b", "c"], shard_rows=2)
    x = rows(space)
    assert rename_items(space.path, "image", {"a": "b", "b": "a"}) == 2
    assert rows(space.path) == {"b": x["a"], "a": x["b"], "c": x["c"]}
    rename_space(space.path, "other")
    assert open_space(space.path).name == "other"
    assert open_space(space.path).fingerprint("image") == space.fingerprint("image")


def test_merging_takes_shared_rows_once_and_goes_on(tmp_path: Path) -> None:
    one = make(tmp_path / "one.space", ["a", "b"])
    two = make(tmp_path / "two.space", ["c", "d"], seed=1)
    assert merge_spaces([one.path, two.path], tmp_path / "both.space") == {"image": 4, "text": 2}
    assert rows(tmp_path / "both.space") == rows(one) | rows(two)
    assert open_space(tmp_path / "both.space").name == "one"
    assert merge_spaces([two.path], tmp_path / "both.space") == {"image": 0, "text": 0}
    assert rows(tmp_path / "both.space") == rows(one) | rows(two)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p: remove_items(p, "image", ["a", "nope"]), r"has no id 'nope' \(1 of 2 ids are missing\)"),
        (lambda p: remove_items(p, "image", ["a", "b"]), "no row of 'image' would be left"),
        (lambda p: remove_items(p, "audio", ["a"]), "the space has no modality 'audio'. It has: image, text"),
        (lambda p: rename_items(p, "image", {"x": "y"}), "has no id 'x'. Nothing was renamed"),
        (lambda p: rename_items(p, "image", {"a": "b"}), "the id 'b' would be empty or stand twice"),
        (lambda p: rename_items(p, "image", {"a": ""}), "the id '' would be empty or stand twice"),
        (lambda p: rename_space(p, " "), "cannot name a space"),
        (lambda p: merge_spaces([p], p), "merge needs spaces and another folder"),
    ],
)
def test_a_fault_changes_nothing(tmp_path: Path, act: Any, message: str) -> None:
    space = make(tmp_path / "s.space", ["a", "b"])
    before = {str(path): path.read_bytes() for path in sorted(space.path.rglob("*")) if path.is_file()}
    with pytest.raises(SpaceError, match=message):
        act(space.path)
    assert {str(path): path.read_bytes() for path in sorted(space.path.rglob("*")) if path.is_file()} == before


def test_spaces_that_contradict_are_not_merged(tmp_path: Path) -> None:
    one = make(tmp_path / "one.space", ["a", "b"])
    clash = make(tmp_path / "clash.space", ["a", "b"], seed=1)
    with pytest.raises(SpaceError, match=r"the id 'a' of 'image' names another embedding"):
        merge_spaces([one.path, clash.path], tmp_path / "m.space")
    other = isthmus.make_space(tmp_path / "o.space", {"image": (["z"], np.eye(4)[:1])}, encoder="another/encoder")
    with pytest.raises(SpaceError, match="was made by another encoder"):
        merge_spaces([one.path, other.path], tmp_path / "n.space")


def test_a_kill_in_the_middle_leaves_the_space_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = make(tmp_path / "s.space", ["a", "b", "c"], shard_rows=1)
    before = rows(space)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.spaces.editing._link_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_items(space.path, "image", ["b"])
    assert rows(space.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["s.space"]


def test_a_modality_goes_whole(tmp_path: Path) -> None:
    space = make(tmp_path / "s.space", ["a", "b"])
    remove_modality(space.path, "text")
    assert open_space(space.path).modalities == ("image",)
    assert not (space.path / "text").exists()
    with pytest.raises(SpaceError, match="'image' is its only modality"):
        remove_modality(space.path, "image")
