"""Projected rows as one parquet with a picture of the space: what embedding-atlas and a notebook open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.errors import ConfigError
from isthmus.search.gallery import index_of

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

SAMPLE = 50_000
"""Rows that the two axes are taken from; all rows are placed on them."""


def write_parquet(bridge: Bridge, embeddings: Sequence[Embeddings], path: Path) -> int:
    """Write modalities of spaces in the unified space as a parquet.

    Columns: id, gallery, modality, vector, projection_x, projection_y, and the metadata.

    The projection is the first two principal components after each modality's mean is removed: without that the first
    axis would show the modality gap alone.

    Args:
        bridge: The bridge.
        embeddings: Modalities of spaces, projected already or not.
        path: The file.

    Returns:
        Rows.

    Raises:
        ConfigError: There is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not embeddings:
        raise ConfigError("parquet needs spaces to write: --gallery S.space/M, repeatable.")
    index = index_of(bridge, embeddings)
    rows = index.embeddings
    places = principal_plane(rows, index.modalities)
    columns: dict[str, Any] = {
        "id": index.ids,
        "gallery": index.galleries,
        "modality": index.modalities,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), bridge.dim),
        "projection_x": places[:, 0],
        "projection_y": places[:, 1],
    }
    metadata = index.metadata
    for name in metadata.column_names:
        columns.setdefault(name, metadata.column(name))
    pq.write_table(pa.table(columns), path, compression="zstd")
    return len(rows)


def principal_plane(rows: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """First two principal components of unit rows (n, d), each modality's mean removed, (n, 2) float32."""
    names = np.asarray(modalities)
    centred = np.array(rows, np.float32)
    for name in dict.fromkeys(modalities):
        own = names == name
        centred[own] -= centred[own].mean(axis=0)
    sample = centred[np.linspace(0, len(centred) - 1, min(SAMPLE, len(centred))).astype(int)]
    _, vectors = np.linalg.eigh(sample.T.astype(np.float64) @ sample.astype(np.float64))
    axes = vectors[:, -1:-3:-1]
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    # Signs of eigenvectors are free: the largest entry is made positive, so that two runs agree.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(2)] < 0, -1.0, 1.0)
    return np.asarray(centred @ axes.astype(np.float32), np.float32)
