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

    Each group loses its centroid first: contrastive spaces keep modalities apart, and the map would show little else.

    Args:
        groups: A modality's (n, dim) unit rows each.
        seed: Of the layout.

    Returns:
        (sum of n, 2) between 0 and 1: t-SNE (van der Maaten and Hinton 2008) from a start by principal components.
    """
    rows = np.concatenate([normalize(group - centroid(group) + 1e-9) for group in groups if len(group)])
    if len(rows) < FEW:
        centred = rows - rows.mean(axis=0)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(rows), 2))
        flat[:, : min(2, len(values))] = (left * values)[:, :2]
    else:
        from sklearn.manifold import TSNE

        layout = TSNE(2, perplexity=PERPLEXITY, init="pca", metric="cosine", random_state=seed, max_iter=500)
        flat = layout.fit_transform(rows)
    low, high = np.quantile(flat, [0.002, 0.998], axis=0)
    return np.asarray(np.clip(0.03 + 0.94 * (flat - low) / np.maximum(high - low, 1e-12), 0.01, 0.99))


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
