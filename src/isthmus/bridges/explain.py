"""Why two items match: the shared items that carry the match, with their shares.

On routes with a posterior over the same shared items the shares are the very summands of the probability that both
mean the same, p(t | x) q(t | g). Names that differ by a template alone ("a photo of a violin", "violin") are one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.routes import Arrays, Step, apply_route
from isthmus.bridges.steps.softmax import posterior
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


@dataclass(frozen=True)
class Explanation:
    """Why two items match.

    Attributes:
        shares: What both mean, with its share of the match, the largest first; shares of all names sum to 1.
        same: The probability that both mean the same shared item.
        exact: Whether the shares are the very summands of the routes' own posteriors.
    """

    shares: list[tuple[str, float]]
    same: float
    exact: bool = True

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares)


def explain(bridge: Bridge, query: EmbeddingsLike, hit: EmbeddingsLike, *, top: int = 5) -> Explanation:
    """Tell which shared items carry the match of two items.

    Args:
        bridge: A bridge with posterior routes.
        query: One item of a space of the bridge; see `isthmus.spaces.selection.Selection`.
        hit: One item of another space.
        top: Names in the answer.

    Raises:
        BridgeError: A route has no posterior over named items, or the two are over different ones.
    """
    (p, mine), (q, theirs) = (posterior_of(bridge, each) for each in (query, hit))
    if mine != theirs:
        raise BridgeError("the two routes recognise different shared items. Explain items of spaces joined together.")
    return explanation(p[0], q[0], mine, top=top)


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


def posterior_of(bridge: Bridge, items: EmbeddingsLike) -> tuple[Array, list[str]]:
    """Posteriors of items over the named shared items of their route, (n, items), and the names."""
    space = next(
        (s.name for s in bridge.spaces if s.fingerprints.get(items.modality) == items.fingerprint), items.space_name
    )
    return posterior_of_rows(bridge, space, items.modality, np.concatenate(list(items.blocks())))


def posterior_of_rows(bridge: Bridge, space: str, modality: str, rows: Array) -> tuple[Array, list[str]]:
    """Posteriors of (n, dim) rows of a space over the named shared items of their route, (n, items), and the names.

    Raises:
        BridgeError: The route has no posterior over named items.
    """
    found = _walk(bridge.route(space, modality), bridge.arrays, rows)
    if found is None:
        raise BridgeError(
            f"the route of '{space}/{modality}' recognises no named items. Connect with --method posterior."
        )
    return found


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
    for step in route:
        if step["kind"] == "posterior" and step.get("labels") is not None:
            bias = arrays[step["bias"]] if step.get("bias") is not None else None
            return posterior(x, arrays[step["keys"]], step["temperature"], bias), _labels(arrays[step["labels"]])
        if step["kind"] in ("stack", "concat", "blend"):
            inside = (_walk(chain, arrays, x) for chain in step["chains"])
            return next((found for found in inside if found is not None), None)
        x = apply_route([step], arrays, x)
    return None


def _labels(packed: NDArray[Any]) -> list[str]:
    try:
        names = json.loads(bytes(np.asarray(packed, dtype=np.uint8)).decode("utf-8"))
    except ValueError as error:
        raise BridgeError("the names of the bridge's shared items are damaged. Copy the bridge again.") from error
    return [str(name) for name in names]
