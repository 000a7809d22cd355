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
from numpy.typing import NDArray

from isthmus.core.arrays import to_numpy
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.errors import ConfigError, EvaluationError
from isthmus.metrics.checks import embedding_matrix
from isthmus.search.approximate import AnnSettings, Approximate, build
from isthmus.search.filters import Filter, mask, read_filter
from isthmus.search.hits import Hit, Hits
from isthmus.search.metadata import Metadata, metadata_rows
from isthmus.search.query import QueryItem, combine
from isthmus.search.rows import GrowingRows, Mask, best_of, exact_cosines, exact_nearest, renumbered
from isthmus.spaces.embeddings import RowNumbers

if TYPE_CHECKING:
    import pyarrow as pa

    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

ANN_ROWS = 500_000
"""From here on `join` builds an approximate index. Below, one exact query takes less than a tenth of a second, which
nobody notices (0.05 s at 500,000 rows of 512 numbers on two cores, 0.6 s at 1,000,000), and the build, which takes 52 s
at 500,000, pays after a thousand queries (`bench/search_index.py`)."""
ANN_SHARE = 0.02
"""Below this share of wanted rows exact search over them is faster than an approximate one that passes the others."""

BALANCES = ("none", "quota")


class SearchIndex:
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

    def __init__(
        self,
        embeddings: Any,
        ids: Sequence[str] | None = None,
        metadata: Any = None,
        *,
        modalities: str | Sequence[str] = "",
        center: bool = False,
        galleries: str | Sequence[str] = "",
        unified: str | None = None,
    ) -> None:
        rows = normalize(embedding_matrix(embeddings, "embeddings"))
        n = len(rows)
        names = [str(each) for each in (range(n) if ids is None else ids)]
        if len(names) != n:
            raise EvaluationError(f"the index has {n:,} embeddings and {len(names):,} ids. Expected as many.")
        self._rows = GrowingRows(rows)
        self._centred: GrowingRows | None = None
        self._ids = names
        self._modalities = _labels(modalities, n, "modalities")
        self._galleries = _labels(galleries, n, "galleries")
        self._metadata = Metadata(metadata, n)
        self._places: dict[tuple[str, str], int] | None = None
        self._gallery_names: dict[str, None] = {}
        self._label_arrays: dict[str, NDArray[Any]] = {}
        self.centroids: dict[str, Array] = {}
        self.ann: Approximate | None = None
        self.unified = unified
        if center:
            self.recenter()

    def __len__(self) -> int:
        return self._rows.count

    def __repr__(self) -> str:
        more = f", {self.ann.settings.kind}" if self.ann else ""
        return f"SearchIndex({len(self):,} x {self.dim}{more})"

    @property
    def dim(self) -> int:
        """Dimension of the unified space."""
        return self._rows.dim

    @property
    def embeddings(self) -> Array:
        """(n, d) unit rows as they are compared with queries: centred where the index is."""
        searched = self._searched
        return searched.matrix if not searched.gone else searched.matrix[searched.living]

    @property
    def raw(self) -> Array:
        """(n, d) unit rows as they were given, not centred."""
        return self._rows.matrix if not self._rows.gone else self._rows.matrix[self._rows.living]

    @property
    def ids(self) -> list[str]:
        """(n,) ids, in the order of the rows."""
        return self._living(self._ids)

    @property
    def modalities(self) -> list[str]:
        """(n,) modalities, in the order of the rows."""
        return self._living(self._modalities)

    @property
    def galleries(self) -> list[str]:
        """(n,) galleries, in the order of the rows."""
        return self._living(self._galleries)

    @property
    def metadata(self) -> pa.Table:
        """Metadata of the items as an Arrow table, in the order of the rows."""
        table = self._metadata.table()
        return table.filter(self._rows.living) if self._rows.gone else table

    @property
    def _searched(self) -> GrowingRows:
        return self._rows if self._centred is None else self._centred

    def _living(self, values: list[str]) -> list[str]:
        if not self._rows.gone:
            return list(values)
        return [values[place] for place in np.flatnonzero(self._rows.living)]

    # centring

    def recenter(self) -> None:
        """Centre every modality by the centroid that it has now; an approximate index has to be built anew."""
        names, living = np.asarray(self._modalities), self._rows.living
        self._centred = GrowingRows(self._rows.matrix.copy())
        self._centred.alive = living.copy()
        self.centroids, self.ann = {}, None
        for name in dict.fromkeys(self.modalities):
            own = np.flatnonzero((names == name) & living)
            self.centroids[name] = centroid(self._rows.matrix[own])
            self._centred.matrix[own] = normalize(self._rows.matrix[own] - self.centroids[name])

    def _centre_new(self, rows: Array, modalities: Sequence[str]) -> Array:
        """New rows as they are compared: minus the centroid of their modality, which a new modality gets from them."""
        names = np.asarray(modalities)
        out = np.empty_like(rows)
        for name in dict.fromkeys(modalities):
            own = np.flatnonzero(names == name)
            if name not in self.centroids:
                self.centroids[name] = centroid(rows[own])
            out[own] = normalize(rows[own] - self.centroids[name])
        return out

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

    # a life

    def add(
        self,
        ids: Sequence[str],
        embeddings: Any,
        metadata: Any = None,
        *,
        modality: str = "",
        gallery: str = "",
        replace: bool = False,
    ) -> None:
        """Add items.

        Args:
            ids: (n,) their ids, new in the gallery.
            embeddings: (n, d) rows of any length.
            metadata: A table, a mapping of columns or a list of dicts with n rows. Columns that others have are None.
            modality: Their modality.
            gallery: Their gallery.
            replace: Update the items that are there instead of refusing them.

        Raises:
            EvaluationError: Shapes that do not fit, NaN, or an id that is there already. Nothing is added then.
        """
        rows = normalize(embedding_matrix(embeddings, "embeddings", self.dim))
        names = [str(each) for each in ids]
        if len(names) != len(rows):
            raise EvaluationError(f"got {len(rows):,} embeddings and {len(names):,} ids. Expected as many.")
        about = metadata_rows(metadata, len(rows))
        known = self._known()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise EvaluationError(f"the id {twice!r} is given twice. Give each once.")
        there = [name for name in names if (gallery, name) in known]
        if there and not replace:
            raise EvaluationError(
                f"the index holds the id {there[0]!r} already{_of(gallery)} ({len(there):,} of {len(names):,} ids). "
                "Update it instead, or give replace=True."
            )
        for number, name in enumerate(names):
            if (gallery, name) in known:
                self._set(known[gallery, name], rows[number], about[number])
        new = [number for number, name in enumerate(names) if (gallery, name) not in known]
        if new:
            self._append([names[i] for i in new], rows[new], [about[i] for i in new], modality, gallery)

    def _append(self, ids: list[str], rows: Array, about: list[dict[str, Any]], modality: str, gallery: str) -> None:
        places = self._rows.append(rows)
        if self._centred is not None:
            self._centred.append(self._centre_new(rows, [modality] * len(ids)))
        self._ids.extend(ids)
        self._modalities.extend([modality] * len(ids))
        self._galleries.extend([gallery] * len(ids))
        self._metadata.append(about)
        self._label_arrays.clear()
        self._gallery_names[gallery] = None
        self._known().update(((gallery, name), int(place)) for name, place in zip(ids, places, strict=True))

    def update(
        self, ids: Sequence[str], embeddings: Any = None, metadata: Any = None, *, gallery: str | None = None
    ) -> None:
        """Replace embeddings, metadata, or both, of items that are there; they keep their rows.

        Args:
            ids: (n,) their ids.
            embeddings: (n, d) rows of any length, or None to leave them.
            metadata: As in `add`: all columns of the items, or None to leave them.
            gallery: Their gallery; None where one gallery alone holds each id.

        Raises:
            EvaluationError: An id is not there, or shapes do not fit. Nothing is changed then.
        """
        places = [self._place(str(name), gallery) for name in ids]
        rows = None if embeddings is None else normalize(embedding_matrix(embeddings, "embeddings", self.dim))
        about = None if metadata is None else metadata_rows(metadata, len(places))
        if rows is not None and len(rows) != len(places):
            raise EvaluationError(f"got {len(rows):,} embeddings and {len(places):,} ids. Expected as many.")
        for number, place in enumerate(places):
            self._set(place, None if rows is None else rows[number], None if about is None else about[number])

    def _set(self, place: int, row: Array | None, about: Mapping[str, Any] | None) -> None:
        if row is not None:
            self._rows.replace(place, row)
            if self._centred is not None:
                self._centred.replace(place, self._centre_new(row[None], [self._modalities[place]])[0])
            if self.ann is not None:
                self.ann.drop(np.array([place]))
        if about is not None:
            self._metadata.replace(place, about)

    def delete(self, ids: Sequence[str], *, gallery: str | None = None) -> None:
        """Delete items.

        Raises:
            EvaluationError: An id is not there. Nothing is deleted then.
        """
        places = {self._place(str(name), gallery): str(name) for name in ids}
        for place, name in places.items():
            del self._known()[self._galleries[place], name]
        gone = np.fromiter(places, np.int64, len(places))
        self._rows.remove(gone)
        if self._centred is not None:
            self._centred.remove(gone)
        if self.ann is not None:
            self.ann.drop(gone)
        if self._rows.should_compact:
            self.compact()

    def compact(self) -> None:
        """Give back the memory of deleted items; done by itself when they are many."""
        if not self._rows.gone:
            return
        size = self._rows.size
        survivors = self._rows.compact()
        if self._centred is not None:
            self._centred.compact()
        if self.ann is not None:
            self.ann.moved(survivors, size)
        self._ids, self._modalities, self._galleries = (
            [values[place] for place in survivors] for values in (self._ids, self._modalities, self._galleries)
        )
        self._metadata.keep(survivors)
        self._label_arrays.clear()
        self._places = None

    def _known(self) -> dict[tuple[str, str], int]:
        """Place of every item by gallery and id.

        Raises:
            EvaluationError: One gallery holds an id twice.
        """
        if self._places is None:
            places = {}
            for place in np.flatnonzero(self._rows.living).tolist():
                key = self._galleries[place], self._ids[place]
                if key in places:
                    raise EvaluationError(
                        f"the index holds the id {key[1]!r} twice{_of(key[0])}, so its items cannot be told apart. "
                        "Make it of ids that are unique, or of several galleries."
                    )
                places[key] = place
            self._places, self._gallery_names = places, dict.fromkeys(self._galleries)
        return self._places

    def _place(self, name: str, gallery: str | None) -> int:
        known = self._known()
        galleries = list(self._gallery_names) if gallery is None else [gallery]
        having = [one for one in galleries if (one, name) in known]
        if len(having) == 1:
            return known[having[0], name]
        if not having:
            raise EvaluationError(f"the index has no id {name!r}{_of(gallery or '')}. Add it, or check the id.")
        raise EvaluationError(f"the id {name!r} is in the galleries {', '.join(map(repr, having))}. Give gallery=.")

    def __contains__(self, name: object) -> bool:
        known = self._known()
        return any((gallery, name) in known for gallery in self._gallery_names)

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
            modality: Of the queries; in a centred index, whose centroid is removed from them.
            mean: (d,) that centroid, for a modality that the index does not hold.
            filter: Only items whose metadata pass, such as `year > 2010 and label in ("dog", "cat")`
                (see `isthmus.search.filters`).
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
        names = self._label_array("modalities")
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
            items = [
                QueryItem(
                    self._away(normalize(np.asarray(item.vector, np.float32)), item.modality, None),
                    item.weight,
                )
                for item in items
            ]
            options = {**options, "mean": np.zeros(self.dim, np.float32)}
        return self.search(combine(items), k, **options)[0]

    def nearest(
        self, queries: Any, k: int = 10, *, modality: str | None = None, mean: Any = None
    ) -> tuple[Array, RowNumbers]:
        """As `search`, as arrays: (q, k) cosines and (q, k) rows."""
        scores, places = self._nearest(self._checked(queries, k, modality, mean), k, None, False)
        return scores, renumbered(self._rows.living)(places)

    def _checked(self, queries: Any, k: int, modality: str | None, mean: Any) -> Array:
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        array = to_numpy(queries)
        q = normalize(embedding_matrix(array[None] if array.ndim == 1 else array, "queries", self.dim))
        return q if not self.centroids else self._away(q, modality, mean)

    def _away(self, queries: Array, modality: str | None, mean: Any) -> Array:
        """Queries minus the centroid of their modality, at unit length."""
        if mean is None and modality not in self.centroids:
            raise ConfigError(
                f"the index is centred and holds no centroid of {modality!r} queries. "
                f"Give modality= (one of {', '.join(self.centroids)}) or mean=, the centroid of such items."
            )
        away = self.centroids[str(modality)] if mean is None else np.asarray(mean, dtype=np.float32)
        return normalize(queries - away)

    def _wanted(
        self, filter: str | Filter | None, modalities: Sequence[str] | None, galleries: Sequence[str] | None
    ) -> Mask | None:
        """(size,) which places may be hits, or None for all."""
        wanted = self._rows.living
        if (tree := read_filter(filter)) is not None:
            wanted = wanted & mask(tree, self._metadata.table())
        for name, chosen in (("modalities", modalities), ("galleries", galleries)):
            if chosen is not None:
                wanted = wanted & np.isin(self._label_array(name), list(chosen))
        return None if wanted.all() else wanted

    def _label_array(self, name: str) -> NDArray[Any]:
        """The labels of all places as an array, made once until places are added or moved."""
        if name not in self._label_arrays:
            self._label_arrays[name] = np.asarray(self._modalities if name == "modalities" else self._galleries)
        return self._label_arrays[name]

    def _nearest(self, queries: Array, k: int, wanted: Mask | None, exact: bool) -> tuple[Array, RowNumbers]:
        """(q, k) cosines and places, exact or by the approximate index and exact for what that does not know."""
        wanted = self._rows.living if wanted is None else wanted
        count = int(np.count_nonzero(wanted))
        k = min(k, count)
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        matrix = self._searched.matrix
        if exact or self.ann is None or count < ANN_SHARE * len(matrix):
            return exact_nearest(matrix, queries, k, None if count == len(wanted) else wanted)
        return self._approximate(self.ann, queries, k, wanted)

    def _approximate(self, ann: Approximate, queries: Array, k: int, wanted: Mask) -> tuple[Array, RowNumbers]:
        matrix = self._searched.matrix
        neighbours = ann.nearest(queries, k, wanted)
        which, column = np.nonzero(neighbours >= 0)
        rows = neighbours[which, column]
        parts = [(which, rows, exact_cosines(queries, which, matrix, rows))]
        unknown = wanted & ~ann.covered(len(matrix))
        if unknown.any():
            few = min(k, int(np.count_nonzero(unknown)))
            _, own = exact_nearest(matrix, queries, few, unknown)
            which = np.repeat(np.arange(len(queries)), few)
            parts.append((which, own.reshape(-1), exact_cosines(queries, which, matrix, own.reshape(-1))))
        which, rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        if np.bincount(which, minlength=len(queries)).min() < k:  # few pass, and they lie where it did not look
            return exact_nearest(matrix, queries, k, wanted)
        return best_of(which, rows, scores, len(queries), k)

    def _hits(self, parts: Sequence[tuple[Array, RowNumbers]]) -> list[Hits]:
        number = renumbered(self._rows.living)
        return [
            Hits(self._hit(int(place), float(score), int(row)) for score, place, row in zip(*one, strict=True))
            for scores, places in parts
            for one in zip(scores, places, number(places), strict=True)
        ]

    def _hit(self, place: int, score: float, row: int) -> Hit:
        about = self._metadata.row(place) if self._metadata else {}
        return Hit(self._ids[place], score, row, about, self._modalities[place], self._galleries[place])

    # approximate search

    def build_ann(self, kind: str = "ivf", *, recall: float = 0.95, seed: int = 0, queries: Any = None) -> AnnSettings:
        """Build an approximate index over the items; its effort is raised until the recall is measured.

        Items added or changed later are searched exactly beside it, deleted ones are passed over; build it again when
        these are many.

        Args:
            kind: "ivf" or "hnsw" (see `isthmus.search.approximate.AnnSettings`).
            recall: Share of the exact 10 nearest to find, on the sample.
            seed: Of k-means and of the sample.
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


def interleave(parts: Sequence[Sequence[Hit]], k: int) -> Hits:
    """Several rankings as one: the best of each, by score, then the second of each, and so on, the first k."""
    ranked = [(rank, -hit.score, hit.row, hit) for part in parts for rank, hit in enumerate(part)]
    return Hits(hit for *_, hit in sorted(ranked, key=lambda one: one[:3])[:k])


def _labels(given: str | Sequence[str], count: int, what: str) -> list[str]:
    labels = [given] * count if isinstance(given, str) else [str(each) for each in given]
    if len(labels) != count:
        raise EvaluationError(f"the index has {count:,} embeddings and {len(labels):,} {what}. Expected as many.")
    return labels


def _of(gallery: str) -> str:
    return f" in {gallery!r}" if gallery else ""
