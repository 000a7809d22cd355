"""The choice between posterior, cca and their sums, without a label, and the estimate that is stored with a bridge.

Candidates are the weights of the canonical directions beside the posterior: 0 is the posterior alone, infinity is cca
alone. Each is scored on pseudo pairs, fitted without their items (`uncovered`) and with them (`covered`): the first
tells whether composed meanings are carried, the second whether a sum harms what was good. One candidate is better than
another if it is above it in 95 of 100 draws of the clusters; all else is a tie, and the simplest of a tie is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from isthmus.recipes.posterior.estimate import (
    REPEATS,
    SURE,
    Figure,
    PseudoPairs,
    ahead,
    figure,
    mean_figure,
    pseudo_pairs,
)
from isthmus.recipes.posterior.health import Health, trust_in
from isthmus.recipes.posterior.joint import Joint
from isthmus.recipes.posterior.model import Model

WEIGHTS = (0.0, float("inf"), 0.5, 1.0, 3.0, 9.0)
"""Candidates, the simplest first."""
MOST_PAIRS = 4
"""Pairs of modalities that are looked at, over all pairs of spaces with room for each."""
POOR = 0.12
"""Estimate below which a bridge is doubtful, whatever else."""


@dataclass(frozen=True)
class Candidate:
    """A candidate's weight, its figures, and the share of the estimate that its number of shared items leaves."""

    weight: float
    uncovered: Figure
    covered: Figure
    trust: float = 1.0

    @property
    def name(self) -> str:
        """posterior, cca, or posterior+W cca."""
        return {0.0: "posterior", float("inf"): "cca"}.get(self.weight, f"posterior+{self.weight:g} cca")

    @property
    def figures(self) -> tuple[Figure, Figure]:
        """Both estimates."""
        return self.uncovered, self.covered

    @property
    def both(self) -> float:
        """Geometric mean of the two estimates, shrunk."""
        return self.trust * float(np.sqrt(max(self.uncovered.value, 0.0) * max(self.covered.value, 0.0)))

    def row(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "method": self.name,
            "uncovered": round(self.uncovered.value, 4),
            "covered": round(self.covered.value, 4),
            "estimate": round(self.both, 4),
        }


def modality_pairs(joint: Joint) -> list[tuple[int, int, str, str]]:
    """Pairs of spaces with a modality of each, their own ones first, that an estimate looks at."""
    found: list[tuple[int, int, str, str]] = []
    ways = list(combinations(range(len(joint.members)), 2))
    room = max(1, MOST_PAIRS // len(ways))
    for a, b in ways:
        pairs = [p for p in product(joint.members[a].own, joint.members[b].own) if p[0] != p[1]]
        found += [(a, b, *pair) for pair in (pairs or [(joint.members[a].own[0], joint.members[b].own[0])])[:room]]
    return found


def candidates(model: Model, weights: Sequence[float] = WEIGHTS, *, repeats: int = REPEATS) -> list[Candidate]:
    """Estimate candidates on pseudo pairs of every pair of spaces."""
    uncovered: dict[float, list[Figure]] = {weight: [] for weight in weights}
    covered: dict[float, list[Figure]] = {weight: [] for weight in weights}
    for repeat in range(repeats):
        for a, b, m, n in modality_pairs(model.joint):
            pairs = pseudo_pairs(model.joint, a, b, (m, n), model.config.seed + repeat)
            without = model.without(pairs.left_out)
            for found, fitted, width in ((uncovered, without, "narrow"), (covered, model, "wide")):
                for weight, one in _figures(fitted, pairs, (a, b, m, n), width, weights).items():
                    found[weight].append(one)
    trust = trust_in(len(model.joint.ids))
    return [
        Candidate(weight, mean_figure(uncovered[weight]), mean_figure(covered[weight]), trust) for weight in weights
    ]


def _figures(
    model: Model, pairs: PseudoPairs, way: tuple[int, int, str, str], width: str, weights: Sequence[float]
) -> dict[float, Figure]:
    a, b, m, n = way
    rows, columns, owner, relevant = pairs.items(width)
    x = model.describe(a, m, model.joint.members[a].memories[m].rows[rows])
    y = model.describe(b, n, model.joint.members[b].memories[n].rows[columns])
    parts = model.parts(x, y)
    return {weight: figure(model.score(parts, weight), owner, relevant) for weight in weights}


def choose(tried: Sequence[Candidate]) -> tuple[Candidate, dict[str, Any]]:
    """Choose between the candidates that are one thing alone, then look whether a sum is better than that.

    A sum must be surely better by either estimate: `uncovered` likes linear maps, since pseudo items are those that lie
    nearest to a cluster, and `covered` likes what has seen the very items.

    Returns:
        The candidate, and what is stored: `method`, `candidates`, `tied` with it, and `sure`, the share of draws of
        clusters in which it beats the best of another kind.
    """
    alone = [one for one in tried if one.weight in (0.0, float("inf"))] or list(tried)
    chosen = alone[0]
    for one in alone[1:]:
        chosen = one if ahead(one.figures, chosen.figures) >= SURE else chosen
    better = [one for one in tried if one not in alone and _surely_better(one, chosen)]
    chosen = max([chosen, *better], key=lambda one: one.both)
    others = [one for one in tried if one is not chosen]
    tied = [one for one in others if ahead(chosen.figures, one.figures) < SURE]
    rivals = [one for one in others if one not in tied]
    sure = ahead(chosen.figures, max(rivals, key=lambda one: one.both).figures) if rivals else None
    return chosen, {
        "method": chosen.name,
        "cca_weight": chosen.weight if np.isfinite(chosen.weight) else None,
        "candidates": [one.row() for one in tried],
        "tied": [one.name for one in tied],
        "sure": None if sure is None else round(sure, 3),
    }


def _surely_better(one: Candidate, other: Candidate) -> bool:
    pairs = zip(one.figures, other.figures, strict=True)
    return all(ahead([figure], [rival]) >= SURE for figure, rival in pairs)


def estimate_record(candidate: Candidate, health: Health, joint: Joint) -> dict[str, Any]:
    """The estimate of a bridge as it is stored: expected quality with an interval, verdict, reasons."""
    low, high = _interval(candidate)
    reasons = health.broken or health.doubtful
    verdict = "broken" if health.broken else "doubtful" if health.doubtful else "good"
    if verdict == "good" and candidate.both < POOR:
        verdict, reasons = "doubtful", ["items of the spaces' own hardly find each other"]
    return {
        "verdict": verdict,
        "reasons": reasons,
        "quality": round(candidate.both, 4),
        "map": round(candidate.both, 4),
        "map_ci95": [round(low, 4), round(high, 4)],
        "uncovered": round(candidate.uncovered.value, 4),
        "covered": round(candidate.covered.value, 4),
        "from": "pseudo pairs of the spaces' own items, made from clusters of shared items; no label was used",
        "damaged": {pair: round(share, 4) for pair, share in health.damaged.items()},
        "kinship": {name: round(value, 4) for name, value in health.kinship.items()},
        "items": len(joint.ids),
        "dropped": len(joint.dropped),
        "rematched": len(joint.rematched),
    }


def _interval(candidate: Candidate) -> tuple[float, float]:
    (low, high), (least, most) = candidate.uncovered.interval(), candidate.covered.interval()
    return candidate.trust * float(np.sqrt(low * least)), candidate.trust * float(np.sqrt(high * most))


def sentences(
    chosen: dict[str, Any] | None, estimate: dict[str, Any], families: dict[str, float] | None = None
) -> list[str]:
    """Three lines for a person: what was chosen, from what, and how good and how sure it is.

    A line before them says which of several shared modalities was taken.
    """
    lines = []
    if families:
        shares = ", ".join(f"{name} {worth:.0%}" for name, worth in families.items())
        taken = max(families, key=lambda name: families[name])
        lines.append(f"through {taken} alone, whose items agree best in their neighbours: {shares}")
    if chosen:
        tied = f", tied with {', '.join(chosen['tied'])} (the simpler is taken)" if chosen["tied"] else ""
        lines.append(f"chosen: {chosen['method']}{tied}")
        rows = ", ".join(f"{row['method']} {row['estimate']:.3f}" for row in chosen["candidates"])
        sure = f"; better than the rest in {chosen['sure']:.0%} of draws" if chosen["sure"] is not None else ""
        lines.append(f"from: {rows}{sure}")
    low, high = estimate["map_ci95"]
    why = f": {'; '.join(estimate['reasons'])}" if estimate["reasons"] else ""
    dropped = f"; {estimate['dropped']:,} shared items left out" if estimate["dropped"] else ""
    if anew := estimate.get("rematched"):
        dropped += f"; {anew:,} matched anew by what they mean"
    expected = f"mAP {estimate['map']:.2f} ({low:.2f} to {high:.2f}), {estimate['verdict']}"
    lines.append(f"expected without labels: {expected}{why}{dropped}")
    return lines
