"""The overlap: items of one modality that two spaces share, matched by id and never by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isthmus.errors import OverlapError
from isthmus.spaces.embeddings import RowNumbers, find_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from isthmus.spaces.space import Space

MINIMUM_OVERLAP = 8
"""Below this many shared items nothing can be learned; above it, `inspect` says how good the overlap is."""


@dataclass(frozen=True)
class Overlap:
    """Items of one modality that two spaces share, in the order of the first.

    Attributes:
        ids: The shared ids.
        rows_a: (n,) their rows in the first.
        rows_b: (n,) their rows in the second.
    """

    ids: list[str]
    rows_a: RowNumbers
    rows_b: RowNumbers

    def __len__(self) -> int:
        return len(self.rows_a)


def overlap(a: Space, b: Space, via: str, *, least: int = 1) -> Overlap:
    """Match the items of modality `via` that two spaces share.

    Args:
        a: The first space, whose order the result has.
        b: The second.
        via: The modality.
        least: Fewest shared items that do; `MINIMUM_OVERLAP` where something is learned from them.

    Raises:
        OverlapError: A space lacks the modality, or they share too few ids of it.
    """
    check_via((a.name, a.modalities), (b.name, b.modalities), via)
    return match_ids((a.name, a[via].id_array), (b.name, b[via].id_array), via, least=least)


def check_via(a: tuple[str, Sequence[str]], b: tuple[str, Sequence[str]], via: str) -> None:
    """Check that two spaces, each given as its name and its modalities, both have a modality.

    Raises:
        OverlapError: One of them lacks it.
    """
    for (name, own), (other, others) in ((a, b), (b, a)):
        if via not in own:
            both = ", ".join(modality for modality in own if modality in others) or "none"
            raise OverlapError(
                f"space {name!r} has no {via!r} to match with {other!r} (it has {', '.join(own)}). "
                f"Modalities in both: {both}. Give one of them as via, or encode {via} with the encoder of {name!r}."
            )


def match_ids(
    a: tuple[str, Sequence[str] | pa.ChunkedArray],
    b: tuple[str, Sequence[str] | pa.ChunkedArray],
    via: str,
    *,
    least: int = MINIMUM_OVERLAP,
) -> Overlap:
    """Match the ids of two spaces, each given as its name and its ids in the order of the rows.

    Raises:
        OverlapError: They share fewer than `least` ids.
    """
    (name_a, ids_a), (name_b, ids_b) = (a[0], _large_strings(a[1])), (b[0], _large_strings(b[1]))
    rows_b = find_rows(ids_a, ids_b)
    rows = np.flatnonzero(rows_b >= 0).astype(np.int64)
    if len(rows) < max(least, 1):
        examples = ", ".join(
            f"{name}: {ids[0].as_py()!r}" for name, ids in ((name_a, ids_a), (name_b, ids_b)) if len(ids)
        )
        wanted = f"at least {least} of the same" if len(rows) else "the same"
        raise OverlapError(
            f"spaces {name_a!r} and {name_b!r} share {len(rows):,} of {min(len(ids_a), len(ids_b)):,} {via} ids "
            f'({examples}). via="{via}" needs {wanted} {_plural(via)} encoded by both spaces. '
            "Encode one file with both encoders, or give ids with --ids."
        )
    return Overlap(ids_a.take(rows).to_pylist(), rows, rows_b[rows])


def _large_strings(ids: Sequence[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids in the type that `find_rows` compares: large strings, of which more than 2 GiB can be searched."""
    import pyarrow as pa

    return ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([pa.array(ids, pa.large_string())])


def _plural(modality: str) -> str:
    """Name of a modality's items, for messages."""
    return {"audio": "sounds"}.get(modality, modality.replace("_", " ") + "s")
