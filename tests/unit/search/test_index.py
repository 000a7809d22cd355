"""Exact search: against a full sort, ties, chunks, metadata, centring, and faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.errors import ConfigError, EvaluationError
from isthmus.search import rows as module
from isthmus.search.hits import Hit
from isthmus.search.index import SearchIndex


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def slow_search(embeddings: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """Sort all cosines of each query, in float64 and pair by pair, ties by row."""

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x.astype(np.float64), y.astype(np.float64)
        return float((x / np.sqrt((x * x).sum()) * (y / np.sqrt((y * y).sum()))).sum())

    return [
        sorted(range(len(embeddings)), key=lambda row: (-round(cosine(query, embeddings[row]), 12), row))[:k]
        for query in queries
    ]


def tiles_of(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "TILE_ROWS", (rows, rows))
    monkeypatch.setattr(module, "TILE_HITS", 0)


@pytest.mark.parametrize("chunk", [3, 16, 1 << 16])
@pytest.mark.parametrize("k", [1, 5, 40, 99])
def test_it_finds_what_a_full_sort_finds(
    rng: np.random.Generator, k: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERIES", 2)
    tiles_of(monkeypatch, chunk)
    embeddings, queries = rng.standard_normal((40, 7)), rng.standard_normal((9, 7))
    hits = SearchIndex(embeddings).search(queries, k)
    assert [[hit.row for hit in each] for each in hits] == slow_search(embeddings, queries, k)
    assert all(len(each) == min(k, 40) for each in hits)
    scores = [hit.score for hit in hits[0]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_duplicates_stand_in_the_order_of_their_rows(
    rng: np.random.Generator, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles_of(monkeypatch, chunk)
    distinct = rng.standard_normal((5, 64))
    embeddings = distinct[rng.integers(0, 5, 200)]
    index = SearchIndex(embeddings)
    queries = rng.standard_normal((6, 64))
    rows = index.nearest(queries, 90)[1]
    assert rows.tolist() == slow_search(embeddings, queries, 90)
    alone = np.concatenate([index.nearest(query, 90)[1] for query in queries])
    assert alone.tolist() == rows.tolist()


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
@pytest.mark.parametrize("k", [1, 10, 600])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.05])
def test_a_tile_passes_over_nothing_that_is_among_the_best(
    rng: np.random.Generator, order: str, k: int, share: float
) -> None:
    """Rows that come ever nearer to the query raise the floor of every tile, rows that go away leave it."""
    embeddings = rng.standard_normal((9000, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    queries = embeddings[:3].copy()
    if order != "shuffled":
        embeddings = embeddings[np.argsort(embeddings @ queries[0])[:: 1 if order == "rising" else -1]]
    embeddings[4000:4200] = embeddings[8000]  # ties over several tiles
    wanted = rng.random(9000) < share
    rows = module.exact_nearest(embeddings, queries, min(k, int(wanted.sum())), wanted)[1]
    exact = (queries[:, None].astype(np.float64) * embeddings).sum(axis=2)
    exact[:, ~wanted] = -np.inf
    assert rows.tolist() == np.argsort(-exact, axis=1, kind="stable")[:, : rows.shape[1]].tolist()


def test_a_collapsed_index_gives_its_first_rows() -> None:
    index = SearchIndex(np.ones((500, 33)))
    assert index.nearest(np.ones(33), 4)[1].tolist() == [[0, 1, 2, 3]]


def test_hits_hold_what_is_known(rng: np.random.Generator) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["one", "two", None]})
    index = SearchIndex(np.eye(3), ["a", "b", "c"], table)
    assert index.search([0.0, 2.0, 0.1], k=1) == [
        [Hit("b", pytest.approx(2 / np.sqrt(4.01)), 1, {"id": "b", "text": "two"})]
    ]
    assert SearchIndex(np.eye(3), metadata={"n": [1, 2, 3]}).search(np.eye(3)[2], k=1)[0][0].metadata == {"n": 3}
    assert SearchIndex(np.eye(3)).search(np.eye(3)[2], k=1)[0][0] == Hit("2", 1.0, 2, {})
    assert repr(index) == "SearchIndex(3 x 3)"
    assert len(index) == 3


def test_from_a_bridge(tmp_path: Path, rng: np.random.Generator) -> None:
    content: dict[str, Any] = {
        "image": (["x", "y"], np.eye(3)[:2], {"caption": ["left", "right"]}),
        "text": (["t"], np.eye(3)[2:]),
    }
    base = isthmus.make_space(tmp_path / "base.space", content, dtype="float32")
    bridge = Bridge.over(base)
    hits = SearchIndex.from_bridge(bridge, base["image"]).search(np.eye(3)[1])[0]
    assert [hit.id for hit in hits] == ["y", "x"]
    assert hits[0].metadata["caption"] == "right"
    both = SearchIndex.from_bridge(bridge, base["image"], base["text"])
    assert [(hit.id, hit.metadata["modality"]) for hit in both.search(np.eye(3)[2], k=1)[0]] == [("t", "text")]
    with pytest.raises(ConfigError, match="needs embeddings, got none"):
        SearchIndex.from_bridge(bridge)


def test_centring_lets_modalities_mix(rng: np.random.Generator) -> None:
    """Two modalities far apart: without centring a text finds texts first, with it the items of its own meaning."""
    meaning = rng.standard_normal((20, 16))
    gap = 10 * rng.standard_normal(16)
    embeddings = np.concatenate([meaning + gap, meaning - gap])
    modalities = ["text"] * 20 + ["image"] * 20
    query = meaning[3] + gap
    plain = SearchIndex(embeddings, modalities=modalities).search(query, k=20)[0]
    assert all(hit.row < 20 for hit in plain)
    index = SearchIndex(embeddings, modalities=modalities, center=True)
    assert {hit.row for hit in index.search(query, k=2, modality="text")[0]} == {3, 23}
    mean = (embeddings[:20] / np.linalg.norm(embeddings[:20], axis=1, keepdims=True)).mean(axis=0)
    assert {hit.row for hit in index.search(query, k=2, mean=mean)[0]} == {3, 23}


def test_a_centred_index_asks_for_the_centroid() -> None:
    index = SearchIndex(np.eye(4), modalities="image", center=True)
    with pytest.raises(ConfigError, match=r"no centroid of 'audio' queries. Give modality= \(one of image\) or mean="):
        index.search(np.ones(4), modality="audio")
    with pytest.raises(ConfigError, match="centroid of None"):
        index.search(np.ones(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.ones(3)}, "embeddings must be a non-empty"),
        ({"embeddings": np.full((2, 3), np.nan)}, "embeddings holds NaN or infinity in row 0"),
        ({"embeddings": np.eye(2), "ids": ["a"]}, "2 embeddings and 1 ids"),
        ({"embeddings": np.eye(2), "metadata": {"n": [1]}}, "2 embeddings and 1 metadata"),
        ({"embeddings": np.eye(2), "modalities": ["a"], "center": True}, "2 embeddings and 1 modalities"),
    ],
)
def test_faults_of_an_index(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        SearchIndex(**arguments)


def test_faults_of_a_search() -> None:
    index = SearchIndex(np.eye(3))
    with pytest.raises(EvaluationError, match="queries has 2 dimensions, expected 3"):
        index.search(np.ones((1, 2)))
    with pytest.raises(EvaluationError, match="queries holds NaN"):
        index.search([np.nan, 0, 0])
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        index.search(np.ones(3), k=0)
