"""Exact search: cosines of a chunked float32 product, the best k with ties in the order of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, centroid, normalize
from isthmus.errors import ConfigError, EvaluationError
from isthmus.metrics.checks import embedding_matrix

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

CHUNK = 1 << 16
"""Rows of the index that are multiplied at once."""
SCORES = 1 << 24
"""Scores held at once: 64 MiB of float32."""

ROUNDING = np.float32(4e-6)
"""How far a float32 cosine may lie from the exact one, generously."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Hit:
    """One found item.

    Attributes:
        id: Its id.
        score: Cosine with the query, higher is better.
        row: Its row in the index.
        metadata: What is known of it; empty where the index has no metadata.
    """

    id: str
    score: float
    row: int
    metadata: dict[str, Any] = field(default_factory=dict)


class SearchIndex:
    """Items of one space, ready to be searched.

    Args:
        embeddings: (n, d) rows of any length; they are scaled to unit length.
        ids: (n,) what the items are called; by default their row numbers.
        metadata: A table, or a mapping of columns, with n rows.
        modalities: The modality of every item, or one name for all; only `center` looks at them.
        center: Remove each modality's centroid from its rows and scale them again. Contrastive spaces keep their
            modalities apart, so that an index of several ranks by modality first; centring undoes that (Liang et al.,
            arXiv 2203.02053; GR-CLIP, arXiv 2507.19054). Queries are then centred too; see `search`.

    Raises:
        EvaluationError: Shapes that do not fit, or NaN.
    """

    def __init__(
        self,
        embeddings: Any,
        ids: Sequence[str] | None = None,
        metadata: Any = None,
        *,
        modalities: str | Sequence[str] = "",
        center: bool = False,
    ) -> None:
        self.embeddings = normalize(embedding_matrix(embeddings, "embeddings"))
        n = len(self.embeddings)
        self.ids = [str(each) for each in (range(n) if ids is None else ids)]
        self.metadata = metadata
        self.centroids: dict[str, Array] = {}
        for what, size in (("ids", len(self.ids)), ("metadata", n if metadata is None else _rows(metadata))):
            if size != n:
                raise EvaluationError(f"the index has {n:,} embeddings and {size:,} {what}. Expected as many.")
        if center:
            self._center([modalities] * n if isinstance(modalities, str) else modalities)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return f"SearchIndex({len(self):,} x {self.embeddings.shape[1]})"

    def _center(self, modalities: Sequence[str]) -> None:
        if len(modalities) != len(self):
            raise EvaluationError(f"the index has {len(self):,} embeddings and {len(modalities):,} modalities.")
        names = np.asarray(modalities)
        for name in dict.fromkeys(modalities):
            rows = np.flatnonzero(names == name)
            self.centroids[name] = centroid(self.embeddings[rows])
            self.embeddings[rows] = normalize(self.embeddings[rows] - self.centroids[name])

    @classmethod
    def from_bridge(
        cls, bridge: Bridge, *embeddings: Embeddings, force: bool = False, center: bool = False
    ) -> SearchIndex:
        """Project modalities of spaces through a bridge and index them together.

        Args:
            bridge: The bridge.
            embeddings: One or several modalities of spaces; their metadata is kept where there is only one.
            force: Project embeddings of another encoder too.
            center: Remove each modality's centroid.

        Raises:
            FingerprintError: Embeddings come from an encoder that the bridge does not know.
            ConfigError: Nothing is given.
        """
        if not embeddings:
            raise ConfigError("an index needs embeddings, got none. Give modalities of spaces.")
        rows = np.concatenate([bridge.project(each, force=force) for each in embeddings])
        ids = [name for each in embeddings for name in each.ids]
        modalities = [each.modality for each in embeddings for _ in range(len(each))]
        metadata = embeddings[0].metadata if len(embeddings) == 1 else {"modality": modalities}
        return cls(rows, ids, metadata, modalities=modalities, center=center)

    def search(self, queries: Any, k: int = 10, *, modality: str | None = None, mean: Any = None) -> list[list[Hit]]:
        """The k nearest items of each query, best first; equal scores stand in the order of the rows.

        Args:
            queries: (q, d) rows of any length, or one (d,).
            k: How many; all, if the index holds fewer.
            modality: Of the queries; in a centred index, whose centroid is removed from them.
            mean: (d,) that centroid, for a modality that the index does not hold.

        Raises:
            EvaluationError: Another dimension, or NaN.
            ConfigError: `k` is below 1, or the index is centred and the queries' centroid is unknown.
        """
        scores, rows = self.nearest(queries, k, modality=modality, mean=mean)
        return [
            [self._hit(int(row), float(score)) for score, row in zip(*pair, strict=True)]
            for pair in zip(scores, rows, strict=True)
        ]

    def nearest(
        self, queries: Any, k: int = 10, *, modality: str | None = None, mean: Any = None
    ) -> tuple[Array, Rows]:
        """As `search`, as arrays: (q, k) cosines and (q, k) rows."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        array = np.asarray(queries)
        q = normalize(embedding_matrix(array[None] if array.ndim == 1 else array, "queries", self.embeddings.shape[1]))
        q = self._centred(q, modality, mean)
        step = max(1, SCORES // min(CHUNK, len(self)))
        parts = [self._nearest(q[i : i + step], min(k, len(self))) for i in range(0, len(q), step)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _centred(self, queries: Array, modality: str | None, mean: Any) -> Array:
        if not self.centroids:
            return queries
        if mean is None and modality not in self.centroids:
            raise ConfigError(
                f"the index is centred and holds no centroid of {modality!r} queries. "
                f"Give modality= (one of {', '.join(self.centroids)}) or mean=, the centroid of such items."
            )
        away = self.centroids[str(modality)] if mean is None else np.asarray(mean, dtype=np.float32)
        return normalize(queries - away)

    def _nearest(self, queries: Array, k: int) -> tuple[Array, Rows]:
        """Best k of a block of queries: the best of every chunk, and the best of those."""
        parts = []
        for first in range(0, len(self), CHUNK):
            chunk = self.embeddings[first : first + CHUNK]
            which, columns = _candidates(queries @ chunk.T, min(k, len(chunk)))
            # Equal embeddings get other last bits in other places of a float32 product; float64 row by row does not.
            parts.append((which, columns + first, (queries[which].astype(np.float64) * chunk[columns]).sum(axis=1)))
        which, rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((rows, -scores, which))
        starts = np.searchsorted(which[order], np.arange(len(queries)))
        best = order[starts[:, None] + np.arange(k)]
        return scores[best].astype(np.float32), rows[best]

    def _hit(self, row: int, score: float) -> Hit:
        return Hit(self.ids[row], score, row, {} if self.metadata is None else _row(self.metadata, row))


def _candidates(scores: Array, k: int) -> tuple[Rows, Rows]:
    """(row, column) of every score that may be among the k best of its row, once rounding is taken off.

    Of the scores within rounding of the k-th best, no more than k + 64 are kept, the first ones: if more are that
    close, they are ties.
    """
    width = scores.shape[1]
    worst = np.partition(scores, width - k, axis=1)[:, width - k]
    rows, columns = np.nonzero(scores >= (worst - ROUNDING)[:, None])
    band = scores[rows, columns] <= (worst + ROUNDING)[rows]
    before = np.cumsum(band) - band
    place = before - before[np.searchsorted(rows, rows)]  # how many of the row's band stand before
    keep = ~band | (place < k + 64)
    return rows[keep], columns[keep]


def _rows(metadata: Any) -> int:
    if hasattr(metadata, "num_rows"):
        return int(metadata.num_rows)
    sizes = {len(column) for column in metadata.values()}
    return sizes.pop() if len(sizes) == 1 else -1


def _row(metadata: Any, row: int) -> dict[str, Any]:
    if isinstance(metadata, Mapping):
        return {name: column[row] for name, column in metadata.items()}
    found: dict[str, Any] = metadata.slice(row, 1).to_pylist()[0]
    return found
