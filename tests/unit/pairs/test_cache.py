"""Pseudo pairs that are kept are those that would be made, and serve only where nothing they depend on differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.pairs.builder import Builder
from isthmus.pairs.cache import PairStore, digest
from isthmus.pairs.kinds import choose_kinds
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Side
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.connect import ConnectConfig, connect
from isthmus.recipes.extend import ExtendConfig, extend
from isthmus.recipes.sides import space_side
from worlds import three_spaces


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Side, Side]:
    clip, clap, _ = three_spaces(tmp_path, n=60)
    return space_side(clip), space_side(clap)


def build(sides: tuple[Side, Side], folder: Path | None, said: list[str] | None = None, **settings: object):
    config = RecipeConfig(**settings)
    store = PairStore(folder) if folder else None
    notify = (said if said is not None else []).append
    builder = Builder(*sides, ["text"], config, device=torch.device("cpu"), notify=notify, store=store)
    return builder.build(choose_kinds(*sides, ["text"], config.centric))


def same(a: PseudoPairs, b: PseudoPairs) -> bool:
    equal = all(np.array_equal(a.columns[slot], b.columns[slot]) for slot in a.slots)
    return equal and a.effective_neighbours == b.effective_neighbours and a.composition == b.composition


@pytest.mark.parametrize("settings", [{}, {"preset": "auto"}, {"normalize_aggregates": False}, {"max_pairs": 20}])
def test_taken_pairs_are_those_made_anew(sides: tuple[Side, Side], tmp_path: Path, settings: dict[str, object]):
    folder = tmp_path / "pairs"
    build(sides, folder, **settings)
    for centric in (None, ("text",), ("audio", "image"), ("image",)):
        said: list[str] = []
        taken = build(sides, folder, said, centric=centric, **settings)
        assert same(taken, build(sides, None, centric=centric, **settings))
        assert all(line.endswith("made before") for line in said)


@pytest.mark.parametrize(
    "settings", [{"aggregation_temperature": 0.02}, {"normalize_aggregates": False}, {"max_pairs": 20}]
)
def test_other_settings_of_pairs_are_made_anew(sides: tuple[Side, Side], tmp_path: Path, settings: dict[str, object]):
    build(sides, tmp_path / "pairs")
    said: list[str] = []
    assert same(build(sides, tmp_path / "pairs", said, **settings), build(sides, None, **settings))
    assert not any(line.endswith("made before") for line in said)


def test_settings_of_training_share_pairs_and_other_seeds_do_where_all_queries_are_taken(
    sides: tuple[Side, Side], tmp_path: Path
):
    build(sides, tmp_path / "pairs")
    for settings in ({"seed": 3}, {"noise_cosine": 0.9, "epochs": 2}):
        said: list[str] = []
        build(sides, tmp_path / "pairs", said, **settings)
        assert all(line.endswith("made before") for line in said)
    build(sides, tmp_path / "pairs", max_pairs=20)
    drawn: list[str] = []
    assert same(build(sides, tmp_path / "pairs", drawn, max_pairs=20, seed=3), build(sides, None, max_pairs=20, seed=3))
    assert not any(line.endswith("made before") for line in drawn)


def test_one_changed_number_is_another_content(sides: tuple[Side, Side], tmp_path: Path):
    build(sides, tmp_path / "pairs")
    changed = {name: rows.copy() for name, rows in sides[1].embeddings.items()}
    changed["audio"][3] = changed["audio"][4]
    said: list[str] = []
    build((sides[0], Side(sides[1].name, sides[1].ids, changed)), tmp_path / "pairs", said)
    assert not any(line.endswith("made before") for line in said)


def test_a_damaged_block_is_made_again(sides: tuple[Side, Side], tmp_path: Path):
    whole = build(sides, tmp_path / "pairs")
    about, array = sorted((tmp_path / "pairs").glob("*/about.json")), sorted((tmp_path / "pairs").glob("*/0.npy"))
    about[0].write_text("{")
    array[1].write_bytes(array[1].read_bytes()[:40])
    said: list[str] = []
    assert same(build(sides, tmp_path / "pairs", said), whole)
    assert sum(line.endswith("made before") for line in said) == 1
    again: list[str] = []
    build(sides, tmp_path / "pairs", again)
    assert all(line.endswith("made before") for line in again)


def test_a_digest_tells_shapes_and_types_apart():
    x = np.arange(6, dtype=np.float32)
    assert len({digest(x), digest(x.reshape(2, 3)), digest(x.astype(np.float64)), digest(x[::-1])}) == 4
    assert digest(np.asfortranarray(x.reshape(2, 3))) == digest(x.reshape(2, 3))


def test_bridges_of_kept_pairs_are_the_same_to_the_last_bit(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, n=120)
    config = ExtendConfig(members=1, epochs=1)
    plain = extend(clip, clap, via="text", config=config, quiet=True)
    for _ in range(2):
        kept = extend(clip, clap, via="text", config=config, quiet=True, pairs_dir=tmp_path / "pairs")
        for name, array in plain.arrays.items():
            assert np.array_equal(array, kept.arrays[name])
        assert kept.record["effective_neighbours"] == plain.record["effective_neighbours"]
    short = ConnectConfig(epochs=1)
    first = connect(clip, clap, via="text", config=short, quiet=True, pairs_dir=tmp_path / "pairs")
    again = connect(clip, clap, via="text", config=short, quiet=True, pairs_dir=tmp_path / "pairs")
    assert np.array_equal(first.project(clip["image"]), again.project(clip["image"]))
