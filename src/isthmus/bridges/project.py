"""A whole space through a bridge into a new space: the verb `project`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.folder import LazyArrays
from isthmus.bridges.opening import as_bridge
from isthmus.core.files import sha256_file
from isthmus.core.modality import via_list
from isthmus.core.replace import replaced_folder
from isthmus.core.result import Result
from isthmus.errors import SpaceError
from isthmus.spaces.embeddings import Embeddings
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
    space: Space | str | Path,
    *,
    into: str | Path,
    modalities: str | Sequence[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> ProjectReport:
    """Write a space of projected embeddings, block by block, with the ids and metadata of the source.

    Args:
        bridge: The bridge, or its folder.
        space: What to project, or its folder.
        into: The space to write; whole or not at all.
        modalities: Which; None is every modality of the space that the bridge has a route for.
        overwrite: Replace what lies at `into`.
        force: Project embeddings of another encoder too.

    Raises:
        SpaceError: Something lies at `into`, or the bridge has a route for no modality of the space.
        FingerprintError: The space comes from an encoder that the bridge does not know.
    """
    started, target = time.monotonic(), Path(into)
    through, source = as_bridge(bridge), as_space(space)
    routed = {key.rpartition("/")[2] for key in through.routes}
    given = None if modalities is None else via_list(modalities, option="modalities")
    wanted = given or [name for name in source.modalities if name in routed]
    if not wanted:
        raise SpaceError(
            f"space {str(source.path)!r} has {', '.join(source.modalities)}, the bridge has routes for "
            f"{', '.join(sorted(routed))}. Give a space that shares a modality with the bridge."
        )
    maker, weights = _identity(through)
    rows = {}
    folder_of = through.arrays.path.parent if isinstance(through.arrays, LazyArrays) else None
    inputs = [source.path, folder_of, *(known.path for known in through.spaces)]
    with replaced_folder(target, SPACE, overwrite=overwrite, inputs=inputs, option="--into") as folder:
        for name in wanted:
            encoder = {"library": "isthmus", "id": f"{maker}:{source.name}/{name}", "weights_sha256": weights}
            rows[name] = _write(through, source[name], folder, {"encoder": encoder}, name=target.stem, force=force)
    return ProjectReport(str(target), rows, time.monotonic() - started)


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


def _write(bridge: Bridge, x: Embeddings, folder: Path, info: dict[str, Any], *, name: str, force: bool) -> int:
    """Project one modality into a space folder."""
    info = {**info, "preprocessing": dict(x.info.get("preprocessing") or {})}
    start = 0
    with ModalityWriter(folder, x.modality, dim=bridge.dim, dtype="float32", info=info, name=name) as writer:
        for block in bridge.project_blocks(x, force=force):
            stop = start + len(block)
            writer.append(x.ids[start:stop], block, x.metadata.slice(start, stop - start), checked=True)
            start = stop
    return start
