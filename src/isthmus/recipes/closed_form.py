"""Bridges in a second: spaces joined by a closed form of their overlap, with nothing trained.

The methods are in `isthmus.recipes.solvers`. Here overlaps are read, modalities are centred, and routes are put
together.

Rows are taken at unit length; with centring, each modality's own mean is removed and rows are scaled to unit length
again. The mean of an overlap modality is that of the overlap's rows, so that both spaces lose the mean of the same
items; the mean of any other modality is that of all its rows in the training space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.gaps import gap_sample, gaps_after, gaps_before
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.opening import as_base
from isthmus.bridges.routes import Route, rename_arrays, validate_route
from isthmus.bridges.training_spaces import spaces_with
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.core.modality import via_list
from isthmus.core.options import changed
from isthmus.core.version import versions
from isthmus.errors import ConfigError, OverlapError
from isthmus.recipes.sides import warn_of_leaf, warn_of_overlap
from isthmus.recipes.solvers import METHODS, ClosedFormConfig, Fit, solve
from isthmus.spaces.overlap import MINIMUM_OVERLAP, overlap
from isthmus.spaces.space import as_space

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.space import Space

__all__ = ["METHODS", "ClosedFormConfig", "closed_form", "fit_closed_form_bridge", "solve"]

ArraysOut = dict[str, NDArray[Any]]


def closed_form(
    base_overlap: Array, leaf_overlap: Array, *, method: str = "ridge", center: bool = False, **options: Any
) -> tuple[Route, ArraysOut]:
    """Fit one closed form that carries the leaf into the base as it is.

    Args:
        base_overlap: (n, d) rows of the shared items in the base.
        leaf_overlap: (n, d') rows of the same items in the leaf, in the same order.
        method: One of `METHODS`; see `ClosedFormConfig`.
        center: Remove the overlap's mean on both sides first. Rows of another modality want their own mean removed:
            pass centred rows, or use `fit_closed_form_bridge`, which knows the modalities.
        **options: Further settings of `ClosedFormConfig`.

    Returns:
        The route of the leaf and its arrays; the base's rows only need unit length.

    Raises:
        ConfigError: A setting is unknown, or would move the base too; `solve` gives both sides' steps.
    """
    config = _config(method=method, center="leaf" if center else False, **{"two_sided": False, **options})
    if config.moves_base:
        raise ConfigError("closed_form carries the leaf alone, got settings that move both sides. Use solve.")
    prepared = _Centred("leaf", leaf_overlap, center), _Centred("base", base_overlap, center)
    fit = solve(prepared[1].rows, prepared[0].rows, config)
    own = {name: array for name, array in (prepared[0].arrays | fit.arrays).items() if name.startswith("leaf/")}
    return [*prepared[0].steps, *fit.leaf], own


class _Centred:
    """Rows at unit length, centred or not, with the steps that do the same to others of their kind."""

    def __init__(self, side: str, rows: Array, center: bool) -> None:
        self.rows = normalize(rows)
        self.steps: Route = [{"kind": "normalize"}]
        self.arrays: ArraysOut = {}
        if center:
            mean = centroid(self.rows)
            self.rows = normalize(self.rows - mean)
            self.steps, self.arrays = centring(f"{side}/mean"), {f"{side}/mean": mean}


def centring(name: str) -> Route:
    """Steps that remove a modality's mean, the array `name`."""
    return [{"kind": "normalize"}, {"kind": "center", "mean": name}, {"kind": "normalize"}]


def fit_closed_form_bridge(
    base: Space | Bridge | str | Path,
    leaf: Space | str | Path,
    *,
    via: str | Sequence[str],
    method: str = "dictionary",
    space_paths: Mapping[str, str | Path] | None = None,
    **options: Any,
) -> Bridge:
    """Join a leaf to a base by a closed form of their overlap.

    Args:
        base: A space, or a bridge, which then stays bit for bit.
        leaf: The space to bring in.
        via: Modalities that both have, matched by id; the overlaps of several are stacked.
        method: One of `METHODS`.
        space_paths: Where spaces of a base bridge lie now, by name.
        **options: Further settings of `ClosedFormConfig`.

    Returns:
        A bridge of the base's spaces and the leaf. Settings that move the base (`center=True`, two sides) are said
        aloud by `Bridge.summary` and the model card.

    Raises:
        OverlapError: Too few shared ids, or `via` names a modality that one of them lacks.
        ConfigError: A setting is unknown or does not fit, or would move a bridge that is to stay.
    """
    started = time.monotonic()
    base, leaf = as_base(base), as_space(leaf)
    names, config = via_list(via), _config(method=method, **options)
    if config.moves_base and isinstance(base, Bridge):
        raise ConfigError(
            f"{config.method} with center={config.center!r}, two_sided={config.two_sided!r} moves the base, and a "
            "bridge as base stays as it is. Use center='leaf', two_sided=False, or join the spaces themselves."
        )
    over, new = Bridge.over(base), BridgeSpace.of(leaf, role="leaf")
    over.check_new(new)
    shared = [_shared(base, leaf, name, space_paths or {}) for name in names]
    warn_of_leaf(leaf.name, leaf.modalities, names)
    for each in shared:
        warn_of_overlap((each.space.name, leaf.name), each.via, each.base, each.leaf)
    fitted = _Fitted.of(shared, leaf, config)
    record: dict[str, Any] = {
        "recipe": "closed-form",
        "via": names,
        "held_out": fitted.fit.held_out,
        "overlap": {each.via: len(each.leaf) for each in shared},
        "gap": {},
    }
    made: dict[str, Any] = {
        "method": config.method,
        "config": asdict(fitted.fit.config) | {"two_sided": config.sides, "via": names},
        "record": record | {"seeds": [config.seed], "versions": versions()},
    }
    if isinstance(base, Bridge) or not config.moves_base:
        bridge = over.with_leaf(new, fitted.routes, fitted.arrays, **made)
    else:
        bridge = _both_moved(base, new, fitted, made)
    joined = {space.name: space for space in (*(each.space for each in shared), leaf)}
    bridge.record["gap"] = bridge_gaps(bridge, joined)
    bridge.record["seconds"] = {"all": time.monotonic() - started}
    return bridge


@dataclass(frozen=True)
class _Fitted:
    """A fit on the stacked overlaps, and what it makes of the leaf, array names as they are in the bridge."""

    shared: Sequence[_Shared]
    fit: Fit
    routes: dict[str, Route]
    arrays: ArraysOut

    @classmethod
    def of(cls, shared: Sequence[_Shared], leaf: Space, config: ClosedFormConfig) -> _Fitted:
        prep = _Preparation(leaf, {s.via: s.leaf for s in shared}, centred=bool(config.center))
        # The base's overlap is centred where the leaf's is, whether the base's own items will be or not.
        base = [normalize(s.base - centroid(s.base)) if config.center else s.base for s in shared]
        fit = solve(np.concatenate(base), np.concatenate([prep.rows(s.via) for s in shared]), config)
        rename = _naming(shared[0].space.name, leaf.name)
        routes = {m: rename_arrays([*prep.steps("leaf", m), *fit.leaf], rename) for m in leaf.modalities}
        arrays = {rename(name): array for name, array in (fit.arrays | prep.arrays("leaf")).items()}
        return cls(shared, fit, routes, arrays)


def _naming(base: str, leaf: str) -> Callable[[str], str]:
    """Array names of a fit, `base/...` and `leaf/...`, as they are called in a bridge."""

    def rename(name: str) -> str:
        side, _, rest = name.partition("/")
        return f"{base if side == 'base' else leaf}/{rest}"

    return rename


def _config(**settings: Any) -> ClosedFormConfig:
    return changed(ClosedFormConfig(), settings, "a closed form")


@dataclass(frozen=True)
class _Shared:
    """The overlap of one modality: the space that the base's rows are of, and unit rows in the base and in the leaf."""

    via: str
    space: Space
    base: Array
    leaf: Array


def _shared(base: Space | Bridge, leaf: Space, via: str, places: Mapping[str, str | Path]) -> _Shared:
    space = _space_with(base, via, places) if isinstance(base, Bridge) else base
    found = overlap(space, leaf, via, least=MINIMUM_OVERLAP)
    rows = space[via].unit(found.rows_a)
    if isinstance(base, Bridge):
        rows = base.project(rows, space=space.name, modality=via)
    return _Shared(via, space, rows, leaf[via].unit(found.rows_b))


def _space_with(bridge: Bridge, via: str, places: Mapping[str, str | Path]) -> Space:
    """The space of a bridge whose rows of a modality stand for the bridge."""
    if via not in (known := sorted({key.rpartition("/")[2] for key in bridge.routes})):
        raise OverlapError(
            f"no space of the bridge has {via!r} (they have {', '.join(known)}). via must name what both have."
        )
    name = spaces_with(bridge, via)[0].name
    return bridge.open_space(name, places.get(name))


class _Preparation:
    """What is done to every modality of a space before the closed form: unit length, and its mean removed if asked.

    Args:
        space: The space.
        overlaps: By overlap modality, its unit rows in the overlap.
        centred: Whether means are removed.
    """

    def __init__(self, space: Space, overlaps: Mapping[str, Array], *, centred: bool) -> None:
        self.overlaps = overlaps
        self.means: dict[str, Array] = {}
        if centred:
            self.means = {
                name: centroid(overlaps[name]) if name in overlaps else _mean(space[name]) for name in space.modalities
            }

    def rows(self, via: str) -> Array:
        """The prepared rows of an overlap modality."""
        rows = self.overlaps[via]
        return normalize(rows - self.means[via]) if self.means else rows

    def steps(self, side: str, modality: str) -> Route:
        """The same as steps."""
        return centring(f"{side}/mean.{modality}") if self.means else [{"kind": "normalize"}]

    def arrays(self, side: str) -> ArraysOut:
        """The arrays of the steps."""
        return {f"{side}/mean.{modality}": mean for modality, mean in self.means.items()}


def _mean(embeddings: Embeddings) -> Array:
    """Centroid of all rows at unit length, a block at a time."""
    total = np.zeros(embeddings.dim, dtype=np.float64)
    for block in embeddings.blocks():
        total += normalize(block).sum(axis=0, dtype=np.float64)
    return np.asarray(total / max(len(embeddings), 1), dtype=np.float32)


def _both_moved(base: Space, leaf: BridgeSpace, fitted: _Fitted, made: Mapping[str, Any]) -> Bridge:
    """The bridge of a closed form that moves the base as well."""
    prep = _Preparation(base, {s.via: s.base for s in fitted.shared}, centred=fitted.fit.config.center is True)
    rename = _naming(base.name, leaf.name)
    routes = {m: rename_arrays([*prep.steps("base", m), *fitted.fit.base], rename) for m in base.modalities}
    arrays = fitted.arrays | {rename(name): array for name, array in prep.arrays("base").items()}
    dim = validate_route(next(iter(routes.values())), arrays, base.dim)
    named = {f"{base.name}/{m}": route for m, route in routes.items()}
    named |= {f"{leaf.name}/{m}": route for m, route in fitted.routes.items()}
    return Bridge(dim=dim, spaces=[BridgeSpace.of(base, role="base"), leaf], routes=named, arrays=arrays, **made)


def bridge_gaps(bridge: Bridge, spaces: Mapping[str, Space]) -> dict[str, dict[str, float]]:
    """Modality gaps inside each space as it came, and between all their modalities in the bridge."""
    sample = {
        name: {m: gap_sample(space[m]) for m in space.modalities if f"{name}/{m}" in bridge.routes}
        for name, space in spaces.items()
    }
    return {"before": gaps_before(sample), "after": gaps_after(bridge, sample)}
