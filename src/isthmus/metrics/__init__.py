"""Metrics on plain arrays: retrieval, classification, localisation, alignment, chance and bootstrap intervals.

Embeddings too many for a score matrix go through `isthmus.metrics.retrieval.retrieval`.
"""

from __future__ import annotations

from isthmus.core.geometry import modality_gap
from isthmus.metrics.bootstrap import bootstrap_ci, bootstrap_intervals
from isthmus.metrics.chance import chance_figures
from isthmus.metrics.classification import accuracy_at_k, multilabel_map
from isthmus.metrics.dense import foscttm, retrieval_scores
from isthmus.metrics.localization import consensus_iou, counterfactual_scores, localization_scores
from isthmus.metrics.ranks import Ranking

__all__ = [
    "Ranking",
    "accuracy_at_k",
    "bootstrap_ci",
    "bootstrap_intervals",
    "chance_figures",
    "consensus_iou",
    "counterfactual_scores",
    "foscttm",
    "localization_scores",
    "modality_gap",
    "multilabel_map",
    "retrieval_scores",
]
