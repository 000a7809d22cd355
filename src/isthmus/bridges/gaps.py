"""Modality gaps before and after a bridge, all measured on one sample of rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from isthmus.core.geometry import Array, evenly_spaced, modality_gap

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

GAP_ROWS = 1024
"""Rows a modality whose centroid is taken for the gap: its standard error is then below 1/32, and projecting them does
not outlast the fit of a closed form."""

Modalities = Mapping[str, Array]
"""Unit rows (n, d) of a space, by modality."""


def gap_sample(embeddings: Embeddings) -> Array:
    """The unit rows of a modality on disk whose centroid stands for all."""
    return embeddings.unit(evenly_spaced(len(embeddings), GAP_ROWS))


def gaps(rows: Modalities) -> dict[str, float]:
    """Modality gaps between every two sets of unit rows of one space, by "one - other"."""
    sample = {name: each[evenly_spaced(len(each), GAP_ROWS)] for name, each in rows.items()}
    return {f"{a} - {b}": modality_gap(sample[a], sample[b]) for a, b in combinations(sample, 2)}


def gaps_before(spaces: Mapping[str, Modalities]) -> dict[str, float]:
    """Modality gaps inside each space as it came, where the spaces cannot be compared with each other yet."""
    gaps_by_name: dict[str, float] = {}
    for name, modalities in spaces.items():
        gaps_by_name |= gaps({f"{name}/{modality}": rows for modality, rows in modalities.items()})
    return gaps_by_name


def gaps_after(bridge: Bridge, spaces: Mapping[str, Modalities], unified: Modalities | None = None) -> dict[str, float]:
    """Modality gaps between all modalities in the unified space.

    Args:
        bridge: What projects.
        spaces: By the names of the bridge's spaces, what is projected.
        unified: By name, unit rows that lie in the unified space already.
    """
    projected = dict(unified or {})
    for name, modalities in spaces.items():
        for modality, rows in modalities.items():
            sample = rows[evenly_spaced(len(rows), GAP_ROWS)]
            projected[f"{name}/{modality}"] = bridge.project(sample, space=name, modality=modality)
    return gaps(projected)
