"""The map: items of all galleries in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, centroid, normalize

PERPLEXITY = 25.0
FEW = 50
"""Below this many items neighbourhoods mean little: principal components are shown."""
COLUMNS, VALUES = 8, 80
"""Most metadata columns that colour the map, and longest value shown."""


def lay_out(groups: Sequence[Array], *, seed: int = 0) -> NDArray[np.float64]:
    """Coordinates of rows in the unit square.

    Each group loses its centroid, and cosines are standardised within every pair of groups: contrastive spaces keep
    modalities apart, and cosines within one are higher than across; the map would show islands and little else.

    Args:
        groups: A modality's (n, dim) unit rows each.
        seed: Of the layout.

    Returns:
        (sum of n, 2) between 0 and 1: t-SNE (van der Maaten and Hinton 2008) from a start by principal components.
    """
    parts = [normalize(group - centroid(group) + 1e-9) for group in groups if len(group)]
    rows = np.concatenate(parts)
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(rows), 2))
    flat[:, : min(2, len(values))] = (left * values)[:, :2]
    if len(rows) >= FEW:
        from sklearn.manifold import TSNE

        start = flat / max(float(flat[:, 0].std()), 1e-12) * 1e-4
        layout = TSNE(2, perplexity=PERPLEXITY, init=start, metric="precomputed", random_state=seed, max_iter=500)
        flat = layout.fit_transform(_distances(parts))
    low, high = np.quantile(flat, [0.002, 0.998], axis=0)
    return np.asarray(np.clip(0.03 + 0.94 * (flat - low) / np.maximum(high - low, 1e-12), 0.01, 0.99))


def _distances(parts: Sequence[Array]) -> Array:
    """How far items are from each other, (n, n), counted in deviations of the cosines between their two groups."""
    ends = np.cumsum([len(part) for part in parts])
    spans = [slice(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
    near = np.empty((ends[-1], ends[-1]), dtype=np.float32)
    for part, rows in zip(parts, spans, strict=True):
        for other, columns in zip(parts, spans, strict=True):
            cosines = part @ other.T
            same = np.eye(len(part), dtype=bool) if rows == columns else np.zeros(cosines.shape, dtype=bool)
            others = cosines[~same]
            if len(others):
                cosines = (cosines - others.mean()) / max(float(others.std()), 1e-6)
            cosines[same] = -np.inf  # an item is no neighbour of its own: not counted in the largest below
            near[rows, columns] = cosines
    far: Array = near.max() - near
    far = (far + far.T) / 2
    np.fill_diagonal(far, 0)
    return far


def shown_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[str | float | None]]:
    """Metadata by column, as short words and numbers: `text` and up to `COLUMNS` others, never paths."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if name != "id" and not name.endswith("_path")]
    names = [name for name in names if name == "text"] + [name for name in names if name != "text"][:COLUMNS]
    return {name: [_short(row.get(name)) for row in rows] for name in names}


def _short(value: Any) -> str | float | None:
    if value is None or isinstance(value, (int, float)):
        return None if value is None or value != value else value
    return str(value)[:VALUES]
