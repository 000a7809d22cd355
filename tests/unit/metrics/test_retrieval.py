"""Retrieval figures: worked by hand, ties, queries without pairs, and every fault in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.errors import EvaluationError
from isthmus.metrics import foscttm, retrieval_scores
from isthmus.metrics.ranks import make_pairs
from isthmus.metrics.retrieval import retrieval, retrieval_one_way

SCORES = np.array([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
RELEVANT = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)


def test_worked_by_hand() -> None:
    # Query 0 finds its items at ranks 1 and 3: AP (1/1 + 2/3) / 2. Query 1 at rank 4: AP 1/4. Query 2 has none.
    figures = retrieval_scores(SCORES, RELEVANT, ks=(1, 3, 5))
    assert figures == pytest.approx(
        {"r@1": 0.5, "r@3": 0.5, "r@5": 1.0, "map": (5 / 6 + 1 / 4) / 2, "median_rank": 2.5}
    )


def test_keys_and_types_are_those_of_the_contract() -> None:
    figures = retrieval_scores(SCORES, RELEVANT.astype(int))
    assert list(figures) == ["r@1", "r@5", "r@10", "map", "median_rank"]
    assert all(type(value) is float for value in figures.values())


def test_a_tie_ranks_behind_what_is_not_relevant() -> None:
    # Three equal scores, the first relevant: rank 3, although it stands first.
    figures = retrieval_scores([[1.0, 1.0, 1.0, 0.0]], [[True, False, False, False]], ks=(1, 2, 3))
    assert figures == {"r@1": 0.0, "r@2": 0.0, "r@3": 1.0, "map": 1 / 3, "median_rank": 3.0}


def test_ties_between_relevant_items_cost_nothing() -> None:
    assert retrieval_scores([[1.0, 1.0, 0.0]], [[True, True, False]])["map"] == 1.0


def test_masks_of_minus_infinity_are_allowed() -> None:
    assert retrieval_scores([[-np.inf, 1.0]], [[True, False]])["median_rank"] == 2.0


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0], [True], "2-d array of numbers, got shape"),
        ([["a"]], [[True]], "2-d array of numbers"),
        ([[1.0, 2.0]], [[True]], r"relevant has shape \(1, 1\), expected \(1, 2\)"),
        ([[1.0, 2.0]], [[2, 0]], "true or false"),
        ([[1.0, np.nan]], [[True, False]], "NaN at row 0, column 1"),
        ([[1.0, 2.0]], [[False, False]], "none of the 1 queries has a relevant item"),
        (np.empty((0, 3)), np.empty((0, 3), bool), "none of the 0 queries"),
    ],
)
def test_faults_of_a_dense_matrix(scores: Any, relevant: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        retrieval_scores(scores, relevant)


def test_embeddings_give_what_their_score_matrix_gives() -> None:
    eye = np.eye(4, dtype=np.float32)
    there, back = retrieval(eye, eye, [np.array([0]), np.array([1]), np.array([0]), np.array([], int)])
    assert there.rows.tolist() == [0, 1, 2]
    assert there.best.tolist() == [1, 1, 4]
    assert (there.n_without_pairs, there.n_candidates) == (1, 4)
    assert back.rows.tolist() == [0, 1]
    assert back.positives.tolist() == [2, 1]
    assert back.average_precision.tolist() == [(1 + 2 / 4) / 2, 1.0]


def test_pairs_count_once() -> None:
    eye = np.eye(3, dtype=np.float32)
    once = retrieval_one_way(eye, eye, (np.array([0, 1]), np.array([0, 2])))
    twice = retrieval_one_way(eye, eye, (np.array([1, 0, 0, 1]), np.array([2, 0, 0, 2])))
    assert once.figures() == twice.figures()
    assert twice.positives.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("query", "gallery", "positives", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), ([0], [0]), "gallery has 4 dimensions, expected 3"),
        (np.ones(3), np.ones((2, 3)), ([0], [0]), "query must be a non-empty"),
        (np.ones((0, 3)), np.ones((2, 3)), ([0], [0]), "query must be a non-empty"),
        ([[1, np.nan]], np.ones((2, 2)), ([0], [0]), "query holds NaN or infinity in row 0"),
        (np.ones((2, 3)), [[1, 1, 1], [1, np.inf, 1]], ([0], [0]), "gallery holds NaN or infinity in row 1"),
        (np.ones((2, 3)), np.ones((2, 3)), ([], []), "no pair"),
        (np.ones((2, 3)), np.ones((2, 3)), ([0, 1], [0]), "2 query rows and 1 gallery rows"),
        (np.ones((2, 3)), np.ones((2, 3)), ([0, 2], [0, 0]), "pair 1 names query row 2, expected 0 to 1"),
        (np.ones((2, 3)), np.ones((2, 3)), ([0], [-1]), "pair 0 names gallery row -1"),
        (np.ones((2, 3)), np.ones((2, 3)), [[0]], "list 1 queries, expected 2"),
    ],
)
def test_faults_of_embeddings(query: Any, gallery: Any, positives: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        retrieval(query, gallery, positives)


def test_swapping_pairs_twice_gives_them_back() -> None:
    pairs = make_pairs(([3, 0, 0], [1, 2, 0]), 4, 3)
    assert pairs.rows.tolist() == [0, 0, 3]
    again = pairs.swapped().swapped()
    assert again.rows.tolist() == pairs.rows.tolist()
    assert again.columns.tolist() == pairs.columns.tolist()


def test_memory_stays_in_blocks() -> None:
    """6,000 x 6,000 scores are 144 MB; far less may be held at once."""
    import tracemalloc

    rng = np.random.default_rng(0)
    x = rng.standard_normal((6000, 8)).astype(np.float32)
    from isthmus.metrics import retrieval as module

    blocks, module.BLOCK = module.BLOCK, 1 << 20
    try:
        tracemalloc.start()
        retrieval(x, x, (np.arange(6000), np.arange(6000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        module.BLOCK = blocks
    assert peak < 30e6


def test_foscttm_by_hand() -> None:
    assert foscttm(np.eye(3)) == 0.0
    assert foscttm(1 - np.eye(2)) == 1.0
    assert foscttm(np.ones((4, 4))) == 1.0
    assert foscttm([[1.0, 2.0], [0.0, 1.0]]) == 0.5


@pytest.mark.parametrize("scores", [np.ones((2, 3)), np.ones((1, 1))])
def test_foscttm_needs_a_square(scores: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match="square matrix of at least two items"):
        foscttm(scores)
