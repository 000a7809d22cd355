"""Every metric against a slow reading of its definition: loops over items, no shared code with the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from isthmus.metrics import (
    accuracy_at_k,
    chance_figures,
    consensus_iou,
    counterfactual_scores,
    foscttm,
    localization_scores,
    multilabel_map,
    retrieval_scores,
)
from isthmus.metrics import retrieval as streaming
from isthmus.metrics.retrieval import retrieval, retrieval_one_way

Case = tuple[np.ndarray, np.ndarray]


def slow_retrieval(scores: np.ndarray, relevant: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Sort each row, items that are not relevant first among equals, and read the ranks off the order."""
    firsts, precisions = [], []
    for row, wanted in zip(scores.tolist(), relevant.tolist(), strict=True):
        if not any(wanted):
            continue
        order = sorted(range(len(row)), key=lambda i: (-row[i], wanted[i]))
        ranks = [place for place, i in enumerate(order, start=1) if wanted[i]]
        firsts.append(ranks[0])
        precisions.append(sum(found / rank for found, rank in enumerate(ranks, start=1)) / len(ranks))
    out = {f"r@{k}": sum(first <= k for first in firsts) / len(firsts) for k in ks}
    ordered, half = sorted(firsts), len(firsts) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return {**out, "map": sum(precisions) / len(precisions), "median_rank": float(median)}


def draw(rng: np.random.Generator) -> Case:
    """Scores with and without ties and a relevance that is thin or thick; at least one pair."""
    shape = rng.integers(1, 14), rng.integers(1, 40)
    scores = rng.standard_normal(shape) if rng.random() < 0.5 else rng.integers(0, 4, shape).astype(float)
    if rng.random() < 0.1:
        scores[:] = 1.0
    relevant = rng.random(shape) < rng.choice([0.03, 0.3, 1.0])
    relevant[rng.integers(shape[0]), rng.integers(shape[1])] = True
    return scores, relevant


@pytest.mark.parametrize("seed", range(200))
def test_retrieval_scores(seed: int) -> None:
    scores, relevant = draw(np.random.default_rng(seed))
    assert retrieval_scores(scores, relevant) == pytest.approx(slow_retrieval(scores, relevant), abs=1e-12)


def test_retrieval_map_is_scikit_learns_where_there_are_no_ties() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.standard_normal((30, 50)), rng.random((30, 50)) < 0.1
    rows = relevant.any(axis=1)
    theirs = np.mean([average_precision_score(r, s) for r, s in zip(relevant[rows], scores[rows], strict=True)])
    assert retrieval_scores(scores, relevant)["map"] == pytest.approx(theirs, abs=1e-12)


def exact(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Scores pair by pair in float64, so that equal vectors have equal scores."""
    return np.array([[(q.astype(np.float64) * g).sum() for g in gallery] for q in query])


def embeddings(rng: np.random.Generator, kind: str) -> Case:
    """Two sides of embeddings: in general position, coarsely quantised, collapsed, or full of duplicates."""
    q, g, d = rng.integers(1, 50), rng.integers(1, 70), rng.integers(1, 20)
    query, gallery = rng.standard_normal((q, d)), rng.standard_normal((g, d))
    if kind == "quantised":
        return np.round(query).astype(np.float32), np.round(gallery).astype(np.float32)
    if kind == "collapsed":
        gallery[:] = gallery[0]
    if kind == "duplicates":
        query, gallery = query[rng.integers(0, q, q)], gallery[rng.integers(0, g, g)]
    return tuple((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (query, gallery))


SIZES = {
    "as it is": {},
    "small blocks": {"BLOCK": 64, "TILE": 16},
    "few is none": {"FEW": 0, "BLOCK": 256},
    "few is all": {"FEW": 10**6, "BLOCK": 300, "TILE": 100},
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["general", "quantised", "collapsed", "duplicates"])
@pytest.mark.parametrize("seed", range(12))
def test_streaming_equals_the_dense_matrix(seed: int, kind: str, sizes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SIZES[sizes].items():
        monkeypatch.setattr(streaming, name, value)
    rng = np.random.default_rng(seed)
    query, gallery = embeddings(rng, kind)
    relevant = rng.random((len(query), len(gallery))) < rng.choice([0.02, 0.3, 0.9])
    relevant[0, 0] = True
    scores = exact(query, gallery)
    there, back = retrieval(query, gallery, np.nonzero(relevant))
    assert there.figures() == pytest.approx(slow_retrieval(scores, relevant), abs=1e-12)
    assert back.figures() == pytest.approx(slow_retrieval(scores.T, relevant.T), abs=1e-12)
    assert there.figures() == retrieval_scores(scores, relevant)
    assert retrieval_one_way(query, gallery, np.nonzero(relevant)).figures() == there.figures()
    assert there.n_without_pairs == len(query) - relevant.any(axis=1).sum()
    assert back.n_without_pairs == len(gallery) - relevant.any(axis=0).sum()


def test_a_crowd_of_equal_scores_counts_as_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    query = np.ones((40, 8), np.float32) / np.sqrt(8, dtype=np.float32)
    pairs = (np.arange(40), np.arange(40))
    expected = retrieval(query, query, pairs)[0].figures()
    monkeypatch.setattr(streaming, "_AT_LEAST", 0)
    assert retrieval(query, query, pairs)[0].figures() == expected
    assert expected == pytest.approx({"r@1": 0, "r@5": 0, "r@10": 0, "map": 1 / 40, "median_rank": 40})


def slow_foscttm(scores: np.ndarray) -> float:
    n = len(scores)
    fractions = []
    for s in (scores, scores.T):
        fractions += [sum(s[i, j] >= s[i, i] for j in range(n) if j != i) / (n - 1) for i in range(n)]
    return sum(fractions) / len(fractions)


@pytest.mark.parametrize("seed", range(20))
def test_foscttm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 12)
    scores = rng.standard_normal((n, n)) if seed % 2 else rng.integers(0, 3, (n, n)).astype(float)
    assert foscttm(scores) == pytest.approx(slow_foscttm(scores), abs=1e-12)


def slow_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    right = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        better = sum(value >= row[label] for c, value in enumerate(row) if c != label)
        right += better < k
    return right / len(labels)


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_at_k(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = rng.integers(1, 20), rng.integers(1, 9)
    scores = rng.integers(0, 5, (n, classes)).astype(float)
    labels = rng.integers(0, classes, n)
    expected = {f"accuracy@{k}": slow_accuracy(scores, labels, k) for k in (1, 3, 5)}
    assert accuracy_at_k(scores, labels, ks=(1, 3, 5)) == pytest.approx(expected, abs=1e-12)


def slow_class_map(scores: np.ndarray, labels: np.ndarray) -> float:
    """Per class: at every distinct score, from high to low, the gain in recall times the precision there."""
    found = []
    for c in range(scores.shape[1]):
        s, y = scores[:, c].tolist(), labels[:, c].tolist()
        if not any(y):
            continue
        total, recall = 0.0, 0.0
        for threshold in sorted(set(s), reverse=True):
            detected = [i for i in range(len(s)) if s[i] >= threshold]
            true = sum(y[i] for i in detected)
            total += (true / sum(y) - recall) * true / len(detected)
            recall = true / sum(y)
        found.append(total)
    return sum(found) / len(found)


@pytest.mark.parametrize("seed", range(40))
def test_multilabel_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = rng.integers(1, 30), rng.integers(1, 8)
    scores = rng.standard_normal((n, classes)) if seed % 2 else rng.integers(0, 4, (n, classes)).astype(float)
    labels = rng.random((n, classes)) < 0.3
    labels[0, 0] = True
    present = labels.any(axis=0)
    value = multilabel_map(scores, labels)
    assert value == pytest.approx(slow_class_map(scores, labels), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [average_precision_score(labels[:, c], scores[:, c]) for c in np.flatnonzero(present)]
    assert value == pytest.approx(np.mean(theirs), abs=1e-9)


def slow_ciou(prediction: np.ndarray, truth: np.ndarray) -> float:
    inside = union = 0.0
    for p, g in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        inside += p * g
        union += g + (p if g == 0 else 0)
    return inside / union if truth.any() else 0.0


@pytest.mark.parametrize("seed", range(30))
def test_consensus_iou(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 9), rng.integers(1, 9)
    prediction = rng.random(shape) < rng.choice([0.0, 0.3, 1.0])
    truth = rng.choice([0.0, 0.0, 0.5, 1.0], shape) * rng.choice([0, 1, 1])
    assert consensus_iou(prediction, truth) == pytest.approx(slow_ciou(prediction, truth), abs=1e-12)


def slow_localization(ciou: list[float]) -> dict[str, float]:
    shares = [sum(value >= 0.05 * i for value in ciou) / len(ciou) for i in range(21)]
    area = sum((0.05 * (i + 1) - 0.05 * i) * (shares[i] + shares[i + 1]) / 2 for i in range(20))
    return {"ciou": sum(value >= 0.5 for value in ciou) / len(ciou), "auc": area}


@pytest.mark.parametrize("seed", range(30))
def test_localization_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 30)
    # Multiples of a twentieth lie on the thresholds, where the last bit decides.
    ciou = rng.random(n) if seed % 2 else rng.integers(0, 21, n) / 20
    assert localization_scores(ciou) == pytest.approx(slow_localization(ciou.tolist()), abs=1e-12)


def slow_counterfactual(
    ciou: list[float], confidence: list[float], sounding: list[bool], threshold: float
) -> dict[str, float]:
    """SLAVC's evaluator, item by item."""
    n = len(ciou)

    def precision_recall(t: float) -> tuple[float, float]:
        true = false = missed = 0
        for i in range(n):
            if not sounding[i]:
                false += confidence[i] >= t
            elif confidence[i] >= t:
                true += ciou[i] >= threshold
                false += ciou[i] < threshold
            else:
                missed += 1
        return (true / (true + false) if true + false else 1.0), (true / (true + missed) if true + missed else 1.0)

    ascending = sorted(confidence)
    points = [precision_recall(t) for t in ascending[:-1][:: -max(1, n // 200)]]
    ap = 0.0
    for i in range(len(points) - 1):
        ap += max(p for p, _ in points[i:]) * (points[i + 1][1] - points[i][1])
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in map(precision_recall, ascending[:: max(1, n // 10)])]
    boxed = [ciou[i] >= threshold for i in range(n) if sounding[i]]
    return {"ap": ap, "max_f1": max(f1), "loc_acc": sum(boxed) / len(boxed) if boxed else float("nan")}


@pytest.mark.parametrize("seed", range(80))
def test_counterfactual_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([1, 2, 3, 9, 25, 199, 403, 850]))
    ciou = np.round(rng.random(n), 1)
    confidence = rng.standard_normal(n) if seed % 2 else rng.integers(0, 6, n) / 5
    sounding = rng.random(n) < rng.choice([0.0, 0.5, 0.9, 1.0])
    threshold = float(rng.choice([0.5, 0.75]))
    expected = slow_counterfactual(ciou.tolist(), confidence.tolist(), sounding.tolist(), threshold)
    got = counterfactual_scores(ciou, confidence, sounding, threshold)
    assert got == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(("positives", "candidates"), [([1], 7), ([3, 1, 2], 12), ([5, 5], 5), ([1], 1), ([40, 2], 90)])
def test_chance_is_what_random_orders_earn(positives: list[int], candidates: int) -> None:
    rng = np.random.default_rng(0)
    relevant = np.array([[i < p for i in range(candidates)] for p in positives])
    runs = [retrieval_scores(rng.random(relevant.shape), relevant) for _ in range(1500)]
    expected = chance_figures(np.array(positives), candidates)
    for name in ("r@1", "r@5", "r@10", "map"):
        assert expected[name] == pytest.approx(np.mean([run[name] for run in runs]), abs=0.03), name


def miss_by_counting(positives: int, candidates: int, k: int) -> float:
    """Chance that k draws without replacement hold none of the positives."""
    chance = 1.0
    for i in range(k):
        chance *= max(candidates - positives - i, 0) / (candidates - i)
    return chance


def test_chance_of_recall_and_of_the_median() -> None:
    figures = chance_figures(np.array([2, 2, 7]), 50, ks=(1, 3))
    for k in (1, 3):
        expected = 1 - (2 * miss_by_counting(2, 50, k) + miss_by_counting(7, 50, k)) / 3
        assert figures[f"r@{k}"] == pytest.approx(expected, abs=1e-12)
    assert chance_figures(np.array([1]), 100)["median_rank"] == 50
    assert chance_figures(np.array([1]), 4, ks=(10,))["r@10"] == 1


@pytest.mark.parametrize("function", [retrieval_scores, multilabel_map])
def test_nan_is_refused(function: Callable[..., object]) -> None:
    from isthmus.errors import EvaluationError

    with pytest.raises(EvaluationError, match="NaN at row 1, column 0"):
        function(np.array([[1.0, 2.0], [np.nan, 0.0]]), np.eye(2, dtype=bool))
