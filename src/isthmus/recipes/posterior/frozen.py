"""A leaf joined to a base in a closed form that leaves the base bit for bit: by posteriors, or canonical directions.

Of a bridge of posteriors the leaf's items become posteriors over the bridge's own shared items (see `addition`). Any
other base has no place for a second part: the leaf's items are described by the base's own (see `description`), or
carried by canonical directions onto the base as it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.gaps import gaps_after, gaps_before
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.routes import Route
from isthmus.core.version import versions
from isthmus.recipes.posterior.addition import add_space, recognises
from isthmus.recipes.posterior.canonical import onto
from isthmus.recipes.posterior.config import PosteriorConfig, posterior_config
from isthmus.recipes.posterior.description import SETTINGS, description_routes, sides_joint
from isthmus.recipes.posterior.health import choose_family
from isthmus.recipes.posterior.model import fit_model
from isthmus.recipes.posterior.routes import centring
from isthmus.recipes.sides import bridge_side, space_side, warn_of_sides

if TYPE_CHECKING:
    from isthmus.recipes.posterior.joint import Joint
    from isthmus.spaces.space import Space

METHODS = ("posterior", "cca")


def extend_frozen(
    base: Space | Bridge,
    leaf: Space,
    *,
    via: Sequence[str],
    method: str,
    space_paths: Mapping[str, str | Path] | None = None,
    **settings: Any,
) -> Bridge:
    """Join a leaf to a base that stays as it is.

    Args:
        base: A space or a bridge.
        leaf: The space to bring in.
        via: Modalities that both have, matched by id.
        method: One of `METHODS`.
        space_paths: Where spaces of a base bridge lie now, by name.
        **settings: Settings of `isthmus.recipes.posterior.config.PosteriorConfig`.

    Raises:
        OverlapError: Too few ids are shared, or `via` names a modality that one of them lacks.
        ConfigError: A setting is unknown or does not fit.
    """
    started = time.monotonic()
    if method == "posterior" and isinstance(base, Bridge) and recognises(base):
        return add_space(base, leaf, via=via, space_paths=space_paths, settings=settings)
    config = posterior_config({**(SETTINGS if method == "posterior" else {}), **settings})
    near = bridge_side(base, via, space_paths) if isinstance(base, Bridge) else space_side(base)
    far = space_side(leaf)
    warn_of_sides(near, far, via)
    joint = sides_joint(near, far, via, config.seed)
    if method == "posterior":
        joint, _ = choose_family(joint, config.seed)
    arrays, routes = (_described if method == "posterior" else _carried)(joint, config, leaf.name)
    record = {
        "recipe": method,
        "via": list(via),
        "overlap": joint.via,
        "seeds": [config.seed],
        "versions": versions(),
    }
    resolved = config.model_dump(mode="json") | {"via": list(via), "method": method}
    new = BridgeSpace.of(leaf, role="leaf")
    bridge = Bridge.over(base).with_leaf(new, routes, arrays, method=method, config=resolved, record=record)
    after = {f"{near.name}/{name}": rows for name, rows in near.embeddings.items()}
    sides = {side.name: side.embeddings for side in (near, far)}
    bridge.record["gap"] = {
        "before": gaps_before(sides),
        "after": gaps_after(bridge, {leaf.name: far.embeddings}, after),
    }
    bridge.record["seconds"] = {"all": time.monotonic() - started}
    return bridge


def _described(joint: Joint, config: PosteriorConfig, name: str) -> tuple[dict[str, Any], dict[str, Route]]:
    """Every modality of the leaf by the base's own items."""
    return description_routes(fit_model(joint, config), name, list(joint.members[1].memories))


def _carried(joint: Joint, config: PosteriorConfig, name: str) -> tuple[dict[str, Any], dict[str, Route]]:
    """Every modality of the leaf by canonical directions onto the base."""
    base, leaf = joint.members
    arrays: dict[str, Any] = {f"{name}/canonical": onto(leaf.items, base.items, config.strength)}
    routes: dict[str, Route] = {}
    carry: Route = [{"kind": "linear", "weight": f"{name}/canonical", "bias": None}, {"kind": "normalize"}]
    for modality, memory in leaf.memories.items():
        arrays[f"{name}/mean.{modality}"] = memory.mean
        routes[modality] = [*centring(name, modality), *carry]
    return arrays, routes
