"""Truth maps and the scores of boxes, point by point in whole numbers, as the published evaluators define them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from isthmus.evaluation.benchmarks.task import ItemSet, Localization, Sample
from isthmus.evaluation.suite.localize import PlaceTruth, box_ciou, box_mask, truth_map, whole_picture
from isthmus.evaluation.suite.proposals import crop_id, crops, sliding_windows, windows_of
from isthmus.items import Item
from isthmus.metrics import consensus_iou, counterfactual_scores, localization_scores
from isthmus.metrics.results import Settings

SIZE = 224


def slow_map(boxes: list[tuple[Fraction, ...]], halves: int) -> list[int]:
    """What each point counts, in halves: so many for every box that covers it, two at most."""
    total = [0] * SIZE**2
    for box in boxes:
        left, top, right, low = (math.floor(SIZE * min(max(value, Fraction(0)), Fraction(1))) for value in box)
        for y in range(top, low):
            for x in range(left, right):
                total[SIZE * y + x] = min(total[SIZE * y + x] + halves, 2)
    return total


def slow_ciou(predicted: list[int], truth: list[int]) -> Fraction:
    hit = sum(g for p, g in zip(predicted, truth, strict=True) if p)
    union = sum(truth) + sum(2 for p, g in zip(predicted, truth, strict=True) if p and not g)
    return Fraction(hit, union) if union else Fraction(0)


def drawn(rng: np.random.Generator, parts: int) -> tuple[Fraction, ...]:
    """A box on a grid of `parts`, sometimes without area, outside or with the sentinel of VGGSS."""
    a, b, c, d = (int(v) for v in rng.integers(-2, parts + 3, 4))
    box = [
        Fraction(min(a, c), parts),
        Fraction(min(b, d), parts),
        Fraction(max(a, c), parts),
        Fraction(max(b, d), parts),
    ]
    if rng.random() < 0.15:
        box[int(rng.integers(2, 4))] = Fraction(-28823037615171174)
    return tuple(box)


@pytest.mark.parametrize(("parts", "agreement"), [(256, 2), (256, 1), (64, 2), (64, 1)])
def test_maps_and_scores_equal_those_point_by_point(parts: int, agreement: int):
    rng = np.random.default_rng(parts + agreement)
    for count in (0, 1, 2, 3):
        exact = [drawn(rng, parts) for _ in range(count)]
        boxes = [tuple(float(v) for v in box) for box in exact]
        slow = slow_map(exact, 2 // agreement)
        truth = truth_map(boxes, agreement)
        assert np.array_equal(truth.ravel() * 2, slow)
        tried = [drawn(rng, parts) for _ in range(3)] + [(Fraction(0), Fraction(0), Fraction(1), Fraction(1))]
        fast = box_ciou([tuple(float(v) for v in box) for box in tried], truth)
        for box, value in zip(tried, fast, strict=True):
            expected = slow_ciou(slow_map([box], 2), slow)
            mask = box_mask(tuple(float(v) for v in box))
            assert value == pytest.approx(float(expected), abs=1e-12)
            assert consensus_iou(mask, truth) == pytest.approx(value, abs=1e-12)


def test_all_windows_at_once_equal_one_by_one():
    rng = np.random.default_rng(5)
    windows = sliding_windows((1.0, 0.6, 0.31))
    for agreement in (1, 2):
        boxes = [tuple(np.sort(rng.random(4))[[0, 1, 2, 3]]) for _ in range(3)]
        truth = truth_map(boxes, agreement)
        one_by_one = [consensus_iou(box_mask(box), truth) for box in windows]
        assert np.allclose(box_ciou(windows, truth), one_by_one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("counterfactual", [False, True])
def test_a_task_equals_loops_over_its_samples(counterfactual: bool):
    """Random embeddings with ties, unequal numbers of proposals, and pictures that several samples share."""
    rng = np.random.default_rng(17)
    pictures = [f"p{i}" for i in range(12)]
    samples = []
    for row in range(40):
        sounding = not counterfactual or row % 3
        boxes = (
            [tuple(float(v) for v in (a, b, a + 0.4, b + 0.5)) for a, b in rng.random((2, 2)) * 0.5] if sounding else []
        )
        samples.append(Sample(f"s{row}", pictures[row % 12], f"a{row % 20}", boxes))
    sides = (
        ItemSet("image", [Item(name, f"{name}.jpg") for name in pictures]),
        ItemSet("audio", [Item(f"a{i}", "x.wav") for i in range(20)]),
    )
    task = Localization(*sides, samples, 2, counterfactual)
    windows = windows_of(task, (1.0, 0.5))
    proposals = {name: windows[name][: 1 + i % 10] for i, name in enumerate(pictures)}
    parts = crops(task, proposals).ids
    sounds = [f"a{i}" for i in range(20)]
    q, t = (np.round(rng.standard_normal((n, 3)) * 1.5).astype(np.float32) + 0.1 for n in (20, len(parts)))
    q, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, t))
    outcome = PlaceTruth(task, proposals).scorer(sounds, parts, Settings(bootstrap=50))(q, t)

    ciou, confidence = [], []
    for sample in samples:
        best, chosen = -2.0, None
        for box in proposals[sample.image]:
            cosine = float(
                np.float64(t[parts.index(crop_id(sample.image, box))]) @ np.float64(q[sounds.index(sample.audio)])
            )
            if cosine > best:
                best, chosen = cosine, box
        confidence.append(best)
        ciou.append(consensus_iou(box_mask(chosen), truth_map(sample.boxes, 2)) if sample.boxes else 0.0)
    sounding = np.array([bool(sample.boxes) for sample in samples])
    if counterfactual:
        expected = counterfactual_scores(ciou, confidence, sounding)
    else:
        expected = localization_scores(ciou)
        assert outcome.chance["auc"] > 0
    for name, value in expected.items():
        assert outcome.figures[name] == pytest.approx(value, abs=1e-9)
    share = "loc_acc" if counterfactual else "ciou"
    low, high = outcome.figures[f"{share}_ci95"]
    assert low <= outcome.figures[share] <= high
    (values,) = outcome.parts[""]
    for name, each in values.items():
        assert each.mean() == pytest.approx(outcome.figures[name], abs=1e-9)
    chance = np.mean(
        [
            np.mean([consensus_iou(box_mask(box), truth_map(s.boxes, 2)) >= 0.5 for box in proposals[s.image]])
            for s in samples
            if s.boxes
        ]
    )
    assert outcome.chance[share] == pytest.approx(chance, abs=1e-9)
    whole = [consensus_iou(np.ones((SIZE, SIZE), dtype=bool), truth_map(s.boxes, 2)) for s in samples if s.boxes]
    assert whole_picture(task)[share] == pytest.approx(localization_scores(whole)["ciou"], abs=1e-9)
