"""Any number of spaces joined by a closed form: gather, fit, choose, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.core.messages import RENAME
from isthmus.core.modality import via_list
from isthmus.core.version import versions
from isthmus.errors import ConfigError
from isthmus.recipes.closed_form import bridge_gaps
from isthmus.recipes.posterior.auto import WEIGHTS, candidates, choose, estimate_record
from isthmus.recipes.posterior.config import PosteriorConfig, posterior_config
from isthmus.recipes.posterior.health import choose_family, examine
from isthmus.recipes.posterior.joint import Joint
from isthmus.recipes.posterior.members import Vias, gather
from isthmus.recipes.posterior.model import fit_model
from isthmus.recipes.posterior.routes import Written, packed, write_canonical, write_posterior

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

MOST_NAMED = 200
"""Shared items, dropped or matched anew, that the record lists by their ids; the arrays `joint/dropped` and
`joint/rematched` list all."""
METHODS = ("auto", "posterior", "cca")


def join(
    spaces: Sequence[Space],
    *,
    via: str | Sequence[str],
    method: str = "auto",
    settings: Mapping[str, Any] | PosteriorConfig | None = None,
) -> Bridge:
    """Join spaces in a closed form.

    Args:
        spaces: Two or more, of different names.
        via: Modalities that all share, or, pair by pair, texts such as "clap,clip:text". Posteriors are over the items
            of one: of several that all pairs share, `choose_family` takes one.
        method: One of `METHODS`.
        settings: Settings of `PosteriorConfig`.

    Raises:
        OverlapError: Too few ids are shared, or `via` names a modality that a space lacks.
        ConfigError: A setting is unknown or does not fit.
    """
    started = time.monotonic()
    config = settings if isinstance(settings, PosteriorConfig) else posterior_config(settings or {})
    joint = gather(spaces, read_vias(spaces, via), memory_rows=config.memory_rows, seed=config.seed)
    joint, families = (joint, {}) if method == "cca" else choose_family(joint, config.seed)
    overlap = joint.via
    examined, health = examine(joint, config.seed)
    joint = examined if config.agreement else joint
    model = fit_model(joint, config)
    best, chosen = choose(candidates(model, WEIGHTS if method == "auto" else [_weight(method, config)]))
    model = replace(model, config=config.model_copy(update={"cca_weight": _finite(best.weight)}))
    alone = not np.isfinite(best.weight)
    written = write_canonical(model) if alone else write_posterior(model, best.weight)
    record: dict[str, Any] = {
        **_overlaps(joint, written),
        "overlap": overlap,
        **({"families": families} if families else {}),
        "chosen": chosen if method == "auto" else {},
        "estimate": estimate_record(best, health, joint),
        "seeds": [config.seed],
        "versions": versions(),
        **written.record,
    }
    resolved = model.config.model_dump(mode="json") | {"via": record["via"], "method": method}
    bridge = _bridge(spaces, "cca" if alone else "posterior", written, resolved, record)
    bridge.record["gap"] = bridge_gaps(bridge, {space.name: space for space in spaces})
    bridge.record["seconds"] = {"all": time.monotonic() - started}
    return bridge


def _overlaps(joint: Joint, written: Written) -> dict[str, Any]:
    """What the record says of shared items; long lists go to the arrays."""
    for name, ids in (("dropped", joint.dropped), ("rematched", joint.rematched)):
        if ids:
            written.arrays[f"joint/{name}"] = packed(ids)
    names = [member.name for member in joint.members]
    return {
        "via": list(dict.fromkeys(name for link in joint.links for name in link.via)),
        "pairs": {f"{names[link.first]},{names[link.second]}": list(link.via) for link in joint.links},
        "virtual": joint.virtual,
        "dropped": joint.dropped[:MOST_NAMED],
        "rematched": [list(pair) for pair in joint.rematched[:MOST_NAMED]],
    }


def _weight(method: str, config: PosteriorConfig) -> float:
    return float("inf") if method == "cca" else config.cca_weight


def _finite(weight: float) -> float:
    return weight if np.isfinite(weight) else 0.0


def _bridge(
    spaces: Sequence[Space], method: str, written: Written, config: dict[str, Any], record: dict[str, Any]
) -> Bridge:
    roles = ["first", "second", *["joined"] * (len(spaces) - 2)]
    return Bridge(
        method=method,
        dim=written.dim,
        spaces=[BridgeSpace.of(space, role=role) for space, role in zip(spaces, roles, strict=True)],
        routes=written.routes,
        arrays=written.arrays,
        config=config,
        record=record,
    )


def read_vias(spaces: Sequence[Space], via: str | Sequence[str]) -> Vias:
    """Read through what spaces are joined.

    Args:
        spaces: The spaces.
        via: "text" or "text,image" for all pairs alike; or for each pair "A,B:text", spaces by name.

    Raises:
        ConfigError: A pair is misspelt or named twice, two spaces have one name, or there are fewer than two.
    """
    names = [space.name for space in spaces]
    if len(names) < 2:
        raise ConfigError(f"got {len(names)} space to join. Give two or more.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two spaces are called {min(twice)!r}, expected names of their own. {RENAME}")
    texts = [via] if isinstance(via, str) else list(via)
    if not any(":" in text for text in texts):
        every = tuple(via_list(via))
        return dict.fromkeys(combinations(range(len(spaces)), 2), every)
    vias: dict[tuple[int, int], tuple[str, ...]] = {}
    for text in texts:
        pair, colon, modalities = text.partition(":")
        ends = [name.strip() for name in pair.split(",")]
        if not colon or len(ends) != 2 or ends[0] == ends[1] or not set(ends) <= set(names):
            known = ", ".join(names)
            raise ConfigError(f"via got {text!r}. Expected A,B:MODALITY with two of the spaces {known}.")
        key = (min(map(names.index, ends)), max(map(names.index, ends)))
        if key in vias:
            raise ConfigError(f"via names the pair {pair} twice. Give its modalities once: {pair}:text,image.")
        vias[key] = tuple(via_list(modalities))
    return vias
