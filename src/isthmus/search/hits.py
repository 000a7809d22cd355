"""Hits: what a search found, as a list that a notebook shows with pictures and players."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from isthmus.items import Rejected
from isthmus.items.preview import STILL_TYPES, Preview, item_of

if TYPE_CHECKING:
    from isthmus.bridges.explain import Explanation

PIXELS, SECONDS, SHOWN = 140, 4.0, 24
"""Width of a picture in pixels, length of a sound in seconds, and the hits that a notebook shows."""


@dataclass(frozen=True)
class Hit:
    """Item that a search found.

    Attributes:
        id: Its id.
        score: Cosine with the query, higher is better.
        row: Its row in the index, counted over the items that are there.
        metadata: What is known of it; empty where the index has no metadata.
        modality: Its modality; empty where the index does not know.
        gallery: The gallery that it came with; empty where there is only one.
        why: The shared items that carry the match (see `isthmus.search.ask.explain_hits`); None until that is asked.
    """

    id: str
    score: float
    row: int
    metadata: dict[str, Any] = field(default_factory=dict)
    modality: str = ""
    gallery: str = ""
    why: Explanation | None = None


class Hits(list[Hit]):
    """Hits of one query, best first."""

    def _repr_html_(self) -> str:
        """Cards of the hits for a notebook."""
        cards = "".join(_card(hit) for hit in self[:SHOWN])
        rest = f"<div>and {len(self) - SHOWN:,} more</div>" if len(self) > SHOWN else ""
        return f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{cards}</div>{rest}"


def _card(hit: Hit) -> str:
    """Card of one hit: picture or sound, label, score, reasons."""
    label = str(hit.metadata.get("text") or hit.id)
    words = f"<div style='overflow-wrap:anywhere'>{escape(label)}</div>"
    foot = f"<small>{hit.score:.3f} {escape(hit.gallery)}</small>"
    if hit.why is not None:
        foot += f"<div><small title='{escape(hit.why.basis, quote=True)}'>{escape(str(hit.why))}</small></div>"
    return f"<div style='width:{PIXELS + 12}px'>{_seen(hit, label)}{words}{foot}</div>"


def _seen(hit: Hit, label: str) -> str:
    """The item's picture or player, or nothing where its metadata name no file that can be shown."""
    modality = hit.modality or next((m for m in STILL_TYPES if f"{m}_path" in hit.metadata), "")
    item = item_of(hit.metadata, modality, hit.id) if modality in STILL_TYPES else None
    if item is None:
        return ""
    try:
        data = Preview(modality, pixels=PIXELS, seconds=SECONDS, still=True)(item)
    except Rejected:
        return ""
    source = f"data:{STILL_TYPES[modality]};base64,{base64.b64encode(data).decode()}"
    if modality == "audio":
        return f"<audio controls preload='none' style='width:{PIXELS}px' src='{source}'></audio>"
    return f"<img alt='{escape(label, quote=True)}' style='max-width:{PIXELS}px;max-height:{PIXELS}px' src='{source}'>"
