"""An import that was found to fit its target: what is read, where it goes, and what of it is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import SpaceError
from isthmus.spaces.embeddings import Embeddings, Rows
from isthmus.spaces.importing.formats import Block
from isthmus.spaces.importing.sources import Ids, Source, check_unique, merge, resolve_ids, text_column
from isthmus.spaces.manifest import check_dtype, check_target

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 16_384
_HELD_VALUES = 2**26


@dataclass
class Plan:
    """A source that was found to fit a target.

    `ids` is None while they are to be generated; `beside` holds columns from the file of ids; `there` the modality, if
    it exists, with the rows of an interrupted writer; `counted` rows of it count; `held` the blocks of a small source,
    so that it is decoded once.
    """

    source: Source
    into: Path
    modality: str
    name: str | None
    info: dict[str, Any]
    dtype: str
    ids: Any
    how: str
    beside: Any
    there: Embeddings | None
    counted: int
    held: list[Block] | None = None

    def read(self) -> Iterator[Block]:
        """All rows of the source."""
        if self.held is None and self.source.rows * self.source.dim <= _HELD_VALUES:
            self.held = list(self.source.blocks(0, _BLOCK))
        yield from self.source.blocks(0, _BLOCK) if self.held is None else self.held

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows of the source from `start` on, with the columns that go with them."""
        for x, table in self.source.blocks(start, _BLOCK) if self.held is None else _from(self.held, start):
            beside = self.beside.slice(start, len(x)) if self.beside is not None else None
            yield x, text_column(merge(table, beside), self.modality)
            start += len(x)

    def where(self, row: int, further: int = 0) -> str:
        """The file, row and id of a row (`further` rows after another), for messages."""
        row += further
        return self.source.where(row) + ("" if self.ids is None else f" (id {self.ids[row].as_py()!r})")


def _from(blocks: list[Block], start: int) -> Iterator[Block]:
    for x, table in blocks:
        if start < len(x):
            yield x[start:], table.slice(start) if table is not None else None
        start = max(start - len(x), 0)


def make_plan(
    source: Source,
    into: Path,
    modality: str,
    ids: Ids,
    encoder: str | Mapping[str, Any] | None,
    preprocessing: Mapping[str, Any] | None,
    name: str | None,
    dtype: str | None,
) -> Plan:
    """Check all that can be said without reading embeddings; see `import_embeddings` for the arguments and faults."""
    check_dtype(dtype)
    info = {"encoder": encoder, "preprocessing": preprocessing}
    manifest = check_target(into, modality, dim=source.dim, info=info, name=name)
    entry = manifest["modalities"].get(modality) if manifest else None
    if entry and dtype not in (None, entry["dtype"]):
        raise SpaceError(
            f"{into}: {modality!r} is stored as {entry['dtype']}, got dtype {dtype!r}. Leave the dtype out."
        )
    there = Embeddings(into, modality, manifest, pending=True) if entry and manifest else None
    found, how, beside = resolve_ids(source, ids)
    if found is not None:
        check_unique(found, source)
    stored = entry["dtype"] if entry else dtype or source.dtype
    kind = {"name": source.path.name, "ids": how}
    return Plan(
        source,
        into,
        modality,
        name,
        {**info, "source": kind},
        stored,
        found,
        how,
        beside,
        there,
        entry["rows"] if entry else 0,
    )


def generate_ids(modality: str, start: int, count: int) -> pa.ChunkedArray:
    """Ids for `count` rows of a modality that has `start` already: `image-00000000` and on."""
    import pyarrow as pa

    names = (f"{modality}-{row:08d}" for row in range(start, start + count))
    return pa.chunked_array([pa.array(names, pa.large_string(), size=count)])


def same_rows(plan: Plan, rows: Rows) -> bool:
    """Whether the first rows of the source are, as stored, the given rows of the modality."""
    done = 0
    for x, _ in plan.read():
        if done >= len(rows) or plan.there is None:
            break
        here = rows[done : done + len(x)]
        if not np.array_equal(x[: len(here)].astype(plan.dtype).astype(np.float32), plan.there.take(here)):
            return False
        done += len(x)
    return True


def row_as_stored(plan: Plan, row: int) -> NDArray[np.float32]:
    """One row of the source, (dim,), as it would be read from the space."""
    x, _ = next(plan.source.blocks(row, 1))
    return x[0].astype(plan.dtype).astype(np.float32)  # type: ignore[no-any-return]
