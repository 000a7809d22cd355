"""Localisation and counterfactual recognition, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.errors import EvaluationError
from isthmus.evaluation.benchmarks.task import ItemSet, Localization, Sample
from isthmus.evaluation.suite.localize import PlaceTruth, box_ciou, box_mask, localization_task, truth_map
from isthmus.items import Item
from isthmus.metrics import localization_scores
from isthmus.metrics.results import Settings

WHOLE, LEFT, RIGHT, QUARTER = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5)
HALF = 112 * 224
PLAIN = Settings(bootstrap=0)


def task_of(samples: list[Sample], agreement: int = 1, counterfactual: bool = False) -> Localization:
    images, sounds = ({getattr(sample, name): None for sample in samples} for name in ("image", "audio"))
    sides = (
        ItemSet("image", [Item(i, f"{i}.jpg") for i in images]),
        ItemSet("audio", [Item(a, f"{a}.wav") for a in sounds]),
    )
    return Localization(*sides, samples, agreement, counterfactual)


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    x = np.array(rows, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_boxes_on_the_map():
    assert box_mask(WHOLE).all()
    assert box_mask(LEFT).sum() == HALF
    assert not (box_mask(LEFT) & box_mask(RIGHT)).any()
    edge = box_mask((0.403125, 0.253125, 0.6, 0.75))  # as published for the first clip of VGGSS
    assert (np.flatnonzero(edge.any(axis=0))[[0, -1]].tolist(), edge.any(axis=1).sum()) == ([90, 133], 168 - 56)
    for flat in ((0.1, 0.2, -2.88e16, -2.88e16), (0.5, 0.5, 0.5, 1.0), (0.9, 0.0, 0.1, 1.0)):
        assert not box_mask(flat).any()
        assert box_ciou([flat], truth_map([WHOLE])).tolist() == [0.0]


def test_union_of_boxes():
    truth = truth_map([QUARTER, LEFT])
    assert np.array_equal(truth == 1.0, box_mask(LEFT))
    assert box_ciou([LEFT, WHOLE, QUARTER, RIGHT], truth).tolist() == [1.0, 0.5, 0.5, 0.0]


def test_agreement_of_annotators():
    # Two boxed the left half, one the whole picture: left counts whole, right a half.
    truth = truth_map([LEFT, LEFT, WHOLE], agreement=2)
    assert truth[0, 0] == 1.0
    assert truth[0, -1] == 0.5
    assert box_ciou([WHOLE], truth).tolist() == [1.0]
    assert box_ciou([LEFT], truth)[0] == pytest.approx(HALF / (HALF + HALF / 2))
    assert box_ciou([RIGHT], truth)[0] == pytest.approx((HALF / 2) / (HALF + HALF / 2))
    # One box alone counts a half everywhere, and yet is found whole.
    assert box_ciou([LEFT], truth_map([LEFT], agreement=2)).tolist() == [1.0]
    # A point that nobody boxed counts whole against it.
    assert box_ciou([WHOLE], truth_map([LEFT], agreement=2))[0] == pytest.approx((HALF / 2) / (HALF / 2 + HALF))


def test_an_empty_truth_is_never_found():
    assert box_ciou([WHOLE, LEFT], truth_map([])).tolist() == [0.0, 0.0]
    assert box_ciou([], truth_map([LEFT])).tolist() == []


def test_the_nearest_part_is_chosen_and_scored():
    samples = [Sample("x", "x", "x", [LEFT]), Sample("y", "y", "y", [QUARTER]), Sample("z", "x", "y", [RIGHT])]
    task = task_of(samples)
    scoring = localization_task(task, {"x": [LEFT, RIGHT], "y": [WHOLE, LEFT]})
    assert scoring.target.ids == ["x#0,0,0.5,1", "x#0.5,0,1,1", "y#0,0,1,1", "y#0,0,0.5,1"]
    assert scoring.query.ids == ["x", "y"]
    # x hears its left half; y hears its whole picture, of which a quarter is right; z hears the left, wrongly.
    sounds, parts = unit((1, 0, 0), (0, 1, 0)), unit((1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))
    outcome = scoring.truth.scorer(scoring.query.ids, scoring.target.ids, PLAIN)(sounds, parts)
    # x 1, y 1/4; z has two parts at cosine 0, of which the first is the left half.
    expected = localization_scores([1.0, 0.25, 0.0])
    assert outcome.figures["ciou"] == pytest.approx(1 / 3)
    assert outcome.figures["auc"] == pytest.approx(expected["auc"])
    # Of two windows one finds x and one finds z; of y half a picture finds a quarter, 0.5, and that counts.
    assert outcome.chance["ciou"] == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert outcome.figures["n"] == 3
    assert scoring.counts["whole_picture"]["ciou"] == pytest.approx(2 / 3)
    assert (scoring.counts["n_samples"], scoring.counts["n_proposals"], scoring.counts["without_proposals"]) == (
        3,
        4,
        0,
    )


def test_counterfactual_by_hand():
    # Confidences 0.9, 0.8, 0.7, 0.6; the second does not sound, the third is sought in the wrong half.
    samples = [
        Sample("a", "a", "a", [LEFT]),
        Sample("b", "b", "b"),
        Sample("c", "c", "c", [LEFT]),
        Sample("d", "d", "d", [LEFT]),
    ]
    task = task_of(samples, counterfactual=True)
    scoring = localization_task(task, {"a": [LEFT], "b": [LEFT], "c": [RIGHT], "d": [LEFT]})
    cosines = [0.9, 0.8, 0.7, 0.6]
    sounds = unit(*[(1, 0)] * 4)
    parts = unit(*[(c, np.sqrt(1 - c * c)) for c in cosines])
    outcome = scoring.truth.scorer(scoring.query.ids, scoring.target.ids, PLAIN)(sounds, parts)
    # Thresholds 0.8, 0.7, 0.6 from the top (the largest is left out). TP, FP, FN:
    #   0.8: 1, 1, 2 -> P 1/2, R 1/3;  0.7: 1, 2, 1 -> P 1/3, R 1/2;  0.6: 2, 2, 0 -> P 1/2, R 1
    # Best precision from each on: 1/2, 1/2, 1/2; AP = (1/2 - 1/3) / 2 + (1 - 1/2) / 2 = 1/3.
    assert outcome.figures["ap"] == pytest.approx((1 / 2 - 1 / 3) / 2 + (1 - 1 / 2) / 2)
    # F1 at 0.9: P 1, R 1/3 -> 1/2; at 0.6: P 1/2, R 1 -> 2/3, the best.
    assert outcome.figures["max_f1"] == pytest.approx(2 / 3)
    assert outcome.figures["loc_acc"] == pytest.approx(2 / 3)
    assert outcome.chance == {"loc_acc": pytest.approx(2 / 3)}
    assert scoring.counts["n_sounding"] == 3
    assert scoring.counts["whole_picture"] == {"loc_acc": 1.0}


def test_rejected_items_and_pictures_without_a_proposal():
    samples = [Sample(name, name, name, [LEFT]) for name in "abcd"]
    proposals = {"a": [LEFT, RIGHT], "b": [LEFT], "c": [LEFT]}
    scoring = localization_task(task_of(samples), proposals)
    assert scoring.counts["without_proposals"] == 1
    assert "1 samples have a picture without a proposal; they count as not found." in scoring.notes
    # The left of a, all of b, and the sound of c were rejected: a keeps its right half, d has no proposal.
    score = scoring.truth.scorer(["a", "b", "d"], ["a#0.5,0,1,1", "c#0,0,0.5,1"], PLAIN)
    outcome = score(unit((1, 0), (1, 0), (1, 0)), unit((1, 0), (0, 1)))
    assert (outcome.figures["n"], outcome.figures["lost"]) == (2, 2)
    assert outcome.figures["ciou"] == 0.0
    with pytest.raises(EvaluationError, match="none of the 4 samples has a true box and was encoded"):
        scoring.truth.scorer(["b"], ["a#0.5,0,1,1"], PLAIN)


def test_an_encoder_that_does_not_cut_is_found_out():
    samples = [Sample(name, name, name, [LEFT]) for name in "ab"]
    scoring = localization_task(task_of(samples), {"a": [LEFT, RIGHT], "b": [LEFT, RIGHT]})
    score = scoring.truth.scorer(scoring.query.ids, scoring.target.ids, PLAIN)
    with pytest.raises(EvaluationError, match="the image encoder does not cut out an item's box"):
        score(unit((1, 0), (0, 1)), unit((1, 0), (1, 0), (0, 1), (0, 1)))
    score(unit((1, 0), (0, 1)), unit((1, 0), (1, 0), (0, 1), (0.1, 1)))  # one picture may be of one colour


def test_fewer_samples_of_both_kinds():
    samples = [Sample(f"s{i}", f"s{i}", f"s{i}", [LEFT]) for i in range(6)]
    silent = [Sample(f"n{i}", f"s{i}", f"s{i + 1}") for i in range(5)]
    task = task_of([*samples, *silent], counterfactual=True)
    proposals = {f"s{i}": [WHOLE] for i in range(6)}
    scoring = localization_task(task, proposals, limit=4)
    assert isinstance(scoring.truth, PlaceTruth)
    assert [sample.id for sample in scoring.truth.task.samples] == ["s0", "s1", "n0", "n1"]
    assert scoring.query.ids == ["s0", "s1", "s2"]
    assert scoring.target.ids == ["s0#0,0,1,1", "s1#0,0,1,1"]
    assert len(localization_task(task, proposals, limit=100).truth.task.samples) == 11
