"""LanceDB, embedded: a folder on this machine that outlives memory, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.geometry import Array
from isthmus.errors import ConfigError, DependencyError
from isthmus.search.filter_tree import Combination, Filter, Membership, Missing, Value, values_of
from isthmus.search.filters import to_sql
from isthmus.search.hits import Hit
from isthmus.search.stores.protocol import (
    CONTENT,
    GALLERY,
    ID,
    MODALITY,
    OWN,
    VECTOR,
    Batch,
    Record,
    StoredRow,
    checked_filter,
    hit_of,
    in_order,
)

KEY = b"isthmus"
PROBES, REFINE = 24, 4
"""Partitions that are read, and how many times k is scored again by the stored float32 vectors."""


class LanceStore:
    """Store in a table of a LanceDB folder: rows in float32, an index of HNSW over bytes, scored again in float32."""

    def __init__(self, folder: str, table: str, record: Record | None) -> None:
        lancedb = _load()
        self.where = f"lance:{folder}#{table}"
        if not Path(folder).is_dir() and record is None:
            raise ConfigError(f"{self.where}: no such folder. Fill it first: isthmus project X.bridge S.space --into.")
        self._db = lancedb.connect(folder)
        if table in _tables(self._db):
            self._table = self._db.open_table(table)
        elif record is None:
            raise ConfigError(f"{self.where}: no such table. Fill it first: isthmus project X.bridge S.space --into.")
        else:
            self._table = self._db.create_table(table, schema=_schema(record))
        stored = (self._table.schema.metadata or {}).get(KEY)
        self.record = Record.from_json(stored.decode() if stored else None, self.where)

    def _types(self) -> dict[str, Any]:
        """Arrow types of the columns of the LanceDB table."""
        return {field.name: field.type for field in self._table.schema}

    def contents(self, gallery: str) -> dict[str, str]:
        """Hash of every row of a gallery by id."""
        columns = self._rows(f"{GALLERY} = {_literal(gallery)}", [ID, CONTENT])
        return dict(zip(columns[ID].to_pylist(), columns[CONTENT].to_pylist(), strict=True))

    def _rows(self, where: str | None, columns: list[str]) -> Any:
        """Some columns of the rows that a condition lets through."""
        query = self._table.search()
        return (query if where is None else query.where(where)).select(columns).to_arrow()

    def upsert(self, batch: Batch) -> None:
        """Write rows in one commit, those of ids that are there in their place."""
        if not len(batch):
            return
        rows = self._as_table(batch)
        merge = self._table.merge_insert([GALLERY, ID])
        merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def append(self, batch: Batch) -> None:
        """Write rows of ids that are known to be new: without looking for them, which takes longer than writing."""
        if len(batch):
            self._table.add(self._as_table(batch))

    def _as_table(self, batch: Batch) -> Any:
        """The rows in the columns of the table, which gets those that it lacks."""
        import pyarrow as pa

        known = self._types()
        new = [field for field in batch.metadata.schema if field.name not in known]
        if new:
            self._table.add_columns(pa.schema(new))
        schema = self._table.schema
        values = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), self.record.dim)
        columns: dict[str, Any] = {
            GALLERY: [batch.gallery] * len(batch),
            ID: batch.ids,
            MODALITY: [batch.modality] * len(batch),
            CONTENT: batch.contents,
            VECTOR: values,
        }
        for field in schema:
            if field.name in OWN:
                continue
            there = field.name in batch.metadata.column_names
            columns[field.name] = (
                _cast(batch.metadata.column(field.name), field, self.where)
                if there
                else pa.nulls(len(batch), field.type)
            )
        return pa.table({field.name: columns[field.name] for field in schema}, schema=schema)

    def delete(self, gallery: str, ids: Sequence[str]) -> None:
        """Delete rows; ids that are not there are passed over."""
        for start in range(0, len(ids), 1000):
            names = ", ".join(map(_literal, ids[start : start + 1000]))
            self._table.delete(f"{GALLERY} = {_literal(gallery)} AND {ID} IN ({names})")

    def search(self, vector: Array, k: int, *, filter: str | Filter | None = None, exact: bool = False) -> list[Hit]:
        """The k nearest rows of a vector (dim,), best first, of those that pass a filter."""
        types = self._types()
        shown = [name for name in types if name not in (CONTENT, VECTOR)]
        query = self._table.search(vector, vector_column_name=VECTOR).distance_type("cosine")
        query = (
            query.bypass_vector_index() if exact else query.nprobes(PROBES).refine_factor(REFINE).ef(max(100, 4 * k))
        )
        where = self._where(checked_filter(filter, types), types)
        if where is not None:
            query = query.where(where, prefilter=True)
        rows = query.select([*shown, "_distance"]).limit(k).to_arrow().to_pylist()
        rows.sort(key=lambda row: (row["_distance"], row[GALLERY], row[ID]))
        return [hit_of(float(row.pop("_distance")), row) for row in rows]

    def count(self, filter: str | Filter | None = None) -> int:
        """Number of rows, or of those that pass a filter."""
        types = self._types()
        where = self._where(checked_filter(filter, types), types)
        return int(self._table.count_rows(where))

    def modalities(self) -> list[str]:
        """The modalities of its rows, sorted."""
        return sorted(set(self._rows(None, [MODALITY])[MODALITY].unique().to_pylist()))

    def galleries(self) -> dict[str, str]:
        """The modality of each gallery, by name."""
        pairs = self._rows(None, [GALLERY, MODALITY]).group_by([GALLERY, MODALITY]).aggregate([]).to_pylist()
        return {row[GALLERY]: row[MODALITY] for row in sorted(pairs, key=lambda row: row[GALLERY])}

    def columns(self) -> list[str]:
        """Names of the user's columns."""
        return [name for name in self._types() if name not in OWN]

    def page(self, gallery: str, offset: int, limit: int) -> list[str]:
        """Some ids of a gallery, in the order in which they lie."""
        query = self._table.search().where(f"{GALLERY} = {_literal(gallery)}").select([ID])
        return list(query.offset(offset).limit(limit).to_arrow()[ID].to_pylist())

    def fetch(self, gallery: str, ids: Sequence[str]) -> list[StoredRow]:
        """Rows by id, in the order of the ids; ids that are not there are passed over."""
        columns = self.columns()
        rows: list[StoredRow] = []
        for start in range(0, len(ids), 1000):
            names = ", ".join(map(_literal, ids[start : start + 1000]))
            where = f"{GALLERY} = {_literal(gallery)} AND {ID} IN ({names})"
            for row in self._rows(where, [ID, VECTOR, *columns]).to_pylist():
                vector = np.asarray(row[VECTOR], np.float32)
                rows.append(StoredRow(row[ID], vector, {name: row[name] for name in columns}))
        return in_order(rows, ids)

    def _where(self, tree: Filter | None, types: dict[str, Any]) -> str | None:
        """The condition as text, for LanceDB takes no parameters: values are literals, quotes in them doubled."""
        if tree is None:
            return None
        import pyarrow as pa

        # LanceDB compares an integer column with no fraction; as floats both sides can be compared.
        cast = {name for name in _fractions(tree) if pa.types.is_integer(types[name])}
        return to_sql(tree, _literal, lambda name: f"CAST(`{name}` AS DOUBLE)" if name in cast else f"`{name}`")

    def build_index(self) -> None:
        """Build the index, or take the rows that it lacks into it."""
        from lancedb.index import HnswSq

        self._table.optimize()
        rows = self._table.count_rows()
        partitions = max(1, rows // 25_000)
        self._table.create_index(VECTOR, config=HnswSq(distance_type="cosine", num_partitions=partitions))

    def close(self) -> None:
        """Nothing is held open."""


def _tables(database: Any) -> set[str]:
    """Names of all tables, which the client gives page by page."""
    names: set[str] = set()
    token = None
    while True:
        page = database.list_tables(page_token=token)
        names.update(page.tables)
        token = page.page_token
        if not token:
            return names


def _schema(record: Record) -> Any:
    """Arrow schema of a new LanceDB table."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in (GALLERY, ID, MODALITY, CONTENT)]
    fields.append(pa.field(VECTOR, pa.list_(pa.float32(), record.dim), nullable=False))
    return pa.schema(fields, metadata={KEY: record.to_json().encode()})


def _literal(value: Value) -> str:
    """Value of a filter as LanceDB's SQL has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _fractions(tree: Filter) -> set[str]:
    """Columns that are compared with a number that has a fraction."""
    if isinstance(tree, Combination):
        return {name for part in tree.parts for name in _fractions(part)}
    if isinstance(tree, Missing):
        return set()
    values = tree.values if isinstance(tree, Membership) else values_of(tree)
    return {tree.column} if any(isinstance(value, float) for value in values) else set()


def _cast(column: Any, field: Any, where: str) -> Any:
    """Column of a batch in the type that the LanceDB table has."""
    import pyarrow as pa

    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ConfigError(
            f"{where}: the column {field.name!r} is {field.type} there and {column.type} here. Rename it here, or give "
            "another table: URL#TABLE."
        ) from error


def _load() -> Any:
    """The module lancedb, or how to install it."""
    try:
        import lancedb
    except ImportError as error:
        raise DependencyError(
            "a store of LanceDB needs lancedb, which is not installed. Install it: pip install 'isthmus[lance]'."
        ) from error
    return lancedb
