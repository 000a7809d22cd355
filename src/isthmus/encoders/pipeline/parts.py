"""`--shard i/n`: several processes or machines encode one list of items, and their parts are joined into one space.

Each shard is a run of consecutive batches of the list, encoded into a small space of its own below
`S.space/.parts/MODALITY/`, with its own journal: nothing is shared while they work but the folder. The one that
ends last joins the parts in order. Since batches are cut before they are dealt out, the joined space is the one
that a single process would have made, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from isthmus.core.files import read_json, sha256_json, write_json
from isthmus.encoders.pipeline.loop import Tally, committed_ids, encode_items, work_folder
from isthmus.encoders.pipeline.rejected import NAME, read_rejected, write_rejected
from isthmus.encoders.pipeline.settings import Settings
from isthmus.errors import SpaceError
from isthmus.items import Item
from isthmus.spaces import manifest
from isthmus.spaces.space import open_space

_BLOCK = 16_384
_DONE = ".done.json"


def parts_folder(into: Path, modality: str) -> Path:
    """Where the parts of a modality lie until they are joined."""
    return into / ".parts" / modality


def part_path(into: Path, modality: str, number: int, count: int) -> Path:
    """The space of one part."""
    return parts_folder(into, modality) / f"{number:05d}-of-{count:05d}"


def part_of(items: Sequence[Item], number: int, count: int, group: int) -> Sequence[Item]:
    """The items of one shard: a run of whole batches, so that no batch is made otherwise than in a single process."""
    batches = -(-len(items) // group)
    return items[batches * number // count * group : batches * (number + 1) // count * group]


def waiting_for(into: Path, modality: str, count: int) -> list[int]:
    """Numbers of the parts that are not whole yet."""
    paths = [part_path(into, modality, number, count) for number in range(count)]
    return [number for number, path in enumerate(paths) if not (path / _DONE).is_file()]


def join(into: Path, items: Sequence[Item], settings: Settings, count: int) -> int | None:
    """Join the parts when all are whole. Of several processes that try, one does it.

    Returns:
        Rows of the modality in the joined space; None while parts are missing.

    Raises:
        SpaceError: Parts were made of different lists of items, batch sizes or encoders.
    """
    modality, folder = settings.modality, parts_folder(into, settings.modality)
    with suppress(FileNotFoundError), manifest.lock(folder, wait=True):
        if folder.exists():
            if waiting_for(into, modality, count):
                return None
            _check_lists(into, _list_hash(items, settings), modality, count)
            rows = _append_parts(into, settings, count)
            _join_rejected(into, modality, count, beside=bool(rows))
            shutil.rmtree(folder)
            with suppress(OSError):
                folder.parent.rmdir()
            return rows
    return len(committed_ids(into, modality))  # another process has just joined them


def _check_lists(into: Path, expected: str, modality: str, count: int) -> None:
    """Refuse shards that were made of another list of items."""
    for number in range(count):
        part = part_path(into, modality, number, count)
        if read_json(part / _DONE, kind="mark of a part")["list"] != expected:
            raise SpaceError(
                f"{part}: belongs to another list of files, batch size or encoder than shard {number}/{count} of now. "
                f"Give all shards the same command, or remove {parts_folder(into, modality)} and begin again."
            )


def _append_parts(into: Path, settings: Settings, count: int) -> int:
    """Append all parts in order; a join that was interrupted goes on after its whole shards."""
    paths = [part_path(into, settings.modality, number, count) for number in range(count)]
    parts = [open_space(path)[settings.modality] for path in paths if (path / manifest.MANIFEST).is_file()]
    if not parts:
        return len(committed_ids(into, settings.modality))
    with settings.writer(into) as writer:
        for part in parts:
            for start in range(0, len(part), _BLOCK):
                ids = part.ids[start : start + _BLOCK]
                new = np.flatnonzero([name not in writer.done_ids for name in ids])
                if len(new):
                    rows = new + start
                    writer.append([part.ids[row] for row in rows], part.take(rows), part.metadata.take(rows))
    return writer.rows


def _join_rejected(into: Path, modality: str, count: int, *, beside: bool) -> None:
    """Rejected items of all shards as one table."""
    path = (into / modality if beside else work_folder(into, modality)) / NAME
    rejected = read_rejected(path)
    for number in range(count):
        part = part_path(into, modality, number, count)
        for source in _rejected_paths(part, modality):
            rejected += read_rejected(source)
    write_rejected(path, list(dict.fromkeys(rejected)))


def _list_hash(items: Sequence[Item], settings: Settings) -> str:
    """Hash of the items, batches and encoder of a shard."""
    named = [[item.id, item.place] for item in items]
    return sha256_json({"items": named, "group": settings.group, "encoder": settings.info["encoder"]})


def encode_part(
    items: Sequence[Item], into: Path, settings: Settings, number: int, count: int
) -> tuple[Tally, int, list[int]]:
    """Encode one shard of the items, and join the parts if it was the last.

    Returns:
        What the run did, the number of the shard's items, and the numbers of the shards that are waited for.
    """
    mine = part_of(items, number, count, settings.group)
    modality = settings.modality
    committed = committed_ids(into, modality)
    present = committed | {one.id for one in read_rejected(into / modality / NAME)}
    folder = parts_folder(into, modality)
    if not folder.exists() and all(item.id in present for item in items):
        return Tally(rows=len(committed), present=len(mine)), len(mine), []
    part = part_path(into, modality, number, count)
    part.mkdir(parents=True, exist_ok=True)
    tally = encode_items(mine, part, settings, skip=frozenset(present))
    write_json(part / _DONE, {"list": _list_hash(items, settings), "rows": tally.rows})
    joined = join(into, items, settings, count)
    if joined is None:
        return tally, len(mine), waiting_for(into, modality, count)
    tally.rows = joined
    tally.rejected_file = next((path for path in _rejected_paths(into, modality) if path.is_file()), None)
    return tally, len(mine), []


def _rejected_paths(space: Path, modality: str) -> list[Path]:
    """Where the rejected items of a modality may lie."""
    return [space / modality / NAME, work_folder(space, modality) / NAME]
