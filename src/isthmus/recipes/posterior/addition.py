"""A space added to a bridge of posteriors: what the bridge holds stays bit for bit.

The new space recognises the bridge's own shared items, so that its posteriors are over the same ones, and is described
in the older spaces by their averages. Its routes are those of the bridge's first space with its own items, biases and
memory put in: every product with an older vector is what it would have been had the space been there from the start,
but for the block of its own embeddings, for which older vectors have no place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.routes import Route, apply_route
from isthmus.bridges.steps.softmax import softmax_average
from isthmus.bridges.training_spaces import spaces_with
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.core.version import versions
from isthmus.errors import ConfigError, OverlapError
from isthmus.recipes.closed_form import bridge_gaps
from isthmus.recipes.posterior.auto import candidates, estimate_record
from isthmus.recipes.posterior.canonical import ridge
from isthmus.recipes.posterior.config import PosteriorConfig, posterior_config
from isthmus.recipes.posterior.health import examine
from isthmus.recipes.posterior.joint import Joint, Link, Member, Memory
from isthmus.recipes.posterior.members import VIRTUAL_TEMPERATURE, memory_of
from isthmus.recipes.posterior.model import ABSENT, biases_of, fit_model
from isthmus.recipes.posterior.routes import centring
from isthmus.recipes.sides import warn_of_leaf, warn_of_overlap
from isthmus.spaces.overlap import MINIMUM_OVERLAP, match_ids, overlap

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.space import Space


@dataclass(frozen=True)
class _Form:
    """How the routes of a bridge of posteriors are built: the parts of its first space's."""

    denoise: dict[str, Any] | None
    stack: dict[str, Any]
    canonical: tuple[float, Route] | None
    filler: dict[str, Any]

    @classmethod
    def of(cls, route: Route) -> _Form:
        """Take a route of `recipes.posterior.routes` apart: centring, denoise, posteriors, canonical, filler."""
        body, filler = route[3:-1], route[-1]
        canonical = None
        if body[0]["kind"] == "stack" and len(body[0]["chains"]) == 2 and body[0]["chains"][0][-1]["kind"] == "stack":
            canonical = (body[0]["scales"][1], body[0]["chains"][1])
            body = body[0]["chains"][0]
        denoise = body[0] if body[0]["kind"] == "denoise" else None
        return cls(denoise, body[-1], canonical, filler)


def recognises(bridge: Any) -> bool:
    """Whether something is a bridge of posteriors that knows the ids of its shared items, so that a space fits in."""
    return "joint/ids" in getattr(bridge, "arrays", {})


def add_space(
    bridge: Bridge,
    leaf: Space,
    *,
    via: Sequence[str],
    space_paths: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Bridge:
    """Add a space to a bridge of posteriors.

    Args:
        bridge: Bridge of `recipes.posterior.join`; its routes and arrays stay bit for bit.
        leaf: The space.
        via: Modalities of the bridge's shared items that the leaf has; or others, that the leaf shares with a space of
            the bridge, which is then opened.
        space_paths: Where spaces of the bridge lie now, by name.
        settings: Settings of `PosteriorConfig` that are to differ from the bridge's: memory, support, denoising.

    Raises:
        OverlapError: Too few ids are shared, or `via` names a modality that one of them lacks.
        ConfigError: The bridge has no room for the leaf's modalities, or a setting does not fit.
    """
    started = time.monotonic()
    new = BridgeSpace.of(leaf, role="leaf")
    bridge.check_new(new)
    config = posterior_config({**_settings(bridge), **(settings or {})})
    first = bridge.spaces[0].name
    form = _Form.of(next(route for key, route in bridge.routes.items() if key.rpartition("/")[0] == first))
    families: dict[str, list[str]] = json.loads(bytes(bridge.arrays["joint/ids"]))
    warn_of_leaf(leaf.name, leaf.modalities, via)
    member, link, known = _recognised(bridge, leaf, via, families, space_paths or {}, config)
    warn_of_overlap((first, leaf.name), ", ".join(via), *link.rows)
    joint, health = examine(_joint(bridge, member, link, known, families, config), config.seed, mend=False)
    dropped = set(joint.dropped)
    ids = [name for names in families.values() for name in names]
    good = known & ~np.isin(ids, list(dropped)) if dropped and link.joint else known
    bias = {name: np.where(good, values, ABSENT) for name, values in biases_of(member, config).items()}
    routes, arrays = _routes(bridge, form, member, bias, config, link)
    model = fit_model(joint, config)
    [estimated] = candidates(model, [config.cca_weight])
    record = {
        "recipe": "posterior",
        "via": list(via),
        "overlap": {"+".join(via): len(link.rows[0])},
        "recognised": int(good.sum()),
        "dropped": sorted(dropped),
        "estimate": estimate_record(estimated, health, joint),
        "changed": "nothing: routes and vectors of the other spaces are the same",
        "seeds": [config.seed],
        "versions": versions(),
    }
    resolved = config.model_dump(mode="json") | {"via": list(via), "method": "posterior"}
    grown = bridge.with_leaf(new, {}, arrays, method="posterior", config=resolved, record=record)
    grown = replace(grown, routes={**grown.routes, **routes})
    grown.record["gap"] = bridge_gaps(grown, {leaf.name: leaf})
    grown.record["seconds"] = {"all": time.monotonic() - started}
    return grown


def _settings(bridge: Bridge) -> dict[str, Any]:
    """The settings that the posterior's first join was made with."""
    steps = [*bridge.record.get("earlier", []), {"config": bridge.config}]
    fields = PosteriorConfig.model_fields
    found: dict[str, Any] = next((step["config"] for step in steps if "support_weight" in step["config"]), {})
    return {key: value for key, value in found.items() if key in fields}


def _recognised(
    bridge: Bridge,
    leaf: Space,
    via: Sequence[str],
    families: Mapping[str, Sequence[str]],
    places: Mapping[str, str | Path],
    config: PosteriorConfig,
) -> tuple[Member, Link, NDArray[np.bool_]]:
    """The leaf as a member over the bridge's shared items, what it shares, and which of the items it recognises."""
    if missing := [name for name in via if name not in leaf]:
        raise OverlapError(f"space {leaf.name!r} has no {missing[0]!r} (it has {', '.join(leaf.modalities)}).")
    count = sum(map(len, families.values()))
    base = bridge.spaces[0].name
    means: dict[str, Array] = {}
    if all(name in families for name in via):
        items, known = np.zeros((count, leaf.dim), np.float32), np.zeros(count, bool)
        start = 0
        for name, ids in families.items():
            if name in via:
                shared = match_ids(("the bridge", list(ids)), (leaf.name, leaf[name].id_array), name)
                unit = leaf[name].unit(shared.rows_b)
                means[name] = centroid(unit)
                items[start + shared.rows_a], known[start + shared.rows_a] = normalize(unit - means[name]), True
            start += len(ids)
        own = np.asarray(bridge.arrays[f"{base}/items"], np.float32)
        link = Link(0, 1, tuple(via), (own[known], items[known]), joint=True)
    else:
        near, far, base = _shared(bridge, leaf, via, places, means, config.seed)
        own = np.asarray(bridge.arrays[f"{base}/items"], np.float32)
        items = normalize(softmax_average(own, near, far, VIRTUAL_TEMPERATURE))
        known = np.ones(count, bool)
        link = Link(0, 1, tuple(via), (near, far))
    memories = {
        name: memory_of(leaf[name], means.get(name), config.memory_rows, config.seed, shared=name in means)
        for name in leaf.modalities
    }
    return Member(leaf.name, items, memories), link, known


def _shared(
    bridge: Bridge,
    leaf: Space,
    via: Sequence[str],
    places: Mapping[str, str | Path],
    means: dict[str, Array],
    seed: int,
) -> tuple[Array, Array, str]:
    """Centred rows of what the leaf shares with a space of the bridge, in that space and in the leaf, and its name."""
    base = spaces_with(bridge, via[0])[0].name
    if f"{base}/items" not in bridge.arrays:
        raise ConfigError(f"space {base!r} has no posterior in this bridge. Extend with --method ex-mcr.")
    space = bridge.open_space(base, places.get(base))
    near, far = [], []
    for name in via:
        found = overlap(space, leaf, name, least=MINIMUM_OVERLAP)
        rows = space[name].unit(found.rows_a)
        # As the bridge centres that modality, so that the rows lie where its other items do.
        near.append(normalize(rows - np.asarray(bridge.arrays[f"{base}/mean.{name}"])))
        unit = leaf[name].unit(found.rows_b)
        means[name] = centroid(unit)
        far.append(normalize(unit - means[name]))
    return np.concatenate(near), np.concatenate(far), base


def _joint(
    bridge: Bridge,
    member: Member,
    link: Link,
    known: NDArray[np.bool_],
    families: Mapping[str, Sequence[str]],
    config: PosteriorConfig,
) -> Joint:
    """The bridge's first space and the leaf over the items that both know, for the estimate."""
    base = bridge.spaces[0].name
    memories = {}
    for key in bridge.routes:
        space, _, name = key.rpartition("/")
        rows = bridge.arrays.get(f"{base}/memory.{name}")
        if space == base:
            mean = np.asarray(bridge.arrays[f"{base}/mean.{name}"])
            kept = np.asarray(bridge.arrays[f"{base}/items"] if rows is None else rows, np.float32)
            memories[name] = Memory(mean, kept[: config.memory_rows], rows is None)
    first = Member(base, np.asarray(bridge.arrays[f"{base}/items"], np.float32)[known], memories)
    ids = [name for names in families.values() for name in names]
    kept_ids = [name for name, yes in zip(ids, known, strict=True) if yes]
    second = replace(member, items=member.items[known])
    return Joint([first, second], [link], kept_ids, kept_ids, {"items": len(kept_ids)})


def _routes(
    bridge: Bridge,
    form: _Form,
    member: Member,
    bias: Mapping[str, Array],
    config: PosteriorConfig,
    link: Link,
) -> tuple[dict[str, Route], dict[str, Any]]:
    """The leaf's routes and arrays, made after the form of the bridge's first space."""
    name = member.name
    arrays: dict[str, Any] = {f"{name}/items": member.items.astype(np.float16)}
    used = {route[-1]["index"] for route in bridge.routes.values() if route[-1]["kind"] == "filler"}
    free = [index for index in range(form.filler["coordinates"]) if index not in used]
    if len(free) < len(member.memories):
        raise ConfigError(
            f"the bridge has room for {len(free)} more modalities, space {name!r} has {len(member.memories)}. "
            "Connect all spaces at once."
        )
    canonical: Route = []
    if form.canonical is not None:
        rows = normalize(apply_route(form.canonical[1], bridge.arrays, link.rows[0]))
        arrays[f"{name}/canonical"] = ridge(link.rows[1], rows, config.strength)
        canonical = [{"kind": "linear", "weight": f"{name}/canonical", "bias": None}, {"kind": "normalize"}]
    routes: dict[str, Route] = {}
    for index, (modality, memory) in zip(free, member.memories.items(), strict=False):
        arrays[f"{name}/mean.{modality}"] = memory.mean
        arrays[f"{name}/bias.{modality}"] = bias[modality].astype(np.float32)
        body: Route = [_stack(form.stack, bridge.spaces[0].name, name, modality, config)]
        if form.denoise is not None and not memory.shared and len(memory.rows) > 1:
            arrays[f"{name}/memory.{modality}"] = memory.rows.astype(np.float16)
            k = min(config.denoising_neighbours, len(memory.rows))
            body.insert(0, {**form.denoise, "memory": f"{name}/memory.{modality}", "neighbours": k})
        if form.canonical is not None:
            body = [{"kind": "stack", "scales": [1.0, form.canonical[0]], "chains": [body, canonical]}]
        routes[f"{name}/{modality}"] = [*centring(name, modality), *body, {**form.filler, "index": index}]
    return routes, arrays


def _stack(stack: Mapping[str, Any], base: str, name: str, modality: str, config: PosteriorConfig) -> dict[str, Any]:
    """A stack of posteriors with the leaf's items as keys; where the base has its own row, the leaf has its image."""
    look_up = {"kind": "posterior", "keys": f"{name}/items", "bias": f"{name}/bias.{modality}"}
    look_up["labels"] = "joint/labels"
    image = {**look_up, "temperature": config.two_sided_temperature}
    chains: list[Route] = []
    scales: list[float] = []
    # The base stands in as many pairs as there were other spaces; the leaf has a part in all, so each counts less.
    pairs = max(1, sum(not chain for chain in stack["chains"]))
    for part, scale in zip(stack["chains"], stack["scales"], strict=True):
        chain = part
        if not part:
            chain = [{**image, "values": f"{base}/items"}, {"kind": "normalize"}]
        elif part[0]["kind"] == "linear":
            other = part[0]["weight"].partition("/none.")[2]
            chain = [{**image, "values": f"{other}/items"}, {"kind": "normalize"}]
        chains.append([{**chain[0], **look_up}, *chain[1:]])
        scales.append(scale / pairs if len(chain) > 1 else scale)
    return {**stack, "chains": chains, "scales": scales}
