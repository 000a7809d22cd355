"""Classification figures of a dense score matrix: accuracy at k and mean average precision over labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import EvaluationError
from isthmus.metrics.checks import mask_matrix, scores_matrix


def accuracy_at_k(scores: Any, labels: Any, *, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Share of items whose label is among the k best-scored classes; a tie ranks behind the wrong classes.

    Args:
        scores: (n, c) numbers, higher is better.
        labels: (n,) integer class of each item, 0 to c - 1.
        ks: The cut-offs.

    Returns:
        {"accuracy@1", ...}, fractions 0 to 1.

    Raises:
        EvaluationError: Shapes that do not fit, NaN scores, a label out of range, or no item.
    """
    matrix = scores_matrix(scores)
    n, classes = matrix.shape
    label = np.asarray(labels)
    if label.shape != (n,) or label.dtype.kind not in "iu" or not n:
        raise EvaluationError(
            f"labels must be {n} class numbers, one an item, got shape {label.shape} of {label.dtype}."
        )
    bad = np.flatnonzero((label < 0) | (label >= classes))
    if len(bad):
        raise EvaluationError(
            f"label {int(label[bad[0]])} of item {int(bad[0])} is no class, expected 0 to {classes - 1}."
        )
    own = np.take_along_axis(matrix, label[:, None], axis=1)
    rank = (matrix >= own).sum(axis=1)  # the class itself is counted, so the best rank is 1
    return {f"accuracy@{k}": float(np.mean(rank <= k)) for k in ks}


def _class_average_precision(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Average precision of one class: gain in recall times precision, summed over thresholds; equal scores are one."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positive[order])
    last = np.append(ordered[1:] != ordered[:-1], True)
    true, detected = hits[last], np.arange(1, len(scores) + 1)[last]
    return float((np.diff(true, prepend=0) * (true / detected)).sum() / true[-1])


def multilabel_map(scores: Any, labels: Any) -> float:
    """Mean over classes of the average precision over items, as AudioSet and VGGSound are scored.

    Each class equals scikit-learn's `average_precision_score`: items of equal score enter at one threshold. Classes
    without a positive item enter no average.

    Args:
        scores: (n, c) numbers, higher is better.
        labels: (n, c) booleans.

    Raises:
        EvaluationError: Shapes that do not fit, NaN scores, or no positive label at all.
    """
    matrix = scores_matrix(scores)
    mask = mask_matrix(labels, matrix.shape, "labels")
    present = np.flatnonzero(mask.any(axis=0))
    if not len(present):
        raise EvaluationError(
            f"none of the {matrix.shape[1]} classes has a positive item; there is nothing to measure."
        )
    return float(np.mean(average_precision_by_class(matrix, mask)[present]))


def average_precision_by_class(scores: Any, labels: Any) -> NDArray[np.float64]:
    """Average precision of each class over the items, (c,) float64, NaN for classes without a positive item.

    Args:
        scores: (n, c) numbers, higher is better.
        labels: (n, c) booleans.

    Raises:
        EvaluationError: Shapes that do not fit, or NaN scores.
    """
    matrix = scores_matrix(scores)
    mask = mask_matrix(labels, matrix.shape, "labels")
    return np.array(
        [
            _class_average_precision(matrix[:, c], mask[:, c]) if mask[:, c].any() else np.nan
            for c in range(matrix.shape[1])
        ]
    )
