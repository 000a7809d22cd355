"""What a join will be worth, before it is made and however it is made: an estimate without labels.

`estimate_pair` tells of two spaces how good a join of them may be, whether their overlap can be trusted, and which
concepts of the overlap one of the spaces has never seen. `estimate_bridge` tells the same of a bridge that was trained
or solved: `covered` is measured with the bridge's own projections; `uncovered` needs a second fit without some of the
shared items, which a closed form gets; a training would have to be run again, so a closed form stands in for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.explain import merge_key
from isthmus.bridges.routes import apply_route
from isthmus.bridges.training_spaces import spaces_with
from isthmus.core.geometry import Array, normalize
from isthmus.core.modality import via_list
from isthmus.core.runtime import numpy_generator
from isthmus.errors import IsthmusError
from isthmus.recipes.closed_form import closed_form
from isthmus.recipes.posterior.auto import (
    Candidate,
    candidates,
    choose,
    estimate_record,
    modality_pairs,
)
from isthmus.recipes.posterior.concepts import Numbers, side_by_side, spherical_kmeans
from isthmus.recipes.posterior.config import posterior_config
from isthmus.recipes.posterior.description import uncentred
from isthmus.recipes.posterior.estimate import Figure, PseudoPairs, figure, mean_figure, pseudo_pairs
from isthmus.recipes.posterior.health import Health, choose_family, examine
from isthmus.recipes.posterior.joint import Joint, Member
from isthmus.recipes.posterior.members import gather
from isthmus.recipes.posterior.model import Model, fit_model
from isthmus.recipes.posterior.support import support
from isthmus.recipes.solvers import METHODS
from isthmus.spaces.space import as_space

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.spaces.space import Space

ALONE = (0.0, float("inf"))
"""The closed forms that are looked at: posterior and cca."""
FEWEST, MOST_ITEMS = 64, 6000
"""Shared items below which nothing is estimated of a bridge, and most that are looked at, drawn at random."""
CONCEPT_ITEMS, MOST_CONCEPTS = 30, 8
"""Shared items a concept, and concepts that are listed of a space."""
KNOWN, UNKNOWN = 0.5, -0.5
"""Support in deviations from the mean: above the one a space knows a concept well, below the other hardly."""


@dataclass(frozen=True)
class Concept:
    """A group of shared items that lie together.

    Attributes:
        name: The item in its middle.
        items: How many.
        gap: Support in the space that knows it less that in the one that does not, in deviations.
    """

    name: str
    items: int
    gap: float


@dataclass(frozen=True)
class PairEstimate:
    """What is to be expected of a join of two spaces.

    Attributes:
        estimate: As a bridge stores it: `map`, `map_ci95`, `verdict`, `reasons`, and what they come from.
        chosen: The closed forms and their estimates.
        unknown: By name of a space, concepts of the overlap that it hardly knows and the other space knows.
        families: By shared modality, where there are several, how far its items agree; the largest was looked at.
    """

    estimate: dict[str, Any]
    chosen: dict[str, Any]
    unknown: dict[str, list[Concept]]
    families: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        listed = {name: [vars(concept) for concept in concepts] for name, concepts in self.unknown.items()}
        return {"estimate": self.estimate, "chosen": self.chosen, "unknown": listed, "families": self.families}


def estimate_pair(
    first: Space | str | Path, second: Space | str | Path, *, via: str | Sequence[str], seed: int = 0
) -> PairEstimate:
    """Estimate, without a label and without joining them, how good a join of two spaces may be.

    Args:
        first: A space.
        second: The other.
        via: What they share.
        seed: Seed of clusterings and draws.

    Returns:
        The better of the closed forms posterior and cca, as `connect` would have it; training may be better or worse.

    Raises:
        OverlapError: They share too little.
    """
    shared, families = _gathered(as_space(first), as_space(second), via, seed)
    joint, health, model = _fit(shared, seed, mend=True)
    best, chosen = choose(candidates(model, ALONE, repeats=1))
    unknown = unknown_concepts(joint, seed) if joint.members[0].own and joint.members[1].own else {}
    return PairEstimate(estimate_record(best, health, joint), chosen, unknown, families)


def _gathered(first: Space, second: Space, via: str | Sequence[str], seed: int) -> tuple[Joint, dict[str, float]]:
    """What two spaces share of one modality, of many items some, a memory of each, and what `choose_family` gave."""
    most = posterior_config({}).memory_rows
    joint = gather([first, second], {(0, 1): tuple(via_list(via))}, memory_rows=most, seed=seed)
    joint, families = choose_family(joint, seed)
    drawn = numpy_generator(seed, 8).permutation(len(joint.ids))[:MOST_ITEMS]
    return joint.keep(np.isin(np.arange(len(joint.ids)), drawn)), families


def _fit(joint: Joint, seed: int, *, mend: bool) -> tuple[Joint, Health, Model]:
    joint, health = examine(joint, seed, mend=mend)
    return joint, health, fit_model(joint, posterior_config({"seed": seed}))


def estimate_bridge(
    bridge: Bridge, first: Space, second: Space, *, via: str | Sequence[str], seed: int = 0
) -> dict[str, Any] | None:
    """Estimate of a bridge that was trained or solved, as it is stored, or None where too little is shared.

    Args:
        bridge: The bridge.
        first: A space of it that holds what the second was joined through.
        second: The space that was joined last.
        via: What they share.
        seed: Seed of clusterings and draws.
    """
    try:
        joint, health, model = _fit(_gathered(first, second, via, seed)[0], seed, mend=False)
    except IsthmusError:  # an estimate is advice: what it cannot look at is no fault of the bridge
        return None
    if len(joint.ids) < FEWEST:
        return None
    method = str(bridge.config.get("method", ""))
    solved = method in METHODS
    stand_in = None if solved else max(candidates(model, ALONE, repeats=1), key=lambda one: one.both)
    covered, uncovered = [], [] if stand_in is None else [stand_in.uncovered]
    for a, b, m, n in modality_pairs(joint):
        if not all(f"{joint.members[k].name}/{name}" in bridge.routes for k, name in ((a, m), (b, n))):
            continue
        pairs = pseudo_pairs(joint, a, b, (m, n), seed)
        rows, columns, owner, relevant = pairs.items("wide")
        x = _projected(bridge, joint.members[a], m, rows)
        y = _projected(bridge, joint.members[b], n, columns)
        covered.append(figure(x @ y.T, owner, relevant))
        if solved:
            uncovered.append(_solved_without(joint, pairs, (a, b, m, n), method))
    if not covered:
        return None
    record = estimate_record(Candidate(0.0, mean_figure(uncovered), mean_figure(covered)), health, joint)
    source = "pseudo pairs of the spaces' own items, made from clusters of shared items; no label was used"
    if stand_in is not None:
        source += f". Meanings that are not among the shared items: as by the closed form {stand_in.name}"
    return record | {"from": source}


def _solved_without(joint: Joint, pairs: PseudoPairs, way: tuple[int, int, str, str], method: str) -> Figure:
    """`uncovered` of a closed form: solved again without the clusters' items, on centred rows."""
    a, b, m, n = way
    first, second, kept = joint.members[a], joint.members[b], ~pairs.left_out
    route, arrays = closed_form(first.items[kept], second.items[kept], method=method)
    rows, columns, owner, relevant = pairs.items("narrow")
    carried = normalize(apply_route(route, arrays, second.memories[n].rows[columns]))
    return figure(first.memories[m].rows[rows] @ carried.T, owner, relevant)


def with_estimate(
    bridge: Bridge,
    base: Space | Bridge,
    leaf: Space,
    *,
    via: str | Sequence[str],
    seed: int = 0,
    space_paths: Mapping[str, Any] | None = None,
) -> Bridge:
    """The bridge with its estimate recorded, where the spaces at hand give one.

    Args:
        bridge: The bridge.
        base: What the leaf was joined to; of a bridge the space that has the overlap is looked at, if it is there.
        leaf: The space that was joined last.
        via: Through what.
        seed: Seed of clusterings and draws.
        space_paths: Where spaces of a base bridge lie now, by name.
    """
    started, names = time.monotonic(), via_list(via)
    if isinstance(base, Bridge):
        try:
            name = spaces_with(base, names[0])[0].name
            base = base.open_space(name, (space_paths or {}).get(name))
        except IsthmusError:
            return bridge
    if "estimate" in bridge.record:  # a recipe that chooses by estimates has recorded its own
        return bridge
    told = estimate_bridge(bridge, base, leaf, via=names, seed=seed)
    if told is not None:
        bridge.record["estimate"] = told
        bridge.record["seconds"] = {**bridge.record.get("seconds", {}), "estimate": time.monotonic() - started}
    return bridge


def _projected(bridge: Bridge, member: Member, modality: str, rows: Numbers) -> Array:
    """Rows of a memory in the unified space."""
    return bridge.project(uncentred(member.memories[modality])[rows], space=member.name, modality=modality)


def unknown_of_pair(
    first: Space | str | Path, second: Space | str | Path, *, via: str | Sequence[str], seed: int = 0
) -> dict[str, list[Concept]]:
    """`unknown_concepts` of two spaces; arguments and faults as of `estimate_pair`."""
    joint, _ = _gathered(as_space(first), as_space(second), via, seed)
    return unknown_concepts(joint, seed)


def unknown_concepts(joint: Joint, seed: int = 0) -> dict[str, list[Concept]]:
    """By space, concepts of the overlap that it hardly knows and the other knows, the largest difference first.

    A space knows a concept if items of its own lie near it: the mean cosine of the concept's texts with their nearest
    items, in deviations over all concepts.
    """
    items = [member.items for member in joint.members[:2]]
    count = max(2, len(joint.ids) // CONCEPT_ITEMS)
    numbers = spherical_kmeans(side_by_side(items, 64), count, steps=5, seed=seed)
    sizes = np.bincount(numbers, minlength=count)
    known = []
    for member in joint.members[:2]:
        best = np.max([support(member.items, member.memories[m].rows, 5) for m in member.own], axis=0)
        means = np.bincount(numbers, best, minlength=count) / np.maximum(sizes, 1)
        known.append((means - means[sizes > 0].mean()) / max(float(means[sizes > 0].std()), 1e-12))
    found: dict[str, list[Concept]] = {}
    for side, member in enumerate(joint.members[:2]):
        gap = known[1 - side] - known[side]
        right = (known[1 - side] > KNOWN) & (known[side] < UNKNOWN) & (sizes >= 2)
        order = [int(c) for c in np.argsort(-gap, kind="stable") if right[c]]
        found[member.name] = _named(joint, items, numbers, order, gap)
    return found


def _named(joint: Joint, items: Sequence[Array], numbers: Any, order: Sequence[int], gap: Any) -> list[Concept]:
    """Concepts by the shared item in their middle, each name once."""
    out: dict[str, Concept] = {}
    for c in order:
        rows = np.flatnonzero(numbers == c)
        cosines = sum(x[rows] @ _unit(x[rows].mean(axis=0)) for x in items)
        name = joint.labels[int(rows[int(np.argmax(cosines))])]
        out.setdefault(merge_key(name), Concept(name, len(rows), round(float(gap[c]), 3)))
        if len(out) == MOST_CONCEPTS:
            break
    return list(out.values())


def _unit(x: Array) -> Array:
    return np.asarray(x / max(float(np.linalg.norm(x)), 1e-12), dtype=np.float32)


def lines(told: Mapping[str, Any]) -> list[str]:
    """Words on an estimate of two spaces: what to expect, how sure, and what one of them does not know."""
    from isthmus.recipes.posterior.auto import sentences

    out = sentences(None, told["estimate"], told.get("families"))
    for name, concepts in told["unknown"].items():
        if concepts:
            named = "; ".join(f"{each['name']} ({each['items']})" for each in concepts)
            out.append(f"the overlap knows and {name} hardly does (texts near it): {named}")
    return out
