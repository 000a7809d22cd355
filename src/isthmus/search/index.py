"""A search index that lives: items of one unified space, added, updated, deleted, filtered, and kept in a folder.

Exact by default: cosines of a chunked float32 product, the best k with ties in the order of the rows. From about
`ANN_ROWS` rows an approximate index pays (`SearchIndex.build_ann`); its hits are scored exactly, and rows that changed
since are searched exactly beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.arrays import to_numpy
from isthmus.core.geometry import Array, normalize
from isthmus.errors import ConfigError
from isthmus.metrics.checks import embedding_matrix
from isthmus.search.approximate import AnnSettings, build
from isthmus.search.centring import centred_queries
from isthmus.search.collection import ItemCollection
from isthmus.search.filter_parser import read_filter
from isthmus.search.filter_tree import Filter
from isthmus.search.filters import mask
from isthmus.search.hits import Hit, Hits
from isthmus.search.nearest import interleave, nearest_places
from isthmus.search.query import QueryItem, combine
from isthmus.search.rows import Mask, renumbered
from isthmus.spaces.embeddings import RowNumbers

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

ANN_ROWS = 500_000
"""From here on `join` builds an approximate index. Below, one exact query takes less than a tenth of a second, which
nobody notices (0.05 s at 500,000 rows of 512 numbers on two cores, 0.6 s at 1,000,000), and the build, which takes 52 s
at 500,000, pays after a thousand queries (`bench/search_index.py`)."""

BALANCES = ("none", "quota")


class SearchIndex(ItemCollection):
    """Items of one unified space, ready to be searched.

    An item is named by its gallery and its id: two galleries may hold one id, one gallery may not hold it twice as soon
    as items are added, updated or deleted.

    Args:
        embeddings: (n, d) rows of any length; they are scaled to unit length.
        ids: (n,) what the items are called; by default their row numbers.
        metadata: A table, or a mapping of columns, with n rows.
        modalities: The modality of every item, or one name for all.
        center: Remove each modality's centroid from its rows and scale them again. Contrastive spaces keep their
            modalities apart, so that an index of several ranks by modality first; centring undoes that (Liang et al.,
            arXiv 2203.02053; GR-CLIP, arXiv 2507.19054). Queries are then centred too; see `search`. The centroids
            are those of the first rows of a modality until `recenter`.
        galleries: The gallery of every item, or one name for all.
        unified: Fingerprint of the bridge (`isthmus.bridges.fingerprint.bridge_fingerprint`) into whose space the rows
            were projected; queries of another bridge are refused by those who know theirs.

    Raises:
        EvaluationError: Shapes that do not fit, or NaN.
    """

    # making

    @classmethod
    def from_bridge(
        cls, bridge: Bridge, *embeddings: Embeddings, force: bool = False, center: bool = False
    ) -> SearchIndex:
        """Project modalities of spaces through a bridge and index them together.

        Args:
            bridge: The bridge.
            embeddings: One or several modalities of spaces, or of spaces that this bridge projected already.
            force: Project embeddings of another encoder too.
            center: Remove each modality's centroid.

        Raises:
            FingerprintError: Embeddings come from an encoder that the bridge does not know.
            ConfigError: Nothing is given.
        """
        from isthmus.search.gallery import index_of

        return index_of(bridge, embeddings, force=force, center=center)

    # searching

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        modality: str | None = None,
        mean: Any = None,
        filter: str | Filter | None = None,
        modalities: Sequence[str] | None = None,
        galleries: Sequence[str] | None = None,
        balance: str = "none",
        quota: Mapping[str, int] | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The k nearest items of each query, best first; equal scores stand in the order of the rows.

        Args:
            queries: (q, d) rows of any length, or one (d,).
            k: How many; all, if fewer items pass.
            modality: Modality of the queries; in a centred index, whose centroid is removed from them.
            mean: (d,) that centroid, for a modality that the index does not hold.
            filter: Only items whose metadata pass, such as `year > 2010 and label in ("dog", "cat")`
                (see `isthmus.search.filter_parser`).
            modalities: Only items of these modalities.
            galleries: Only items of these galleries.
            balance: "none" ranks all items by their cosines. Cosines of two modalities do not compare where the space
                keeps these apart: the nearer modality crowds the other out. "quota" ranks each modality by itself and
                interleaves them: the best of each first, then the second of each, so that each has its share of k.
            quota: Most hits of each modality, which implies "quota"; modalities that are not named get none.
            exact: Pass over the approximate index.

        Raises:
            EvaluationError: Another dimension, or NaN.
            ConfigError: `k` is below 1, the filter cannot be read, or the index is centred and the queries' centroid
                is unknown.
        """
        if balance not in BALANCES:
            raise ConfigError(f"balance is {balance!r}, expected one of {', '.join(BALANCES)}.")
        wanted = self._wanted(filter, modalities, galleries)
        q = self._checked(queries, k, modality, mean)
        if balance == "none" and quota is None:
            return self._hits([self._nearest(q, k, wanted, exact)])
        limits = dict.fromkeys(dict.fromkeys(self.modalities), k) if quota is None else dict(quota)
        names = self._labels.array("modalities")
        living = self._rows.living if wanted is None else wanted
        parts = [self._nearest(q, min(k, n), living & (names == name), exact) for name, n in limits.items() if n > 0]
        ranked = [self._hits([part]) for part in parts]
        return [interleave([hits[number] for hits in ranked], k) for number in range(len(q))]

    def search_items(self, items: Sequence[QueryItem], k: int = 10, **options: Any) -> Hits:
        """Search with several items at once (see `isthmus.search.query.combine`); options are those of `search`.

        In a centred index each item is centred by its own modality before they are added.

        Raises:
            ConfigError: The items cancel each other, or a centroid is unknown.
        """
        if self.centroids:
            vectors = [normalize(np.asarray(item.vector, np.float32)) for item in items]
            items = [
                QueryItem(centred_queries(vector, item.modality, None, self.centroids), item.weight)
                for vector, item in zip(vectors, items, strict=True)
            ]
            options = {**options, "mean": np.zeros(self.dim, np.float32)}
        return self.search(combine(items), k, **options)[0]

    def nearest(
        self, queries: Any, k: int = 10, *, modality: str | None = None, mean: Any = None
    ) -> tuple[Array, RowNumbers]:
        """Nearest items as `search` finds them, as arrays: (q, k) cosines and (q, k) rows."""
        scores, places = self._nearest(self._checked(queries, k, modality, mean), k, None, False)
        return scores, renumbered(self._rows.living)(places)

    def _checked(self, queries: Any, k: int, modality: str | None, mean: Any) -> Array:
        """Unit queries, centred where the index is."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        array = to_numpy(queries)
        q = normalize(embedding_matrix(array[None] if array.ndim == 1 else array, "queries", self.dim))
        return q if not self.centroids else centred_queries(q, modality, mean, self.centroids)

    def _wanted(
        self, filter: str | Filter | None, modalities: Sequence[str] | None, galleries: Sequence[str] | None
    ) -> Mask | None:
        """(size,) which places may be hits, or None for all."""
        wanted = self._rows.living
        if (tree := read_filter(filter)) is not None:
            wanted = wanted & mask(tree, self._metadata.table())
        for name, chosen in (("modalities", modalities), ("galleries", galleries)):
            if chosen is not None:
                wanted = wanted & np.isin(self._labels.array(name), list(chosen))
        return None if wanted.all() else wanted

    def _nearest(self, queries: Array, k: int, wanted: Mask | None, exact: bool) -> tuple[Array, RowNumbers]:
        """(q, k) cosines and places, exact or by the approximate index and exact for what that does not know."""
        places = self._rows.living if wanted is None else wanted
        return nearest_places(self._searched.matrix, queries, k, places, None if exact else self.ann)

    def _hits(self, parts: Sequence[tuple[Array, RowNumbers]]) -> list[Hits]:
        """Hits of every query, from cosines and places."""
        number = renumbered(self._rows.living)
        return [
            Hits(self._hit(int(place), float(score), int(row)) for score, place, row in zip(*one, strict=True))
            for scores, places in parts
            for one in zip(scores, places, number(places), strict=True)
        ]

    def _hit(self, place: int, score: float, row: int) -> Hit:
        """One hit with its labels and metadata."""
        labels = self._labels
        about = self._metadata.row(place) if self._metadata else {}
        return Hit(labels.ids[place], score, row, about, labels.modalities[place], labels.galleries[place])

    # approximate search

    def build_ann(self, kind: str = "ivf", *, recall: float = 0.95, seed: int = 0, queries: Any = None) -> AnnSettings:
        """Build an approximate index over the items; its effort is raised until the recall is measured.

        Items added or changed later are searched exactly beside it, deleted ones are passed over; build it again when
        these are many.

        Args:
            kind: "ivf" or "hnsw" (see `isthmus.search.approximate.AnnSettings`).
            recall: Share of the exact 10 nearest to find, on the sample.
            seed: Seed of k-means and of the sample.
            queries: (q, d) queries to measure recall on, such as will be asked; None takes a sample of the items.

        Returns:
            How it is searched, with the recall measured.

        Raises:
            ConfigError: An unknown kind, or too few items.
            DependencyError: faiss is not installed.
        """
        q = None if queries is None else normalize(embedding_matrix(queries, "queries", self.dim))
        places = np.flatnonzero(self._rows.living).astype(np.int64)
        self.ann = build(self._searched.matrix, places, kind=kind, target=recall, seed=seed, queries=q)
        return self.ann.settings

    # files

    def save(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Write the index as a folder, aside and renamed whole (see `isthmus.search.index_folder`).

        Args:
            path: The folder.
            overwrite: Replace an index that lies there; anything else that lies there is never replaced.

        Raises:
            ConfigError: Something else lies at `path`, or an index and `overwrite` is false.
        """
        from isthmus.search.index_folder import write_index

        write_index(self, Path(path), overwrite=overwrite)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> SearchIndex:
        """Open a saved index; its embeddings are memory-mapped until they are changed.

        Args:
            path: The folder.
            verify: Hash every file; sizes are checked always.

        Raises:
            FormatError: The folder is missing, is no index, not whole, changed, or of a newer format.
        """
        from isthmus.search.index_folder import read_index

        return read_index(cls, Path(path), verify=verify)
