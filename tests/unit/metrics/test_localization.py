"""Localisation and counterfactual figures, worked by hand, with the published quirks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from isthmus.errors import EvaluationError
from isthmus.metrics import consensus_iou, counterfactual_scores, localization_scores


def test_consensus_weighs_by_agreement() -> None:
    truth = np.array([[1.0, 0.5], [0.0, 0.0]])
    assert consensus_iou([[1, 0], [0, 0]], truth) == pytest.approx(1 / 1.5)
    assert consensus_iou([[0, 1], [0, 0]], truth) == pytest.approx(0.5 / 1.5)
    # The denominator holds the sum of the truth, not its area: all of it is 1, with one pixel too many 1.5 / 2.5.
    assert consensus_iou([[1, 1], [0, 0]], truth) == 1.0
    assert consensus_iou([[1, 1], [1, 0]], truth) == pytest.approx(1.5 / 2.5)


@pytest.mark.parametrize("prediction", [np.zeros((2, 2)), np.ones((2, 2))])
def test_an_empty_truth_earns_nothing(prediction: np.ndarray) -> None:
    assert consensus_iou(prediction, np.zeros((2, 2))) == 0.0


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 2)), "prediction_mask has shape"),
        (np.full((2, 2), 0.5), np.ones((2, 2)), "true or false"),
        (np.ones((2, 2)), np.full((2, 2), 1.5), r"truth_map must lie in \[0, 1\]"),
        (np.ones((2, 2)), np.full((2, 2), np.nan), r"truth_map must lie in \[0, 1\]"),
    ],
)
def test_faults_of_maps(prediction: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        consensus_iou(prediction, truth)


def test_success_at_a_half_and_the_area_under_it() -> None:
    assert localization_scores([1.0, 1.0]) == pytest.approx({"ciou": 1.0, "auc": 1.0})
    # Nothing found: every share is 0 but that at the threshold 0, a triangle of height 1 and width 0.05.
    assert localization_scores([0.0]) == pytest.approx({"ciou": 0.0, "auc": 0.025})
    assert localization_scores([0.5, 0.49])["ciou"] == 0.5
    # 0.5 reaches the thresholds up to 0.5: ten whole steps and half of the next.
    assert localization_scores([0.5])["auc"] == pytest.approx(0.525)


@pytest.mark.parametrize(("ciou", "message"), [([], "empty"), ([[0.5]], r"shape \(n,\)"), ([np.nan], "NaN at entry 0")])
def test_faults_of_ciou(ciou: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        localization_scores(ciou)


def test_counterfactual_by_hand() -> None:
    # From the top: a hit at 0.9, silence at 0.8, a hit at 0.7, a wrong place at 0.6, silence at 0.5, a hit at 0.1.
    ciou = [0.9, 0.0, 0.6, 0.2, 0.0, 0.8]
    confidence = [0.9, 0.8, 0.7, 0.6, 0.5, 0.1]
    sounding = [True, False, True, True, False, True]
    # The largest is no threshold, so the walk starts at 0.8 with TP 1, FP 1 and three undetected; a wrong place is no
    # miss: recall 1/4, 2/4, 2/3, 2/3, 3/3 and precision 1/2, 2/3, 2/4, 2/5, 3/6.
    recall = [1 / 4, 2 / 4, 2 / 3, 2 / 3, 1.0]
    best = [2 / 3, 2 / 3, 1 / 2, 1 / 2]
    ap = sum(p * (after - before) for p, before, after in zip(best, recall, recall[1:], strict=False))
    f1 = 2 * 0.5 * 1 / 1.5
    got = counterfactual_scores(ciou, confidence, sounding)
    assert got == pytest.approx({"ap": ap, "max_f1": f1, "loc_acc": 3 / 4})
    assert counterfactual_scores(ciou, confidence, sounding, 0.7)["loc_acc"] == 2 / 4


def test_the_iou_of_silence_is_not_looked_at() -> None:
    got = counterfactual_scores([0.9, np.nan], [0.9, 0.1], [True, False])
    assert got == counterfactual_scores([0.9, 1.0], [0.9, 0.1], [True, False])


def test_one_item_and_nothing_that_sounds() -> None:
    assert counterfactual_scores([0.9], [0.5], [True]) == {"ap": 0.0, "max_f1": 1.0, "loc_acc": 1.0}
    silent = counterfactual_scores([0.0, 0.0], [0.5, 0.6], [False, False])
    assert (silent["ap"], silent["max_f1"]) == (0.0, 0.0)
    assert math.isnan(silent["loc_acc"])


def test_thresholds_are_thinned_out_above_two_hundred_items() -> None:
    n = 400
    confidence = np.linspace(0, 1, n)
    ciou = np.where(np.arange(n) % 3 == 0, 0.9, 0.1)
    every = counterfactual_scores(ciou[:199], confidence[:199], np.ones(199, bool))
    assert 0 < every["ap"] < 1
    # With every second threshold the first one credited differs from the full walk's.
    full = counterfactual_scores(np.tile(ciou[:100], 1), confidence[:100], np.ones(100, bool))
    assert full != counterfactual_scores(ciou, confidence, np.ones(n, bool))


@pytest.mark.parametrize(
    ("ciou", "confidence", "sounding", "message"),
    [
        ([], [], [], "confidence is empty"),
        ([0.5], [np.nan], [True], "confidence holds NaN"),
        ([np.nan], [0.5], [True], "ciou holds NaN"),
        ([0.5], [0.5], [True, False], "sounding has shape"),
    ],
)
def test_faults_of_counterfactuals(ciou: Any, confidence: Any, sounding: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        counterfactual_scores(ciou, confidence, sounding)


def test_ciou_of_another_length_is_refused() -> None:
    with pytest.raises(EvaluationError, match="ciou"):
        counterfactual_scores([0.5, 0.6, 0.7], [0.5, 0.6], [True, False])
