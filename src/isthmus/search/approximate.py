"""Approximate search by faiss: HNSW or IVF over the rows of an index, set so that a measured recall is reached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isthmus.core.geometry import Array, normalize
from isthmus.errors import ConfigError, DependencyError
from isthmus.search.rows import Mask, exact_nearest
from isthmus.spaces.embeddings import RowNumbers

KINDS = ("ivf", "hnsw")
SAMPLE = 256
"""Queries on which recall is measured."""
TRAINING_ROWS_A_CELL = 64
FEWEST_ROWS = 1_000


@dataclass(frozen=True)
class AnnSettings:
    """Settings of an approximate index: kind, effort, recall.

    Attributes:
        kind: `ivf` (cells of k-means: built in minutes for millions of rows, and the same from run to run) or `hnsw`
            (a graph: faster to search, slower to build, takes about 260 bytes a row more).
        effort: Cells that are read (ivf), or length of the candidate list (hnsw), a query.
        recall: Share of the exact 10 nearest that was found on the sample with this effort.
        target: The recall that was asked for.
    """

    kind: str
    effort: int
    recall: float
    target: float


class Approximate:
    """A faiss index over some places of a matrix of unit rows.

    Args:
        faiss_index: The index; its ids are positions in `places`.
        places: (m,) the place in the matrix of each of its rows, -1 where that row changed or is gone since.
        settings: How it is searched.
    """

    def __init__(self, faiss_index: Any, places: RowNumbers, settings: AnnSettings) -> None:
        self.index, self.places, self.settings = faiss_index, places, settings

    @property
    def stale(self) -> int:
        """Rows of the faiss index that do not count any more."""
        return int(np.count_nonzero(self.places < 0))

    def drop(self, places: RowNumbers) -> None:
        """Let rows that changed, or are gone, not count."""
        self.places[np.isin(self.places, places)] = -1

    def moved(self, survivors: RowNumbers, size: int) -> None:
        """Follow a matrix of `size` places that was made dense, of which `survivors` stayed."""
        new = np.full(size, -1, np.int64)
        new[survivors] = np.arange(len(survivors))
        self.places = np.where(self.places < 0, -1, new[np.maximum(self.places, 0)])

    def covered(self, size: int) -> Mask:
        """(size,) which places of the matrix it knows."""
        known = np.zeros(size, bool)
        known[self.places[self.places >= 0]] = True
        return known

    def nearest(self, queries: Array, k: int, wanted: Mask) -> RowNumbers:
        """(q, k) places of rows that are probably the nearest of those wanted, -1 where fewer were found."""
        allowed = (self.places >= 0) & wanted[np.maximum(self.places, 0)]
        selector = None if allowed.all() else np.packbits(allowed, bitorder="little")
        _, positions = self.index.search(queries, k, params=self._parameters(selector, k))
        return np.where(positions < 0, -1, self.places[np.maximum(positions, 0)]).astype(np.int64)

    def _parameters(self, selector: Any, k: int) -> Any:
        """Search parameters of faiss: effort, and the places that may be hits."""
        faiss = load_faiss()
        options: dict[str, Any] = {}
        if selector is not None:
            options["sel"] = faiss.IDSelectorBitmap(selector)
        if self.settings.kind == "ivf":
            return faiss.SearchParametersIVF(nprobe=self.settings.effort, **options)
        return faiss.SearchParametersHNSW(efSearch=max(self.settings.effort, 2 * k), **options)


def build(
    matrix: Array, places: RowNumbers, *, kind: str, target: float, seed: int, queries: Array | None
) -> Approximate:
    """Build a faiss index over the rows of these places and set its effort so that the target recall is reached.

    Args:
        matrix: (n, d) unit rows.
        places: (m,) the places that hold a row.
        kind: `ivf` or `hnsw`.
        target: Recall at 10 to reach on the sample, 0 to 1.
        seed: Seed of k-means and of the sample.
        queries: (q, d) unit rows such as will be searched with; None takes a sample of the rows and of sums of two.

    Raises:
        ConfigError: An unknown kind, a target out of range, or too few rows.
        DependencyError: faiss is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of approximate index {kind!r}. Expected one of {', '.join(KINDS)}.")
    if not 0 < target <= 1:
        raise ConfigError(f"the recall to reach is {target}, expected a share above 0 and at most 1, such as 0.95.")
    if len(places) < FEWEST_ROWS:
        raise ConfigError(
            f"an approximate index of {len(places):,} rows is slower than exact search. Expected {FEWEST_ROWS:,} rows "
            "or more; leave it out."
        )
    rows = matrix if len(places) == len(matrix) else matrix[places]
    index = _ivf(rows, seed) if kind == "ivf" else _hnsw(rows)
    most = index.nlist if kind == "ivf" else 4096
    approximate = Approximate(index, places.copy(), AnnSettings(kind, 1, 0.0, target))
    sample = _sample(rows, seed) if queries is None else queries
    living = np.zeros(len(matrix), bool)
    living[places] = True
    truth = exact_nearest(matrix, sample, 10, None if living.all() else living)[1]
    effort = 8 if kind == "ivf" else 32
    while True:
        approximate.settings = replace(approximate.settings, effort=min(effort, most))
        reached = _recall(approximate.nearest(sample, 10, living), truth)
        approximate.settings = replace(approximate.settings, recall=round(reached, 4))
        if reached >= target or effort >= most:
            return approximate
        effort *= 2


def _recall(neighbours: RowNumbers, truth: RowNumbers) -> float:
    """Share of the exact nearest rows that an approximate index gave."""
    hits = sum(len(np.intersect1d(one, other)) for one, other in zip(neighbours, truth, strict=True))
    return hits / truth.size


def _sample(rows: Array, seed: int) -> Array:
    """Queries near rows and between rows: a query of another modality lies further off than a row does."""
    rng = np.random.default_rng(seed)
    one, other = (rows[rng.integers(0, len(rows), SAMPLE)] for _ in range(2))
    half = SAMPLE // 2
    return normalize(np.concatenate([one[:half], one[half:] + other[half:]]))


def _ivf(rows: Array, seed: int) -> Any:
    """Inverted-file index of faiss over unit rows."""
    faiss = load_faiss()
    dim = rows.shape[1]
    # About 4 sqrt(n) cells, faiss' own rule of thumb, which balances reading centroids with reading a cell.
    cells = int(max(16, min(4 * np.sqrt(len(rows)), len(rows) / 39)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.spherical = seed + 1234, True
    count = min(len(rows), TRAINING_ROWS_A_CELL * cells)
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    index.train(np.ascontiguousarray(rows[chosen]))
    for start in range(0, len(rows), 65_536):
        index.add(np.ascontiguousarray(rows[start : start + 65_536]))
    return index


def _hnsw(rows: Array) -> Any:
    """HNSW graph of faiss over unit rows."""
    faiss = load_faiss()
    index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    for start in range(0, len(rows), 65_536):
        index.add(np.ascontiguousarray(rows[start : start + 65_536]))
    return index


def load_faiss() -> Any:
    """The module faiss.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(
            "approximate search needs faiss, which is not installed. Install it: pip install 'isthmus[index]'."
        ) from error
    return faiss
