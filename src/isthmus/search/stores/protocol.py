"""What a vector store does for isthmus, and what is the same for all of them.

A store holds rows of one unified space. A row is named by its gallery (`space/modality`) and its id. Beside the vector
it keeps the modality, the user's plain columns, and a hash of all that: a row whose hash is there already is not
written again, so that a load that was killed goes on where it stopped and a second load writes only what changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from isthmus.core.geometry import Array
from isthmus.errors import ConfigError, FingerprintError
from isthmus.search.filter_parser import read_filter
from isthmus.search.filter_tree import Filter
from isthmus.search.filters import arrow_kind, check_filter
from isthmus.search.hits import Hit

if TYPE_CHECKING:
    import pyarrow as pa


GALLERY, ID, MODALITY, CONTENT, VECTOR = "gallery", "id", "modality", "_content", "_vector"
OWN = (GALLERY, ID, MODALITY, CONTENT, VECTOR)
"""Columns that every store has; a user's column of such a name gets an underscore behind it."""
SHOWN = (GALLERY, ID, MODALITY)
DEFAULT_TABLE = "isthmus"
INDEX_ROWS = 20_000
"""From here on a store gets its approximate index when a load is done; below it scans, which is exact."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True)
class Record:
    """Record in a store's metadata of what its rows are.

    Attributes:
        fingerprint: Fingerprint of the bridge whose unified space they are in.
        dim: Dimension of that space.
        version: Version of this layout.
    """

    fingerprint: str
    dim: int
    version: int = 1

    def to_json(self) -> str:
        """The record as it stands in a store."""
        return json.dumps({"isthmus_store": self.version, "fingerprint": self.fingerprint, "dim": self.dim})

    @classmethod
    def from_json(cls, text: str | None, where: str) -> Record:
        """Read a record.

        Raises:
            ConfigError: There is none: the table was not made by isthmus.
        """
        try:
            value = json.loads(text or "")
            return cls(str(value["fingerprint"]), int(value["dim"]), int(value["isthmus_store"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{where} was not made by isthmus (it has no record of a bridge), so it is left alone. Give another "
                "table: URL#TABLE."
            ) from error


@dataclass(frozen=True)
class Batch:
    """Rows of one gallery to write.

    Attributes:
        gallery: Their gallery.
        modality: Their modality.
        ids: (n,) their ids.
        vectors: (n, dim) unit float32 rows.
        metadata: n rows of plain columns (see `plain_table`).
        contents: (n,) hash of each row.
    """

    gallery: str
    modality: str
    ids: list[str]
    vectors: Array
    metadata: pa.Table
    contents: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Batch:
        """Some of the rows."""
        chosen = list(rows)
        return Batch(
            self.gallery,
            self.modality,
            [self.ids[row] for row in chosen],
            self.vectors[chosen],
            self.metadata.take(chosen),
            [self.contents[row] for row in chosen],
        )


class StoredRow(NamedTuple):
    """A row as it lies in a store.

    Attributes:
        id: Its id.
        vector: (dim,) unit float32.
        metadata: The user's columns.
    """

    id: str
    vector: Array
    metadata: dict[str, Any]


class Store(Protocol):
    """A table of a vector database. Every method that writes is atomic for what it is given, or may be repeated."""

    record: Record
    where: str

    def contents(self, gallery: str) -> dict[str, str]:
        """Hash of every row of a gallery by id."""
        ...

    def upsert(self, batch: Batch) -> None:
        """Write rows, those of ids that are there in their place."""
        ...

    def delete(self, gallery: str, ids: Sequence[str]) -> None:
        """Delete rows; ids that are not there are passed over."""
        ...

    def search(self, vector: Array, k: int, *, filter: str | Filter | None = None, exact: bool = False) -> list[Hit]:
        """The k nearest rows of a vector (dim,), best first, of those that pass a filter."""
        ...

    def count(self, filter: str | Filter | None = None) -> int:
        """Number of rows, or of those that pass a filter."""
        ...

    def modalities(self) -> list[str]:
        """The modalities of its rows, sorted."""
        ...

    def galleries(self) -> dict[str, str]:
        """The modality of each gallery, by name."""
        ...

    def columns(self) -> list[str]:
        """Names of the user's columns."""
        ...

    def page(self, gallery: str, offset: int, limit: int) -> list[str]:
        """Some ids of a gallery, in an order that stays while nothing is written."""
        ...

    def fetch(self, gallery: str, ids: Sequence[str]) -> list[StoredRow]:
        """Rows by id, in the order of the ids; ids that are not there are passed over."""
        ...

    def build_index(self) -> None:
        """Build or renew the approximate index."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def check_record(store: Store, fingerprint: str) -> None:
    """Refuse a store of another bridge.

    Raises:
        FingerprintError: Its rows were projected by another bridge.
    """
    if store.record.fingerprint != fingerprint:
        raise FingerprintError(
            f"{store.where} holds rows of another bridge ({store.record.fingerprint[:12]}, this one is "
            f"{fingerprint[:12]}): their cosines mean nothing. Give the bridge that filled it, or another table: "
            "URL#TABLE."
        )


def split_table(url: str) -> tuple[str, str]:
    """Split `URL#TABLE` into the URL and the table, by default `isthmus`.

    Raises:
        ConfigError: The table is no plain name.
    """
    head, hash_, table = url.partition("#")
    name = table if hash_ else DEFAULT_TABLE
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the table {name!r} is no plain name. Expected letters, digits and underscores, such as URL#photos."
        )
    return head, name


def plain_table(table: pa.Table) -> pa.Table:
    """The user's columns as every store can hold and filter them: integers, floats, truth values and texts.

    `id` is left out, a column of nulls too, NaN becomes null, and what is no plain value (a list, a date) becomes text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if name == ID or pa.types.is_null(column.type):
            continue
        columns[name + "_" if name in OWN else name] = _plain(column, pa, pc)
    # A table without columns forgets how many rows it has.
    return pa.table(columns) if columns else table.select([])


def _plain(column: Any, pa: Any, pc: Any) -> Any:
    """Column of metadata in one of the four types that every store knows."""
    kind = column.type
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        values = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(values), None, values)
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    return pa.chunked_array([pa.array([_text(value) for value in column.to_pylist()], pa.string())])


def _text(value: Any) -> str | None:
    """Value of a column without a plain type, as text."""
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)


def row_hashes(ids: Sequence[str], vectors: Array, metadata: pa.Table) -> list[str]:
    """A hash of 16 hexadecimal digits of each row: its vector and its columns by name, whatever their order."""
    names = sorted(metadata.column_names)
    rows = metadata.select(names).to_pylist() if names else [{}] * len(ids)
    out = []
    for vector, row in zip(np.ascontiguousarray(vectors, np.float32), rows, strict=True):
        # A column that others have and this row lacks must not change the row's hash.
        given = {name: value for name, value in row.items() if value is not None}
        digest = hashlib.blake2b(vector.tobytes(), digest_size=8)
        digest.update(json.dumps(given, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        out.append(digest.hexdigest())
    return out


def in_order(rows: Iterable[StoredRow], ids: Sequence[str]) -> list[StoredRow]:
    """Rows in the order of ids, those that are not there left out."""
    by_id = {row.id: row for row in rows}
    return [by_id[name] for name in ids if name in by_id]


def checked_filter(given: str | Filter | None, types: dict[str, Any]) -> Filter | None:
    """A filter, parsed and checked against a store's columns by their Arrow types, or None.

    Raises:
        ConfigError: It cannot be read, or names a column that is not there or of another kind.
    """
    tree = read_filter(given)
    if tree is not None:
        check_filter(tree, {name: arrow_kind(kind) for name, kind in types.items() if name not in (CONTENT, VECTOR)})
    return tree


def hit_of(distance: float, row: dict[str, Any]) -> Hit:
    """Hit from a row of a store and its cosine distance; what is no name of its own is metadata."""
    about = {name: value for name, value in row.items() if name not in (GALLERY, ID, MODALITY)}
    return Hit(row[ID], 1.0 - distance, -1, about, row[MODALITY], row[GALLERY])
