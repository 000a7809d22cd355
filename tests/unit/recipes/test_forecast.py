"""The estimate before and after a join: it follows the truth, sees damage, and names what one space does not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import meanings, three_spaces, write_space

import isthmus
from isthmus.recipes.posterior.forecast import estimate_pair, lines
from isthmus.spaces.space import Space, make_space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Space]:
    clip, clap, _ = three_spaces(tmp_path_factory.mktemp("spaces"), 400)
    return clip, clap


def shuffled(space: Space, folder: Path) -> Space:
    """The space with the ids of its texts drawn anew."""
    ids, rows = space["text"].ids, np.asarray(space["text"])
    order = np.random.default_rng(5).permutation(len(ids))
    encoder = {"library": "test", "id": space.name, "revision": None, "weights_sha256": None}
    arrays = {"text": ([ids[i] for i in order], rows), "audio": (space["audio"].ids, np.asarray(space["audio"]))}
    return make_space(folder / "shuffled.space", arrays, name=space.name, encoder=encoder)


def test_two_spaces_are_judged_before_they_are_joined(pair: tuple[Space, Space], tmp_path: Path):
    clip, clap = pair
    good = estimate_pair(clip, clap, via="text")
    assert good.estimate["verdict"] == "good"
    low, high = good.estimate["map_ci95"]
    assert low <= good.estimate["map"] <= high
    bad = estimate_pair(clip, shuffled(clap, tmp_path), via="text")
    assert bad.estimate["verdict"] == "broken"
    assert "have no neighbours in common" in bad.estimate["reasons"][0]
    assert bad.estimate["map"] < good.estimate["map"] / 2
    assert any("broken" in line for line in lines(bad.to_dict()))


@pytest.mark.parametrize("method", ["ridge", "procrustes", "dictionary"])
def test_bridges_of_every_method_tell_their_estimate(method: str, pair: tuple[Space, Space], tmp_path: Path):
    clip, clap = pair
    bridge = isthmus.extend(clip, clap, via="text", method=method)
    told = bridge.record["estimate"]
    assert told["verdict"] == "good"
    assert "no label was used" in told["from"]
    bridge.save(tmp_path / "u.bridge")
    assert isthmus.load_bridge(tmp_path / "u.bridge").record["estimate"]["map"] == told["map"]
    assert "estimate" not in isthmus.extend(clip, clap, via="text", method=method, estimate=False).record


def test_figures_are_those_of_the_bridges_own_method(pair: tuple[Space, Space]):
    clip, clap = pair
    bridge = isthmus.extend(clip, clap, via="text", method="procrustes")
    worse = isthmus.extend(clip, clap, via="text", method="dictionary", center="leaf")
    assert bridge.record["estimate"]["covered"] != worse.record["estimate"]["covered"]
    assert bridge.record["estimate"]["uncovered"] > worse.record["estimate"]["uncovered"]


@pytest.mark.filterwarnings("ignore")
def test_a_trained_bridge_and_a_second_leaf_tell_theirs(tmp_path: Path):
    clip, clap, ulip = three_spaces(tmp_path, 300)
    config = isthmus.ExtendConfig(epochs=2, batch_size=128, description=0.0)
    bridge = isthmus.extend(clip, clap, via="text", config=config, quiet=True)
    first = bridge.record["estimate"]
    assert first["verdict"] == "good"
    both = isthmus.extend(bridge, ulip, via="image", method="procrustes")
    assert "clip and ulip" in next(iter(both.record["estimate"]["damaged"]))
    assert both.record["earlier"][0]["record"]["estimate"] == first


def test_concepts_that_one_space_has_never_seen_are_named(tmp_path: Path):
    # Both read all texts; the pictures show the first half of the meanings alone, the sounds all of them.
    every = meanings(600, 1)
    half = every[every[:, 0] > 0]
    names = {"text": ("t", every), "image": ("i", half[: len(half)])}
    clip = write_space(tmp_path, "clip", 24, 101, names)
    clap = write_space(tmp_path, "clap", 20, 102, {"text": ("t", every), "audio": ("a", every)})
    unknown = estimate_pair(clip, clap, via="text").unknown
    assert unknown["clip"]
    assert not unknown["clap"] or unknown["clap"][0].gap < unknown["clip"][0].gap
    for concept in unknown["clip"]:
        assert every[int(concept.name.removeprefix("t")), 0] < 0.1
        assert concept.items >= 2


def test_little_that_is_shared_gives_no_estimate_and_no_fault(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 30)
    assert "estimate" not in isthmus.extend(clip, clap, via="text", method="ridge").record
