"""Columns of pseudo pairs: those that are recomposed against those that are held, and what falls back to what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import CheckFailed
from isthmus.memory import SparseWeights
from isthmus.pairs.builder import Builder
from isthmus.pairs.cache import PairStore
from isthmus.pairs.columns import Joined, OwnRows, Recomposed, pick, value_rows
from isthmus.pairs.kinds import choose_kinds
from isthmus.pairs.pairs import OnDevice, PseudoPairs, to_device_if_it_fits
from isthmus.pairs.side import Slot
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.connect import ConnectConfig, connect
from isthmus.recipes.extend import ExtendConfig, extend
from isthmus.recipes.sides import space_side
from isthmus.spaces.space import Space
from worlds import three_spaces

CPU = torch.device("cpu")


def units(n: int, dim: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# The columns by themselves


def test_own_rows_are_the_embeddings_themselves() -> None:
    x, rows = units(30, 4, 0), np.array([5, 0, 29, 5])
    column = OwnRows(x, rows)
    assert column.shape == (4, 4)
    assert np.array_equal(column.take(np.array([3, 1, 1])), x[[5, 0, 0]])


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_recomposed_rows_are_the_weighted_means_written_out(tmp_path: Path, unit: bool, mapped: bool) -> None:
    x = 3.0 * units(40, 6, 1)
    if mapped:
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows, shares = np.array([7, 3, 9, 39]), np.array([0.75, 0.25, 1.0, 1e-3])
    weights = SparseWeights.pack(np.array([0, 2, 3, 4]), rows, shares, 40)
    column = Recomposed(weights, value_rows(x), unit=unit)
    assert column.shape == (3, 6)
    expected = np.stack([0.75 * x[7] + 0.25 * x[3], x[9], x[39]])[[2, 0]]
    if unit:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(column.take(np.array([2, 0])), expected, atol=1e-4)


def test_joined_columns_are_read_by_the_number_in_all_of_them() -> None:
    a, b, c = units(5, 3, 0), units(4, 3, 1).astype(np.float16), OwnRows(units(6, 3, 2), np.array([2, 4, 0]))
    column = Joined([a, b, c])
    assert column.shape == (12, 3)
    whole = np.concatenate([a, b.astype(np.float32), c.take(np.arange(3))])
    rows = np.array([11, 0, 8, 5, 4, 9, 0])
    assert np.array_equal(column.take(rows), whole[rows])
    assert pick(b, rows[:0]).dtype == np.float32


# Pools made of them


@pytest.fixture
def spaces(tmp_path: Path) -> tuple[Space, Space, Space]:
    return three_spaces(tmp_path, n=120)


def build(
    spaces: tuple[Space, Space],
    via: str,
    folder: Path | None,
    said: list[str] | None = None,
    store: PairStore | None = None,
    **settings: object,
) -> PseudoPairs:
    sides = [space_side(space) for space in spaces]
    config = RecipeConfig(**{"aggregation_temperature": 0.02, **settings})
    notify = (said if said is not None else []).append
    builder = Builder(*sides, [via], config, device=CPU, notify=notify, store=store)
    return builder.build(choose_kinds(*sides, [via], config.centric), folder)


def every(pairs: PseudoPairs) -> dict[Slot, np.ndarray]:
    return {slot: rows.numpy() for slot, rows in pairs.take(np.arange(len(pairs)), CPU).items()}


def error(got: np.ndarray, expected: np.ndarray) -> float:
    relative = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(np.percentile(relative, 99))


@pytest.mark.parametrize(
    "settings",
    [{}, {"normalize_aggregates": False}, {"max_pairs": 50}, {"preset": "auto"}, {"centric": ("image", "audio")}],
)
@pytest.mark.parametrize("on_disk", [True, False])
def test_sparse_pairs_are_the_dense_ones_within_the_tolerance(
    spaces: tuple[Space, Space, Space], tmp_path: Path, settings: dict[str, object], on_disk: bool
) -> None:
    folder = tmp_path / "pairs" if on_disk else None
    dense = build(spaces[:2], "text", None, pair_storage="dense", **settings)
    sparse = build(spaces[:2], "text", folder, pair_storage="sparse", **settings)
    assert (len(sparse), sparse.slots, sparse.composition) == (len(dense), dense.slots, dense.composition)
    expected, got = every(dense), every(sparse)
    for slot in dense.slots:
        # The second of two hops is off by its own tolerance and by what it makes of the first one's.
        assert error(got[slot], expected[slot]) <= 0.03
    row = 0
    for kind, n in dense.composition.items():
        own = {"text": Slot(0, "text"), "clip/image through text": Slot(0, "image")}.get(kind, Slot(1, "audio"))
        assert np.array_equal(got[own][row : row + n], expected[own][row : row + n])
        row += n
    for name, stats in dense.effective_neighbours.items():
        assert sparse.effective_neighbours[name]["median"] == pytest.approx(stats["median"], rel=0.15)
    json.dumps(sparse.effective_neighbours)


def test_a_modality_that_only_the_leaf_has_goes_both_ways(spaces: tuple[Space, Space, Space], tmp_path: Path) -> None:
    both = spaces[0], spaces[2]
    expected, got = (every(build(both, "image", tmp_path / s, pair_storage=s)) for s in ("dense", "sparse"))
    assert all(error(got[slot], expected[slot]) <= 0.03 for slot in expected)


def test_beyond_the_limit_weights_are_kept_and_nothing_dense(
    spaces: tuple[Space, Space, Space], tmp_path: Path
) -> None:
    said: list[str] = []
    small = build(spaces[:2], "text", tmp_path / "unused", said)
    assert all(isinstance(column, np.ndarray) for column in small.columns.values())
    assert not (tmp_path / "unused").exists()
    limited = RecipeConfig(aggregation_temperature=0.02).model_copy(update={"memory_limit": 1})
    sides = [space_side(space) for space in spaces[:2]]
    builder = Builder(*sides, ["text"], limited, device=CPU, notify=said.append)
    pairs = builder.build(choose_kinds(*sides, ["text"], None), tmp_path / "pairs")
    assert all(isinstance(column, Joined) for column in pairs.columns.values())
    assert any(
        line.startswith("clip: text to image: sparse weights, ") and "at the 99th percentile of 120" in line
        for line in said
    )
    weights = [row["weights"] for row in pairs.effective_neighbours.values()]
    size = sum(path.stat().st_size for path in (tmp_path / "pairs").rglob("*.npy"))
    assert len(weights) == 6
    assert size < 2 * sum(w["bytes"] for w in weights) + 128 * 2 * 6


def test_a_kind_that_is_not_sparse_stays_dense_and_says_why(spaces: tuple[Space, Space, Space], tmp_path: Path) -> None:
    limited = RecipeConfig(aggregation_temperature={"clip": 0.02, "clap": 3.0}).model_copy(update={"memory_limit": 1})
    sides = [space_side(space) for space in three_spaces(tmp_path / "large", n=600)[:2]]
    kinds, said = choose_kinds(*sides, ["text"], None), []
    pairs = Builder(*sides, ["text"], limited, device=CPU, notify=said.append).build(kinds, tmp_path / "pairs")
    dense = Builder(*sides, ["text"], limited.model_copy(update={"memory_limit": 10**9}), device=CPU).build(kinds)
    expected, got = every(dense), every(pairs)
    assert all(error(got[slot], expected[slot]) <= 0.03 for slot in expected)
    lines = [line for line in said if ": kept dense, as " in line]
    assert len(lines) == 3
    assert lines[0].startswith("pseudo pairs: text: kept dense, as sparse weights at temperature 3, mass")
    assert said[0] == (
        "pseudo pairs: 633,600 bytes are over memory_limit (1); kept as sparse weights, where these hold"
    )
    # A column a modality of both sides, and no block of weights, of which none hold.
    assert len(list((tmp_path / "pairs").glob("*/*.npy"))) == 3 * 4
    sparse = Builder(*sides, ["text"], limited.model_copy(update={"pair_storage": "sparse"}), device=CPU)
    with pytest.raises(CheckFailed, match=r"at temperature 3, mass 0\.999 and max_k 256 are off by .* dense averages"):
        sparse.build(kinds, tmp_path / "pairs")


# Kept for other runs and for the same one


def test_kept_weights_are_taken_up_and_damaged_ones_made_again(
    spaces: tuple[Space, Space, Space], tmp_path: Path
) -> None:
    store = PairStore(tmp_path / "pairs")
    first = every(build(spaces[:2], "text", None, store=store, pair_storage="sparse"))

    def again(**settings: object) -> list[str]:
        said: list[str] = []
        pairs = build(spaces[:2], "text", tmp_path / "unused", said, store, pair_storage="sparse", **settings)
        if not settings:
            assert all(np.array_equal(x, first[slot]) for slot, x in every(pairs).items())
        assert len(pairs.effective_neighbours) == 6
        return [line for line in said if line.startswith("pseudo pairs")]

    assert all(line.endswith("made before") for line in again())
    assert not (tmp_path / "unused").exists()
    damaged = sorted((tmp_path / "pairs").glob("*/0.npy"))
    np.save(damaged[0], np.zeros(3, np.uint32))
    np.save(damaged[1], np.load(damaged[1])[:-1])
    np.save(damaged[2].with_name("1.npy"), np.load(damaged[2].with_name("1.npy"))[:-1])
    assert not any(line.endswith("made before") for line in again())
    assert all(line.endswith("made before") for line in again())
    assert not any(line.endswith("made before") for line in again(normalize_aggregates=False))


def test_an_extension_on_sparse_pairs_scores_as_on_dense_ones(
    spaces: tuple[Space, Space, Space], tmp_path: Path
) -> None:
    clip, clap, _ = spaces
    config = ExtendConfig(members=1, epochs=8, batch_size=32, aggregation_temperature=0.02)
    scores = {}
    for storage in ("dense", "sparse"):
        settings = config.model_copy(update={"pair_storage": storage})
        scores[storage] = extend(clip, clap, via="text", config=settings, quiet=True).record["held_out"]["score"]
    assert scores["dense"] > 0.2
    assert scores["sparse"] == pytest.approx(scores["dense"], rel=0.1)
    bridge = connect(clip, clap, via="text", config=ConnectConfig(epochs=1, pair_storage="sparse"), quiet=True)
    assert bridge.record["effective_neighbours"]["clip: text to image"]["weights"]["check"]["p99"] <= 0.01


def test_training_on_sparse_pairs_goes_on_to_the_same_bytes(spaces: tuple[Space, Space, Space], tmp_path: Path) -> None:
    clip, clap, _ = spaces
    config = ExtendConfig(
        members=1, epochs=4, batch_size=32, pair_storage="sparse", aggregation_temperature=0.02, checkpoint_seconds=0
    )
    whole = extend(clip, clap, via="text", config=config, quiet=True)

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            extend(clip, clap, via="text", config=config, quiet=True, checkpoint_dir=tmp_path / "kept", callback=stop)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "pairs").rglob("*.npy")}
    resumed = extend(clip, clap, via="text", config=config, quiet=True, checkpoint_dir=tmp_path / "kept")
    assert before
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "pairs").rglob("*.npy")}
    assert whole.history == resumed.history
    assert all(np.array_equal(array, resumed.arrays[name]) for name, array in whole.arrays.items())


# Pools on the device that trains


def test_a_pool_on_a_device_has_the_rows_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.pairs.pairs._MOVED", 7)
    a, b, c = Slot(0, "text"), Slot(1, "text"), Slot(1, "audio")
    x = units(30, 4, 0)
    weights = SparseWeights.pack(np.arange(31), np.arange(30)[::-1].copy(), np.ones(30), 30)
    columns = {
        a: x,
        b: units(30, 6, 1).astype(np.float16),
        c: Joined([OwnRows(x, np.arange(10)), Recomposed(weights, value_rows(x), unit=True), x[:1]]),
    }
    columns[a], columns[b] = (np.concatenate([columns[slot], columns[slot][:11]]) for slot in (a, b))
    pairs = PseudoPairs((a, b, c), columns, {})
    rows = np.array([40, 0, 12, 12, 29])
    held, lent = OnDevice(pairs, CPU).take(rows, CPU), pairs.take(rows, CPU)
    assert held.keys() == lent.keys()
    for slot in lent:
        assert held[slot].dtype == torch.float32
        assert torch.equal(held[slot], lent[slot])


def test_a_pool_moves_to_a_cuda_device_that_has_room_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = PseudoPairs((Slot(0, "text"),), {Slot(0, "text"): units(100, 8, 0)}, {})
    assert to_device_if_it_fits(pairs, CPU) is pairs
    moved: list[torch.device] = []
    monkeypatch.setattr("isthmus.pairs.pairs.OnDevice", lambda pairs, device: moved.append(device) or pairs)
    for free in (6399, 6400):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        to_device_if_it_fits(pairs, torch.device("cuda"))
    assert moved == [torch.device("cuda")]
