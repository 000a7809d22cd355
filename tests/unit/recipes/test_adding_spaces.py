"""A third space added to a bridge of posteriors, or to a frozen base in a closed form: what was there stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import meanings, three_spaces, write_space

import isthmus
from isthmus.errors import ConfigError, IsthmusWarning, OverlapError
from isthmus.spaces.space import Space

N = 300


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Space, Space, Space]:
    """clip, clap and ulip (images in common with clip), and a space that reads half of the texts, in another order."""
    folder = tmp_path_factory.mktemp("world")
    clip, clap, ulip = three_spaces(folder, N)
    texts, order = meanings(N, 1), np.random.default_rng(0).permutation(N)[: N // 2]
    clear = write_space(folder, "tact", 18, 104, {"touch": ("h", meanings(N, 5)), "text": ("t", texts)})
    half = isthmus.make_space(
        folder / "half.space",
        {
            "touch": (clear["touch"].ids, np.asarray(clear["touch"])),
            "text": ([f"t{row}" for row in order], np.asarray(clear["text"])[order]),
        },
        name="half",
    )
    return clip, clap, ulip, half


def true_share(
    bridge: isthmus.Bridge, query: tuple[Space, str], gallery: tuple[Space, str], truth: np.ndarray
) -> float:
    """Share of queries whose nearest of the gallery is among the ten nearest by meaning."""
    x, y = (bridge.project(space[modality], space=space.name) for space, modality in (query, gallery))
    best = (x @ y.T).argmax(axis=1)
    return float(np.mean([best[row] in truth[row] for row in range(len(x))]))


def nearest_meanings(seed: int, other: int) -> np.ndarray:
    return np.argsort(-meanings(N, seed) @ meanings(N, other).T, axis=1)[:, :10]


@pytest.mark.parametrize(
    "settings", [{}, {"size": "sparse"}, {"size": "full", "cca_weight": 1.0}, {"denoising": False}]
)
def test_a_space_is_added_and_nothing_moves(
    spaces: tuple[Space, Space, Space, Space], settings: dict[str, object], tmp_path: Path
):
    clip, clap, _, half = spaces
    bridge = isthmus.connect(clip, clap, via="text", method="posterior", **settings)
    grown = isthmus.extend(bridge, half, via="text")
    assert grown.method == "posterior"
    assert grown.dim == bridge.dim
    for space in (clip, clap):
        for modality in space.modalities:
            one, other = (b.project(space[modality], space=space.name) for b in (bridge, grown))
            assert one.tobytes() == other.tobytes()
    assert {name: grown.arrays[name] is bridge.arrays[name] for name in bridge.arrays} == dict.fromkeys(
        bridge.arrays, True
    )
    assert grown.record["changed"].startswith("nothing")
    assert grown.record["estimate"]["verdict"] in ("good", "doubtful", "broken")
    assert 100 < grown.record["recognised"] + len(grown.record["dropped"]) <= N // 2
    # Ids are matched by name: the half came in another order, and finds both older spaces.
    assert true_share(grown, (half, "touch"), (clip, "image"), nearest_meanings(5, 2)) > 0.3
    assert true_share(grown, (half, "touch"), (clap, "audio"), nearest_meanings(5, 3)) > 0.3
    grown.save(tmp_path / "g.bridge")
    again = isthmus.load_bridge(tmp_path / "g.bridge")
    x = grown.project(half["touch"], space="half")
    np.testing.assert_allclose(again.project(half["touch"], space="half"), x, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-5)
    bridge.save(tmp_path / "b.bridge")
    # A bridge from a folder takes the same space in, to the same vectors.
    late = isthmus.extend(tmp_path / "b.bridge", half, via="text")
    np.testing.assert_allclose(late.project(half["touch"], space="half"), x, atol=1e-6)


def test_a_space_is_added_through_what_it_shares_with_one_of_them(spaces: tuple[Space, Space, Space, Space]):
    clip, clap, ulip, half = spaces
    bridge = isthmus.connect(clip, clap, via="text", method="posterior")
    grown = isthmus.extend(bridge, ulip, via="image")
    assert true_share(grown, (ulip, "point_cloud"), (clap, "audio"), nearest_meanings(4, 3)) > 0.3
    both = isthmus.extend(grown, half, via="text")
    assert [space.name for space in both.spaces] == ["clip", "clap", "ulip", "half"]
    assert both.project(ulip["point_cloud"]).tobytes() == grown.project(ulip["point_cloud"]).tobytes()
    fillers = [route[-1]["index"] for route in both.routes.values()]
    assert len(set(fillers)) == len(fillers)


def test_a_bridge_without_room_says_so(spaces: tuple[Space, Space, Space, Space], monkeypatch: pytest.MonkeyPatch):
    clip, clap, _, half = spaces
    monkeypatch.setattr("isthmus.recipes.posterior.routes.SPARE", 1)
    bridge = isthmus.connect(clip, clap, via="text", method="posterior")
    with pytest.raises(ConfigError, match="room for 1 more modalities, space 'half' has 2"):
        isthmus.extend(bridge, half, via="text")
    with pytest.raises(OverlapError, match="has no 'audio'"):
        isthmus.extend(bridge, half, via="audio")


@pytest.mark.parametrize("method", ["posterior", "cca"])
def test_closed_forms_leave_a_frozen_base_as_it_is(spaces: tuple[Space, Space, Space, Space], method: str):
    clip, clap, ulip, _ = spaces
    bridge = isthmus.extend(clip, clap, via="text", method=method)
    assert bridge.base_moved == []
    assert bridge.method == method
    assert true_share(bridge, (clap, "audio"), (clip, "image"), nearest_meanings(3, 2)) > 0.3
    grown = isthmus.extend(bridge, ulip, via="image", method=method)
    assert grown.project(clap["audio"]).tobytes() == bridge.project(clap["audio"]).tobytes()
    assert true_share(grown, (ulip, "point_cloud"), (clip, "text"), nearest_meanings(4, 1)) > 0.3


def test_a_setting_of_training_asks_for_training(spaces: tuple[Space, Space, Space, Space]):
    clip, clap, _, half = spaces
    bridge = isthmus.connect(clip, clap, via="text", method="posterior")
    grown = isthmus.extend(bridge, half, via="text", config={"epochs": 1, "batch_size": 64}, quiet=True)
    assert grown.method == "posterior+ex-mcr"


def test_pairs_of_three_spaces_have_blocks_of_their_own(spaces: tuple[Space, Space, Space, Space]):
    clip, clap, ulip, half = spaces
    vias = ["clip,clap:text", "clip,ulip:image"]
    bridge = isthmus.connect(clip, clap, ulip, via=vias, method="posterior")
    chains = bridge.routes["clap/audio"][-2]["chains"]
    # The posterior, then clip and clap, clip and ulip (nothing of clap), clap and ulip.
    assert [chain[0]["kind"] if chain else "own" for chain in chains] == [
        "posterior", "posterior", "own", "linear", "linear", "own", "posterior",
    ]  # fmt: skip
    assert true_share(bridge, (ulip, "point_cloud"), (clap, "audio"), nearest_meanings(4, 3)) > 0.3
    grown = isthmus.extend(bridge, half, via="text")
    for space, modality, seed in ((clip, "image", 2), (clap, "audio", 3)):
        assert true_share(grown, (half, "touch"), (space, modality), nearest_meanings(5, seed)) > 0.3
    assert grown.project(clap["audio"]).tobytes() == bridge.project(clap["audio"]).tobytes()


@pytest.mark.parametrize("method", ["posterior", "cca"])
@pytest.mark.parametrize("over", ["space", "bridge"])
def test_a_leaf_without_anything_and_ids_that_contradict_are_warned_of(
    spaces: tuple[Space, Space, Space, Space], method: str, over: str, tmp_path: Path
):
    clip, clap, _, half = spaces
    base = clip if over == "space" else isthmus.connect(clip, clap, via="text", method="posterior")
    empty = isthmus.make_space(
        tmp_path / "e.space", {"text": (half["text"].ids, np.asarray(half["text"]))}, name="empty"
    )
    with pytest.warns(IsthmusWarning, match=r"space 'empty' has nothing beside the overlap \(text\)"):
        isthmus.extend(base, empty, via="text", method=method)
    wrong = np.random.default_rng(1).permutation(np.asarray(half["text"]))
    content = {"text": (half["text"].ids, wrong), "touch": (half["touch"].ids, np.asarray(half["touch"]))}
    mixed = isthmus.make_space(tmp_path / "m.space", content, name="mixed")
    with pytest.warns(
        IsthmusWarning, match=r"clip(\+clap)? and mixed, text: shared items have their neighbours in common no more"
    ):
        isthmus.extend(base, mixed, via="text", method=method)
