"""Baselines: each found in a world where it must win, listed with its reason where it cannot be computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.training_spaces import TrainingSpaces, space_of
from isthmus.errors import BridgeError, EvaluationError
from isthmus.evaluation.baselines import METHODS, ORACLES
from isthmus.evaluation.evaluate import evaluate_bridge, format_table
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.space import Space

D, TEXTS, ITEMS = 8, 300, 60
Rng = np.random.Generator


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(0)


def rotation(rng: Rng, n: int = D) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def ids(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


class World:
    """Meanings seen by three spaces, each turned by a rotation of its own; images, sounds and shapes share meanings."""

    def __init__(self, folder: Path, rng: Rng) -> None:
        meaning, text = rng.standard_normal((ITEMS, D)), rng.standard_normal((TEXTS, D))
        self.turns = {name: rotation(rng) for name in ("base", "leaf", "far")}

        def see(name: str, x: np.ndarray) -> np.ndarray:
            return (x + 0.15 * rng.standard_normal(x.shape)) @ self.turns[name].T

        def make(name: str, **content: Any) -> Space:
            return isthmus.make_space(folder / f"{name}.space", content, encoder=f"{name}-encoder", dtype="float32")

        self.base = make(
            "base", text=(ids("t", TEXTS), see("base", text)), image=(ids("i", ITEMS), see("base", meaning))
        )
        self.leaf = make(
            "leaf", text=(ids("t", TEXTS), see("leaf", text)), audio=(ids("a", ITEMS), see("leaf", meaning))
        )
        self.far = make("far", text=(ids("t", TEXTS), see("far", text)), shape=(ids("s", ITEMS), see("far", meaning)))
        self.bridge = fit_closed_form_bridge(self.base, self.leaf, via="text", method="ridge")
        self.both = fit_closed_form_bridge(self.bridge, self.far, via="text", method="procrustes")


@pytest.fixture
def world(tmp_path: Path, rng: Rng) -> World:
    return World(tmp_path, rng)


PAIRS = [(f"a{i}", f"i{i}") for i in range(ITEMS)]
EVERY = ["random", *(f"{m}{c}" for c in ("", "_centred") for m in ("raw", *METHODS, "dictionary_two_sided"))]


def rows(world: World, **options: Any) -> dict[str, dict[str, Any]]:
    task = {"query": world.leaf["audio"], "gallery": world.base["image"], "pairs": PAIRS, **options}
    found: dict[str, dict[str, Any]] = evaluate_bridge(world.bridge, baselines=True, **task)["baselines"]
    return found


def test_every_baseline_has_figures_or_a_reason(world: World) -> None:
    found = rows(world)
    assert list(found) == EVERY
    for name, row in found.items():
        assert set(row) >= {"r@1", "map", "median_rank", "query_to_gallery", "gallery_to_query", "mean", "seconds"}, (
            name
        )
        assert row["r@1"] == row["mean"]["r@1"]
        if name != "random":
            assert 0 < row["seconds"] < 600
            assert row["mean"]["r@1_ci95"][0] <= row["mean"]["r@1"] <= row["mean"]["r@1_ci95"][1]


def test_what_is_a_rotation_is_found_and_what_is_not_mapped_is_chance(world: World) -> None:
    found = rows(world)
    assert found["random"]["r@1"] == pytest.approx(1 / ITEMS)
    for name in ("procrustes", "ridge", "cca", "procrustes_centred", "ridge_centred", "cca_centred"):
        assert found[name]["r@1"] > 0.5, name
    for name in ("raw", "mean_offset", "raw_centred", "mean_offset_centred"):
        assert found[name]["r@1"] < 0.15, name
    for name in ("dictionary", "dictionary_two_sided", "dictionary_two_sided_centred"):
        assert found[name]["map"] > 5 * found["random"]["map"], name


@pytest.mark.parametrize("method", METHODS)
def test_a_baseline_is_the_bridge_of_the_same_method(world: World, method: str) -> None:
    bridge = fit_closed_form_bridge(world.base, world.leaf, via="text", method=method)
    own = evaluate_bridge(bridge, query=world.leaf["audio"], gallery=world.base["image"], pairs=PAIRS)
    found = rows(world)[method]["mean"]
    for figure in ("r@1", "r@5", "map", "median_rank"):
        assert found[figure] == pytest.approx(own["mean"][figure]), figure


def test_sides_may_be_exchanged(world: World) -> None:
    there = rows(world)
    back = rows(
        world, query=world.base["image"], gallery=world.leaf["audio"], pairs=[(image, audio) for audio, image in PAIRS]
    )
    for name in ("ridge", "cca", "dictionary_two_sided", "raw_centred"):
        assert there[name]["query_to_gallery"]["map"] == pytest.approx(back[name]["gallery_to_query"]["map"]), name


def test_two_leaves_meet_in_their_base(world: World) -> None:
    """No training and no baseline ever saw a sound with a shape, nor their spaces' overlap with each other."""
    report = evaluate_bridge(
        world.both,
        query=world.leaf["audio"],
        gallery=world.far["shape"],
        pairs=[(f"a{i}", f"s{i}") for i in range(ITEMS)],
        baselines=True,
    )
    found = report["baselines"]
    for name in ("ridge", "procrustes", "cca", "ridge_centred"):
        assert found[name]["r@1"] > 0.4, name
    assert "more than one overlap" in found["dictionary_two_sided"]["reason"]
    assert "r@1" in found["dictionary"]


def test_a_leaf_joined_through_another_leaf_goes_its_way(tmp_path: Path, world: World, rng: Rng) -> None:
    sound = np.asarray(world.leaf["audio"]) @ world.turns["leaf"]
    turn = rotation(rng)
    content = {"audio": (ids("a", ITEMS), sound @ turn.T), "speech": (ids("s", ITEMS), sound @ turn.T)}
    last = isthmus.make_space(tmp_path / "last.space", content, encoder="last-encoder", dtype="float32")
    bridge = fit_closed_form_bridge(world.bridge, last, via="audio", method="ridge")
    assert TrainingSpaces(bridge, {}).path("last") == ["last", "leaf", "base"]
    report = evaluate_bridge(
        bridge,
        query=last["speech"],
        gallery=world.base["image"],
        pairs=[(f"s{i}", f"i{i}") for i in range(ITEMS)],
        baselines=True,
    )
    assert report["baselines"]["procrustes"]["r@1"] > 0.4
    direct = evaluate_bridge(
        bridge,
        query=last["speech"],
        gallery=world.leaf["audio"],
        pairs=[(f"s{i}", f"a{i}") for i in range(ITEMS)],
        baselines=True,
    )
    assert direct["baselines"]["procrustes"]["r@1"] > 0.9
    assert "r@1" in direct["baselines"]["dictionary_two_sided"]


def test_one_space_needs_no_map(world: World) -> None:
    found = rows(world, query=world.base["text"], gallery=world.base["image"], pairs=[("t0", "i0")])
    assert "nothing to map" in found["ridge"]["reason"]
    assert "r@1" in found["raw"]
    assert "r@1" in found["raw_centred"]


def test_other_dimensions_leave_rows_with_a_reason(tmp_path: Path, world: World, rng: Rng) -> None:
    wide = np.linalg.qr(rng.standard_normal((D + 3, D + 3)))[0][:, :D]
    content = {m: (world.leaf[m].ids, np.asarray(world.leaf[m]) @ wide.T) for m in ("text", "audio")}
    leaf = isthmus.make_space(tmp_path / "wide.space", content, encoder="wide-encoder", dtype="float32")
    bridge = fit_closed_form_bridge(world.base, leaf, via="text", method="ridge")
    report = evaluate_bridge(bridge, query=leaf["audio"], gallery=world.base["image"], pairs=PAIRS, baselines=True)
    found = report["baselines"]
    assert found["raw"] == {"reason": "the sides have 11 and 8 dimensions."}
    assert "equal dims" in found["mean_offset"]["reason"]
    assert found["procrustes"]["r@1"] > 0.5
    assert "the sides have 11 and 8 dimensions." in format_table(report)


def test_several_overlaps_are_stacked(tmp_path: Path, world: World, rng: Rng) -> None:
    turn = rotation(rng)
    content = {m: (world.base[m].ids, np.asarray(world.base[m]) @ turn.T) for m in ("text", "image")}
    content["shape"] = (ids("s", ITEMS), np.asarray(world.base["image"]) @ turn.T)
    leaf = isthmus.make_space(tmp_path / "two.space", content, encoder="two-encoder", dtype="float32")
    bridge = fit_closed_form_bridge(world.base, leaf, via=["text", "image"], method="ridge")
    spaces = TrainingSpaces(bridge, {})
    near, far = spaces.overlap("two", centred=False)
    assert near.shape == far.shape == (TEXTS + ITEMS, D)
    near, far = spaces.overlap("two", centred=True)
    assert np.abs(near[:TEXTS].mean(axis=0)).max() < 0.1
    assert np.abs(near[TEXTS:].mean(axis=0)).max() < 0.1


def test_overlaps_beyond_the_limit_are_thinned_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.bridges.training_spaces.FIT_ROWS", 50)
    near, _ = TrainingSpaces(world.bridge, {}).overlap("leaf", centred=False)
    assert near.shape == (50, D)
    np.testing.assert_array_equal(near[[0, -1]], world.base["text"].unit([0, TEXTS - 1]))


# the paired oracle


def test_oracles_see_the_training_pairs_and_nothing_else(world: World) -> None:
    found = rows(world, train_pairs=PAIRS[: ITEMS // 2])
    assert list(found) == [*EVERY, *(f"paired_{name}" for name in ORACLES)]
    assert found["paired_ridge"]["r@1"] > 0.3
    wrong = [(f"a{i}", f"i{(i + 7) % ITEMS}") for i in range(ITEMS)]
    assert rows(world, train_pairs=wrong)["paired_ridge"]["r@1"] < 0.2


def test_training_pairs_alone_ask_for_baselines(world: World) -> None:
    report = evaluate_bridge(
        world.bridge, query=world.leaf["audio"], gallery=world.base["image"], pairs=PAIRS, train_pairs=PAIRS
    )
    assert "paired_cca" in report["baselines"]


def test_an_unknown_training_item_is_named(world: World, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("query_id,gallery_id\na1,i1\nzz,i2\n")
    with pytest.raises(EvaluationError, match=rf"{path}: query_id 'zz' \(row 2\).*training leaf/audio ids"):
        rows(world, train_pairs=path)


# what the bridge records


def test_classes_are_mapped_prompt_by_prompt(world: World) -> None:
    labels = [(f"t{i}", f"t{i}") for i in range(50)]
    report = evaluate_bridge(
        world.bridge, query=world.leaf["text"], classes=world.base["text"], labels=labels, baselines=True
    )
    assert list(report["baselines"]) == EVERY
    assert report["baselines"]["ridge"]["accuracy@1"] > 0.5
    assert report["baselines"]["random"]["accuracy@5"] == pytest.approx(5 / TEXTS)
    assert report["baselines"]["ridge"]["seconds"] > 0


def test_connected_spaces_meet_in_the_first(world: World) -> None:
    spaces = [BridgeSpace.of(world.base, role="first"), BridgeSpace.of(world.leaf, role="second")]
    routes = {f"{s.name}/{m}": [{"kind": "normalize"}] for s in (world.base, world.leaf) for m in s.modalities}
    bridge = Bridge("c-mcr", D, spaces, routes, {}, config={"via": "text"})
    report = evaluate_bridge(
        bridge, query=world.leaf["audio"], gallery=world.base["image"], pairs=PAIRS, baselines=True
    )
    assert report["baselines"]["ridge"]["r@1"] > 0.5


def test_spaces_that_moved_are_given(world: World, tmp_path: Path) -> None:
    task = {"query": world.leaf["audio"], "gallery": world.base["image"], "pairs": PAIRS, "baselines": True}
    (tmp_path / "leaf.space").rename(tmp_path / "moved.space")
    task["query"] = isthmus.open_space(tmp_path / "moved.space")["audio"]
    lost = evaluate_bridge(world.bridge, **task)["baselines"]
    assert "leaf.space" in lost["ridge"]["reason"]
    assert "r@1" in lost["raw"]
    found = evaluate_bridge(world.bridge, **task, space_paths={"leaf": tmp_path / "moved.space"})["baselines"]
    assert found["ridge"]["r@1"] > 0.5


def test_a_bridge_without_a_record_has_reasons(world: World) -> None:
    world.bridge.config.pop("via")
    assert "does not record" in rows(world)["ridge"]["reason"]


def test_home_is_where_the_encoder_is(world: World, tmp_path: Path) -> None:
    assert space_of(world.both, world.far["shape"]) == "far"
    content = {"audio": (["a"], np.ones((1, D)))}
    other = isthmus.make_space(tmp_path / "other.space", content, encoder="another")
    with pytest.raises(BridgeError, match="other/audio was made by"):
        space_of(world.both, other["audio"])
    assert space_of(world.both, other["audio"], force=True) == "leaf"


def shifted(world: World, folder: Path, rng: Rng) -> tuple[Space, Space]:
    """Test items whose own means are elsewhere than the training modalities' means."""
    meaning = rng.standard_normal((40, D))
    made = []
    for number, (name, modality) in enumerate((("leaf", "audio"), ("base", "image"))):
        shift = 1.5 * np.eye(D)[number]
        seen = (meaning + shift + 0.5 * rng.standard_normal(meaning.shape)) @ world.turns[name].T
        content = {modality: (ids(modality[0], 40), seen)}
        made.append(isthmus.make_space(folder / f"{name}-test.space", content, encoder=f"{name}-encoder"))
    return made[0], made[1]


SHIFTED = [(f"a{i}", f"i{i}") for i in range(40)]


@pytest.mark.parametrize("method", ["procrustes", "ridge", "cca"])
def test_centring_takes_the_training_means_and_none_of_the_test_items(
    world: World, tmp_path: Path, rng: Rng, method: str
) -> None:
    """The test items' own mean would tell of the others what no query may know."""
    audio, image = shifted(world, tmp_path, rng)
    task = {"query": audio["audio"], "gallery": image["image"], "pairs": SHIFTED}
    found = evaluate_bridge(world.bridge, baselines=True, **task)["baselines"][f"{method}_centred"]
    bridge = fit_closed_form_bridge(world.base, world.leaf, via="text", method=method, center=True)
    own = evaluate_bridge(bridge, **task)
    for figure in ("r@1", "map", "median_rank"):
        assert found["mean"][figure] == pytest.approx(own["mean"][figure]), figure


def test_the_two_sided_dictionary_has_two_sides(world: World) -> None:
    found = rows(world)
    bridge = fit_closed_form_bridge(world.base, world.leaf, via="text", method="dictionary", two_sided=True)
    own = evaluate_bridge(bridge, query=world.leaf["audio"], gallery=world.base["image"], pairs=PAIRS)
    assert found["dictionary_two_sided"]["mean"]["map"] == pytest.approx(own["mean"]["map"])
    assert found["dictionary_two_sided"]["mean"]["map"] != found["dictionary"]["mean"]["map"]


@pytest.mark.parametrize("method", ORACLES)
def test_an_oracle_is_its_method_on_the_true_pairs(world: World, method: str) -> None:
    from isthmus.bridges.routes import apply_route
    from isthmus.metrics.results import score_retrieval
    from isthmus.recipes.solvers import ClosedFormConfig, solve

    train = PAIRS[: ITEMS // 2]
    audio, image = world.leaf["audio"].unit(), world.base["image"].unit()
    far, near = audio[: len(train)], image[: len(train)]
    fit = solve(near, far, ClosedFormConfig(method=method))
    x, y = apply_route(fit.leaf, fit.arrays, audio), apply_route(fit.base, fit.arrays, image)
    every = np.arange(ITEMS)
    own = score_retrieval(*(a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)), (every, every)).to_dict()
    found = rows(world, train_pairs=train)[f"paired_{method}"]
    assert found["mean"]["map"] == pytest.approx(own["mean"]["map"], abs=1e-6)
