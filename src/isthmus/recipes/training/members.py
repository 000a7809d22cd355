"""What trained members are as one: their route, what they align, and what a bridge records of their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.bridges.routes import Route
from isthmus.core.version import versions
from isthmus.pairs.pairs import PseudoPairs
from isthmus.recipes.training.loop import TrainingResult
from isthmus.recipes.training.objective import Batch, Objective
from isthmus.recipes.training.projectors import LeafProjector, parameter_count


def mean_route(projectors: Sequence[LeafProjector], modality: str) -> Route:
    """The route of a modality through the mean of several projectors, or through the one there is."""
    chains = [projector.steps(modality, f"{member}.") for member, projector in enumerate(projectors)]
    if len(chains) == 1:
        return chains[0]
    return [{"kind": "blend", "weights": [1.0 / len(chains)] * len(chains), "chains": chains}]


def mean_alignment(members: Sequence[Objective]) -> Callable[[Batch], list[tuple[str, Tensor, Tensor]]]:
    """What several members align as one: the unit mean of their leaf embeddings, for the scores of the whole."""

    def aligned(batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        every = [member.aligned(batch) for member in members]
        return [
            (rows[0][0], F.normalize(torch.stack([x for _, x, _ in rows]).mean(0), dim=-1), rows[0][2])
            for rows in zip(*every, strict=True)
        ]

    return aligned


def training_record(
    recipe: str,
    via: Sequence[str],
    pairs: PseudoPairs,
    results: Sequence[TrainingResult],
    projectors: Sequence[nn.Module],
    *,
    seed: int,
) -> dict[str, Any]:
    """What a bridge records of the training of its members, beside scores."""
    return {
        "recipe": recipe,
        "via": list(via),
        "pseudo_pairs": {"rows": len(pairs), **pairs.composition},
        "effective_neighbours": pairs.effective_neighbours,
        "steps": sum(result.steps for result in results),
        "products": results[0].products,
        "arithmetic": {"pairs": list(pairs.arithmetic), "training": results[0].arithmetic},
        "parameters": sum(map(parameter_count, projectors)),
        "seeds": [seed],
        "versions": versions(),
    }
