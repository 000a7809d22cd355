"""PostgreSQL with pgvector: rows beside the tables that run already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isthmus.core.geometry import Array
from isthmus.core.messages import one_line
from isthmus.errors import ConfigError, DependencyError
from isthmus.search.filter_tree import Filter, Value
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
from isthmus.search.stores.urls import without_password

MOST_INDEXED = 2000
"""Dimensions that pgvector's HNSW takes as float32; from there to 4,000 the index is over float16."""
SEARCH_LIST, BUILD_LIST = 400, 128
"""Rows that HNSW keeps in sight while it searches, and while it is built. With 100 and pgvector's own 64 it found 0.82
of the ten nearest of 200,000 rows of 1,024 numbers (`bench/stores.py`)."""


class PostgresStore:
    """Store in a table of a PostgreSQL database; the record of its bridge is the table's comment."""

    def __init__(self, url: str, table: str, record: Record | None) -> None:
        self._psycopg, self._sql, register = _load()
        self.where = f"{without_password(url)}#{table}"
        try:
            self._connection = self._psycopg.connect(url, autocommit=True)
        except self._psycopg.Error as error:
            raise ConfigError(
                f"{self.where}: cannot be reached ({one_line(error)}). Check that the server runs, and the URL: "
                "postgresql://USER:PASSWORD@HOST/DATABASE."
            ) from error
        self._name = self._sql.Identifier(table)
        try:
            self._prepare(table, record)
            register(self._connection)
        except self._psycopg.Error as error:
            self.close()
            raise ConfigError(
                f"{self.where}: {one_line(error)}. pgvector must be installed on the server, and the user may have to "
                "be allowed: CREATE EXTENSION vector."
            ) from error
        except ConfigError:
            self.close()
            raise

    def _prepare(self, table: str, record: Record | None) -> None:
        """Make the table of a PostgreSQL store, or read the record of the one that is there."""
        there = self._one("SELECT to_regclass(%s) IS NOT NULL", [f'"{table}"'])
        if not there and record is None:
            raise ConfigError(f"{self.where}: no such table. Fill it first: isthmus project X.bridge S.space --into.")
        if record is not None and not there:
            with self._connection.transaction():
                self._run("CREATE EXTENSION IF NOT EXISTS vector")
                columns = ", ".join(f"{name} text NOT NULL" for name in (GALLERY, ID, MODALITY, CONTENT))
                self._run(
                    f"CREATE TABLE {{table}} ({columns}, {VECTOR} vector({record.dim}) NOT NULL, "
                    f"PRIMARY KEY ({GALLERY}, {ID}))"
                )
                comment = self._sql.Literal(record.to_json())
                self._run("COMMENT ON TABLE {table} IS {comment}", comment=comment)
        self.record = Record.from_json(
            self._one("SELECT obj_description(to_regclass(%s), 'pg_class')", [f'"{table}"']), self.where
        )

    def _run(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> Any:
        """Run a statement of ours: names are composed by psycopg, values go beside the text."""
        return self._connection.execute(self._sql.SQL(text).format(table=self._name, **parts), values)

    def _one(self, text: str, values: Sequence[Any]) -> Any:
        """First value of the first row of a query, or None."""
        row = self._connection.execute(text, values).fetchone()
        return row[0] if row else None

    def _types(self) -> dict[str, Any]:
        """Arrow types of the columns."""
        import pyarrow as pa

        kinds = {"int8": pa.int64(), "float8": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
        rows = self._connection.execute(
            "SELECT attname, typname FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [self._name.as_string(self._connection)],
        ).fetchall()
        return {name: kinds.get(kind, pa.binary()) for name, kind in rows}

    def contents(self, gallery: str) -> dict[str, str]:
        """Hash of every row of a gallery by id."""
        return dict(self._run(f"SELECT {ID}, {CONTENT} FROM {{table}} WHERE {GALLERY} = %s", [gallery]).fetchall())

    def upsert(self, batch: Batch) -> None:
        """Write rows in one transaction, those of ids that are there in their place."""
        if not len(batch):
            return
        sql = self._sql
        with self._connection.transaction():
            names = [*OWN, *batch.metadata.column_names]
            self._add_columns(batch)
            columns = sql.SQL(", ").join(map(sql.Identifier, names))
            self._run("CREATE TEMP TABLE isthmus_batch (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
            self._copy(batch, columns, names)
            changes = sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
                for name in names
                if name not in (GALLERY, ID)
            )
            self._run(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM isthmus_batch "
                f"ON CONFLICT ({GALLERY}, {ID}) DO UPDATE SET {{changes}}",
                columns=columns,
                changes=changes,
            )

    def _add_columns(self, batch: Batch) -> None:
        """Add the columns of a batch's metadata that the table lacks."""
        import pyarrow as pa

        kinds = {pa.int64(): "bigint", pa.float64(): "double precision", pa.bool_(): "boolean", pa.string(): "text"}
        known = self._types()
        for field in batch.metadata.schema:
            if field.name not in known:
                if len(field.name.encode()) > 63:
                    raise ConfigError(f"{self.where}: the column {field.name!r} is too long for PostgreSQL. Rename it.")
                kind = self._sql.SQL(kinds[field.type])
                name = self._sql.Identifier(field.name)
                self._run("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind}", name=name, kind=kind)
            elif known[field.name] != field.type and not (
                pa.types.is_floating(known[field.name]) and pa.types.is_integer(field.type)
            ):
                raise ConfigError(
                    f"{self.where}: the column {field.name!r} is {known[field.name]} there and {field.type} here. "
                    "Rename it here, or give another table: URL#TABLE."
                )

    def _copy(self, batch: Batch, columns: Any, names: list[str]) -> None:
        """Copy a batch into a temporary table, in PostgreSQL's binary format."""
        import pyarrow as pa

        kinds = {pa.int64(): "int8", pa.float64(): "float8", pa.bool_(): "bool", pa.string(): "text"}
        known = self._types()
        rows = batch.metadata.to_pylist() if batch.metadata.column_names else [{}] * len(batch)
        floats = {name for name in batch.metadata.column_names if pa.types.is_floating(known[name])}
        statement = self._sql.SQL("COPY isthmus_batch ({}) FROM STDIN (FORMAT BINARY)").format(columns)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["text"] * 4 + ["vector"] + [kinds[known[name]] for name in batch.metadata.column_names])
            for name, content, vector, row in zip(batch.ids, batch.contents, batch.vectors, rows, strict=True):
                # PostgreSQL holds no zero bytes in a text.
                values = [value.replace("\0", "") if isinstance(value, str) else value for value in row.values()]
                values = [
                    float(value) if key in floats and value is not None else value
                    for key, value in zip(row, values, strict=True)
                ]
                copy.write_row([batch.gallery, name.replace("\0", ""), batch.modality, content, vector, *values])

    def delete(self, gallery: str, ids: Sequence[str]) -> None:
        """Delete rows; ids that are not there are passed over."""
        self._run(f"DELETE FROM {{table}} WHERE {GALLERY} = %s AND {ID} = ANY(%s)", [gallery, list(ids)])

    def search(self, vector: Array, k: int, *, filter: str | Filter | None = None, exact: bool = False) -> list[Hit]:
        """The k nearest rows of a vector (dim,), best first, of those that pass a filter."""
        types = self._types()
        shown = [name for name in types if name not in (CONTENT, VECTOR)]
        condition, values = self._where(filter, types)
        columns = self._sql.SQL(", ").join(map(self._sql.Identifier, shown))
        distance = self._distance()
        with self._connection.transaction():
            if exact:
                self._run("SET LOCAL enable_indexscan = off")
            else:
                # A filter that few rows pass would leave too few of the list: then it is prolonged.
                self._run(f"SET LOCAL hnsw.ef_search = {min(1000, max(SEARCH_LIST, 4 * k))}")
                self._run("SET LOCAL hnsw.iterative_scan = strict_order")
            rows = self._run(
                f"SELECT {{columns}}, {distance} AS distance FROM {{table}} WHERE {{condition}} "
                "ORDER BY distance LIMIT %s",
                [vector, *values, k],
                columns=columns,
                condition=condition,
            ).fetchall()
        scored = [(float(row[-1]), dict(zip(shown, row[:-1], strict=True))) for row in rows]
        scored.sort(key=lambda pair: (pair[0], pair[1][GALLERY], pair[1][ID]))
        return [hit_of(distance, row) for distance, row in scored]

    def _distance(self) -> str:
        """Cosine distance in SQL, in half precision where the dimension is beyond the index of full vectors."""
        if self.record.dim > MOST_INDEXED:
            return f"({VECTOR}::halfvec({self.record.dim}) <=> %s::halfvec({self.record.dim}))"
        return f"({VECTOR} <=> %s)"

    def _where(self, filter: str | Filter | None, types: dict[str, Any]) -> tuple[Any, list[Value]]:
        """Condition of a filter in SQL, and its parameters."""
        tree = checked_filter(filter, types)
        values: list[Value] = []
        if tree is None:
            return self._sql.SQL("TRUE"), values

        def placeholder(value: Value) -> str:
            values.append(value.replace("\0", "") if isinstance(value, str) else value)
            return "%s"

        def quote(name: str) -> str:
            # A percent sign would be taken for a placeholder.
            return str(self._sql.Identifier(name).as_string(self._connection)).replace("%", "%%")

        return self._sql.SQL(to_sql(tree, placeholder, quote)), values

    def count(self, filter: str | Filter | None = None) -> int:
        """Number of rows, or of those that pass a filter."""
        condition, values = self._where(filter, self._types())
        statement = "SELECT count(*) FROM {table} WHERE {condition}"
        return int(self._run(statement, values, condition=condition).fetchone()[0])

    def modalities(self) -> list[str]:
        """The modalities of its rows, sorted."""
        return sorted(row[0] for row in self._run(f"SELECT DISTINCT {MODALITY} FROM {{table}}").fetchall())

    def galleries(self) -> dict[str, str]:
        """The modality of each gallery, by name."""
        rows = self._run(f"SELECT DISTINCT {GALLERY}, {MODALITY} FROM {{table}} ORDER BY {GALLERY}").fetchall()
        return dict(rows)

    def columns(self) -> list[str]:
        """Names of the user's columns."""
        return [name for name in self._types() if name not in OWN]

    def page(self, gallery: str, offset: int, limit: int) -> list[str]:
        """Some ids of a gallery, sorted."""
        statement = f"SELECT {ID} FROM {{table}} WHERE {GALLERY} = %s ORDER BY {ID} OFFSET %s LIMIT %s"
        return [row[0] for row in self._run(statement, [gallery, offset, limit]).fetchall()]

    def fetch(self, gallery: str, ids: Sequence[str]) -> list[StoredRow]:
        """Rows by id, in the order of the ids; ids that are not there are passed over."""
        columns = self.columns()
        names = self._sql.SQL(", ").join(map(self._sql.Identifier, [ID, VECTOR, *columns]))
        statement = f"SELECT {{names}} FROM {{table}} WHERE {GALLERY} = %s AND {ID} = ANY(%s)"
        rows = self._run(statement, [gallery, list(ids)], names=names).fetchall()
        stored = [StoredRow(row[0], _vector(row[1]), dict(zip(columns, row[2:], strict=True))) for row in rows]
        return in_order(stored, ids)

    def build_index(self) -> None:
        """Build the HNSW index where there is none; PostgreSQL keeps it up to date by itself."""
        dim = self.record.dim
        if dim > 2 * MOST_INDEXED:
            return  # exact search stays
        what = (
            f"{VECTOR} vector_cosine_ops" if dim <= MOST_INDEXED else f"({VECTOR}::halfvec({dim})) halfvec_cosine_ops"
        )
        table = self._name.as_string(self._connection).strip('"')
        with self._connection.transaction():
            self._run("SET LOCAL maintenance_work_mem = '1GB'")
            self._run(
                f"CREATE INDEX IF NOT EXISTS {{index}} ON {{table}} USING hnsw ({what}) "
                f"WITH (ef_construction = {BUILD_LIST})",
                index=self._sql.Identifier(f"{table[:50]}_hnsw"),
            )
        self._run("ANALYZE {table}")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _vector(value: Any) -> Array:
    """A vector as pgvector's client gives it: an array of numpy, or of later versions a class of its own."""
    return np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value, np.float32)


def _load() -> tuple[Any, Any, Any]:
    """The modules psycopg and pgvector, or how to install them."""
    try:
        import psycopg
        from pgvector.psycopg import register_vector
        from psycopg import sql
    except ImportError as error:
        raise DependencyError(
            "a store of PostgreSQL needs psycopg and pgvector, which are not installed. Install them: pip install "
            "'isthmus[postgres]'."
        ) from error
    return psycopg, sql, register_vector
