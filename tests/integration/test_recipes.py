"""Connect and extend from spaces on disk to retrieval on true pairs that no training saw."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import isthmus
from isthmus.bridges.routes import apply_route
from isthmus.errors import ConfigError, OverlapError
from isthmus.recipes.connect import ConnectConfig
from isthmus.recipes.extend import ExtendConfig
from worlds import contrastive, meanings, three_spaces

FAST = {"epochs": 25, "batch_size": 128, "noise_cosine": 0.9}


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[isthmus.Space, ...]:
    return three_spaces(tmp_path_factory.mktemp("spaces"))


@pytest.fixture(scope="module")
def extended(spaces: tuple[isthmus.Space, ...]) -> isthmus.Bridge:
    clip, clap, _ = spaces
    return isthmus.extend(clip, clap, via="text", config=ExtendConfig(**FAST), quiet=True)


def recall(query: np.ndarray, gallery: np.ndarray) -> float:
    """Recall at 1 of row-aligned items."""
    return isthmus.evaluate_retrieval(query, gallery, [(i, i) for i in range(len(query))]).to_dict()["mean"]["r@1"]


def unseen(space: int, modality: int, dim: int) -> np.ndarray:
    return contrastive(meanings(100, 99), dim, space, modality)


def test_an_extension_finds_images_by_sounds_it_never_saw(extended: isthmus.Bridge) -> None:
    audio = extended.project(unseen(102, 1, 20), space="clap", modality="audio")
    image = extended.project(unseen(101, 1, 24), space="clip", modality="image")
    assert recall(audio, image) > 20 * 0.01
    record = extended.record
    assert record["held_out"]["score"] > 0.2
    assert record["pseudo_pairs"]["rows"] == 1200
    assert record["gap"]["after"]["clip/text - clip/image"] == record["gap"]["before"]["clip/text - clip/image"]


def test_the_base_stays_bit_for_bit(spaces: tuple[isthmus.Space, ...], extended: isthmus.Bridge) -> None:
    clip = spaces[0]
    for modality in clip.modalities:
        assert np.array_equal(extended.project(clip[modality]), clip[modality].unit())
    assert extended.base_moved == []


def test_a_connection_moves_both_and_finds_images_by_sounds(spaces: tuple[isthmus.Space, ...]) -> None:
    clip, clap, _ = spaces
    bridge = isthmus.connect(clip, clap, via="text", config=ConnectConfig(**FAST, dim=32), quiet=True)
    audio = bridge.project(unseen(102, 1, 20), space="clap", modality="audio")
    image = bridge.project(unseen(101, 1, 24), space="clip", modality="image")
    assert bridge.dim == 32
    assert recall(audio, image) > 20 * 0.01
    assert {space.role for space in bridge.spaces} == {"first", "second"}


def test_leaves_come_in_any_order_to_the_same_bridge_and_meet_each_other(
    spaces: tuple[isthmus.Space, ...], extended: isthmus.Bridge, tmp_path: Path
) -> None:
    clip, clap, ulip = spaces
    config = ExtendConfig(**FAST)
    extended.save(tmp_path / "one.bridge")
    reloaded = isthmus.load_bridge(tmp_path / "one.bridge")
    one = isthmus.extend(reloaded, ulip, via="image", config=config, quiet=True)
    first = isthmus.extend(clip, ulip, via="image", config=config, quiet=True)
    other = isthmus.extend(first, clap, via="text", config=config, quiet=True)
    assert set(one.arrays) == set(other.arrays)
    for name in one.arrays:
        assert np.array_equal(one.arrays[name], other.arrays[name]), name
    # Sounds and shapes were never in one training: they meet because both went to the same base.
    audio = one.project(unseen(102, 1, 20), space="clap", modality="audio")
    shapes = one.project(unseen(103, 1, 16), space="ulip", modality="point_cloud")
    assert recall(shapes, audio) > 10 * 0.01


def test_an_extension_can_start_from_a_connection(spaces: tuple[isthmus.Space, ...]) -> None:
    clip, clap, ulip = spaces
    base = isthmus.connect(clip, clap, via="text", config=ConnectConfig(epochs=2, batch_size=64), quiet=True)
    bridge = isthmus.extend(base, ulip, via="image", config=ExtendConfig(epochs=2, batch_size=64), quiet=True)
    assert {space.name for space in bridge.spaces} == {"clip", "clap", "ulip"}
    assert np.array_equal(bridge.project(clap["audio"]), base.project(clap["audio"]))
    # All modalities of both connected spaces took part as the base's.
    assert any("audio" in kind for kind in bridge.record["pseudo_pairs"])


@pytest.mark.parametrize("method", ["dictionary", "ridge", "procrustes"])
def test_closed_forms_give_bridges_of_the_same_kind(
    method: str, spaces: tuple[isthmus.Space, ...], tmp_path: Path
) -> None:
    clip, clap, _ = spaces
    bridge = isthmus.extend(clip, clap, via="text", method=method, center="leaf")
    bridge.save(tmp_path / "x.bridge")
    again = isthmus.load_bridge(tmp_path / "x.bridge")
    audio = again.project(unseen(102, 1, 20), space="clap", modality="audio")
    assert recall(audio, again.project(unseen(101, 1, 24), space="clip", modality="image")) > 5 * 0.01


def test_members_share_the_steps_and_are_averaged(spaces: tuple[isthmus.Space, ...], tmp_path: Path) -> None:
    clip, clap, _ = spaces
    # The projections alone: what describes a leaf's items beside them is no member.
    one, three = (
        isthmus.extend(
            clip, clap, via="text", config=ExtendConfig(members=n, batch_size=64, description=0.0), quiet=True
        )
        for n in (1, 3)
    )
    assert three.record["parameters"] == 3 * one.record["parameters"]
    assert three.record["steps"] == pytest.approx(one.record["steps"], rel=0.35)
    x = unseen(102, 1, 20)
    (blend,) = three.routes["clap/audio"]
    alone = [apply_route(chain, three.arrays, x) for chain in blend["chains"]]
    assert min(float(np.abs(a - b).max()) for a, b in itertools.combinations(alone, 2)) > 0.01
    three.save(tmp_path / "three.bridge")
    found = isthmus.load_bridge(tmp_path / "three.bridge").project(x, space="clap", modality="audio")
    mean = sum(alone)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def test_wrong_settings_are_named(spaces: tuple[isthmus.Space, ...]) -> None:
    clip, clap, ulip = spaces
    with pytest.raises(ConfigError, match="unknown method 'magic'"):
        isthmus.extend(clip, clap, via="text", method="magic")
    with pytest.raises(ConfigError, match="unknown option 'center'"):
        isthmus.extend(clip, clap, via="text", center=True)
    with pytest.raises(ConfigError, match="via got ''"):
        isthmus.extend(clip, clap, via="")
    with pytest.raises(OverlapError, match="space 'ulip' has no 'text'"):
        isthmus.extend(clip, ulip, via="text", quiet=True)
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used here"):
        isthmus.extend(clip, clap, via="text", device="abacus")
    with pytest.raises(ConfigError, match="two spaces are called 'clip'"):
        isthmus.connect(clip, clip, via="text")
    with pytest.raises(ConfigError, match="two spaces are called 'clip'"):
        isthmus.extend(clip, clip, via="text", config=ExtendConfig(epochs=1, batch_size=64), quiet=True)


def test_the_paper_preset_is_faithful_to_the_print() -> None:
    extend, connect = ExtendConfig(preset="paper"), ConnectConfig(preset="paper")
    assert (extend.epochs, extend.batch_size, extend.noise_cosine) == (36, 4096, 0.573)
    assert (extend.temperature, extend.intra_weight, extend.learning_rate) == (0.05, 0.1, 1e-3)
    assert (connect.epochs, connect.batch_size, connect.temperature, connect.intra_norm) == (36, 10240, 0.01, "l2sq")
    assert connect.centric == ("overlap",)
    assert extend.members == connect.members == 1
    assert extend.aggregation_method == connect.aggregation_method == "exact"
    assert ExtendConfig(preset="paper", epochs=2).epochs == 2
