"""A kind's pseudo pairs as sparse weights: rows and weights on disk, averages made anew when a batch is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isthmus.errors import FormatError
from isthmus.memory import SparseWeights
from isthmus.pairs.aggregation import Aggregation
from isthmus.pairs.cache import Block
from isthmus.pairs.columns import Column, OwnRows, Recomposed
from isthmus.pairs.kinds import KindPlan
from isthmus.pairs.side import Slot


def weigh_kind(plan: KindPlan, aggregation: Aggregation) -> tuple[list[SparseWeights], dict[str, dict[str, object]]]:
    """Weights of a kind's hops, each of queries that the hops before it give, and their records by name.

    Raises:
        CheckFailed: The weights of a hop are not sparse.
    """
    weights: list[SparseWeights] = []
    records: dict[str, dict[str, object]] = {}
    for hop in plan.hops:
        hop_weights, records[hop.name] = aggregation.weigh(hop, compose(plan, weights, aggregation)[hop.query_slot])
        weights.append(hop_weights)
    return weights, records


def compose(plan: KindPlan, weights: Sequence[SparseWeights], aggregation: Aggregation) -> dict[Slot, Column]:
    """The columns that a kind's own rows and its first hops give."""
    columns: dict[Slot, Column] = {slot: OwnRows(own, plan.rows) for slot, own in plan.own.items()}
    unit = aggregation.config.normalize_aggregates
    for hop, hop_weights in zip(plan.hops, weights, strict=False):
        for slot in hop.filled:
            columns[slot] = Recomposed(hop_weights, aggregation.values(slot), unit=unit)
    return columns


def to_arrays(weights: Sequence[SparseWeights]) -> dict[str, np.ndarray]:
    """Weights as arrays for a block of the store."""
    return {f"{n}/{part}": getattr(w, part) for n, w in enumerate(weights) for part in ("starts", "entries")}


def from_block(plan: KindPlan, block: Block, aggregation: Aggregation) -> list[SparseWeights] | None:
    """A block's arrays as the weights of a kind, or None where they are damaged."""
    try:
        weights = [
            SparseWeights(
                np.asarray(block.columns[f"{n}/starts"]),
                np.asarray(block.columns[f"{n}/entries"]),
                len(aggregation.memory(hop.memory)),
            )
            for n, hop in enumerate(plan.hops)
        ]
    except (KeyError, FormatError):
        return None
    return weights if all(len(w) == len(plan) for w in weights) else None
