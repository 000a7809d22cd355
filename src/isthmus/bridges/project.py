"""A whole space through a bridge into a new space: the verb `project`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.bridges.folder import LazyArrays
from isthmus.bridges.opening import as_bridge
from isthmus.bridges.projected import PARTS, waiting_for, write_part, write_whole
from isthmus.core.distribution import Distribution
from isthmus.core.modality import via_list
from isthmus.core.replace import claim_folder, replaced_folder
from isthmus.core.result import OPTIONAL, Result
from isthmus.errors import ConfigError, SpaceError
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.manifest import MANIFEST, WRITING, read_manifest
from isthmus.spaces.product import SPACE, SPACE_FILES
from isthmus.spaces.remote import writes_space
from isthmus.spaces.selection import Selection
from isthmus.spaces.space import Space, as_space, open_space

SPACE_OF_PARTS = re.compile(rf"{SPACE_FILES.pattern}|{re.escape(PARTS)}/.*")


@dataclass(frozen=True)
class ProjectReport(Result):
    """Report of `project`: what it wrote.

    Attributes:
        path: The new space.
        rows: Rows written, by modality.
        seconds: Time that it took.
        waiting_for: Of a run of one part: parts that are missing still, by modality. None once all are joined.
    """

    path: str
    rows: dict[str, int]
    seconds: float
    waiting_for: dict[str, list[int]] | None = field(default=None, metadata=OPTIONAL)


@writes_space("into")
def project(
    bridge: Bridge | str | Path,
    space: Space | str | Path | Sequence[Space | str | Path],
    *,
    into: str | Path,
    modalities: str | Sequence[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
    distribution: Distribution | None = None,
) -> ProjectReport:
    """Write a space of projected embeddings, block by block, with the ids and metadata of the source.

    A base and its leaves go into one folder, together or one after the other: each adds the modalities that are not
    there yet. The folder knows the unified space that it is in, so that the bridge takes its rows as they are.

    Args:
        bridge: The bridge, or its folder.
        space: What to project, or its folder; or several.
        into: The space to write; a new one appears whole or not at all, one of this bridge is added to.
        modalities: Which; None is every modality that the bridge has a route for. Of a modality that two spaces have,
            the first one's is taken.
        overwrite: Replace what lies at `into`.
        force: Project embeddings of another encoder too.
        distribution: One part of the rows, or all parts on a Ray cluster; the space that they end in is, byte for byte,
            the one that a single process writes. None is this process.

    Raises:
        SpaceError: Something else lies at `into`, or the bridge has a route for no modality of the spaces.
        FingerprintError: A space comes from an encoder that the bridge does not know.
    """
    started, target = time.monotonic(), Path(into)
    through = as_bridge(bridge)
    sources = [as_space(one) for one in ([space] if isinstance(space, Space | str | Path) else space)]
    given = None if modalities is None else via_list(modalities, option="modalities")
    wanted = _wanted(through, sources, given)
    folder_of = through.arrays.path.parent if isinstance(through.arrays, LazyArrays) else None
    inputs = [*(one.path for one in sources), folder_of, *(known.path for known in through.spaces)]
    there = set() if overwrite or not target.exists() else _projected_modalities(through, target)
    new = {name: one[name] for name, one in wanted.items() if name not in there}
    if distribution is not None and distribution.cuts:
        if overwrite:
            raise ConfigError("overwrite is of a run without parts. Remove the folder first, or give another.")
        joined = {name: len(one[name]) for name, one in wanted.items() if name in there}
        place = claim_folder(target, SPACE_OF_PARTS, "space", inputs=inputs, option="--into", fault=SpaceError)
        return _project_parts(through, new, place, distribution, joined, started, force)
    if not new:
        raise SpaceError(
            f"--into {into} holds {', '.join(sorted(wanted))} already. Give another folder, other modalities, or "
            "--overwrite."
        )
    if there:
        rows = {name: write_whole(through, one, target, name=target.stem, force=force) for name, one in new.items()}
    else:
        with replaced_folder(target, SPACE, overwrite=overwrite, inputs=inputs, option="--into") as folder:
            rows = {name: write_whole(through, one, folder, name=target.stem, force=force) for name, one in new.items()}
    return ProjectReport(str(target), rows, time.monotonic() - started)


def _project_parts(
    bridge: Bridge,
    new: Mapping[str, Embeddings],
    into: Path,
    distribution: Distribution,
    joined: dict[str, int],
    started: float,
    force: bool,
) -> ProjectReport:
    """Project one part of each modality, or deal all parts out; parts that are there already are not done again."""
    rows, waiting = dict(joined), {}
    for name, one in new.items():
        next(bridge.project_blocks(Selection(one, [0]), force=force))  # what is wrong is told before machines are asked
        work = partial(_part_of, bridge, one.path.resolve(), into.resolve(), force)
        part = distribution.part
        counts = distribution.on_ray(work) if part is None else [work(part)]
        done = [count for count in counts if count is not None]
        if done:
            rows[name] = done[0]
        else:
            assert part is not None
            waiting[name] = waiting_for(into, name, part[1])
    return ProjectReport(str(into), rows, time.monotonic() - started, waiting or None)


def _part_of(bridge: Bridge, modality: Path, into: Path, force: bool, part: tuple[int, int]) -> int | None:
    """One part of the modality in a folder, which every machine opens for itself."""
    return write_part(bridge, open_space(modality.parent)[modality.name], into, part, force=force)


def _wanted(bridge: Bridge, spaces: Sequence[Space], modalities: Sequence[str] | None) -> dict[str, Space]:
    """The space that each modality is projected from."""
    routed = {key.rpartition("/")[2] for key in bridge.routes}
    wanted: dict[str, Space] = {}
    for one in spaces:
        for name in one.modalities:
            if name in (routed if modalities is None else modalities):
                wanted.setdefault(name, one)
    if not wanted or any(name not in wanted for name in modalities or ()):
        has = ", ".join(dict.fromkeys(name for one in spaces for name in one.modalities))
        raise SpaceError(
            f"space {str(spaces[0].path)!r} has {has}, the bridge has routes for {', '.join(sorted(routed))}. Give a "
            "space that shares a modality with the bridge."
        )
    return wanted


def _projected_modalities(bridge: Bridge, into: Path) -> set[str]:
    """Modalities of a folder that this bridge projected.

    Raises:
        SpaceError: It is something else.
    """
    if not (into / MANIFEST).is_file() and [one.name for one in into.iterdir()] == [PARTS]:
        return set()
    entries = read_manifest(into)["modalities"] if (into / MANIFEST).is_file() else {}
    made_by = {(entry.get("unified") or {}).get("fingerprint") for entry in entries.values()}
    if made_by != {bridge_fingerprint(bridge)}:
        raise SpaceError(
            f"--into {into} exists already and is no space that this bridge projected. Give another folder, or "
            "--overwrite."
        )
    return {name for name, entry in entries.items() if entry["state"] != WRITING}
