"""Centring: each modality's centroid removed from its rows, so that one modality's rows do not crowd another's out.

Contrastive spaces keep their modalities apart (Liang et al., arXiv 2203.02053; GR-CLIP, arXiv 2507.19054).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isthmus.core.geometry import Array, centroid, normalize
from isthmus.errors import ConfigError
from isthmus.search.rows import Mask


def add_centroids(
    centroids: dict[str, Array], rows: Array, modalities: Sequence[str], living: Mask | None = None
) -> None:
    """Set the centroid of every modality that has none yet, from these (n, d) rows, of which `living` count."""
    names = np.asarray(modalities)
    living = np.ones(len(rows), bool) if living is None else living
    for name in dict.fromkeys(names[living].tolist()):
        if name not in centroids:
            centroids[name] = centroid(rows[np.flatnonzero((names == name) & living)])


def centred(rows: Array, modalities: Sequence[str], centroids: Mapping[str, Array]) -> Array:
    """(n, d) unit rows minus the centroid of their modality, at unit length; those of modalities without one as is."""
    out = np.array(rows, np.float32)
    names = np.asarray(modalities)
    for name, mean in centroids.items():
        own = np.flatnonzero(names == name)
        out[own] = normalize(out[own] - mean)
    return out


def centred_queries(queries: Array, modality: str | None, mean: Any, centroids: Mapping[str, Array]) -> Array:
    """(q, d) queries minus the centroid of their modality, or minus `mean`, at unit length.

    Raises:
        ConfigError: No centroid of the modality is known, and none is given.
    """
    if mean is None and modality not in centroids:
        raise ConfigError(
            f"the index is centred and holds no centroid of {modality!r} queries. "
            f"Give modality= (one of {', '.join(centroids)}) or mean=, the centroid of such items."
        )
    away = centroids[str(modality)] if mean is None else np.asarray(mean, dtype=np.float32)
    return normalize(queries - away)
