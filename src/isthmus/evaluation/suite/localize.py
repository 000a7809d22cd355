"""Where in a picture a sound comes from: of several proposed boxes the one whose part of the picture is nearest to it.

The chosen box is scored on a map of 224 x 224 points, as the published evaluators do: a box covers the points from the
whole part of 224 times its lower edge up to that of its upper edge. How sure the model is that anything sounds is the
cosine of the chosen part and the sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.errors import EvaluationError
from isthmus.evaluation.benchmarks.task import Box, ItemSet, Localization, Sample
from isthmus.evaluation.suite.proposals import Proposals, crop_id, crops
from isthmus.evaluation.suite.questions import Score, ScoringTask, TaskScore
from isthmus.metrics import bootstrap_intervals, counterfactual_scores, localization_scores
from isthmus.metrics.results import Settings

SIZE = 224
"""Points on a side of the map on which boxes are compared."""

_THRESHOLDS = np.array([0.05 * i for i in range(21)])  # multiplied, as in `isthmus.metrics.localization`

Floats = NDArray[np.float64]


def box_mask(box: Box, size: int = SIZE) -> NDArray[np.bool_]:
    """The points of a map that a box covers, (size, size) booleans; none where it has no area."""
    xmin, ymin, xmax, ymax = (int(size * min(max(value, 0.0), 1.0)) for value in box)
    mask = np.zeros((size, size), dtype=bool)
    mask[ymin:ymax, xmin:xmax] = True
    return mask


def truth_map(boxes: Sequence[Box], agreement: int = 1, size: int = SIZE) -> NDArray[np.float64]:
    """The map that predictions are held against, (size, size) in 0 to 1.

    Args:
        boxes: True boxes; none gives an empty map.
        agreement: Boxes that must cover a point for it to count whole: with 1 the map is their union (VGGSS), with 2 a
            point in one box alone counts a half (Flickr-SoundNet).
        size: Points on a side.
    """
    total = np.zeros((size, size))
    for box in boxes:
        total += box_mask(box, size)
    return np.minimum(total / agreement, 1.0)


def box_ciou(boxes: Sequence[Box], truth: Floats) -> Floats:
    """Consensus IoU of each of many boxes with one truth, as `isthmus.metrics.consensus_iou` of their masks gives it.

    All proposals of a picture cost little more than one: see `_map_sums_in_boxes`.

    Args:
        boxes: n boxes.
        truth: (size, size) map.

    Returns:
        (n,) 0 to 1; all 0 where the truth is empty.
    """
    if not len(boxes) or not truth.any():
        return np.zeros(len(boxes))
    edges = (len(truth) * np.clip(np.array(boxes, dtype=np.float64), 0.0, 1.0)).astype(np.int64)
    hit, miss = _map_sums_in_boxes(truth, edges), _map_sums_in_boxes((truth == 0.0).astype(np.float64), edges)
    return np.asarray(hit / (truth.sum() + miss), dtype=np.float64)


def _map_sums_in_boxes(values: Floats, edges: NDArray[np.int64]) -> Floats:
    """Sums of a ground-truth map inside each box of a picture, edges (n, 4) as xmin, ymin, xmax, ymax.

    The map is first summed into the cells between all edges, which sliding windows share.
    """
    xs, ys = (np.unique(np.append(edges[:, pair], 0)) for pair in ([0, 2], [1, 3]))
    rows = np.add.reduceat(values, ys[ys < len(values)], axis=0)
    cells = np.add.reduceat(rows, xs[xs < len(values)], axis=1)
    total = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1))
    total[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
    xmin, xmax = (np.searchsorted(xs, edges[:, i]) for i in (0, 2))
    ymin, ymax = (np.searchsorted(ys, edges[:, i]) for i in (1, 3))
    sums = total[ymax, xmax] - total[ymin, xmax] - total[ymax, xmin] + total[ymin, xmin]
    return np.where((xmax > xmin) & (ymax > ymin), sums, 0.0)


@dataclass(frozen=True)
class Located:
    """Parts of pictures that were chosen in each of n samples of a localization.

    Attributes:
        chosen: (n,) number of the chosen proposal of its picture; -1 where nothing was proposed.
        confidence: (n,) cosine of the chosen part and the sound; -1 where nothing was proposed.
        ciou: (n,) consensus IoU of the chosen box; 0 where nothing sounds.
        sounding: (n,) whether the sample has true boxes.
    """

    chosen: NDArray[np.int64]
    confidence: Floats
    ciou: Floats
    sounding: NDArray[np.bool_]


@dataclass(frozen=True)
class _Question:
    """One sample in rows of what was encoded: its sound, the parts of its picture, and how right each of them is."""

    sound: int
    parts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ciou: Floats


@dataclass(frozen=True)
class PlaceTruth:
    """Localisation: which boxes of a picture are right for a sound.

    Attributes:
        task: Samples and their true boxes.
        proposals: By picture, its boxes.
    """

    task: Localization
    proposals: Proposals

    def scorer(self, query: Sequence[str], target: Sequence[str], how: Settings) -> Score:
        """See `isthmus.evaluation.suite.questions.Truth`; the query are sounds, the target parts of pictures.

        A sample whose sound, or all of whose parts, could not be embedded enters no score and is counted as `lost`; one
        for whose picture nothing was proposed counts as not found.
        """
        samples, questions = self._questions(query, target)
        if not any(sample.boxes for sample in samples):
            raise EvaluationError(
                f"none of the {len(self.task.samples):,} samples has a true box and was encoded. Check that sounds and "
                "pictures were encoded: see their rejected.parquet."
            )
        sounding = np.array([len(sample.boxes) > 0 for sample in samples])
        chance = self._random_proposal_scores(questions, sounding)

        def run(sounds: Array, parts: Array) -> TaskScore:
            located = locate(questions, sounding, sounds, parts)
            answer = localization_score(located, how, counterfactual=self.task.counterfactual, chance=chance)
            return replace(answer, figures={**answer.figures, "lost": len(self.task.samples) - len(samples)})

        return run

    def _questions(self, query: Sequence[str], target: Sequence[str]) -> tuple[list[Sample], list[_Question]]:
        """Samples that were encoded, each with its sound, the parts of its picture and their overlap with the truth."""
        sounds, parts = ({name: row for row, name in enumerate(ids)} for ids in (query, target))
        rows = {
            image: np.array([parts.get(crop_id(image, box), -1) for box in boxes], dtype=np.int64)
            for image, boxes in self.proposals.items()
        }
        samples, questions = [], []
        for sample in self.task.samples:
            offered = self.proposals.get(sample.image, ())
            part_rows = rows.get(sample.image, np.zeros(0, dtype=np.int64))
            numbers = np.flatnonzero(part_rows >= 0)
            if sample.audio in sounds and (len(numbers) or not offered):
                ciou = self._ciou([offered[int(i)] for i in numbers], sample)
                samples.append(sample)
                questions.append(_Question(sounds[sample.audio], part_rows[numbers], numbers, ciou))
        return samples, questions

    def _ciou(self, boxes: Sequence[Box], sample: Sample) -> Floats:
        """Consensus IoU of proposals with the true boxes of a sample."""
        if not sample.boxes:
            return np.zeros(len(boxes))
        return box_ciou(boxes, truth_map(sample.boxes, self.task.agreement))

    def _random_proposal_scores(self, questions: Sequence[_Question], sounding: NDArray[np.bool_]) -> dict[str, float]:
        """Expected scores of a proposal drawn at random, without `ap` and `max_f1`, which need a confidence."""
        cious = [one.ciou if len(one.ciou) else np.zeros(1) for one, s in zip(questions, sounding, strict=True) if s]
        hit = float(np.mean([np.mean(one >= 0.5) for one in cious]))
        if self.task.counterfactual:
            return {"loc_acc": hit}
        return {"ciou": hit, "auc": float(np.mean([_areas(one).mean() for one in cious]))}


def _areas(ciou: Floats) -> Floats:
    """Share of each item in the area under the success curve, whose mean it is: the thresholds that it reaches."""
    reached = np.searchsorted(_THRESHOLDS, ciou, side="right") - 1
    return np.asarray(np.minimum(0.05 * reached + 0.025, 1.0), dtype=np.float64)


def locate(questions: Sequence[_Question], sounding: NDArray[np.bool_], sounds: Array, parts: Array) -> Located:
    """Choose in each sample the part nearest to the sound; of equal ones the first.

    Raises:
        EvaluationError: All parts of every picture are one embedding, as when an encoder does not cut out boxes.
    """
    _check_cut(questions, parts)
    chosen = np.full(len(questions), -1, dtype=np.int64)
    confidence, ciou = np.full(len(questions), -1.0), np.zeros(len(questions))
    for row, one in enumerate(questions):
        if len(one.parts):
            cosines = parts[one.parts].astype(np.float64) @ sounds[one.sound].astype(np.float64)
            best = int(np.argmax(cosines))
            chosen[row], confidence[row], ciou[row] = one.numbers[best], cosines[best], one.ciou[best]
    return Located(chosen, confidence, ciou, sounding)


def _check_cut(questions: Sequence[_Question], parts: Array) -> None:
    """Refuse parts that are all one embedding, which no box was cut for."""
    several = False
    for one in questions:
        for a, b in itertools.pairwise(one.parts):
            if not np.array_equal(parts[a], parts[b]):
                return
            several = True
    if several:
        raise EvaluationError(
            "all parts of every picture have one embedding: the image encoder does not cut out an item's box. Decode "
            "with isthmus.items.decoding.image.open_image(item) in its decoder."
        )


def localization_score(
    located: Located, how: Settings, *, counterfactual: bool, chance: Mapping[str, float] | None = None
) -> TaskScore:
    """Figures of what was found.

    `ciou` and `auc` are over the sounding samples; a counterfactual task has `ap`, `max_f1` and `loc_acc` instead.
    Means over samples have intervals.
    """
    cious = located.ciou[located.sounding]
    if counterfactual:
        figures: dict[str, Any] = dict(counterfactual_scores(located.ciou, located.confidence, located.sounding))
        values = {"loc_acc": (cious >= 0.5).astype(np.float64)}
    else:
        figures = dict(localization_scores(cious))
        values = {"ciou": (cious >= 0.5).astype(np.float64), "auc": _areas(cious)}
    if how.bootstrap:
        ends = bootstrap_intervals(values, seed=how.seed, n=how.bootstrap)
        figures.update({f"{name}_ci95": list(pair) for name, pair in ends.items()})
    return TaskScore({**figures, "n": len(located.ciou)}, dict(chance or {}), {"": [values]})


def localization_task(task: Localization, proposals: Proposals, *, limit: int | None = None) -> ScoringTask:
    """Take a localisation apart: sounds to encode, parts of pictures to encode, and which part is right.

    Args:
        task: What a reader made of the data set.
        proposals: By picture, its boxes (see `isthmus.evaluation.suite.proposals`).
        limit: Only so many samples, of a counterfactual task half of each kind.

    Raises:
        EvaluationError: The pictures are embeddings, which cannot be cut.
    """
    task = task if limit is None else _shortened(task, limit)
    target = crops(task, proposals)
    bare = sum(sample.image not in proposals for sample in task.samples)
    counts = {
        "n_samples": len(task.samples),
        "n_sounding": sum(len(sample.boxes) > 0 for sample in task.samples),
        "n_images": len(task.image.ids),
        "n_proposals": len(target.ids),
        "without_proposals": bare,
        "whole_picture": whole_picture(task),
    }
    notes = [f"{bare:,} samples have a picture without a proposal; they count as not found."] if bare else []
    return ScoringTask(task.audio, target, PlaceTruth(task, proposals), counts, notes)


def whole_picture(task: Localization) -> dict[str, float]:
    """Scores of the whole picture as a box on the sounding samples: large sources make that a strong guess."""
    maps = (truth_map(sample.boxes, task.agreement) for sample in task.samples if sample.boxes)
    scores = localization_scores([float(box_ciou([(0.0, 0.0, 1.0, 1.0)], truth)[0]) for truth in maps])
    return {"loc_acc": scores["ciou"]} if task.counterfactual else scores


def _shortened(task: Localization, limit: int) -> Localization:
    """The first samples of a localization, half of each kind where it is counterfactual."""
    sounding = [sample for sample in task.samples if sample.boxes]
    silent = [sample for sample in task.samples if not sample.boxes]
    fewer = min(len(silent), limit // 2) if task.counterfactual else 0
    samples = [*sounding[: limit - fewer], *silent[:fewer]]
    images, sounds = ({getattr(sample, name) for sample in samples} for name in ("image", "audio"))
    return replace(task, image=_only(task.image, images), audio=_only(task.audio, sounds), samples=samples)


def _only(side: ItemSet, ids: set[str]) -> ItemSet:
    """Items of a set that have one of these ids."""
    return replace(side, items=[item for item in side.items if item.id in ids])
