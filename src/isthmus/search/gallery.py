"""Galleries: modalities of spaces, projected or to be projected, as items of one index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.errors import ConfigError
from isthmus.search.index import SearchIndex

if TYPE_CHECKING:
    import pyarrow as pa

    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.selection import Selection


def index_of(
    bridge: Bridge,
    embeddings: Sequence[Embeddings] | Mapping[str, Embeddings | Selection],
    *,
    force: bool = False,
    center: bool = False,
) -> SearchIndex:
    """An index of modalities of spaces in the unified space of a bridge.

    Args:
        bridge: The bridge.
        embeddings: Modalities of spaces; a mapping names the galleries.
        force: Project embeddings of another encoder too.
        center: Remove each modality's centroid.

    Raises:
        FingerprintError: Embeddings come from an encoder that the bridge does not know, or from another bridge.
        ConfigError: Nothing is given.
    """
    named = embeddings if isinstance(embeddings, Mapping) else dict(zip(_names(embeddings), embeddings, strict=True))
    if not named:
        raise ConfigError("an index needs embeddings, got none. Give modalities of spaces.")
    rows = np.empty((sum(len(each) for each in named.values()), bridge.dim), np.float32)
    start = 0
    for each in named.values():
        for block in bridge.project_blocks(each, force=force):
            rows[start : start + len(block)] = block
            start += len(block)
    modalities = [each.modality for each in named.values() for _ in range(len(each))]
    return SearchIndex(
        rows,
        [name for each in named.values() for name in each.ids],
        gallery_metadata(list(named.values())),
        modalities=modalities,
        galleries="" if len(named) == 1 else [name for name, each in named.items() for _ in range(len(each))],
        center=center,
        unified=bridge_fingerprint(bridge),
    )


def _names(embeddings: Sequence[Embeddings]) -> list[str]:
    """A name of its own for each: space and modality, with a number where two have the same."""
    names: list[str] = []
    for each in embeddings:
        name = f"{each.space_name}/{each.modality}"
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def gallery_metadata(embeddings: Sequence[Embeddings | Selection]) -> Any:
    """Metadata of several modalities as one table; of several, a column `modality` stands first."""
    if len(embeddings) == 1:
        return embeddings[0].metadata
    import pyarrow as pa

    tables = [_with_modality(each) for each in embeddings]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        # One column of two kinds (a year as number here, as text there): text holds both.
        return pa.concat_tables(list(map(_as_text, tables, [_mixed(tables)] * len(tables))), promote_options="default")


def _with_modality(x: Embeddings | Selection) -> pa.Table:
    """Metadata of a gallery with a column for the modality."""
    import pyarrow as pa

    table = x.metadata
    if "modality" in table.column_names:
        return table
    return table.add_column(0, "modality", pa.array([x.modality] * len(x), pa.string()))


def _mixed(tables: Sequence[pa.Table]) -> set[str]:
    """Columns whose types differ between tables."""
    types: dict[str, Any] = {}
    mixed = set()
    for table in tables:
        for field in table.schema:
            if types.setdefault(field.name, field.type) != field.type:
                mixed.add(field.name)
    return mixed


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    """Columns of a table as text, for galleries that hold other types under one name."""
    import pyarrow as pa

    for name in names & set(table.column_names):
        place = table.column_names.index(name)
        values = [None if value is None else str(value) for value in table.column(name).to_pylist()]
        table = table.set_column(place, name, pa.array(values, pa.string()))
    return table
