"""Qdrant: a server for those who outgrow a machine, or its local mode in a folder, which is for trials."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from isthmus.core.geometry import Array
from isthmus.core.messages import one_line
from isthmus.errors import ConfigError, DependencyError
from isthmus.search.filter_tree import Comparison, Filter, Membership, Missing, Value
from isthmus.search.hits import Hit
from isthmus.search.stores.protocol import (
    CONTENT,
    GALLERY,
    ID,
    MODALITY,
    OWN,
    Batch,
    Record,
    StoredRow,
    checked_filter,
    in_order,
)
from isthmus.search.stores.urls import without_password

BATCH = 512
_NAMESPACE = uuid.UUID("8c3f6c6e-0c5b-5d53-9a5e-2f1a6f1c7b11")


class QdrantStore:
    """Store in a Qdrant collection, whose metadata hold the record of its bridge and the types of its columns."""

    def __init__(self, place: str, table: str, record: Record | None) -> None:
        qdrant_client, self._models = _load()
        self._remote = remote = place.startswith(("http://", "https://"))
        self.where = f"qdrant:{without_password(place) if remote else place}#{table}"
        self._name = table
        try:
            self._client = qdrant_client.QdrantClient(**({"url": place} if remote else {"path": place}))
            there = self._client.collection_exists(table)
            if not there and record is not None:
                self._create(record)
        except Exception as error:  # the library raises its own, httpx' and OS errors
            raise ConfigError(
                f"{self.where}: cannot be opened ({one_line(error)}). Check that the server runs, or that no other "
                "process has the folder open."
            ) from error
        if not there and record is None:
            self.close()
            raise ConfigError(f"{self.where}: no such table. Fill it first: isthmus project X.bridge S.space --into.")
        stored = self._metadata().get("isthmus")
        self.record = Record.from_json(stored if isinstance(stored, str) else None, self.where)

    def _create(self, record: Record) -> None:
        """Make the collection of a Qdrant store."""
        models = self._models
        self._client.create_collection(
            self._name,
            vectors_config=models.VectorParams(size=record.dim, distance=models.Distance.COSINE),
            metadata={"isthmus": record.to_json(), "columns": {}},
        )

    def _metadata(self) -> dict[str, Any]:
        """Metadata of the Qdrant collection."""
        return dict(self._client.get_collection(self._name).config.metadata or {})

    def _types(self) -> dict[str, Any]:
        """Arrow types of the columns, which Qdrant itself does not keep."""
        import pyarrow as pa

        kinds = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
        own = dict.fromkeys((GALLERY, ID, MODALITY), pa.string())
        return own | {name: kinds[kind] for name, kind in (self._metadata().get("columns") or {}).items()}

    def _point(self, gallery: str, name: str) -> str:
        """Id of a point: a UUID of gallery and id, for Qdrant takes no text."""
        return str(uuid.uuid5(_NAMESPACE, f"{gallery}\0{name}"))

    def contents(self, gallery: str) -> dict[str, str]:
        """Hash of every row of a gallery by id."""
        return {payload[ID]: payload[CONTENT] for payload in self._payloads(gallery, [ID, CONTENT])}

    def _payloads(self, gallery: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Parts of the payload of every row of a gallery, page by page."""
        models = self._models
        only = models.Filter(must=[_equal(models, GALLERY, gallery)])
        offset: Any = None
        while True:
            points, offset = self._client.scroll(
                self._name, scroll_filter=only, limit=4096, offset=offset, with_payload=names
            )
            yield from (dict(point.payload) for point in points)
            if offset is None:
                return

    def upsert(self, batch: Batch) -> None:
        """Write rows, those of ids that are there in their place."""
        self._add_columns(batch)
        if self.galleries().get(batch.gallery) != batch.modality:
            # Qdrant lists no values of a column that has no index of its own.
            self._note(galleries={**self.galleries(), batch.gallery: batch.modality})
        rows = batch.metadata.to_pylist() if batch.metadata.column_names else [{}] * len(batch)
        for start in range(0, len(batch), BATCH):
            points = [
                self._models.PointStruct(
                    id=self._point(batch.gallery, batch.ids[row]),
                    vector=batch.vectors[row].tolist(),
                    payload={name: value for name, value in rows[row].items() if value is not None}
                    | {GALLERY: batch.gallery, ID: batch.ids[row], MODALITY: batch.modality}
                    | {CONTENT: batch.contents[row]},
                )
                for row in range(start, min(start + BATCH, len(batch)))
            ]
            self._client.upsert(self._name, points, wait=True)

    def _add_columns(self, batch: Batch) -> None:
        """Note the columns of a batch's metadata, whose types must stay."""
        known = dict(self._metadata().get("columns") or {})
        given = {field.name: str(field.type) for field in batch.metadata.schema}
        for name in known.keys() & given.keys():
            if known[name] != given[name]:
                raise ConfigError(
                    f"{self.where}: the column {name!r} is {known[name]} there and {given[name]} here. Rename it here, "
                    "or give another table: URL#TABLE."
                )
        if given.keys() - known.keys():
            self._note(columns={**known, **given})

    def _note(self, **values: Any) -> None:
        self._client.update_collection(self._name, metadata={**self._metadata(), **values})

    def modalities(self) -> list[str]:
        """The modalities that were ever written, sorted."""
        earlier = self._metadata().get("modalities") or []  # collections of before noted these alone
        return sorted({*self.galleries().values(), *earlier})

    def galleries(self) -> dict[str, str]:
        """The modality of each gallery that was ever written, by name."""
        return dict(sorted((self._metadata().get("galleries") or {}).items()))

    def columns(self) -> list[str]:
        """Names of the user's columns."""
        return [name for name in self._types() if name not in OWN]

    def page(self, gallery: str, offset: int, limit: int) -> list[str]:
        """Some ids of a gallery, in the order of Qdrant's own ids."""
        return [payload[ID] for payload in islice(self._payloads(gallery, [ID]), offset, offset + limit)]

    def fetch(self, gallery: str, ids: Sequence[str]) -> list[StoredRow]:
        """Rows by id, in the order of the ids; ids that are not there are passed over."""
        rows, columns = [], self.columns()
        for start in range(0, len(ids), BATCH):
            points = [self._point(gallery, name) for name in ids[start : start + BATCH]]
            for point in self._client.retrieve(self._name, points, with_payload=True, with_vectors=True):
                metadata = {name: point.payload.get(name) for name in columns}
                rows.append(StoredRow(point.payload[ID], np.asarray(point.vector, np.float32), metadata))
        return in_order(rows, ids)

    def delete(self, gallery: str, ids: Sequence[str]) -> None:
        """Delete rows; ids that are not there are passed over."""
        points = [self._point(gallery, name) for name in ids]
        for start in range(0, len(points), BATCH):
            chosen = self._models.PointIdsList(points=points[start : start + BATCH])
            self._client.delete(self._name, chosen, wait=True)

    def search(self, vector: Array, k: int, *, filter: str | Filter | None = None, exact: bool = False) -> list[Hit]:
        """The k nearest rows of a vector (dim,), best first, of those that pass a filter."""
        points = self._client.query_points(
            self._name,
            query=vector.tolist(),
            limit=k,
            query_filter=self._filter(filter),
            search_params=self._parameters(k, exact),
            with_payload=True,
        ).points
        rows = [(float(point.score), dict(point.payload or {})) for point in points]
        rows.sort(key=lambda pair: (-pair[0], pair[1][GALLERY], pair[1][ID]))
        columns = self.columns()
        return [
            Hit(row[ID], score, -1, {name: row.get(name) for name in columns}, row[MODALITY], row[GALLERY])
            for score, row in rows
        ]

    def _parameters(self, k: int, exact: bool) -> Any:
        """How a server searches; the local mode scans, and warns when it is given any."""
        if not self._remote:
            return None
        return self._models.SearchParams(exact=exact, hnsw_ef=None if exact else max(128, 4 * k))

    def count(self, filter: str | Filter | None = None) -> int:
        """Number of rows, or of those that pass a filter."""
        return int(self._client.count(self._name, count_filter=self._filter(filter), exact=True).count)

    def _filter(self, filter: str | Filter | None) -> Any:
        """Filter in Qdrant's form."""
        tree = checked_filter(filter, self._types())
        return None if tree is None else self._models.Filter(must=[to_qdrant(tree, self._models)])

    def build_index(self) -> None:
        """Qdrant builds its index by itself."""

    def close(self) -> None:
        """End the connection, or let go of the folder."""
        self._client.close()


def to_qdrant(tree: Filter, models: Any) -> Any:
    """A filter as a condition of Qdrant; as in SQL, a missing value passes no comparison."""
    if isinstance(tree, Comparison):
        return _comparison(tree.column, tree.operator, tree.value, models)
    if isinstance(tree, Missing):
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=_key(tree.column)))
        return models.Filter(must_not=[empty]) if tree.negated else empty
    if isinstance(tree, Membership):
        operator = "!=" if tree.negated else "=="
        parts = [_comparison(tree.column, operator, value, models) for value in tree.values]
        return models.Filter(must=parts) if tree.negated else models.Filter(should=parts)
    parts = [to_qdrant(part, models) for part in tree.parts]
    return models.Filter(must=parts) if tree.operator == "and" else models.Filter(should=parts)


def _comparison(column: str, operator: str, value: Value, models: Any) -> Any:
    """Comparison of a column with a value in Qdrant's form."""
    if operator == "==":
        return _equal(models, column, value)
    if operator == "!=":
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=_key(column)))
        return models.Filter(must_not=[_equal(models, column, value), empty])
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number:
        raise ConfigError(
            f"Qdrant orders no texts, got {column} {operator} {value!r}. Compare by ==, != or in, or use another store."
        )
    bound = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[operator]
    return models.FieldCondition(key=_key(column), range=models.Range(**{bound: value}))


def _equal(models: Any, column: str, value: Value) -> Any:
    """Equality of a column and a value in Qdrant's form."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return models.FieldCondition(key=_key(column), range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=_key(column), match=models.MatchValue(value=value))


def _key(column: str) -> str:
    """A column as the path of a payload: what is no plain word is quoted, so that a dot in it opens no object."""
    return column if column.replace("_", "a").isalnum() else f'"{column}"'


def _load() -> tuple[Any, Any]:
    """The module qdrant_client, or how to install it."""
    try:
        import qdrant_client
        from qdrant_client import models
    except ImportError as error:
        raise DependencyError(
            "a store of Qdrant needs qdrant-client, which is not installed. Install it: pip install 'isthmus[qdrant]'."
        ) from error
    return qdrant_client, models
