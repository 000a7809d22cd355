"""Why two items match: the shared items that carry the match, with their shares.

On routes with a posterior over the same shared items the shares are the very summands of the probability that both
mean the same, p(t | x) q(t | g). Other routes do not tell what they recognise; there both items' posteriors over what
their spaces share are taken instead, and the explanation says so. Names that differ by a template alone ("a photo of a
violin", "violin") are one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.anchors import AnchorReader, Anchors, ItemRow
from isthmus.bridges.fingerprint import bridge_fingerprint, unified_fingerprint
from isthmus.bridges.routes import Arrays, Step, apply_route
from isthmus.bridges.steps.softmax import posterior
from isthmus.bridges.training_spaces import space_of
from isthmus.core.geometry import Array
from isthmus.errors import BridgeError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.bridges.member import EmbeddingsLike

TEMPLATE = re.compile(
    r"^(?:(?:this is |there is )?(?:an? |the )?"
    r"(?:photo|picture|image|sound|recording|noise|3d model|model|rendering)s? of )?(?:(?:an?|the|some) )?",
    re.IGNORECASE,
)
"""What is taken off a name before names are compared."""


LEAST_SHOWN = 0.005
"""Share below which a name is left out of the words: it would read 0 %."""


@dataclass(frozen=True)
class Explanation:
    """Why two items match.

    Attributes:
        shares: What both mean, with its share of the match, the largest first; shares of all names sum to 1.
        same: The probability that both mean the same shared item.
        exact: Whether the shares are the very summands of the routes' own posteriors.
        basis: What the shares are taken from, in a few words.
    """

    shares: list[tuple[str, float]]
    same: float
    exact: bool = True
    basis: str = "the posteriors of the bridge's own routes"

    def __str__(self) -> str:
        return ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in self.shares if share >= LEAST_SHOWN)


class Explainer:
    """Tells why items match; what it reads of spaces is kept for the next match.

    Args:
        bridge: The bridge.
        space_paths: Where its spaces lie now, by name; only read where its routes do not tell.
    """

    def __init__(self, bridge: Bridge, *, space_paths: Mapping[str, str | Path] | None = None) -> None:
        self.bridge = bridge
        self._reader = AnchorReader(bridge, space_paths)

    def item(self, items: EmbeddingsLike) -> ItemRow:
        """The first of some items of a space, such as `isthmus.spaces.selection.Selection`, as it is explained.

        Raises:
            FingerprintError: They come from an encoder, or from another bridge, that this one does not know.
        """
        row = next(iter(items.blocks(1)))[0]
        if unified_fingerprint(items) == bridge_fingerprint(self.bridge):
            return ItemRow(items.modality, row=row)
        return ItemRow(items.modality, space_of(self.bridge, items, first=True), row)

    def ready(self) -> bool:
        """Whether matches can be explained here: the routes tell what they recognise, or a space can be opened."""
        if explains(self.bridge):
            return True
        try:
            return bool(self._reader.spaces())
        except BridgeError:
            return False

    def explain(self, query: ItemRow, hit: ItemRow, *, top: int = 5) -> Explanation:
        """Tell which named items carry the match of two items.

        Args:
            query: The one.
            hit: The other.
            top: Names in the answer.

        Raises:
            BridgeError: The routes do not tell, and the bridge's spaces are not there or have no item with a name.
        """
        own = [self._recognised(each) for each in (query, hit)]
        if own[0] is not None and own[1] is not None and own[0][1] == own[1][1]:
            return explanation(own[0][0], own[1][0], own[0][1], top=top)
        anchors = self._reader.anchors(query.space, hit.space)
        p, q = (self._reader.posterior(each, anchors) for each in (query, hit))
        comparison = explanation(p, q, anchors.names, top=top)
        return replace(comparison, exact=False, basis=_basis(anchors, query, hit))

    def _recognised(self, item: ItemRow) -> tuple[Array, list[str]] | None:
        """The posterior of an item's own route and its names, or None where the route has none."""
        if item.own is None or not item.space:
            return None
        route = self.bridge.route(item.space, item.modality)
        walk = _walk(route, self.bridge.arrays, np.asarray(item.own, np.float32)[None])
        return None if walk is None else (walk[0][0], walk[1])


def _basis(anchors: Anchors, query: ItemRow, hit: ItemRow) -> str:
    """Basis of an explanation in words: where two items were looked up."""
    where = list(dict.fromkeys(x.space if x.own is not None and x.space in anchors.rows else "" for x in (query, hit)))
    places = [f"the space {name!r}" if name else "the unified space" for name in where]
    return f"posteriors over {len(anchors.names):,} {anchors.modality} items in {' and '.join(places)}"


def explanation(p: Array, q: Array, names: Sequence[str], *, top: int = 5) -> Explanation:
    """Shares of the match of two posteriors (n,) over named items."""
    summands = p.astype(np.float64) * q
    total = float(summands.sum())
    merged: dict[str, float] = {}
    shown: dict[str, str] = {}
    # The largest first, so that the name shown is the one that carries most.
    for row in np.argsort(-summands, kind="stable")[: max(50 * top, 500)]:
        key = merge_key(names[row])
        shown.setdefault(key, names[row])
        merged[key] = merged.get(key, 0.0) + float(summands[row]) / max(total, 1e-300)
    best = sorted(merged.items(), key=lambda each: -each[1])[:top]
    return Explanation([(shown[key], share) for key, share in best], total)


def merge_key(name: str) -> str:
    """A name without its template, article, case and final stop."""
    return TEMPLATE.sub("", name.strip()).strip(" .").casefold() or name


def explains(bridge: Bridge) -> bool:
    """Whether any route of a bridge recognises named items, so that matches can be explained."""

    def named(route: Sequence[Step]) -> bool:
        return any(
            (step["kind"] == "posterior" and step.get("labels") is not None)
            or any(named(chain) for chain in step.get("chains", ()))
            for step in route
        )

    return any(named(route) for route in bridge.routes.values())


def _walk(route: Sequence[Step], arrays: Arrays, x: Array) -> tuple[Array, list[str]] | None:
    """Posteriors of rows over shared items, and their names, from the first step of a route that has them."""
    for step in route:
        if step["kind"] == "posterior" and step.get("labels") is not None:
            bias = arrays[step["bias"]] if step.get("bias") is not None else None
            return posterior(x, arrays[step["keys"]], step["temperature"], bias), _labels(arrays[step["labels"]])
        if step["kind"] in ("stack", "concat", "blend"):
            inside = (_walk(chain, arrays, x) for chain in step["chains"])
            return next((answer for answer in inside if answer is not None), None)
        x = apply_route([step], arrays, x)
    return None


def _labels(packed: NDArray[Any]) -> list[str]:
    """Names of shared items, unpacked from an array of the bridge."""
    try:
        names = json.loads(bytes(np.asarray(packed, dtype=np.uint8)).decode("utf-8"))
    except ValueError as error:
        raise BridgeError("the names of the bridge's shared items are damaged. Copy the bridge again.") from error
    return [str(name) for name in names]
