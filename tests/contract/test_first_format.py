"""Spaces, bridges and commands of the commit ef769b8 still open, project and parse as they did.

`golden/first/make.py` says how they were made; they are never written anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer

import isthmus
from isthmus.cli.app import build
from isthmus.evaluation.suite.retrain import own_steps
from isthmus.spaces.space import Space

FIRST = Path(__file__).parent / "golden" / "first"
EXPECTED = json.loads((FIRST / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The golden folders unpacked elsewhere, as a user has them."""
    return Path(shutil.copytree(FIRST, tmp_path / "unpacked"))


def test_the_old_spaces_open_whole(world: Path):
    for name, modalities in {
        "clip": ("text", "image"),
        "clap": ("text", "audio"),
        "ulip": ("image", "point_cloud"),
    }.items():
        space = isthmus.open_space(world / f"{name}.space")
        assert (space.name, space.modalities) == (name, modalities)
        assert all(len(space[modality]) == 24 for modality in modalities)
        space.verify()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_old_bridge_projects_as_it_did(world: Path, name: str):
    bridge = isthmus.load_bridge(world / f"{name}.bridge")
    spaces: dict[str, Space] = {each.name: bridge.open_space(each.name) for each in bridge.spaces}
    assert {key.partition("/")[0] for key in EXPECTED[name]} == set(spaces)
    for key, rows in EXPECTED[name].items():
        space, _, modality = key.partition("/")
        np.testing.assert_allclose(bridge.project(spaces[space][modality])[:3], rows, atol=2e-6, err_msg=key)


def test_an_old_bridge_is_saved_again_with_the_same_numbers(world: Path, tmp_path: Path):
    isthmus.load_bridge(world / "chain.bridge").save(tmp_path / "again.bridge")
    again, first = (
        json.loads((at / "bridge.json").read_text()) for at in (tmp_path / "again.bridge", FIRST / "chain.bridge")
    )
    assert again["projectors_sha256"] == first["projectors_sha256"]
    assert (again["routes"], again["config"], again["record"]) == (first["routes"], first["config"], first["record"])


def test_the_recipe_of_an_old_bridge_is_told_by_its_settings(world: Path):
    assert [step["kind"] for step in own_steps(isthmus.load_bridge(world / "connect.bridge"))] == ["connect"]
    assert [step["kind"] for step in own_steps(isthmus.load_bridge(world / "extend.bridge"))] == ["extend"]
    for name in ("dictionary", "chain"):
        bridge = isthmus.load_bridge(world / f"{name}.bridge")
        with pytest.raises(isthmus.IsthmusError, match="the bridge is a closed form: nothing in it is drawn"):
            own_steps(bridge)


def test_an_old_bridge_is_extended(world: Path):
    base = isthmus.load_bridge(world / "extend.bridge")
    grown = isthmus.extend(base, world / "ulip.space", via="image", method="ridge")
    space = isthmus.open_space(world / "clap.space")
    np.testing.assert_array_equal(grown.project(space["audio"]), base.project(space["audio"]))


def test_every_verb_and_option_of_the_old_command_is_still_there():
    command = typer.main.get_command(build())
    now = {
        name: {option for each in verb.params for option in [*each.opts, *each.secondary_opts]}
        for name, verb in command.commands.items()  # type: ignore[attr-defined]
    }
    for name, options in json.loads((FIRST / "help.json").read_text(encoding="utf-8")).items():
        written = {option for option in options if option.startswith("-")}  # nobody writes the names of arguments
        assert written <= now[name], f"isthmus {name} lost {written - now[name]}"
