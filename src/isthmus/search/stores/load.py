"""Opening a store by its URL, and loading projected rows into it: idempotent, resumable by id, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.bridges.projected import part_bounds
from isthmus.core.distribution import Distribution
from isthmus.core.geometry import Array
from isthmus.core.runtime import Progress
from isthmus.errors import ConfigError
from isthmus.search.stores.protocol import (
    INDEX_ROWS,
    Batch,
    Record,
    Store,
    check_record,
    plain_table,
    row_hashes,
    split_table,
)
from isthmus.spaces.selection import Selection
from isthmus.spaces.space import open_space

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.space import Space

BLOCK = 8192
"""Rows that are projected, hashed and written at once: 32 MiB at 1,024 dimensions."""
SCHEMES = ("lance:", "postgresql://", "postgres://", "qdrant:")


@dataclass(frozen=True)
class LoadReport:
    """Report of loading a gallery into a store, by rows.

    Attributes:
        gallery: The gallery that they are in.
        rows: Rows of the modality.
        written: New or changed, written now.
        unchanged: That were there as they are.
        deleted: That the modality does not hold any more, and were deleted.
    """

    gallery: str
    rows: int
    written: int
    unchanged: int
    deleted: int


def is_store(url: str) -> bool:
    """Whether a text names a vector store and no path."""
    return url.startswith(SCHEMES)


def open_store(url: str, record: Record | None = None) -> Store:
    """Open a store by its URL: `lance:DIR`, `postgresql://...`, `qdrant:URL_OR_DIR`, each with `#TABLE` behind.

    Args:
        url: The URL.
        record: What a store that is made now is for; None opens only what is there.

    Raises:
        ConfigError: An unknown scheme, no such table, a table that isthmus did not make, or no server.
        DependencyError: The client is not installed.
    """
    head, table = split_table(url)
    if head.startswith("lance:"):
        from isthmus.search.stores.lance import LanceStore

        return LanceStore(head.removeprefix("lance:"), table, record)
    if head.startswith(("postgresql://", "postgres://")):
        from isthmus.search.stores.postgres import PostgresStore

        return PostgresStore(head, table, record)
    if head.startswith("qdrant:"):
        from isthmus.search.stores.qdrant import QdrantStore

        return QdrantStore(head.removeprefix("qdrant:"), table, record)
    raise ConfigError(
        f"{url.split('@')[-1]!r} names no store. Expected lance:DIR, postgresql://... or qdrant:URL_OR_DIR."
    )


def open_store_of(bridge: Bridge, url: str, *, create: bool = False) -> Store:
    """Open the store of a bridge.

    Raises:
        FingerprintError: It holds rows of another bridge.
        ConfigError: As `open_store`.
    """
    record = Record(bridge_fingerprint(bridge), bridge.dim)
    store = open_store(url, record if create else None)
    try:
        check_record(store, record.fingerprint)
    except BaseException:
        store.close()
        raise
    return store


def load(
    store: Store,
    bridge: Bridge,
    embeddings: Embeddings,
    *,
    gallery: str | None = None,
    part: tuple[int, int] | None = None,
    prune: bool = False,
    force: bool = False,
    quiet: bool = True,
) -> LoadReport:
    """Project a modality of a space into a store.

    Rows that are there already, vector and metadata alike, are not written again: run again after a kill it goes on,
    and run again after a change it writes the change.

    Args:
        store: The store, of this bridge.
        bridge: The bridge.
        embeddings: The modality.
        gallery: What its rows are called together; by default `space/modality`.
        part: (number, of how many): only these rows, so that several machines can load side by side.
        prune: Delete the gallery's rows that the modality does not hold any more.
        force: Project embeddings of another encoder too.
        quiet: Show no progress.

    Raises:
        ConfigError: `prune` with `part`, or a column that the store holds as another kind.
    """
    if prune and part is not None:
        raise ConfigError("--prune looks at a whole gallery, got --shard too. Prune in a run without it.")
    name = gallery or f"{embeddings.space_name}/{embeddings.modality}"
    there = store.contents(name)
    first, last = part_bounds(len(embeddings), part)
    wanted = embeddings if part is None else Selection(embeddings, np.arange(first, last))
    written = start = 0
    with Progress(f"load {name}", len(wanted), unit="rows", quiet=quiet) as progress:
        for block in bridge.project_blocks(wanted, force=force, size=BLOCK):
            written += _write(store, _batch(name, wanted, block, start), there)
            start += len(block)
            progress.advance(len(block))
    deleted: Sequence[str] = sorted(there.keys() - set(embeddings.ids)) if prune else []
    if deleted:
        store.delete(name, deleted)
    return LoadReport(name, len(wanted), written, len(wanted) - written, len(deleted))


def _batch(gallery: str, x: Embeddings | Selection, vectors: Array, start: int) -> Batch:
    """Rows of a gallery to write, with the hashes that tell changed ones."""
    stop = start + len(vectors)
    ids, metadata = x.ids[start:stop], plain_table(x.metadata.slice(start, len(vectors)))
    return Batch(gallery, x.modality, ids, vectors, metadata, row_hashes(ids, vectors, metadata))


def _write(store: Store, batch: Batch, there: dict[str, str]) -> int:
    """Write the rows of a batch that are new or changed; returns how many."""
    new = [row for row, name in enumerate(batch.ids) if name not in there]
    changed = [row for row, name in enumerate(batch.ids) if name in there and there[name] != batch.contents[row]]
    append = getattr(store, "append", store.upsert)
    if new:
        append(batch.take(new))
    if changed:
        store.upsert(batch.take(changed))
    return len(new) + len(changed)


def finish(store: Store) -> bool:
    """Build the approximate index of a store that holds enough rows for one; returns whether it did."""
    if store.count() < INDEX_ROWS:
        return False
    store.build_index()
    return True


def load_spaces(
    bridge: Bridge,
    spaces: Sequence[Space],
    url: str,
    *,
    modalities: Sequence[str] | None = None,
    distribution: Distribution | None = None,
    prune: bool = False,
    force: bool = False,
    quiet: bool = True,
) -> list[LoadReport]:
    """Project modalities of spaces into a store named by URL, and build its index where it holds enough rows.

    Args:
        bridge: The bridge.
        spaces: What to project.
        url: `lance:DIR`, `postgresql://...` or `qdrant:URL_OR_DIR`, with `#TABLE` behind; made where it is missing.
        modalities: Which; None is every modality that the bridge has a route for.
        distribution: One part of each modality, whose index is then left to a last run without it, or all parts on a
            Ray cluster. None is this process.
        prune: Delete rows of the galleries that the spaces do not hold any more.
        force: Project embeddings of another encoder too.
        quiet: Show no progress.

    Raises:
        ConfigError: No modality has a route, or as `load`.
        FingerprintError: The store holds rows of another bridge.
    """
    work = distribution or Distribution()
    if prune and work.cuts:
        raise ConfigError("--prune looks at a whole gallery, got a run in parts. Prune in a run without them.")
    routed = {key.rpartition("/")[2] for key in bridge.routes}
    wanted = [one[name] for one in spaces for name in one.modalities if name in (modalities or routed)]
    if not wanted:
        raise ConfigError(
            f"the spaces have no modality that the bridge has a route for ({', '.join(sorted(routed))}). Give others."
        )
    # Made here, so that parts side by side do not all make it.
    store = open_store_of(bridge, url, create=True)
    try:
        if work.engine == "ray":
            places = [one.path.resolve() for one in wanted]
            loads = work.on_ray(partial(_load_part, bridge, url, places, force))
            reports = [_summed(parts) for parts in zip(*loads, strict=True)]
        else:
            reports = [
                load(store, bridge, one, part=work.part, prune=prune, force=force, quiet=quiet) for one in wanted
            ]
        if work.part is None:
            finish(store)
        return reports
    finally:
        store.close()


def _load_part(
    bridge: Bridge, url: str, places: Sequence[Path], force: bool, part: tuple[int, int]
) -> list[LoadReport]:
    """One part of the modalities in these folders, in a process that opens everything for itself."""
    store = open_store_of(bridge, url)
    try:
        return [load(store, bridge, open_space(one.parent)[one.name], part=part, force=force) for one in places]
    finally:
        store.close()


def _summed(parts: Sequence[LoadReport]) -> LoadReport:
    """Reports of several parts of a load as one."""
    counts = ("rows", "written", "unchanged", "deleted")
    return LoadReport(parts[0].gallery, *(sum(getattr(part, name) for part in parts) for name in counts))
