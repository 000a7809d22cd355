"""Evaluation of embeddings and bridges: the contract's json, prompts, intervals, the table, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.errors import EvaluationError, FingerprintError, SpaceError
from isthmus.evaluation.evaluate import evaluate_bridge, evaluate_retrieval, evaluate_zero_shot, format_table
from isthmus.metrics import retrieval_scores
from isthmus.spaces.space import Space

N, D = 40, 6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def sides(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    query = rng.standard_normal((N, D))
    return query, query + 0.8 * rng.standard_normal((N, D))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def names(prefix: str, n: int = N) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def test_it_is_the_dense_figures_of_the_cosines(sides: tuple[np.ndarray, np.ndarray]) -> None:
    query, gallery = sides
    relevant = np.zeros((N, N), dtype=bool)
    pairs = [(i, j) for i in range(N - 5) for j in (i, (i * 7) % N)]
    relevant[tuple(np.array(pairs).T)] = True
    result = evaluate_retrieval(3.0 * query, gallery, pairs).to_dict()
    scores = unit(query) @ unit(gallery).T
    for way, s, r in (("query_to_gallery", scores, relevant), ("gallery_to_query", scores.T, relevant.T)):
        expected = retrieval_scores(s, r)
        assert {key: result[way][key] for key in expected} == pytest.approx(expected, abs=1e-9)
    for key in ("r@1", "r@5", "r@10", "map", "median_rank"):
        both = (result["query_to_gallery"][key] + result["gallery_to_query"][key]) / 2
        assert result["mean"][key] == pytest.approx(both)


def test_the_json_of_the_contract(sides: tuple[np.ndarray, np.ndarray]) -> None:
    query, gallery = sides
    pairs = [(f"q{i}", f"g{i}") for i in range(30)] + [("q0", "g5"), ("q0", "g5")]
    result = evaluate_retrieval((names("q"), query), (names("g"), gallery), pairs).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert {
        k: result[k] for k in ("n_query", "n_gallery", "n_pairs", "n_without_pairs", "n_gallery_without_pairs")
    } == {
        "n_query": 30,
        "n_gallery": N,
        "n_pairs": 31,
        "n_without_pairs": 10,
        "n_gallery_without_pairs": 10,
    }
    assert result["seconds"] > 0
    for way in ("query_to_gallery", "gallery_to_query", "mean"):
        assert list(result[way]) == [
            *("r@1", "r@5", "r@10", "map", "median_rank"),
            *("r@1_ci95", "r@5_ci95", "r@10_ci95", "map_ci95"),
        ]
        low, high = result[way]["r@1_ci95"]
        assert 0 <= low <= result[way]["r@1"] <= high <= 1
    assert result["chance"]["r@1"] == pytest.approx((1 / N + 29 / 30 / N + 1 / 30 * 2 / N) / 2, rel=0.05)


def test_intervals_follow_the_seed_and_can_be_left_out(sides: tuple[np.ndarray, np.ndarray]) -> None:
    pairs = [(i, i) for i in range(N)]
    first, again, other = (evaluate_retrieval(*sides, pairs, seed=seed).to_dict()["mean"] for seed in (0, 0, 1))
    assert first == again
    assert first["map_ci95"] != other["map_ci95"]
    assert "r@1_ci95" not in evaluate_retrieval(*sides, pairs, bootstrap=0).to_dict()["mean"]


def test_other_cut_offs(sides: tuple[np.ndarray, np.ndarray]) -> None:
    result = evaluate_retrieval(*sides, [(i, i) for i in range(N)], ks=(2, 1000)).to_dict()
    assert result["mean"]["r@1000"] == 1.0
    assert "r@1" not in result["mean"]


@pytest.mark.parametrize("ks", [(), (0,), (1.5,)])
def test_cut_offs_are_checked(sides: tuple[np.ndarray, np.ndarray], ks: Any) -> None:
    with pytest.raises(EvaluationError, match="ks must be cut-offs from 1"):
        evaluate_retrieval(*sides, [(0, 0)], ks=ks)


def test_a_collapsed_gallery_earns_nothing(sides: tuple[np.ndarray, np.ndarray]) -> None:
    """All gallery items are one vector: float32 products would order them by chance, ties must not be won."""
    query, gallery = sides
    result = evaluate_retrieval(query, np.repeat(gallery[:1], N, axis=0), [(i, i) for i in range(N)]).to_dict()
    assert result["query_to_gallery"]["r@10"] == 0.0
    assert result["query_to_gallery"]["median_rank"] == N


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.full((2, D), np.nan), "query holds NaN"),
        ((["a", "a"], np.ones((2, D))), "query has the id 'a' more than once"),
        ((["a"], np.ones((2, D))), "query has 1 ids for 2 embeddings"),
        (np.ones((2, D + 1)), "gallery has 6 dimensions, expected 7"),
        (np.ones(D), r"query must be a non-empty \(n, d\) array"),
    ],
)
def test_faults_of_a_side(query: Any, message: str) -> None:
    ids = query[0] if isinstance(query, tuple) else ["0"]
    with pytest.raises(EvaluationError, match=message):
        evaluate_retrieval(query, np.ones((3, D)), [(ids[0], "0")])


# zero-shot


def test_zero_shot_by_hand() -> None:
    classes = (["dog", "cat"], np.eye(2))
    query = (["a", "b", "c"], np.array([[1, 0.1], [1, 0.2], [0.1, 1]]))
    result = evaluate_zero_shot(query, classes, [("a", "dog"), ("b", "cat"), ("c", "cat")]).to_dict()
    assert result["accuracy@1"] == pytest.approx(2 / 3)
    assert result["accuracy@5"] == 1.0
    assert {key: result[key] for key in ("n", "classes", "n_without_labels")} == {
        "n": 3,
        "classes": 2,
        "n_without_labels": 0,
    }
    assert result["chance"] == {"accuracy@1": 0.5, "accuracy@5": 1.0}
    low, high = result["accuracy@1_ci95"]
    assert 0 <= low <= 2 / 3 <= high <= 1


def test_zero_shot_with_numbers_for_labels() -> None:
    result = evaluate_zero_shot(np.eye(3), np.eye(3), np.array([0, 1, 0]))
    assert result.to_dict()["accuracy@1"] == pytest.approx(2 / 3)


def test_several_right_labels_are_any_of_them() -> None:
    labels = [("0", "0"), ("0", "2"), ("1", "2")]
    result = evaluate_zero_shot(np.eye(3), np.eye(3), labels).to_dict()
    assert result["accuracy@1"] == 0.5
    assert (result["n"], result["n_without_labels"]) == (2, 1)


def prompts(tmp_path: Path, rng: np.random.Generator, **metadata: Any) -> tuple[Space, np.ndarray]:
    x = rng.standard_normal((6, D)).astype(np.float32)
    ids = [f"t{i}" for i in range(6)]
    space = isthmus.make_space(tmp_path / "t.space", {"text": (ids, x, metadata or None)}, dtype="float32")
    return space, x


def test_prompts_of_a_class_are_averaged_as_unit_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    column = ["dog", "cat", "dog", "cow", "cat", "dog"]
    space, x = prompts(tmp_path, rng, **{"class": column})
    means = unit(np.array([unit(x)[[c == name for c in column]].mean(axis=0) for name in ("dog", "cat", "cow")]))
    query = rng.standard_normal((50, D))
    truth = rng.integers(0, 3, 50)
    expected = (np.argmax(unit(query) @ means.T, axis=1) == truth).mean()
    by_class = [(i, ("dog", "cat", "cow")[c]) for i, c in enumerate(truth)]
    by_prompt = [(i, ("t5", "t1", "t3")[c]) for i, c in enumerate(truth)]
    for labels in (by_class, by_prompt):
        result = evaluate_zero_shot(query, space["text"], labels).to_dict()
        assert result["accuracy@1"] == pytest.approx(expected)
        assert result["classes"] == 3


def test_a_repeated_id_is_one_class(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, D))
    result = evaluate_zero_shot(x[:1] + x[1:2], (["a", "a", "b"], x), [("0", "a")]).to_dict()
    assert result["classes"] == 2


def test_a_prompt_without_a_class_is_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    space, _ = prompts(tmp_path, rng, **{"class": ["dog", None, "dog", None, None, None]})
    result = evaluate_zero_shot(rng.standard_normal((2, D)), space["text"], [(0, "dog"), (1, "t3")]).to_dict()
    assert result["classes"] == 5


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"labels: class_id 'cow' \(row 1\) is none of the 2 classes ids"):
        evaluate_zero_shot(np.eye(2), (["dog", "cat"], np.eye(2)), [("0", "cow")])


# bridges


@pytest.fixture
def joined(tmp_path: Path, rng: np.random.Generator) -> tuple[Bridge, Space, Space]:
    """A base, a leaf that is the base turned in more dimensions, and the bridge that turns it back."""
    turn = np.linalg.qr(rng.standard_normal((D + 2, D + 2)))[0][:, :D].astype(np.float32)
    text, image = rng.standard_normal((60, D)), rng.standard_normal((30, D))
    audio = image + 0.3 * rng.standard_normal((30, D))
    base = isthmus.make_space(
        tmp_path / "base.space",
        {"text": (names("t", 60), text), "image": (names("i", 30), image)},
        encoder="base-encoder",
        dtype="float32",
    )
    leaf = isthmus.make_space(
        tmp_path / "leaf.space",
        {"text": (names("t", 60), text @ turn.T), "audio": (names("a", 30), audio @ turn.T)},
        encoder="leaf-encoder",
        dtype="float32",
    )
    route = [{"kind": "normalize"}, {"kind": "linear", "weight": "w", "bias": None}, {"kind": "normalize"}]
    bridge = Bridge.over(base).with_leaf(
        BridgeSpace.of(leaf, role="leaf"),
        {"text": route, "audio": route},
        {"w": np.ascontiguousarray(turn.T)},
        method="ridge",
        config={"via": ["text"]},
    )
    return bridge, base, leaf


PAIRS = [(f"a{i}", f"i{i}") for i in range(30)]


def test_a_bridge_is_scored_on_what_it_projects(joined: tuple[Bridge, Space, Space]) -> None:
    bridge, base, leaf = joined
    report = evaluate_bridge(bridge, query=leaf["audio"], gallery=base["image"], pairs=PAIRS)
    own = evaluate_retrieval(
        (leaf["audio"].ids, bridge.project(leaf["audio"])), (base["image"].ids, np.asarray(base["image"])), PAIRS
    ).to_dict()
    for key in own.keys() - {"seconds"}:
        assert report[key] == own[key], key
    assert report["mean"]["r@1"] > 0.8
    assert report["gap"]["before"] is None
    assert 0 < report["gap"]["after"] < 1
    assert "baselines" not in report
    assert json.loads(json.dumps(report)) == report


def test_a_bridge_classifies(joined: tuple[Bridge, Space, Space]) -> None:
    bridge, base, leaf = joined
    labels = [(f"t{i}", f"t{i}") for i in range(60)]
    report = evaluate_bridge(bridge, query=leaf["text"], classes=base["text"], labels=labels)
    assert report["accuracy@1"] == 1.0
    assert (report["n"], report["classes"]) == (60, 60)


@pytest.mark.parametrize(
    "given", [{}, {"gallery": 1}, {"pairs": 1}, {"gallery": 1, "labels": 1}, {"gallery": 1, "pairs": 1, "classes": 1}]
)
def test_one_task_and_the_whole_of_it(joined: tuple[Bridge, Space, Space], given: dict[str, int]) -> None:
    bridge, base, leaf = joined
    values = {"gallery": base["image"], "classes": base["text"], "pairs": PAIRS, "labels": PAIRS}
    with pytest.raises(EvaluationError, match="gallery= with pairs="):
        evaluate_bridge(bridge, query=leaf["audio"], **{name: values[name] for name in given})


def test_two_tasks_are_refused(joined: tuple[Bridge, Space, Space]) -> None:
    bridge, base, leaf = joined
    both = {"gallery": base["image"], "pairs": PAIRS, "classes": base["text"], "labels": PAIRS}
    with pytest.raises(EvaluationError, match="got gallery= and classes="):
        evaluate_bridge(bridge, query=leaf["audio"], **both)


def test_another_encoder_is_refused_unless_forced(joined: tuple[Bridge, Space, Space], tmp_path: Path) -> None:
    bridge, base, leaf = joined
    content = {"audio": (leaf["audio"].ids, np.asarray(leaf["audio"]))}
    other = isthmus.make_space(tmp_path / "other.space", content, encoder="another", dtype="float32")
    task = {"query": other["audio"], "gallery": base["image"], "pairs": PAIRS}
    with pytest.raises(FingerprintError, match="another"):
        evaluate_bridge(bridge, **task)
    assert evaluate_bridge(bridge, **task, force=True)["mean"]["r@1"] > 0.8


def test_an_embedding_of_zero_length_is_named(tmp_path: Path) -> None:
    x = np.eye(3, dtype=np.float32)
    space = isthmus.make_space(tmp_path / "z.space", {"audio": (["a", "b", "c"], x)}, dtype="float32")
    embeddings = space["audio"]
    embeddings._maps[0] = np.zeros((3, 3), np.float32)
    with pytest.raises(SpaceError, match="'a'"):
        evaluate_retrieval(embeddings, x, [("a", 0)])


# the table


def test_the_table_of_a_retrieval(joined: tuple[Bridge, Space, Space]) -> None:
    bridge, base, leaf = joined
    report = evaluate_bridge(bridge, query=leaf["audio"], gallery=base["image"], pairs=PAIRS)
    report["baselines"] = {
        "ridge": {**report["mean"], "mean": report["mean"], "seconds": 0.25},
        "raw": {"reason": "the sides have 8 and 6 dimensions."},
    }
    lines = format_table(report, name="ex-mcr").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["ex-mcr", "ridge", "raw", "random"]
    assert lines[0].split()[:5] == ["r@1", "r@5", "r@10", "map", "median_rank"]
    assert lines[3].endswith("raw     the sides have 8 and 6 dimensions.")
    assert f"{report['mean']['r@1']:.3f}" in lines[1]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "0.25" in lines[2]
    narrow = format_table(report, name="ex-mcr", width=50).splitlines()
    assert max(map(len, narrow)) <= 50
    assert {word for line in lines for word in line.split()} <= {word for line in narrow for word in line.split()}


def test_the_table_of_a_classification() -> None:
    report = evaluate_zero_shot(np.eye(3), np.eye(3), np.array([0, 1, 2])).to_dict()
    lines = format_table(report).splitlines()
    assert lines[0].split() == ["accuracy@1", "accuracy@5", "accuracy@1", "95", "%", "seconds"]
    assert lines[1].split()[:4] == ["bridge", "1.000", "1.000", "1.000"]
    assert lines[2].split() == ["random", "0.333", "1.000"]


def test_real_embeddings_agree_with_the_literal_reading(shared: Path) -> None:
    """Sounds and shapes against each other's own space, on the real test sets, as the reference counts (up to ties)."""
    import pyarrow.parquet as pq

    folder = shared / "data" / "embeddings" / "test"

    def load(name: str) -> tuple[list[str], np.ndarray]:
        table = pq.read_table(folder / f"{name}.parquet")
        return table["id"].to_pylist(), np.array(table["embedding"].to_pylist(), dtype=np.float32)

    query, gallery = load("sound_audio"), load("picture_image")
    mapped = query[1] @ np.random.default_rng(0).standard_normal((query[1].shape[1], gallery[1].shape[1]))
    pairs = folder / "pairs_sound_picture.parquet"
    result = evaluate_retrieval((query[0], mapped), gallery, pairs).to_dict()
    relevant = np.zeros((len(mapped), len(gallery[0])), dtype=bool)
    rows = ({name: i for i, name in enumerate(ids)} for ids in (query[0], gallery[0]))
    table = pq.read_table(pairs).to_pydict()
    left, right = ([index[x] for x in table[c]] for index, c in zip(rows, ("query_id", "gallery_id"), strict=True))
    relevant[left, right] = True
    scores = unit(mapped.astype(np.float32)) @ unit(gallery[1]).T
    for way, s, r in (("query_to_gallery", scores, relevant), ("gallery_to_query", scores.T, relevant.T)):
        order = (-s).argsort(axis=1)
        hit = np.take_along_axis(r, order, axis=1)
        hit = hit[hit.any(axis=1)]
        precision = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)
        assert result[way]["map"] == pytest.approx(((precision * hit).sum(1) / hit.sum(1)).mean(), abs=1e-4)
        for k in (1, 5, 10):
            assert result[way][f"r@{k}"] == pytest.approx(hit[:, :k].any(axis=1).mean(), abs=0.01)
