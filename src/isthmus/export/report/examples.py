"""Examples of a task: the surest right answers, the worst misses, hubs, and classes taken for others."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.items import Rejected
from isthmus.items.preview import STILL_TYPES, Preview, item_of

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings

PIXELS, SECONDS = 160, 4.0
"""Of a picture and a sound in the report, so that it stays small."""
HITS, EXAMPLES, HUBS, CONFUSIONS = 3, 5, 8, 10
KINDS = ("label", "class", "category", "caption", "title", "name")
"""Columns of metadata, the first that an item has, that say what an item is beside its id."""
NEIGHBOURS = 10
"""A hub is an item that stands among this many nearest of unusually many queries."""


@dataclass(frozen=True)
class Shown:
    """An item as the report shows it.

    Attributes:
        label: Its text, or its id with what it is said to be.
        modality: Its modality.
        source: A data address of its picture or sound; empty where there is none.
        score: Cosine with the query; None for the query itself.
        right: Whether it is one of the query's true items; None where that is not asked.
        note: Anything else worth saying.
    """

    label: str
    modality: str
    source: str = ""
    score: float | None = None
    right: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A query with its first hits, and the rank of its first true item."""

    query: Shown
    hits: list[Shown]
    rank: int
    reasons: list[tuple[str, float]] = field(default_factory=list)


class Viewer:
    """Shows items of a modality of a space by their metadata; what cannot be shown stays a line of text."""

    def __init__(self, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self._preview = Preview(embeddings.modality, pixels=PIXELS, seconds=SECONDS, still=True)

    def show(self, row: int, *, score: float | None = None, right: bool | None = None, note: str = "") -> Shown:
        """The item of a row."""
        name, modality = self.embeddings.ids[row], self.embeddings.modality
        about = self._about(row)
        kind = next((about[column] for column in KINDS if about.get(column)), None)
        label = str(about.get("text") or (name if kind is None else f"{name}, {kind}"))
        return Shown(label, modality, self._source(about, name), score, right, note)

    def _about(self, row: int) -> dict[str, Any]:
        table = self.embeddings.metadata
        found: dict[str, Any] = table.slice(row, 1).to_pylist()[0] if table is not None else {}
        return found

    def _source(self, about: dict[str, Any], name: str) -> str:
        modality = self.embeddings.modality
        item = item_of(about, modality, name) if modality in STILL_TYPES else None
        if item is None:
            return ""
        try:
            data = self._preview(item)
        except Rejected:
            return ""
        return f"data:{STILL_TYPES[modality]};base64,{base64.b64encode(data).decode()}"


def first_ranks(scores: Array, truth: Sequence[set[int]]) -> NDArray[np.int64]:
    """(q,) rank of the first true item of each query, 1 is best, 0 where it has none; a tie ranks behind."""
    ranks = np.zeros(len(scores), dtype=np.int64)
    for row, own in enumerate(truth):
        if own:
            wanted = np.fromiter(own, np.int64)
            others = np.delete(scores[row], wanted)
            ranks[row] = 1 + int((others >= scores[row, wanted].max()).sum())
    return ranks


def best_and_worst(scores: Array, truth: Sequence[set[int]]) -> tuple[list[int], list[int]]:
    """Queries whose true item comes first by the largest margin, one an item, and those whose comes last."""
    ranks = first_ranks(scores, truth)
    asked = np.flatnonzero(ranks > 0)
    margins = np.array([_margin(scores[row], truth[row]) for row in asked.tolist()])
    # One example an item that is found: several queries of one item show the same again.
    best: list[int] = []
    shown: set[int] = set()
    for row in asked[np.argsort(-margins, kind="stable")].tolist():
        first = int(scores[row].argmax())
        if ranks[row] == 1 and first not in shown and len(best) < EXAMPLES:
            best.append(row)
            shown.add(first)
    worst = asked[np.argsort(-ranks[asked], kind="stable")][:EXAMPLES]
    return best, [row for row in worst.tolist() if ranks[row] > 1]


def _margin(scores: Array, own: set[int]) -> float:
    wanted = np.fromiter(own, np.int64)
    others = np.delete(scores, wanted)
    return float(scores[wanted].max() - (others.max() if others.size else -1.0))


def hubs(scores: Array) -> tuple[list[tuple[int, int]], float]:
    """Gallery rows that stand among the nearest of the most queries with their counts, and the skewness of all counts.

    The skewness of the k-occurrence is the usual measure of hubness (Radovanovic et al., JMLR 2010): 0 where every
    item is as often a neighbour as any, above 1 where a few are everyone's.
    """
    k = min(NEIGHBOURS, scores.shape[1])
    nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    counts = np.bincount(nearest.ravel(), minlength=scores.shape[1]).astype(np.float64)
    spread = counts.std()
    skew = float((((counts - counts.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
    order = np.argsort(-counts, kind="stable")[:HUBS]
    return [(int(row), int(counts[row])) for row in order if counts[row] > 0], skew


def confusions(scores: Array, truth: Sequence[set[int]]) -> list[tuple[int, int, int]]:
    """(true class, class it is taken for, how often), most frequent first; of items with one true class."""
    taken = scores.argmax(axis=1)
    pairs = Counter((next(iter(own)), int(guess)) for own, guess in zip(truth, taken, strict=True) if len(own) == 1)
    wrong = [(true, guess, count) for (true, guess), count in pairs.most_common() if true != guess]
    return wrong[:CONFUSIONS]
