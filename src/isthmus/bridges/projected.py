"""One modality of projected rows on disk: written by one process, or in parts that are joined.

A part is a run of whole blocks of rows, projected into a small space of its own below `U.space/.parts/MODALITY/`; the
process that ends last joins them in order. Since blocks are cut before they are dealt out, the joined modality is the
one that a single process would have written, byte for byte.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.bridges.folder import LazyArrays
from isthmus.bridges.routes import ROWS
from isthmus.core.files import read_json, sha256_file, write_json
from isthmus.core.geometry import Array
from isthmus.errors import SpaceError
from isthmus.spaces import manifest
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.selection import EmbeddingRows, Selection
from isthmus.spaces.space import open_space
from isthmus.spaces.writer import ModalityWriter

BLOCK = ROWS
"""Rows that run through a route at once: the last digits may hang on their number, so no part begins within them."""
PARTS = ".parts"
_DONE, _SPACE = "done.json", "rows.space"


def write_whole(bridge: Bridge, x: Embeddings, folder: Path, *, name: str, force: bool) -> int:
    """Project a modality into a space folder; rows that an interrupted run left there are kept. Returns its rows."""
    return _write(bridge, x, folder, _info(bridge, x), name=name, force=force)


def write_part(bridge: Bridge, x: Embeddings, into: Path, part: tuple[int, int], *, force: bool) -> int | None:
    """Project one part of a modality, and join the parts where it was the last.

    Args:
        bridge: The bridge.
        x: The modality.
        into: The space that the parts are of.
        part: (number, of how many).
        force: Project embeddings of another encoder too.

    Returns:
        Rows of the joined modality; None while parts are missing.

    Raises:
        SpaceError: Parts that lie there are of other rows, of another bridge or of another number of parts.
    """
    number, count = part
    mark = {"rows": x.content_hash, "bridge": bridge_fingerprint(bridge), "modality": x.modality}
    folder = _folder(into, x.modality, number, count)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with manifest.lock(folder.parent, wait=True):  # parts are joined under this lock: they are there, or joined
        if _is_joined(into, x):
            with suppress(OSError):
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
            return len(x)
        _check_count(folder)
        folder.mkdir(exist_ok=True)
        done = _mark(folder, mark)
    if not done:
        _write_part(bridge, x, into, folder, part, mark, force)
    return _join(bridge, x, into, count, mark)


def _is_joined(into: Path, x: Embeddings) -> bool:
    """Whether a folder holds the whole projected modality already."""
    if not (into / manifest.MANIFEST).is_file():
        return False
    space = open_space(into)
    return x.modality in space and len(space[x.modality]) == len(x)


def _write_part(
    bridge: Bridge,
    x: Embeddings,
    into: Path,
    folder: Path,
    part: tuple[int, int],
    mark: dict[str, str],
    force: bool,
) -> None:
    """Project one shard's blocks of rows into its own folder."""
    rows = np.arange(*part_bounds(len(x), part))
    # A task whose machine was given up may still write: the one that does its part again waits for it to end.
    with suppress(FileNotFoundError), manifest.lock(folder, wait=True):
        if not _mark(folder, mark):
            if len(rows):
                _write(bridge, Selection(x, rows), folder / _SPACE, _info(bridge, x), name=into.stem, force=force)
            write_json(folder / _DONE, mark)


def part_bounds(rows: int, part: tuple[int, int] | None) -> tuple[int, int]:
    """First and past-last row of a part (number, of how many): parts are runs of whole blocks, of nearly one length."""
    number, count = part or (0, 1)
    blocks = -(-rows // BLOCK)
    return min(blocks * number // count * BLOCK, rows), min(blocks * (number + 1) // count * BLOCK, rows)


def waiting_for(into: Path, modality: str, count: int) -> list[int]:
    """Numbers of the parts that are not whole yet."""
    return [number for number in range(count) if not (_folder(into, modality, number, count) / _DONE).is_file()]


def _folder(into: Path, modality: str, number: int, count: int) -> Path:
    """Folder of one shard of a projected modality."""
    return into / PARTS / modality / f"{number:05d}-of-{count:05d}"


def _check_count(folder: Path) -> None:
    """Refuse a folder that holds shards of another number."""
    ending = folder.name.partition("-of-")[2]
    if other := [one.name for one in folder.parent.iterdir() if one.name.partition("-of-")[2] != ending]:
        raise SpaceError(
            f"{folder.parent}: holds parts of another number ({other[0]}). Give all shards one N, or remove the folder."
        )


def _mark(folder: Path, mark: dict[str, str]) -> bool:
    """Whether a part is done.

    Raises:
        SpaceError: It is one of other rows or of another bridge.
    """
    if not (folder / _DONE).is_file():
        return False
    if read_json(folder / _DONE, kind="mark of a part") != mark:
        raise SpaceError(
            f"{folder}: is a part of other rows or of another bridge. Remove {folder.parent} and begin again."
        )
    return True


def _join(bridge: Bridge, x: Embeddings, into: Path, count: int, mark: dict[str, str]) -> int | None:
    """Join the parts when all are whole; of several processes that try, one does it."""
    folder = into / PARTS / x.modality
    with suppress(FileNotFoundError), manifest.lock(folder, wait=True):
        if folder.exists():
            if waiting_for(into, x.modality, count):
                return None
            parts = [_folder(into, x.modality, number, count) for number in range(count)]
            for part in parts:
                _mark(part, mark)
            rows = _append(bridge, x, into, [part / _SPACE for part in parts if (part / _SPACE).exists()])
            shutil.rmtree(folder)
            with suppress(OSError):
                folder.parent.rmdir()
            return rows
    return len(open_space(into)[x.modality])  # another process has just joined them


def _append(bridge: Bridge, x: Embeddings, into: Path, parts: list[Path]) -> int:
    """Append the parts in order; a join that was interrupted goes on after its whole shards."""
    start = 0
    with _writer(bridge, x.modality, into, _info(bridge, x), into.stem) as writer:
        written = writer.rows
        for path in parts:
            part = open_space(path)[x.modality]
            begin = start
            for block in part.blocks(BLOCK):
                start = _append_new(writer, written, part, block, start, begin)
    return start


def _write(bridge: Bridge, x: EmbeddingRows, folder: Path, info: dict[str, Any], *, name: str, force: bool) -> int:
    """Project a modality into a folder, going on after what an interrupted run has written."""
    start = 0
    with _writer(bridge, x.modality, folder, info, name) as writer:
        written = writer.rows  # whole shards of an interrupted run: the same rows, in the same order
        for block in bridge.project_blocks(x, force=force, size=BLOCK):
            start = _append_new(writer, written, x, block, start, 0)
    return start


def _writer(bridge: Bridge, modality: str, folder: Path, info: dict[str, Any], name: str) -> ModalityWriter:
    """Writer of a projected modality."""
    return ModalityWriter(folder, modality, dim=bridge.dim, dtype="float32", info=info, name=name)


def _append_new(writer: ModalityWriter, written: int, x: EmbeddingRows, block: Array, start: int, begin: int) -> int:
    """Append the rows of a block that are not written yet; returns the row after it.

    Args:
        writer: The writer.
        written: Rows that it had when it was opened.
        x: What the block is of: ids and metadata are taken from it.
        block: (n, dim) projected rows.
        start: Row of the target at which the block begins.
        begin: Row of the target at which `x` begins.
    """
    stop = start + len(block)
    first = max(start, written)
    if first < stop:
        rows = slice(first - begin, stop - begin)
        writer.append(x.ids[rows], block[first - start :], x.metadata.slice(rows.start, stop - first), checked=True)
    return stop


def _info(bridge: Bridge, x: Embeddings) -> dict[str, Any]:
    """What is recorded of the modality."""
    maker, weights = _identity(bridge)
    source = f"{x.space_name}/{x.modality}"
    return {
        "encoder": {"library": "isthmus", "id": f"{maker}:{source}", "weights_sha256": weights},
        "preprocessing": dict(x.info.get("preprocessing") or {}),
        "unified": {"fingerprint": bridge_fingerprint(bridge), "bridge": maker, "source": source},
    }


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
