"""Arguments that name a thing inside a space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import isthmus
from isthmus.bridges.project import OneItem
from isthmus.cli.making import read_center
from isthmus.cli.references import (
    named_paths,
    open_item,
    open_reference,
    split_reference,
)
from isthmus.errors import ConfigError, SpaceError


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
    embeddings, item = open_item("deep/s.space/image/folder/b.png", option="--id")
    assert (embeddings.modality, item) == ("image", "folder/b.png")
    one = OneItem(embeddings, item)
    assert len(one) == 1
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


def test_named_paths():
    assert named_paths(["clip=/x/y=z"]) == {"clip": Path("/x/y=z")}
    assert named_paths(None) == {}
    for bad in ("clip", "=x", "clip="):
        with pytest.raises(ConfigError, match="expected NAME=PATH"):
            named_paths([bad])


def test_center_is_read():
    assert [read_center(text) for text in ("no", "leaf", "both")] == [False, "leaf", True]
    with pytest.raises(ConfigError, match="--center got 'yes', expected one of no, leaf, both"):
        read_center("yes")
