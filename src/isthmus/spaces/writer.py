"""`ModalityWriter`: a modality written to disk in whole shards that survive a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.core.version import __version__
from isthmus.errors import SpaceError
from isthmus.spaces import manifest
from isthmus.spaces.checks import as_stored, with_ids
from isthmus.spaces.embeddings import pending_shards, read_ids, read_shards
from isthmus.spaces.manifest import (
    APPENDING,
    WHOLE,
    WRITING,
    check_dim,
    check_dtype,
    check_modality,
    check_target,
    default_name,
    identity,
)
from isthmus.spaces.shards import SHARD_ROWS, Layout, ShardWriter, content_hash, merge_norms, read_shard

if TYPE_CHECKING:
    import pyarrow as pa


class ModalityWriter:
    """Writes a modality of a space, new or more rows of an old one, in whole shards.

    Killed at any moment, it leaves whole shards that do not count yet, and the next writer of the modality goes on
    after them: its `done_ids` are the ids it must not be given again. What readers see changes once, in `close`. As a
    context manager it closes when the block ends well; after a fault it keeps whole shards for the next run.

    Args:
        space: The space's folder, made if missing.
        modality: Name of the modality.
        dim: Length of a row; must be that of the space.
        dtype: "float16" or "float32"; None takes that of the rows already there, else float16.
        info: What is recorded of the modality: `encoder` (see `manifest.identity`), `preprocessing`, and anything else
            that json can hold.
        name: Name of the space, by default the folder's.
        shard_rows: Most rows of a shard. An interrupted write goes on with the number it began with.
        restart: Drop the rows of an interrupted writer instead of going on after them.

    Raises:
        SpaceError: The space has another name or dim, the modality another encoder, or another process is writing it.
    """

    def __init__(
        self,
        space: str | Path,
        modality: str,
        *,
        dim: int,
        dtype: str | None = None,
        info: Mapping[str, Any] | None = None,
        name: str | None = None,
        shard_rows: int = SHARD_ROWS,
        restart: bool = False,
    ) -> None:
        check_dtype(dtype)
        if not 1 <= shard_rows <= SHARD_ROWS:
            raise SpaceError(f"shard_rows must lie in 1 to {SHARD_ROWS:,}, got {shard_rows:,}.")
        check_dim(dim, space)
        self.space, self.modality, self.dim = Path(space), check_modality(modality), dim
        self._info = dict(info or {})
        self._layout = Layout(self.space / modality, modality)
        self._shard: ShardWriter | None = None
        self._held, self._done = ExitStack(), False
        before = check_target(self.space, modality, dim=dim, info=self._info, name=name)
        self.name = name or (before["name"] if before else default_name(self.space))
        old = before["modalities"].get(modality) if before else None
        self.dtype: str = old["dtype"] if old else dtype or "float16"
        pending = {} if restart or not old else old.get("pending") or {}
        self.shard_rows: int = pending.get("shard_rows", shard_rows)
        self._layout.folder.mkdir(parents=True, exist_ok=True)
        if not self._held.enter_context(manifest.lock(self._layout.folder, wait=False)):
            self._held.close()
            raise SpaceError(f"{self.space}: another process is writing {modality!r}. Wait for it to end, or stop it.")
        try:
            self._begin(restart)
        except BaseException:
            self._release()
            for folder in (self._layout.folder, self.space):
                with suppress(OSError):  # not empty: it was there before
                    folder.rmdir()
            raise

    def _begin(self, restart: bool) -> None:
        """Note in the manifest that rows are on their way; find the whole shards of an interrupted writer."""
        with manifest.change(self.space, name=self.name, dim=self.dim) as whole:
            entry = whole["modalities"].setdefault(self.modality, self._new_entry())
            source = {"source": self._info["source"]} if "source" in self._info else {}
            entry["pending"] = {"shard_rows": self.shard_rows, **source}
            entry["state"] = APPENDING if entry["shards"] else WRITING
        self._entry = entry
        self._shards = read_shards(self._layout, entry, self.dim)
        self.committed_rows = sum(shard.rows for shard in self._shards)
        if restart:
            self._layout.remove(len(self._shards))
        self._shards += pending_shards(self._layout, entry, self.dim, self._shards)
        self._layout.remove(len(self._shards))
        self.rows = sum(shard.rows for shard in self._shards)

    def _new_entry(self) -> dict[str, Any]:
        encoder = identity(self._info.get("encoder"), name=self.name)
        rest = {key: value for key, value in self._info.items() if key not in ("encoder", "preprocessing", "source")}
        return {
            "state": WRITING,
            "rows": 0,
            "shards": 0,
            "dtype": self.dtype,
            "encoder": encoder,
            "preprocessing": dict(self._info.get("preprocessing") or {}),
            "created": manifest.today(),
            "isthmus": __version__,
            **rest,
        }

    @cached_property
    def done_ids(self) -> set[str]:
        """The ids of all rows in whole shards (an interrupted writer's too) and of the rows given to this writer."""
        return set(read_ids(self._shards).to_pylist())

    @property
    def pending_rows(self) -> int:
        """Rows in whole shards of an interrupted writer, which do not count before `close`."""
        return self.rows - self.committed_rows

    def append(
        self,
        ids: Sequence[str] | pa.Array,
        array: ArrayLike,
        metadata: pa.Table | None = None,
        *,
        checked: bool = False,
        norms: NDArray[np.float64] | None = None,
    ) -> None:
        """Add rows.

        Args:
            ids: Their ids, new to the modality.
            array: (k, dim) floats, finite and not zero.
            metadata: Table of k rows; a column `id` in it is replaced by `ids`.
            checked: The caller has made sure that the ids are unique and new.
            norms: (k,) norms of the rows as stored, of a caller that has checked them with `as_stored`.

        Raises:
            SpaceError: Counts or dim disagree, an id is not new, or a row is zero or not finite. Nothing is kept then.
        """
        import pyarrow as pa

        names = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(list(ids), pa.string())
        x = np.asarray(array)
        self._check_shape(x, len(names), metadata)
        if norms is None:
            x, norms = as_stored(x, self.dtype, lambda row: f"{self.space}: {self.modality} id {names[row].as_py()!r}")
        if not checked:
            self._check_new(names.to_pylist())
        table = with_ids(names, metadata)
        start = 0
        while start < len(x):
            if self._shard is None:
                self._shard = ShardWriter(self._layout, len(self._shards), dim=self.dim, dtype=self.dtype)
            stop = min(len(x), start + self.shard_rows - self._shard.rows)
            self._shard.write(x[start:stop], table.slice(start, stop - start), norms[start:stop])
            start = stop
            if self._shard.rows == self.shard_rows:
                self._finish_shard()

    def _check_shape(self, x: NDArray[Any], count: int, metadata: pa.Table | None) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise SpaceError(
                f"{self.space}: {self.modality!r} takes embeddings of shape (rows, {self.dim}), got {x.shape}."
            )
        if len(x) != count:
            raise SpaceError(
                f"{self.space}: {self.modality!r} got {len(x):,} embeddings for {count:,} ids. Give one id a row."
            )
        if metadata is not None and metadata.num_rows != count:
            raise SpaceError(
                f"{self.space}: {self.modality!r} got {count:,} ids, but metadata of {metadata.num_rows:,} rows. Give "
                "one row an id."
            )

    def _check_new(self, names: list[str]) -> None:
        fresh: set[str] = set()
        for row, name in enumerate(names):
            if not isinstance(name, str) or not name:
                raise SpaceError(
                    f"{self.space}: {self.modality!r} got the id {name!r} in row {row}. Expected text that is not "
                    "empty."
                )
            if name in fresh or name in self.done_ids:
                raise SpaceError(
                    f"{self.space}: {self.modality!r} holds the id {name!r} already (given again in row {row}). Ids "
                    "are unique in a modality."
                )
            fresh.add(name)
        self.done_ids.update(fresh)

    def _finish_shard(self) -> None:
        if self._shard is None:
            return
        rows = self._shard.rows
        self._shard.finish()
        self._shards.append(
            read_shard(self._layout, len(self._shards), start=self.rows, dim=self.dim, dtype=self.dtype)
        )
        self.rows, self._shard = self.rows + rows, None

    def close(self) -> None:
        """Finish the last shard and let all rows count.

        Raises:
            SpaceError: There is no row at all; the modality is then as it was before.
        """
        if self._done:
            return
        self._finish_shard()
        if not self.rows:
            self.discard()
            raise SpaceError(f"{self.space}: {self.modality!r} got no rows. Give at least one embedding.")
        with manifest.change(self.space, name=self.name, dim=self.dim) as whole:
            entry = whole["modalities"][self.modality]
            source = entry.pop("pending", {}).get("source")
            if self.pending_rows and source is not None:
                record = {**source, "start": self.committed_rows, "rows": self.pending_rows}
                if "mark" in source:  # by which the same import is known again
                    added = [shard for shard in self._shards if shard.start >= self.committed_rows]
                    record["content"] = content_hash(added)
                entry.setdefault("sources", []).append(record)
            norm = merge_norms([shard.marker for shard in self._shards])
            entry.update(
                state=WHOLE, rows=self.rows, shards=len(self._shards), norm=norm, normalized=norm["unit_share"] == 1.0
            )
        self._release()

    def abort(self) -> None:
        """Stop without letting new rows count. Whole shards stay for the next writer to go on from."""
        if self._shard is not None:
            self._shard.abort()
            self._shard = None
        if not self._done and not self.pending_rows:
            self.discard()
        self._release()

    def discard(self) -> None:
        """Remove all rows that do not count, and leave the modality, or the absence of one, as it was before."""
        if self._shard is not None:
            self._shard.abort()
            self._shard = None
        committed = self._entry["shards"]
        self._layout.remove(committed)
        if not committed:
            self._layout.remove_folders()
        with manifest.change(self.space, name=self.name, dim=self.dim) as whole:
            entry = whole["modalities"].pop(self.modality)
            if committed:
                entry.pop("pending", None)
                whole["modalities"][self.modality] = {**entry, "state": WHOLE}
            empty = not whole["modalities"]
        if empty:
            (self.space / manifest.MANIFEST).unlink()
            with suppress(OSError):
                self.space.rmdir()
        self._release()

    def _release(self) -> None:
        self._done = True
        self._held.close()

    def __enter__(self) -> ModalityWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        except BaseException:
            kind = BaseException
            raise
        finally:
            if kind is not None:
                with suppress(OSError):  # the first fault is the one to tell
                    self.abort()
            self._release()
