"""An import that was found to fit its target: what is read, where it goes, and what of it is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import sha256_json
from isthmus.errors import SpaceError
from isthmus.spaces.embeddings import Embeddings, RowNumbers
from isthmus.spaces.importing.ids import Ids, check_unique, resolve_ids
from isthmus.spaces.importing.sources import Source, merge, text_column
from isthmus.spaces.importing.tables import Block
from isthmus.spaces.manifest import WHOLE, check_dtype, check_target
from isthmus.spaces.shards import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_VALUES = 2**20
_CACHED_BYTES = 2**27


@dataclass
class PreparedImport:
    """A source that was found to fit a target.

    Attributes:
        source: What is read.
        into: The space's folder.
        modality: Which modality.
        name: Name of a new space.
        info: What the manifest records of the modality.
        dtype: Type on disk.
        ids: Ids of the rows; None while they are to be generated.
        how: How the ids were found.
        beside: Columns from the file of ids.
        existing: The modality where it exists, with the rows of an interrupted writer.
        committed_rows: Rows of it that count.
        cached_blocks: Blocks of a small source, so that it is decoded once.
        norms: (rows,) norms as stored, once they are checked.
        before: The record of an import of the same files, all of whose rows are as they were.
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
    existing: Embeddings | None
    committed_rows: int
    cached_blocks: list[Block] | None = None
    norms: NDArray[np.float64] | None = None
    before: Mapping[str, Any] | None = None

    def read(self) -> Iterator[Block]:
        """All rows of the source."""
        if self.cached_blocks is None and self.source.slow and self.source.bytes <= _CACHED_BYTES:
            self.cached_blocks = list(self.source.blocks(0, self.block_rows))
        yield from self.source.blocks(0, self.block_rows) if self.cached_blocks is None else self.cached_blocks

    @property
    def block_rows(self) -> int:
        """Rows that are read at a time: of wide embeddings fewer, so that a block has a few megabytes."""
        return max(_BLOCK_VALUES // self.source.dim, 1)

    def blocks(self, start: int) -> Iterator[Block]:
        """Rows of the source from `start` on, with the columns that go with them."""
        for x, table in (
            self.source.blocks(start, self.block_rows)
            if self.cached_blocks is None
            else _from(self.cached_blocks, start)
        ):
            beside = self.beside.slice(start, len(x)) if self.beside is not None else None
            yield x, text_column(merge(table, beside), self.modality)
            start += len(x)

    def where(self, row: int, further: int = 0) -> str:
        """The file, row and id of a row (`further` rows after another), for messages."""
        row += further
        return self.source.where(row) + ("" if self.ids is None else f" (id {self.ids[row].as_py()!r})")


def _from(blocks: list[Block], start: int) -> Iterator[Block]:
    """Blocks from row `start` on."""
    for x, table in blocks:
        if start < len(x):
            yield x[start:], table.slice(start) if table is not None else None
        start = max(start - len(x), 0)


def prepare_import(
    source: Source,
    into: Path,
    modality: str,
    ids: Ids,
    encoder: str | Mapping[str, Any] | None,
    preprocessing: Mapping[str, Any] | None,
    name: str | None,
    dtype: str | None,
) -> PreparedImport:
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
    mark = source_mark(source, ids)
    before = None if there is None else _imported_before(there, mark)
    given_ids, how, beside = (None, before["ids"], None) if before else resolve_ids(source, ids)
    if given_ids is not None:
        check_unique(given_ids, source)
    stored = entry["dtype"] if entry else dtype or source.dtype
    kind = {"name": source.path.name, "ids": how, "mark": mark}
    return PreparedImport(
        source,
        into,
        modality,
        name,
        {**info, "source": kind},
        stored,
        given_ids,
        how,
        beside,
        there,
        entry["rows"] if entry else 0,
        before=before,
    )


def source_mark(source: Source, ids: Ids) -> str:
    """Hash of what an import reads: names, sizes and times of the files, and the ids. No file is opened.

    As make and rsync do, it takes a file of the same size and time for the same file.
    """
    paths = [file.path for file in source.files] + source.tables
    if isinstance(ids, str | Path) and Path(ids).is_file():
        paths.append(Path(ids))
    stats = [(path.name, path.stat()) for path in paths]
    given = str(ids) if ids is None or isinstance(ids, str | Path) else list(map(str, ids))
    columns = [getattr(file, "embedding_column", None) for file in source.files]
    return sha256_json([[[name, one.st_size, one.st_mtime_ns] for name, one in stats], given, columns])


def _imported_before(existing: Embeddings, mark: str) -> Mapping[str, Any] | None:
    """The record of an import with this mark, if the rows that it wrote are still those."""
    if existing.info.get("state") != WHOLE:
        return None
    for record in existing.info.get("sources", []):
        start, end = record["start"], record["start"] + record["rows"]
        shards = [shard for shard in existing.shards if start <= shard.start < end]
        if record.get("mark") == mark and "norm" in record and record.get("content") == content_hash(shards):
            return dict(record)
    return None


def generate_ids(modality: str, start: int, count: int) -> pa.ChunkedArray:
    """Ids for `count` rows of a modality that has `start` already: `image-00000000` and on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pa.array(np.arange(start, start + count)).cast(pa.large_string())
    padded = pc.utf8_lpad(numbers, width=8, padding="0")
    prefix = pa.scalar(f"{modality}-", pa.large_string())
    return pa.chunked_array([pc.binary_join_element_wise(prefix, padded, pa.scalar("", pa.large_string()))])


def same_rows(plan: PreparedImport, rows: RowNumbers) -> bool:
    """Whether the first rows of the source are, as stored, the given rows of the modality."""
    done = 0
    for x, _ in plan.read():
        if done >= len(rows) or plan.existing is None:
            break
        here = rows[done : done + len(x)]
        if not np.array_equal(x[: len(here)].astype(plan.dtype).astype(np.float32), plan.existing.take(here)):
            return False
        done += len(x)
    return True


def row_as_stored(plan: PreparedImport, row: int) -> NDArray[np.float32]:
    """One row of the source, (dim,), as it would be read from the space."""
    x, _ = next(plan.source.blocks(row, 1))
    return x[0].astype(plan.dtype).astype(np.float32)  # type: ignore[no-any-return]
