"""The bridge of a world: its spaces joined in the order in which they share a modality."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.core.files import sha256_json, write_json
from isthmus.core.replace import remove_written
from isthmus.errors import OverlapError
from isthmus.recipes.training.loop import CHECKPOINTS as RUN_FILES
from isthmus.spaces.space import Space
from isthmus.worlds.plan import WorldPlan
from isthmus.worlds.world import BRIDGE, CHECKPOINTS, MANIFEST

TRAINED = re.compile(rf"[\w-]+/(?:{RUN_FILES.pattern})")
"""Checkpoints of the runs that join spaces, a folder each."""

FEWEST_SHARED = 20
"""Shared items that two spaces need to be joined through."""

_TIME = re.compile(r"(.*_)?seconds(_.*)?")


def bridge_key(plan: WorldPlan, spaces: Sequence[Space], method: str | None, seed: int) -> str:
    """Hash of what a bridge is made of: encoders, texts, method and seed; while it stays, the bridge does."""
    return sha256_json(
        {
            "spaces": {space.name: {name: space.fingerprint(name) for name in sorted(space)} for space in spaces},
            "texts": sha256_json(plan.texts),
            "method": method,
            "seed": seed,
        }
    )


def make_bridge(
    plan: WorldPlan,
    folder: Path,
    spaces: Sequence[Space],
    record: dict[str, Any],
    *,
    retrain: bool,
    method: str | None,
    seed: int,
    **making: Any,
) -> tuple[Bridge, bool]:
    """The bridge, kept while encoders, texts and method are what they were, and whether it was made now."""
    key = bridge_key(plan, spaces, method, seed)
    path = folder / BRIDGE
    if not retrain and record.get("bridge") == key and (path / "bridge.json").is_file():
        return load_bridge(path), False
    bridge = connect_all(spaces, method=method, seed=seed, checkpoints=folder / CHECKPOINTS, **making)
    without_times(bridge).save(path, overwrite=path.exists())
    remove_written(folder / CHECKPOINTS, TRAINED)
    record["bridge"] = key
    write_json(folder / MANIFEST, record)
    return load_bridge(path), True


def connect_all(
    spaces: Sequence[Space],
    *,
    method: str | None,
    seed: int,
    device: str | None,
    checkpoints: Path,
    quiet: bool,
) -> Bridge:
    """One bridge of all spaces, each joined to an earlier one through the modality of which they share most items.

    Raises:
        OverlapError: A space shares too few items with all others.
    """
    if len(spaces) == 1:
        return Bridge.over(spaces[0])
    from isthmus.recipes.connect import connect
    from isthmus.recipes.extend import extend

    links = [link(spaces[:number], spaces[number]) for number in range(1, len(spaces))]
    options: dict[str, Any] = {"seed": seed, "device": device, "quiet": quiet}
    several: Any = connect
    if "method" in inspect.signature(connect).parameters:
        vias = [f"{other},{space.name}:{via}" for (other, via), space in zip(links, spaces[1:], strict=True)]
        via: Any = links[0][1] if len({one for _, one in links}) == 1 else vias
        more = {} if method is None else {"method": method}
        made: Bridge = several(*spaces, via=via, checkpoint_dir=checkpoints / "all", **options, **more)
        return made
    bridge: Bridge = several(*spaces[:2], via=links[0][1], checkpoint_dir=checkpoints / "1", **options)
    for number, (_, via) in enumerate(links[1:], start=2):
        bridge = extend(bridge, spaces[number], via=via, checkpoint_dir=checkpoints / str(number), **options)
    return bridge


def link(earlier: Sequence[Space], space: Space) -> tuple[str, str]:
    """The earlier space, and the modality, through which a space is joined: where they share most items.

    Raises:
        OverlapError: They share too few.
    """
    best: tuple[int, str, str] = (0, "", "")
    for other in earlier:
        for modality in other.modalities:
            if modality in space:
                shared = len(set(other[modality].ids) & set(space[modality].ids))
                best = max(best, (shared, other.name, modality), key=lambda one: one[0])
    if best[0] < FEWEST_SHARED:
        names = ", ".join(repr(other.name) for other in earlier)
        raise OverlapError(
            f"space {space.name!r} shares {best[0]:,} items with {names}, expected {FEWEST_SHARED} or more. Give more "
            "texts (--texts FILE or builtin) to encoders that read them, or files that both encoders take."
        )
    return best[1], best[2]


def without_times(bridge: Bridge) -> Bridge:
    """The bridge without the seconds that its making took: two runs give the same bytes."""
    history = [_timeless(line) for line in bridge.history]
    return replace(bridge, record=_timeless(bridge.record), history=history)


def _timeless(value: Any) -> Any:
    """A record without times, which differ from run to run."""
    if isinstance(value, Mapping):
        return {key: _timeless(item) for key, item in value.items() if not _TIME.fullmatch(str(key))}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
