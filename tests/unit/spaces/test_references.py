"""References to what lies inside a space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.errors import ConfigError, SpaceError
from isthmus.spaces.references import as_embeddings, open_galleries, open_item, open_reference, split_reference
from isthmus.spaces.space import as_space


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    ids = ["a", "folder/b.png", "c"]
    isthmus.make_space("deep/s.space", {"image": (ids, np.eye(3, 4)), "text": (ids, np.eye(3, 4))})
    return Path("deep/s.space")


@pytest.mark.parametrize("end", ["", "/"])
def test_a_modality_is_the_last_part_of_the_path(space: Path, end: str):
    assert open_reference(f"deep/s.space/image{end}", option="--query").modality == "image"
    assert open_reference(f"./deep/s.space/image{end}", option="--query").modality == "image"
    assert open_reference(f"{Path.cwd()}/deep/s.space/text{end}", option="--query").modality == "text"


def test_an_id_may_hold_slashes(space: Path):
    one = open_item("deep/s.space/image/folder/b.png", option="--id")
    assert (one.modality, one.ids, len(one)) == ("image", ["folder/b.png"], 1)
    np.testing.assert_array_equal(next(iter(one.blocks())), np.eye(3, 4)[1:2])


@pytest.mark.parametrize(
    ("reference", "error", "match"),
    [
        ("deep/s.space", ConfigError, "--query got the space 'deep/s.space', expected one modality"),
        ("deep/s.space/image/a", ConfigError, "expected SPACE/MODALITY such as deep/s.space/image"),
        ("deep/s.space/audio", SpaceError, "has no modality 'audio', only image, text. Give one of deep/s.space/image"),
        ("nowhere.space/image", SpaceError, "lies in no space folder. Expected SPACE/MODALITY"),
        ("image", SpaceError, "lies in no space folder"),
    ],
)
def test_a_bad_reference_says_what_is_expected(space: Path, reference: str, error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        open_reference(reference, option="--query")


def test_an_item_needs_an_id(space: Path):
    with pytest.raises(ConfigError, match="expected SPACE/MODALITY/ID"):
        open_item("deep/s.space/image", option="--id")
    assert split_reference("deep/s.space/image/c", option="--id") == (space, "image", "c")


def test_what_is_open_already_is_taken_as_it_is(space: Path):
    opened = isthmus.open_space(space)
    assert as_space(opened) is opened
    assert as_space(str(space)).name == as_space(space).name == "s"
    assert as_embeddings(opened["image"], option="query") is opened["image"]
    assert as_embeddings("deep/s.space/text", option="query").modality == "text"


@pytest.mark.parametrize("wrong", [3, None, ["deep/s.space"], np.eye(3)])
def test_what_is_no_space_and_no_modality_is_a_fault_of_isthmus(space: Path, wrong: Any):
    with pytest.raises(SpaceError, match=r"^expected a space or its folder, got a \w+\. Give isthmus.open_space"):
        as_space(wrong)
    with pytest.raises(ConfigError, match=r"^query got a \w+, expected a modality of a space"):
        as_embeddings(wrong, option="query")


def test_a_whole_space_is_a_gallery_of_its_items(space: Path):
    """The texts that join a space with others are no items, unless there is nothing else."""
    assert list(open_galleries(["deep/s.space/", "deep/s.space/text"])) == ["deep/s.space/image", "deep/s.space/text"]
    isthmus.make_space("deep/t.space", {"text": (["a"], np.eye(1, 4))})
    assert list(open_galleries(["deep/t.space"])) == ["deep/t.space/text"]
    with pytest.raises(SpaceError, match=r"--gallery got 'nowhere', which lies in no space folder"):
        open_galleries(["nowhere"])
