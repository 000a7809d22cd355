"""What a recipe asks of its projectors: a loss on noisy batches, and held-out scores on clean ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from isthmus.pairs.side import Slot

Batch = dict[Slot, Tensor]
"""(batch, dim) unit rows per modality of each side; row i of all of them is one pseudo pair."""
LossParts = dict[str, float | Tensor]


class Objective(Protocol):
    """What a recipe gives the loop: a loss on noisy batches and aligned embeddings to score on clean ones."""

    def loss(self, batch: Batch) -> tuple[Tensor, LossParts]:
        """The loss of a batch, and its parts by name for the log."""
        ...

    def aligned(self, batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        """Row-aligned unit embeddings whose retrieval on held-out pseudo pairs says how good the projectors are."""
        ...


Aligned = Callable[[Batch], list[tuple[str, Tensor, Tensor]]]


@torch.no_grad()
def held_out_scores(aligned: Aligned, batch: Batch) -> dict[str, float]:
    """Mean reciprocal rank and recall at 1, both directions averaged, of every aligned pair; and their mean, `score`.

    A tie ranks behind, so that a collapsed projector scores nothing.

    Args:
        aligned: An objective's `aligned`.
        batch: Clean rows, the same for every checkpoint that is compared.
    """
    scores: dict[str, float] = {}
    for name, x, y in aligned(batch):
        cosines = x @ y.T
        own = cosines.diagonal()
        ranks = torch.cat([(cosines >= own[:, None]).sum(1), (cosines >= own[None]).sum(0)]).float()
        scores[f"{name} mrr"] = float(ranks.reciprocal().mean())
        scores[f"{name} r@1"] = float((ranks == 1).float().mean())
    mrr = [value for key, value in scores.items() if key.endswith("mrr")]
    return {"score": sum(mrr) / len(mrr), **scores}
