"""Classification figures, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.errors import EvaluationError
from isthmus.metrics import accuracy_at_k, multilabel_map


def test_accuracy_by_hand() -> None:
    scores = [[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.3]]
    # The tie of the second item ranks behind the wrong class.
    assert accuracy_at_k(scores, [0, 0, 0], ks=(1, 2, 3)) == pytest.approx(
        {"accuracy@1": 1 / 3, "accuracy@2": 2 / 3, "accuracy@3": 1.0}
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0], "labels must be 2 class numbers"), ([0, 3], "label 3 of item 1 is no class"), ([0.0, 1.0], "class numbers")],
)
def test_faults_of_labels(labels: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        accuracy_at_k(np.eye(2), labels)


def test_map_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.5, 0.3]])
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    # Class 0: ranks 1 and 3. Class 1: one threshold for all three. Class 2 has no positive item.
    assert multilabel_map(scores, labels) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)


def test_no_positive_label_is_refused() -> None:
    with pytest.raises(EvaluationError, match="none of the 2 classes has a positive item"):
        multilabel_map(np.eye(2), np.zeros((2, 2), bool))
