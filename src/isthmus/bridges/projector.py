"""Embeddings carried along a bridge's routes into its unified space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.fingerprint import bridge_fingerprint, unified_fingerprint
from isthmus.bridges.joined import JoinedSpaces
from isthmus.bridges.member import EmbeddingsLike, check_rows
from isthmus.bridges.routes import Route, apply_route
from isthmus.bridges.training_spaces import space_of
from isthmus.core.arrays import to_numpy
from isthmus.core.geometry import Array, normalize
from isthmus.errors import BridgeError


class Projector(JoinedSpaces):
    """Joined spaces whose embeddings can be projected."""

    def project(
        self,
        x: EmbeddingsLike | NDArray[Any],
        *,
        space: str | None = None,
        modality: str | None = None,
        force: bool = False,
    ) -> Array:
        """Carry embeddings into the unified space.

        Args:
            x: One modality of a space, recognised by its fingerprint, or an array (n, d), which needs `space` and
                `modality`.
            space: Name of the space in the bridge; decides where several have the fingerprint.
            modality: Modality; that of `x` where it has one.
            force: Project embeddings of another encoder too, on your own word.

        Returns:
            (n, dim) float32, unit rows, in the order of `x`.

        Raises:
            FingerprintError: `x` comes from an encoder that the bridge does not know.
            BridgeError: The bridge has no such route, the dimension differs, or a row is zero or not finite.
        """
        if isinstance(x, np.ndarray) or not hasattr(x, "blocks"):
            return self._project_array(to_numpy(x), space, modality)
        out = np.empty((len(x), self.dim), dtype=np.float32)
        start = 0
        for block in self.project_blocks(x, space=space, modality=modality, force=force):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def project_blocks(
        self,
        x: EmbeddingsLike,
        *,
        space: str | None = None,
        modality: str | None = None,
        force: bool = False,
        size: int = 65536,
    ) -> Iterator[Array]:
        """`project` for what does not fit into memory: blocks of unit rows in order. Faults as there."""
        made_by = unified_fingerprint(x)
        if made_by is not None and space is None and (force or made_by == bridge_fingerprint(self)):
            yield from self._projected_blocks(x, size)
            return
        modality = modality or x.modality
        name = space_of(self, x, space=space, modality=modality, force=force)
        where = f"{x.space_name}/{x.modality}"
        route = self._fitting_route(name, modality, x.dim, where)
        start = 0
        for block in x.blocks(size):
            yield self._run(route, block, where, x.ids, start)
            start += len(block)

    def _projected_blocks(self, x: EmbeddingsLike, size: int) -> Iterator[Array]:
        """Rows that this bridge projected before: they are in the unified space already."""
        start = 0
        for block in x.blocks(size):
            check_rows(block, f"{x.space_name}/{x.modality}", x.ids, start)
            yield np.asarray(block, dtype=np.float32)
            start += len(block)

    def _project_array(self, x: NDArray[Any], space: str | None, modality: str | None) -> Array:
        """Project rows whose space and modality the caller names."""
        if space is None or modality is None:
            raise BridgeError(
                f"an array needs space= and modality= to be projected. Expected one of {self._route_names()}."
            )
        if x.ndim != 2:
            raise BridgeError(f"got an array of shape {x.shape}. Expected two dimensions, (items, dimensions).")
        where = f"{space}/{modality}"
        return self._run(self._fitting_route(space, modality, x.shape[1], where), x, where, None, 0)

    def _fitting_route(self, name: str, modality: str, dim: int, where: str) -> Route:
        """Route of a modality for rows of that dimension."""
        route, expected = self.route(name, modality), self.space(name).dim
        if dim != expected:
            raise BridgeError(f"{where}: got embeddings of {dim} dimensions. The space {name!r} has {expected}.")
        return route

    def _run(self, route: Route, x: NDArray[Any], where: str, ids: Sequence[str] | None, start: int) -> Array:
        """Unit rows at the end of a route, after the rows were checked."""
        x = np.asarray(x, dtype=np.float32)
        check_rows(x, where, ids, start)
        out = apply_route(route, self.arrays, x, where=where)
        # A route that ends at unit length is left alone: the embeddings of a base keep their very bits.
        return out if route and route[-1]["kind"] == "normalize" else normalize(out)
