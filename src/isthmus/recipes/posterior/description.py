"""A leaf's item described by the base's own items, beside its trained projection: the base stays bit for bit.

An item x of the leaf is carried to the base's items v_i in two hops, through what both mean among the shared items:

    w_i = mix(x, v_i)^2 / sum_j mix(x, v_j)^2
    d(x) = unit(unit(sum_i w_i v_i) + 1/2 unit(sum_t p(t | x) b_t))
    u(x) = unit(f(x) + weight d(x))

f is the trained projection, v_i and b_t are centred. The weight is chosen without a label, on items that lie nearest to
clusters of shared items: by the description fitted without those clusters and with all of them. The first is against
it, for the projection was trained with all; the second is for it, for it has seen the very items. The geometric mean
decides, and the smallest weight is taken that the best does not surely beat, 0 among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.routes import Route, rename_arrays
from isthmus.bridges.steps.softmax import posterior
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.pairs.side import match_overlap
from isthmus.recipes.posterior.auto import Candidate, estimate_record, modality_pairs
from isthmus.recipes.posterior.config import posterior_config
from isthmus.recipes.posterior.estimate import REPEATS, SURE, Figure, ahead, figure, mean_figure, pseudo_pairs
from isthmus.recipes.posterior.health import choose_family, examine
from isthmus.recipes.posterior.joint import Joint, Link, Member, Memory
from isthmus.recipes.posterior.members import MAXIMUM_ITEMS
from isthmus.recipes.posterior.model import Model, fit_model
from isthmus.recipes.posterior.routes import centring, leading_directions

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.pairs.side import Side

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Weights of the description that are tried."""
TEXTS = 0.5
"""Weight of the shared items' average within the description."""
POWER = 2.0
"""Power of the mixture: 1 over the temperature of its logarithm."""
SETTINGS: dict[str, Any] = {
    "concepts": False, "two_sided": False, "denoising": False, "support": False, "temperature": 0.06, "dim": 512,
}  # fmt: skip
MEMORY_ROWS = 5000
"""Most items of a modality that describe others, drawn at random."""
SMALLEST = 64
"""Shared items below which nothing is described."""


def describe_leaf(
    bridge: Bridge, base: Side, leaf: Side, name: str, via: Sequence[str], *, weight: float | None, seed: int
) -> Bridge:
    """Add the description by the base's own items to the routes of a leaf's own modalities.

    Args:
        bridge: The bridge, with the leaf's trained routes.
        base: The base's rows in the unified space.
        leaf: The leaf's rows.
        name: The leaf's name in the bridge.
        via: Overlap modalities.
        weight: Weight of the description; None chooses, 0 leaves the routes as they are.
        seed: Seed of draws.

    Returns:
        The bridge; its record says what was chosen (`description`), and what is expected of it (`estimate`).
    """
    joint, families = choose_family(sides_joint(base, leaf, via, seed), seed)
    own = [[m for m, memory in member.memories.items() if not memory.shared] for member in joint.members]
    if len(joint.ids) < SMALLEST or not all(own):
        return bridge
    joint, health = examine(joint, seed)
    model = fit_model(joint, posterior_config({**SETTINGS, "seed": seed}))
    tried = _estimates(model, bridge, name, WEIGHTS if weight is None else (weight,))
    weight = choose_weight(tried)
    chosen = next(one for one in tried if one.weight == weight)
    record: dict[str, Any] = {"estimate": estimate_record(chosen, health, joint)}
    if len(tried) > 1 or weight > 0.0:
        more = {"families": families} if families else {}
        record["description"] = {**_choice(tried, weight), "items": len(joint.ids), **more}
    described = replace(bridge, record={**bridge.record, **record})
    if weight == 0.0:
        return described
    arrays, chains = description_routes(model, name, own[1])
    routes = dict(bridge.routes)
    for modality, chain in chains.items():
        key = f"{name}/{modality}"
        shares = [1 / (1 + weight), weight / (1 + weight)]
        routes[key] = [{"kind": "blend", "weights": shares, "chains": [routes[key], chain]}]
    return replace(described, routes=routes, arrays={**bridge.arrays, **arrays})


def sides_joint(base: Side, leaf: Side, via: Sequence[str], seed: int) -> Joint:
    """The overlap and the memories of two sides.

    Raises:
        OverlapError: The sides share too few ids, or one of them lacks a modality.
    """
    ids: list[str] = []
    counts: dict[str, int] = {}
    rows: tuple[list[Array], list[Array]] = ([], [])
    means: list[dict[str, Array]] = [{}, {}]
    for modality in via:
        matched = match_overlap(base, leaf, modality)
        some = _some(len(matched[0]), MAXIMUM_ITEMS // len(via), 3, seed)
        for number, side in enumerate((base, leaf)):
            unit = normalize(side.embeddings[modality][matched[number][some]])
            means[number][modality] = centroid(unit)
            rows[number].append(normalize(unit - means[number][modality]))
        ids += [base.ids[modality][row] for row in matched[0][some]]
        counts[modality] = len(some)
    items = [np.concatenate(each) for each in rows]
    members = []
    for number, side in enumerate((base, leaf)):
        memories = {}
        for modality, embeddings in side.embeddings.items():
            mean = means[number].get(modality)
            mean = centroid(embeddings) if mean is None else mean
            chosen = _some(len(embeddings), MEMORY_ROWS, 2, seed)
            memories[modality] = Memory(mean, normalize(embeddings[chosen] - mean), modality in via)
        members.append(Member(side.name, items[number], memories))
    link = Link(0, 1, tuple(via), (items[0], items[1]), joint=True)
    return Joint(members, [link], ids, ids, counts)


def _some(n: int, most: int, stream: int, seed: int) -> NDArray[np.int64]:
    """Numbers of some of n rows, drawn at random, in order."""
    return np.sort(numpy_generator(seed, stream).permutation(n)[:most])


def _describe(model: Model, modality: str, x: Array, base_modality: str) -> Array:
    """d(x) of centred rows of the leaf."""
    base, sharp = model.joint.members[0], 0.03
    p = model.describe(1, modality, x).p
    items = base.memories[base_modality].rows
    weights = np.concatenate(
        [p @ model.describe(0, base_modality, items[i : i + 1024]).p.T for i in range(0, len(items), 1024)], axis=1
    )
    weights /= np.maximum(weights.max(axis=1, keepdims=True), np.float32(1e-30))
    by_items = normalize(weights ** np.float32(POWER) @ items)
    by_texts = normalize(posterior(x, model.keys[1], sharp) @ model.keys[0])
    return normalize(by_items + np.float32(TEXTS) * by_texts)


def choose_weight(tried: Sequence[Candidate]) -> float:
    """The smallest weight that the best does not surely beat."""
    best = max(tried, key=lambda one: one.both)
    return next(one.weight for one in tried if ahead(best.figures, one.figures) < SURE)


def _choice(tried: Sequence[Candidate], weight: float) -> dict[str, Any]:
    """What was chosen and from what, as it is stored."""
    return {
        "weight": weight,
        "uncovered": {f"{one.weight:g}": round(one.uncovered.value, 4) for one in tried},
        "covered": {f"{one.weight:g}": round(one.covered.value, 4) for one in tried},
    }


def _estimates(model: Model, bridge: Bridge, name: str, weights: Sequence[float]) -> list[Candidate]:
    """Both estimates of every weight, the smallest weight first."""
    found: dict[tuple[float, str], list[Figure]] = {}
    for repeat in range(REPEATS):
        for a, b, m, n in modality_pairs(model.joint):
            pairs = pseudo_pairs(model.joint, a, b, (m, n), model.config.seed + repeat)
            base, leaf = model.joint.members[a].memories[m], model.joint.members[b].memories[n]
            for kind, fitted in (("narrow", model.without(pairs.left_out)), ("wide", model)):
                rows, columns, owner, relevant = pairs.items(kind)
                # Back from centred rows: a unit row is, but for its length, its centred one and the mean.
                own = normalize(uncentred(base)[rows])
                f = bridge.project(uncentred(leaf)[columns], space=name, modality=n)
                d = _describe(fitted, n, leaf.rows[columns], m)
                for weight in weights:
                    scores = own @ normalize(f + np.float32(weight) * d).T
                    found.setdefault((weight, kind), []).append(figure(scores, owner, relevant))
    return [
        Candidate(weight, mean_figure(found[weight, "narrow"]), mean_figure(found[weight, "wide"]))
        for weight in weights
    ]


def uncentred(memory: Memory) -> Array:
    """The unit rows that centred ones came from: s c + mean of length one, with s above 0."""
    along = memory.rows @ memory.mean
    rest = np.float32(1.0) - np.float32(memory.mean @ memory.mean)
    s = -along + np.sqrt(np.maximum(along**2 + rest, 0.0))
    return normalize(s[:, None] * memory.rows + memory.mean)


def description_routes(model: Model, name: str, modalities: Sequence[str]) -> tuple[dict[str, Any], dict[str, Route]]:
    """The description's chain of every modality of the leaf, and its arrays."""
    base, leaf = model.joint.members
    own = base.own[0]
    values = leading_directions(model)
    compact = np.concatenate(
        [
            model.describe(0, own, base.memories[own].rows[i : i + 1024]).p @ values.astype(np.float32)
            for i in range(0, len(base.memories[own].rows), 1024)
        ]
    )
    arrays: dict[str, Any] = {
        f"{name}/shared": leaf.items.astype(np.float16),
        f"{name}/shared.base": base.items.astype(np.float16),
        f"{name}/directions": values,
        f"{name}/items.keys": compact.astype(np.float32),
        f"{name}/items.base": base.memories[own].rows.astype(np.float16),
    }
    look_up = {"kind": "posterior", "keys": f"{name}/shared"}
    by_items: Route = [
        {**look_up, "temperature": model.config.temperature, "values": f"{name}/directions"},
        {"kind": "power_average", "keys": f"{name}/items.keys", "values": f"{name}/items.base", "power": POWER},
    ]
    by_texts: Route = [{**look_up, "temperature": 0.03, "values": f"{name}/shared.base"}]
    shares = [1 / (1 + TEXTS), TEXTS / (1 + TEXTS)]
    chains: dict[str, Route] = {}
    for modality in modalities:
        arrays[f"{name}/mean.{modality}"] = leaf.memories[modality].mean
        both = {"kind": "blend", "weights": shares, "chains": [by_items, by_texts]}
        chains[modality] = rename_arrays([*centring(name, modality), both], str)
    return arrays, chains
