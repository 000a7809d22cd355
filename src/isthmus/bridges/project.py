"""A whole space through a bridge into a new space: the verb `project`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.bridges.folder import LazyArrays
from isthmus.bridges.opening import as_bridge
from isthmus.core.files import sha256_file
from isthmus.core.modality import via_list
from isthmus.core.replace import replaced_folder
from isthmus.core.result import Result
from isthmus.errors import SpaceError
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.manifest import MANIFEST, WRITING, read_manifest
from isthmus.spaces.product import SPACE
from isthmus.spaces.space import Space, as_space
from isthmus.spaces.writer import ModalityWriter


@dataclass(frozen=True)
class ProjectReport(Result):
    """What `project` wrote.

    Attributes:
        path: The new space.
        rows: Rows written, by modality.
        seconds: Time that it took.
    """

    path: str
    rows: dict[str, int]
    seconds: float


def project(
    bridge: Bridge | str | Path,
    space: Space | str | Path | Sequence[Space | str | Path],
    *,
    into: str | Path,
    modalities: str | Sequence[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
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
    if not new:
        raise SpaceError(
            f"--into {into} holds {', '.join(sorted(wanted))} already. Give another folder, other modalities, or "
            "--overwrite."
        )
    if there:
        rows = {name: _write(through, one, target, name=target.stem, force=force) for name, one in new.items()}
    else:
        with replaced_folder(target, SPACE, overwrite=overwrite, inputs=inputs, option="--into") as folder:
            rows = {name: _write(through, one, folder, name=target.stem, force=force) for name, one in new.items()}
    return ProjectReport(str(target), rows, time.monotonic() - started)


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
    entries = read_manifest(into)["modalities"] if (into / MANIFEST).is_file() else {}
    made_by = {(entry.get("unified") or {}).get("fingerprint") for entry in entries.values()}
    if made_by != {bridge_fingerprint(bridge)}:
        raise SpaceError(
            f"--into {into} exists already and is no space that this bridge projected. Give another folder, or "
            "--overwrite."
        )
    return {name for name, entry in entries.items() if entry["state"] != WRITING}


def _identity(bridge: Bridge) -> tuple[str, str]:
    """Name and hash of what makes the embeddings: of the folder and its file of arrays, or of a bridge in memory."""
    if isinstance(bridge.arrays, LazyArrays):
        return bridge.arrays.path.parent.resolve().name, sha256_file(bridge.arrays.path)
    digest = hashlib.sha256()
    for name in sorted(bridge.arrays):
        array = np.ascontiguousarray(bridge.arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return bridge.method, digest.hexdigest()


def _write(bridge: Bridge, x: Embeddings, folder: Path, *, name: str, force: bool) -> int:
    """Project one modality into a space folder; rows that an interrupted run left there are kept."""
    maker, weights = _identity(bridge)
    source = f"{x.space_name}/{x.modality}"
    info = {
        "encoder": {"library": "isthmus", "id": f"{maker}:{source}", "weights_sha256": weights},
        "preprocessing": dict(x.info.get("preprocessing") or {}),
        "unified": {"fingerprint": bridge_fingerprint(bridge), "bridge": maker, "source": source},
    }
    start = 0
    with ModalityWriter(folder, x.modality, dim=bridge.dim, dtype="float32", info=info, name=name) as writer:
        written = writer.rows  # whole shards of an interrupted run: the same rows, in the same order
        for block in bridge.project_blocks(x, force=force):
            stop = start + len(block)
            first = max(start, written)
            if first < stop:
                rows = x.metadata.slice(first, stop - first)
                writer.append(x.ids[first:stop], block[first - start :], rows, checked=True)
            start = stop
    return start
