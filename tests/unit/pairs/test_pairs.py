"""Pseudo pairs against the papers' equations written out a query at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import ConfigError, OverlapError
from isthmus.pairs.builder import Builder
from isthmus.pairs.kinds import centric_kinds, choose_kinds
from isthmus.pairs.side import Side, Slot, match_overlap
from isthmus.recipes.config import RecipeConfig, make_config

CPU = torch.device("cpu")
TAU = 0.1


def rows(n: int, dim: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def side(name: str, dim: int, seed: int, **sizes: int) -> Side:
    return Side(
        name,
        {m: [f"{m}{i}" for i in range(n)] for m, n in sizes.items()},
        {m: rows(n, dim, seed + k) for k, (m, n) in enumerate(sizes.items())},
    )


@pytest.fixture
def clip() -> Side:
    return side("clip", 6, 10, text=20, image=15)


@pytest.fixture
def clap() -> Side:
    """Other texts too, and the shared ones in another order: rows must be matched by id."""
    space = side("clap", 5, 20, text=24, audio=13)
    order = np.random.default_rng(1).permutation(24)
    return Side("clap", {**space.ids, "text": [f"text{i + 2}" for i in order]}, {**space.embeddings})


def softmax_mean(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One query: softmax(cosine / TAU) weights, weighted mean, unit length."""
    weights = np.exp(query.astype(np.float64) @ keys.T.astype(np.float64) / TAU)
    mean = (weights / weights.sum()) @ values
    return mean / np.linalg.norm(mean)


def build(base: Side, leaf: Side, via: list[str], centric: list[str] | None = None, **options: object):
    config = RecipeConfig(**{"aggregation_temperature": TAU, **options})
    builder = Builder(base, leaf, via, config, device=CPU)
    return builder.build(choose_kinds(base, leaf, via, centric))


def shared_rows(a: Side, b: Side, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The row-matched overlap, found by a plain loop."""
    ids = [i for i in a.ids[name] if i in b.ids[name]]
    pick = lambda s: np.stack([s.embeddings[name][list(s.ids[name]).index(i)] for i in ids])  # noqa: E731
    return pick(a), pick(b)


def test_every_kind_of_ex_mcr_by_hand(clip: Side, clap: Side) -> None:
    pool = build(clip, clap, ["text"])
    t_i, t_a = shared_rows(clip, clap, "text")
    v, a = clip.embeddings["image"], clap.embeddings["audio"]
    expected = []
    for x_i, x_a in zip(t_i, t_a, strict=True):  # text-centric
        expected.append((x_i, softmax_mean(x_i, v, v), x_a, softmax_mean(x_a, a, a)))
    for x in a:  # audio-centric: the weights in CLAP average the texts of both spaces
        there, here = softmax_mean(x, t_a, t_a), softmax_mean(x, t_a, t_i)
        expected.append((here, softmax_mean(here, v, v), there, x))
    for x in v:  # image-centric
        here, there = softmax_mean(x, t_i, t_i), softmax_mean(x, t_i, t_a)
        expected.append((here, x, there, softmax_mean(there, a, a)))
    assert pool.composition == {"text": 20 - 2, "clap/audio through text": 13, "clip/image through text": 15}
    assert len(pool) == len(expected)
    for number, slot in enumerate([Slot(0, "text"), Slot(0, "image"), Slot(1, "text"), Slot(1, "audio")]):
        np.testing.assert_allclose(pool.columns[slot], np.stack([e[number] for e in expected]), atol=2e-5)


def test_c_mcr_starts_from_the_overlap_alone(clip: Side, clap: Side) -> None:
    pool = build(clip, clap, ["text"], ["text"])
    assert pool.composition == {"text": 18}
    t_i, t_a = shared_rows(clip, clap, "text")
    assert np.array_equal(pool.columns[Slot(0, "text")], t_i)
    assert np.array_equal(pool.columns[Slot(1, "text")], t_a)


def test_two_overlaps_and_a_modality_that_only_the_leaf_has() -> None:
    clip, ulip = side("clip", 6, 1, text=12, image=14), side("ulip", 4, 5, text=12, image=14, point_cloud=9)
    pool = build(clip, ulip, ["text", "image"])
    assert pool.composition == {
        "text": 12,
        "image": 14,
        "ulip/point_cloud through text": 9,
        "ulip/point_cloud through image": 9,
    }
    p, t_u, t_i = ulip.embeddings["point_cloud"], ulip.embeddings["text"], clip.embeddings["text"]
    v_i, v_u = clip.embeddings["image"], ulip.embeddings["image"]
    # text-centric: the base's weights over the images average the images of both spaces
    np.testing.assert_allclose(pool.columns[Slot(1, "image")][3], softmax_mean(t_i[3], v_i, v_u), atol=2e-5)
    np.testing.assert_allclose(pool.columns[Slot(1, "point_cloud")][3], softmax_mean(t_u[3], p, p), atol=2e-5)
    # image-centric: point clouds come through the image in the leaf's own space
    np.testing.assert_allclose(pool.columns[Slot(1, "point_cloud")][12 + 5], softmax_mean(v_u[5], p, p), atol=2e-5)
    # 3D-centric: both overlaps are reached from the point cloud itself
    row = 12 + 14 + 4
    np.testing.assert_allclose(pool.columns[Slot(0, "text")][row], softmax_mean(p[4], t_u, t_i), atol=2e-5)
    np.testing.assert_allclose(pool.columns[Slot(0, "image")][row], softmax_mean(p[4], v_u, v_i), atol=2e-5)


def test_aggregates_are_left_as_means_where_asked(clip: Side, clap: Side) -> None:
    raw = build(clip, clap, ["text"], ["text"], normalize_aggregates=False)
    norms = np.linalg.norm(raw.columns[Slot(0, "image")], axis=1)
    assert (norms < 0.999).all()
    scaled = build(clip, clap, ["text"], ["text"]).columns[Slot(0, "image")]
    np.testing.assert_allclose(raw.columns[Slot(0, "image")] / norms[:, None], scaled, atol=1e-5)


def test_each_space_has_its_own_temperature(clip: Side, clap: Side) -> None:
    config = RecipeConfig(aggregation_temperature={"clip": 50.0, "clap": 0.001})
    pool = Builder(clip, clap, ["text"], config, device=CPU).build(choose_kinds(clip, clap, ["text"], ["text"]))
    assert pool.effective_neighbours["clip: text to image"]["median"] == pytest.approx(15, rel=1e-3)
    assert pool.effective_neighbours["clap: text to audio"]["median"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_pool_over_the_memory_limit_is_the_same_pool_in_a_folder(
    clip: Side, clap: Side, tmp_path: Path, normalize: bool
) -> None:
    """Where dense pairs lie changes no bit of them, averages that are left as means included."""
    config = RecipeConfig(aggregation_temperature=TAU, normalize_aggregates=normalize, pair_storage="dense")
    small = config.model_copy(update={"memory_limit": 1})
    kinds = choose_kinds(clip, clap, ["text"], None)
    held = Builder(clip, clap, ["text"], config, device=CPU).build(kinds, tmp_path / "unused")
    streamed = Builder(clip, clap, ["text"], small, device=CPU).build(kinds, tmp_path / "pairs")
    assert not (tmp_path / "unused").exists()
    every = np.arange(len(held))
    for slot in held.slots:
        assert all(isinstance(part, np.memmap) for part in streamed.columns[slot].parts)
        assert np.array_equal(streamed.take(every, CPU)[slot], held.take(every, CPU)[slot])
    assert streamed.identity == held.identity
    assert streamed.effective_neighbours == held.effective_neighbours
    norms = held.take(every, CPU)[Slot(0, "image")].norm(dim=1)
    assert bool((norms < 0.999).any()) != normalize


def test_what_has_to_be_exact_is_never_cut(clip: Side, clap: Side, tmp_path: Path) -> None:
    """Beyond the limit of memory, pairs that are averaged exactly are streamed dense instead of kept as weights."""
    kinds = choose_kinds(clip, clap, ["text"], None)
    exact = RecipeConfig(aggregation_temperature=TAU, aggregation_method="exact")
    held = Builder(clip, clap, ["text"], exact, device=CPU).build(kinds)
    pool = Builder(clip, clap, ["text"], exact.model_copy(update={"memory_limit": 1}), device=CPU)
    streamed = pool.build(kinds, tmp_path / "pairs")
    for slot in held.slots:
        assert np.array_equal(streamed.take(np.arange(51 - 5), CPU)[slot], held.take(np.arange(51 - 5), CPU)[slot])


def test_a_pool_is_known_by_what_it_is_made_of(clip: Side, clap: Side) -> None:
    whole = build(clip, clap, ["text"])
    assert whole.identity == build(clip, clap, ["text"], epochs=3, memory_limit=10**6, checkpoint_seconds=1).identity
    changed = {name: rows.copy() for name, rows in clap.embeddings.items()}
    changed["audio"][3, 0] = np.nextafter(changed["audio"][3, 0], 1)
    others = [
        build(clip, clap, ["text"], ["text"]),
        build(clip, clap, ["text"], max_pairs=5),
        build(clip, clap, ["text"], normalize_aggregates=False),
        build(clip, clap, ["text"], aggregation_temperature=0.2),
        build(clip, clap, ["text"], aggregation_method="exact"),
        build(clip, clap, ["text"], pair_storage="sparse", aggregation_temperature=0.01),
        build(clip, Side("clap", clap.ids, changed), ["text"]),
    ]
    assert len({whole.identity, *(pool.identity for pool in others)}) == 1 + len(others)


def test_hops_of_one_name_do_not_hide_each_other(clip: Side, clap: Side) -> None:
    """A record for every aggregation, percentiles of all its queries, and the method that it went by."""
    pool = build(clip, clap, ["text"])
    assert {name: (row["queries"], row["method"]) for name, row in pool.effective_neighbours.items()} == {
        "clip: text to image": (18, "exact"),
        "clap: text to audio": (18, "exact"),
        "clap: audio to text": (13, "exact"),
        "clip: text to image (from clap/audio)": (13, "exact"),
        "clip: image to text": (15, "exact"),
        "clap: text to audio (from clip/image)": (15, "exact"),
    }
    low = build(clip, clap, ["text"], aggregation_method="bf16")
    assert all(row["method"] == "bf16" and "check" in row["aggregation"] for row in low.effective_neighbours.values())
    assert [entry["device"] for entry in pool.arithmetic] == ["cpu"]


def test_max_pairs_draws_the_same_rows_again(clip: Side, clap: Side) -> None:
    first, second = (build(clip, clap, ["text"], max_pairs=5) for _ in range(2))
    assert set(first.composition.values()) == {5}
    assert np.array_equal(first.columns[Slot(0, "text")], second.columns[Slot(0, "text")])


def test_kinds_are_chosen_by_modality_side_and_space(clip: Side, clap: Side) -> None:
    assert len(centric_kinds(clip, clap, ["text"])) == 3
    assert [k.query for k in choose_kinds(clip, clap, ["text"], ["leaf/audio"])] == [Slot(1, "audio")]
    assert [k.query for k in choose_kinds(clip, clap, ["text"], ["clip/image", "text"])] == [
        Slot(0, "image"),
        Slot(0, "text"),
    ]
    assert [k.query for k in choose_kinds(clip, clap, ["text"], ["overlap"])] == [Slot(0, "text")]
    with pytest.raises(ConfigError, match="centric names 'smell', which is no modality of these spaces"):
        choose_kinds(clip, clap, ["text"], ["smell"])


def test_spaces_without_a_shared_id_are_refused(clip: Side, clap: Side) -> None:
    other = Side("clap", {**clap.ids, "text": [str(i) for i in range(24)]}, clap.embeddings)
    with pytest.raises(
        OverlapError, match=r"spaces 'clip' and 'clap' share 0 of 20 text ids \(clip: 'text0', clap: '0'\)"
    ):
        match_overlap(clip, other, "text")
    with pytest.raises(OverlapError, match="space 'clap' has no 'image'"):
        match_overlap(clip, clap, "image")


def test_auto_finds_a_temperature_with_a_few_neighbours_in_every_space(clip: Side, clap: Side) -> None:
    config = RecipeConfig(preset="auto")
    pool = Builder(clip, clap, ["text"], config, device=CPU).build(choose_kinds(clip, clap, ["text"], None))
    for row in pool.effective_neighbours.values():
        assert row["median"] == pytest.approx(3.0, rel=0.25)
        assert 0.001 <= row["temperature"] <= 1.0


def test_how_far_off_an_approximation_is_is_kept_and_said(clip: Side, clap: Side) -> None:
    said: list[str] = []
    config = RecipeConfig(aggregation_temperature=TAU, aggregation_method="bf16")
    builder = Builder(clip, clap, ["text"], config, device=CPU, notify=said.append)
    pool = builder.build(choose_kinds(clip, clap, ["text"], ["text"]))
    report = pool.effective_neighbours["clip: text to image"]["aggregation"]
    assert report["asked"] == report["used"] == "bf16"
    assert 0.0 < report["check"]["mean"] <= report["tolerance"]
    start = "clip: text to image: 18 queries over 15 rows at temperature 0.1: bf16"
    assert any(line.startswith(start) for line in said)
    exact = build(clip, clap, ["text"], ["text"])
    assert all("aggregation" not in row for row in exact.effective_neighbours.values())


def test_an_engine_builds_the_pool_that_this_process_builds() -> None:
    sides, pools = [side("clip", 24, 0, text=60, image=50), side("clap", 20, 9, text=60, audio=40)], []
    for engine in ("local", "processes"):
        builder = Builder(*sides, ["text"], RecipeConfig(engine=engine), device=CPU)
        pools.append(builder.build(choose_kinds(*sides, ["text"], None)))
    for slot, column in pools[0].columns.items():
        np.testing.assert_allclose(pools[1].columns[slot], column, atol=2e-4)
    for name, stats in pools[0].effective_neighbours.items():
        assert pools[1].effective_neighbours[name]["median"] == pytest.approx(stats["median"], rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"engine": "ray", "aggregation_method": "bf16"},
            r"engine 'ray' aggregates exactly, got aggregation_method 'bf16'\.",
        ),
        (
            {"engine": "processes", "pair_storage": "sparse"},
            r"engine 'processes' makes dense pseudo pairs, got pair_storage 'sparse'\.",
        ),
        ({"engine_address": "a:1"}, r"engine_address is of the engine 'ray', got engine 'local'\."),
    ],
)
def test_settings_that_an_engine_does_not_fit_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}$"):
        make_config(RecipeConfig, settings)
