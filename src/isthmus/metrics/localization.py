"""Sound source localisation and counterfactual recognition, as the published evaluators compute them.

Definitions: Localizing Visual Sounds the Hard Way (Chen et al., CVPR 2021) for the consensus IoU and its area under the
curve; SLAVC (Mo and Morgado, NeurIPS 2022) for average precision, max-F1 and LocAcc on sets extended by items that do
not sound. Their quirks are kept on purpose, so that figures compare with published tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import EvaluationError
from isthmus.metrics.checks import mask_matrix, vector

# The published code multiplies, so that 0.15 and 0.30 stand a last bit above the decimal fractions.
_THRESHOLDS = np.array([0.05 * i for i in range(21)])


def consensus_iou(prediction_mask: Any, truth_map: Any) -> float:
    """Consensus intersection over union of one item: sum(P * G) / (sum(G) + area of P where G is 0).

    The denominator holds the sum of G, not its area, so that a pixel that half the annotators marked weighs a half.

    Args:
        prediction_mask: (h, w) booleans, P.
        truth_map: (h, w) numbers in [0, 1], G: annotators' agreement, or a union of boxes.

    Returns:
        0 to 1. An empty truth gives 0, whatever was predicted (0 / 0 in the published code).

    Raises:
        EvaluationError: Shapes that do not fit, a mask that is not binary, or a truth outside [0, 1].
    """
    truth = np.asarray(truth_map, dtype=np.float64)
    mask = mask_matrix(prediction_mask, truth.shape, "prediction_mask")
    if not ((truth >= 0.0) & (truth <= 1.0)).all():
        raise EvaluationError("truth_map must lie in [0, 1] everywhere; clip the sum of the annotators' boxes first.")
    union = truth.sum() + np.count_nonzero(mask & (truth == 0.0))
    return float(truth[mask].sum() / union) if truth.any() else 0.0


def localization_scores(ciou: Any) -> dict[str, float]:
    """Success rate and area under the success curve.

    Args:
        ciou: (n,) consensus IoU of each item.

    Returns:
        {"ciou": share of items with at least 0.5, "auc": trapezoid over the thresholds 0, 0.05, ..., 1 of the share of
        items with at least the threshold}.

    Raises:
        EvaluationError: Empty, not one-dimensional, or NaN.
    """
    values = vector(ciou, "ciou")
    success = (values[None, :] >= _THRESHOLDS[:, None]).mean(axis=1)
    area = float((np.diff(_THRESHOLDS) * (success[1:] + success[:-1]) / 2).sum())
    return {"ciou": float(np.mean(values >= 0.5)), "auc": area}


def _precision_recall(
    thresholds: NDArray[np.float64],
    confidence: NDArray[np.float64],
    true: NDArray[np.bool_],
    sounding: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall at each threshold; an item is detected when its confidence reaches it.

    A sounding item detected in the wrong place is a false positive and not a miss: recall is TP / (TP + undetected).
    """

    def detected(which: NDArray[np.bool_]) -> NDArray[np.float64]:
        ordered = np.sort(confidence[which])
        return (len(ordered) - np.searchsorted(ordered, thresholds, side="left")).astype(np.float64)

    hits, everything = detected(true), detected(np.ones_like(true))
    wanted = hits + (sounding.sum() - detected(sounding))
    precision = np.divide(hits, everything, out=np.ones_like(hits), where=everything > 0)
    recall = np.divide(hits, wanted, out=np.ones_like(hits), where=wanted > 0)
    return precision, recall


def counterfactual_scores(ciou: Any, confidence: Any, sounding: Any, iou_threshold: float = 0.5) -> dict[str, float]:
    """Detection and localisation where some items hold no sounding object (Extended VGGSS and Flickr-SoundNet).

    AP walks the ascending confidences without the largest from the top down, every max(1, n // 200)-th of them, and
    sums (R[i+1] - R[i]) times the best precision from i on, so that the recall of the first step earns nothing. F1
    looks at the ascending confidences, every max(1, n // 10)-th.

    Args:
        ciou: (n,) consensus IoU; not looked at where nothing sounds.
        confidence: (n,) how sure the model is that something in the picture sounds.
        sounding: (n,) booleans, false for the items without a sounding object.
        iou_threshold: IoU from which a detection is in the right place.

    Returns:
        {"ap", "max_f1", "loc_acc"}; loc_acc is the share of sounding items in the right place, NaN if none sounds.

    Raises:
        EvaluationError: Empty, shapes that do not fit, or NaN.
    """
    sure = vector(confidence, "confidence")
    sounds = mask_matrix(sounding, sure.shape, "sounding")
    iou = vector(ciou, "ciou", size=len(sure), where=sounds)
    true = sounds & (iou >= iou_threshold)
    ascending = np.sort(sure)
    precision, recall = _precision_recall(ascending[:-1][:: -max(1, len(sure) // 200)], sure, true, sounds)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    p, r = _precision_recall(ascending[:: max(1, len(sure) // 10)], sure, true, sounds)
    f1 = np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)
    return {
        "ap": float((best_from[:-1] * np.diff(recall)).sum()),
        "max_f1": float(f1.max()),
        "loc_acc": float(true.sum() / sounds.sum()) if sounds.any() else float("nan"),
    }
