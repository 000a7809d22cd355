"""Projecting more or less than one modality of a space: a whole space into a new one, and a single item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.errors import SpaceError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.core.geometry import Array
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.space import Space


def project_space(
    bridge: Bridge,
    space: Space,
    into: Path,
    *,
    maker: Path,
    modalities: Sequence[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> dict[str, int]:
    """Write a space of projected embeddings, block by block, with the ids and metadata of the source.

    Args:
        bridge: The bridge.
        space: What to project.
        into: The space to write; whole or not at all.
        maker: Folder of the bridge, which stands in the new space's provenance.
        modalities: Which; None is every modality of the space that the bridge has a route for.
        overwrite: Replace what lies at `into`.
        force: Project embeddings of another encoder too.

    Returns:
        Rows written, by modality.

    Raises:
        SpaceError: Something lies at `into`, or the bridge has a route for no modality of the space.
    """
    from isthmus.core.files import sha256_file
    from isthmus.core.replace import replaced_folder
    from isthmus.spaces.product import SPACE

    routed = {key.rpartition("/")[2] for key in bridge.routes}
    wanted = list(modalities or [name for name in space.modalities if name in routed])
    if not wanted:
        raise SpaceError(
            f"space {str(space.path)!r} has {', '.join(space.modalities)}, the bridge has routes for "
            f"{', '.join(sorted(routed))}. Give a space that shares a modality with the bridge."
        )
    weights = sha256_file(maker / "projectors.safetensors") if (maker / "projectors.safetensors").is_file() else None
    rows = {}
    inputs = [space.path, maker, *(known.path for known in bridge.spaces)]
    with replaced_folder(into, SPACE, overwrite=overwrite, inputs=inputs, option="--into") as folder:
        for name in wanted:
            encoder = {"library": "isthmus", "id": f"{maker.name}:{space.name}/{name}", "weights_sha256": weights}
            rows[name] = _write(bridge, space[name], folder, {"encoder": encoder}, name=into.stem, force=force)
    return rows


def _write(bridge: Bridge, x: Embeddings, folder: Path, info: dict[str, Any], *, name: str, force: bool) -> int:
    """Project one modality into a space folder."""
    from isthmus.spaces.writer import ModalityWriter

    info = {**info, "preprocessing": dict(x.info.get("preprocessing") or {})}
    start = 0
    with ModalityWriter(folder, x.modality, dim=bridge.dim, dtype="float32", info=info, name=name) as writer:
        for block in bridge.project_blocks(x, force=force):
            stop = start + len(block)
            writer.append(x.ids[start:stop], block, x.metadata.slice(start, stop - start), checked=True)
            start = stop
    return start


class OneItem:
    """One item of a modality, which a bridge projects like the modality itself.

    Args:
        embeddings: The modality.
        item: Id of the item.

    Raises:
        SpaceError: There is no such id.
    """

    def __init__(self, embeddings: Embeddings, item: str) -> None:
        self.row = embeddings.rows_of([item])
        self.ids, self.embeddings = [item], embeddings
        self.modality, self.dim, self.info = embeddings.modality, embeddings.dim, embeddings.info
        self.fingerprint, self.space_name = embeddings.fingerprint, embeddings.space_name

    def __len__(self) -> int:
        return 1

    def blocks(self, size: int = 1) -> Iterator[Array]:
        """The one row, as a block (1, dim)."""
        yield self.embeddings.take(self.row)
