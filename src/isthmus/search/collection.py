"""The items of an index and their life: embeddings, labels and metadata that are added, updated, deleted, centred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.geometry import Array, normalize
from isthmus.errors import EvaluationError
from isthmus.metrics.checks import embedding_matrix
from isthmus.search.approximate import Approximate
from isthmus.search.centring import add_centroids, centred
from isthmus.search.labels import ItemLabels, in_gallery
from isthmus.search.metadata import Metadata, metadata_rows
from isthmus.search.rows import GrowingRows

if TYPE_CHECKING:
    import pyarrow as pa


class ItemCollection:
    """Items of one unified space that change; what `isthmus.SearchIndex` searches. Arguments and errors as there."""

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
        self._labels = ItemLabels(names, modalities, galleries)
        self._metadata = Metadata(metadata, n)
        self.centroids: dict[str, Array] = {}
        self.ann: Approximate | None = None
        self.unified = unified
        if center:
            self.recenter()

    def __len__(self) -> int:
        return self._rows.count

    def __repr__(self) -> str:
        more = f", {self.ann.settings.kind}" if self.ann else ""
        return f"{type(self).__name__}({len(self):,} x {self.dim}{more})"

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
        return self._living(self._labels.ids)

    @property
    def modalities(self) -> list[str]:
        """(n,) modalities, in the order of the rows."""
        return self._living(self._labels.modalities)

    @property
    def galleries(self) -> list[str]:
        """(n,) galleries, in the order of the rows."""
        return self._living(self._labels.galleries)

    @property
    def metadata(self) -> pa.Table:
        """Metadata of the items as an Arrow table, in the order of the rows."""
        table = self._metadata.table()
        return table.filter(self._rows.living) if self._rows.gone else table

    @property
    def _searched(self) -> GrowingRows:
        """Rows that queries are compared with: centred where the index is."""
        return self._rows if self._centred is None else self._centred

    def _living(self, values: list[str]) -> list[str]:
        """Labels of the places that hold an item."""
        if not self._rows.gone:
            return list(values)
        return [values[place] for place in np.flatnonzero(self._rows.living)]

    def recenter(self) -> None:
        """Centre every modality by the centroid that it has now; an approximate index has to be built anew."""
        names = self._labels.modalities
        self.centroids, self.ann = {}, None
        add_centroids(self.centroids, self._rows.matrix, names, self._rows.living)
        self._centred = GrowingRows(centred(self._rows.matrix, names, self.centroids))
        self._centred.alive = self._rows.living.copy()

    def _centre_new(self, rows: Array, modalities: Sequence[str]) -> Array:
        """New rows as they are compared: minus the centroid of their modality, which a new modality gets from them."""
        add_centroids(self.centroids, rows, modalities)
        return centred(rows, modalities, self.centroids)

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
        known = self._labels.places(self._rows.living)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise EvaluationError(f"the id {twice!r} is given twice. Give each once.")
        # Everything is checked before the first change, so that a refusal leaves the index as it was.
        there = [name for name in names if (gallery, name) in known]
        if there and not replace:
            raise EvaluationError(
                f"the index holds the id {there[0]!r} already{in_gallery(gallery)} "
                f"({len(there):,} of {len(names):,} ids). Update it instead, or give replace=True."
            )
        for number, name in enumerate(names):
            if (gallery, name) in known:
                self._set(known[gallery, name], rows[number], about[number])
        new = [number for number, name in enumerate(names) if (gallery, name) not in known]
        if new:
            self._append([names[i] for i in new], rows[new], [about[i] for i in new], modality, gallery)

    def _append(self, ids: list[str], rows: Array, about: list[dict[str, Any]], modality: str, gallery: str) -> None:
        """Add items whose ids are new."""
        places = self._rows.append(rows)
        if self._centred is not None:
            self._centred.append(self._centre_new(rows, [modality] * len(ids)))
        self._metadata.append(about)
        self._labels.append(ids, modality, gallery, places.tolist(), self._rows.living)

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
        places = [self._labels.place(str(name), gallery, self._rows.living) for name in ids]
        rows = None if embeddings is None else normalize(embedding_matrix(embeddings, "embeddings", self.dim))
        about = None if metadata is None else metadata_rows(metadata, len(places))
        if rows is not None and len(rows) != len(places):
            raise EvaluationError(f"got {len(rows):,} embeddings and {len(places):,} ids. Expected as many.")
        for number, place in enumerate(places):
            self._set(place, None if rows is None else rows[number], None if about is None else about[number])

    def _set(self, place: int, row: Array | None, about: Mapping[str, Any] | None) -> None:
        """Replace the row or the metadata of one place."""
        if row is not None:
            self._rows.replace(place, row)
            if self._centred is not None:
                self._centred.replace(place, self._centre_new(row[None], [self._labels.modalities[place]])[0])
            if self.ann is not None:
                self.ann.drop(np.array([place]))
        if about is not None:
            self._metadata.replace(place, about)

    def delete(self, ids: Sequence[str], *, gallery: str | None = None) -> None:
        """Delete items.

        Raises:
            EvaluationError: An id is not there. Nothing is deleted then.
        """
        places = {self._labels.place(str(name), gallery, self._rows.living): str(name) for name in ids}
        for place, name in places.items():
            self._labels.forget(place, name, self._rows.living)
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
        self._labels.keep(survivors.tolist())
        self._metadata.keep(survivors)

    def __contains__(self, name: object) -> bool:
        return self._labels.holds(name, self._rows.living)
