"""A space that lives: rows are removed and renamed, spaces merged; what readers see changes in one step.

Shards that an edit does not touch are linked, not copied, so that an edit costs what it changes. The edited space is
made aside and renamed whole: killed at any moment, the space is as it was before or as it is after.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import atomic_folder, read_json, write_json
from isthmus.errors import SpaceError
from isthmus.spaces.checks import as_stored
from isthmus.spaces.embeddings import Embeddings, read_metadata
from isthmus.spaces.manifest import MANIFEST, WHOLE, lock, read_manifest
from isthmus.spaces.remote import writes_space
from isthmus.spaces.shards import Layout, Shard, ShardWriter, link_or_copy, merge_norms, read_shard
from isthmus.spaces.space import open_space
from isthmus.spaces.writer import ModalityWriter

if TYPE_CHECKING:
    import pyarrow as pa

Edit = Callable[["pa.Table"], tuple["pa.Table", NDArray[np.bool_]] | None]
"""From a shard's metadata to new metadata and which rows stay; None leaves the shard as it is."""


@writes_space("space")
def remove_items(space: str | Path, modality: str, ids: Iterable[str], *, missing: str = "refuse") -> int:
    """Remove items from a modality of a space.

    Args:
        space: The space's folder.
        modality: The modality.
        ids: Ids of the items.
        missing: "refuse" ids that are not there, or "pass" over them.

    Returns:
        Rows removed.

    Raises:
        SpaceError: An id is not there, the modality is not whole, or no row would be left. Nothing is changed then.
    """
    folder, wanted = Path(space), set(ids)
    embeddings = _whole(folder, modality)
    present = wanted & set(embeddings.ids)
    if missing == "refuse" and wanted - present:
        absent = wanted - present
        raise SpaceError(
            f"{folder}: {modality!r} has no id {min(absent)!r} ({len(absent):,} of {len(wanted):,} ids are missing). "
            "Nothing was removed; check the ids."
        )
    if not present:
        return 0
    if len(present) == len(embeddings):
        raise SpaceError(
            f"{folder}: no row of {modality!r} would be left. Remove the folder itself, if that is what you want."
        )

    def edit(table: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]] | None:
        stay = np.array([name not in present for name in table.column("id").to_pylist()], bool)
        return None if stay.all() else (table.filter(stay), stay)

    _edit(folder, modality, embeddings, edit)
    return len(present)


@writes_space("space")
def rename_items(space: str | Path, modality: str, names: Mapping[str, str]) -> int:
    """Give items of a modality other ids.

    Args:
        space: The space's folder.
        modality: The modality.
        names: New ids by old ones.

    Returns:
        Rows renamed.

    Raises:
        SpaceError: An old id is not there, a new one is empty or would stand twice, or the modality is not whole.
    """
    folder = Path(space)
    embeddings = _whole(folder, modality)
    there = set(embeddings.ids)
    if unknown := sorted(set(names) - there):
        raise SpaceError(f"{folder}: {modality!r} has no id {unknown[0]!r}. Nothing was renamed; check the ids.")
    after = [names.get(name, name) for name in embeddings.ids]
    if not all(after) or len(set(after)) < len(after):
        twice = next((name for name in after if not name or after.count(name) > 1), "")
        raise SpaceError(
            f"{folder}: the id {twice!r} would be empty or stand twice in {modality!r}. Nothing was renamed."
        )

    def edit(table: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]] | None:
        import pyarrow as pa

        old = table.column("id").to_pylist()
        if not any(name in names for name in old):
            return None
        new = pa.array([names.get(name, name) for name in old], pa.string())
        return table.set_column(table.column_names.index("id"), "id", new), np.ones(len(old), bool)

    _edit(folder, modality, embeddings, edit)
    return len(names)


@writes_space("space")
def rename_space(space: str | Path, name: str) -> None:
    """Give a space another name. Bridges that were trained on it still know it by its fingerprint.

    Raises:
        SpaceError: The name is empty or holds a slash, or the folder is no space.
    """
    folder = Path(space)
    if not name.strip() or "/" in name:
        raise SpaceError(f"{name!r} cannot name a space. Expected a word such as clip.")
    with lock(folder, wait=True):
        write_json(folder / MANIFEST, {**read_manifest(folder), "name": name})


@writes_space("into")
def merge_spaces(spaces: Sequence[str | Path], into: str | Path, *, name: str | None = None) -> dict[str, int]:
    """Put the rows of several spaces of one encoder into one; killed, the same call goes on.

    An id that two spaces share must name the same embedding; it is taken once.

    Args:
        spaces: Folders of spaces; nothing in them changes.
        into: The space to write, new or there already.
        name: Name of a new space; None is the first one's.

    Returns:
        Rows added, by modality.

    Raises:
        SpaceError: The encoders or dimensions differ, or an id names two embeddings. Nothing counts then.
    """
    opened = [open_space(space) for space in spaces]
    folder = Path(into)
    if not opened or folder.resolve() in {one.path.resolve() for one in opened}:
        raise SpaceError("merge needs spaces and another folder to write to. Give S.space T.space --into NEW.space.")
    if name is None and not (folder / MANIFEST).exists():
        name = opened[0].name
    added: dict[str, int] = {}
    for modality in dict.fromkeys(name for one in opened for name in one.modalities):
        parts = [one[modality] for one in opened if modality in one]
        _check_same_encoder(folder, parts)
        info = {key: parts[0].info[key] for key in parts[0].info if key in _KEPT}
        with ModalityWriter(folder, modality, dim=parts[0].dim, dtype=parts[0].dtype, info=info, name=name) as writer:
            before = writer.rows
            for number, part in enumerate(parts):
                _append_new(writer, part, [*_written(folder, modality), *parts[:number]])
            added[modality] = writer.rows + (writer._shard.rows if writer._shard else 0) - before
    return added


_KEPT = ("encoder", "preprocessing", "encoder_name", "encoder_options", "unified")


def _written(folder: Path, modality: str) -> list[Embeddings]:
    manifest = read_manifest(folder)
    entry = manifest["modalities"].get(modality)
    return [Embeddings(folder, modality, manifest, pending=True)] if entry and entry["shards"] else []


def _append_new(writer: ModalityWriter, part: Embeddings, earlier: Sequence[Embeddings]) -> None:
    """Append the rows of a part whose ids are not there; those that are must be the same."""
    for other in earlier:
        shared = [name for name in part.ids if name in set(other.ids)]
        if not shared:
            continue
        ours, theirs = part.take(part.rows_of(shared)), other.take(other.rows_of(shared))
        if len(wrong := np.flatnonzero(~np.isclose(ours, theirs, atol=1e-3).all(axis=1))):
            raise SpaceError(
                f"{part.path.parent}: the id {shared[int(wrong[0])]!r} of {part.modality!r} names another embedding "
                f"than in {other.path.parent} ({len(wrong):,} such ids). Rename the ids of one: isthmus rename."
            )
    rows = np.flatnonzero([name not in writer.done_ids for name in part.ids])
    for start in range(0, len(rows), 65_536):
        block = rows[start : start + 65_536]
        writer.append([part.ids[row] for row in block], part.take(block), part.metadata.take(block))


def _check_same_encoder(folder: Path, parts: Sequence[Embeddings]) -> None:
    for part in parts[1:]:
        if part.fingerprint != parts[0].fingerprint:
            raise SpaceError(
                f"{part.path.parent}: {part.modality!r} was made by another encoder, preprocessing or dimension than "
                f"in {parts[0].path.parent}. Embeddings of two encoders are two spaces: connect them instead."
            )


def _whole(folder: Path, modality: str) -> Embeddings:
    manifest = read_manifest(folder)
    entry = manifest["modalities"].get(modality)
    if entry is None:
        known = ", ".join(manifest["modalities"]) or "none"
        raise SpaceError(f"{folder}: the space has no modality {modality!r}. It has: {known}.")
    if entry["state"] != WHOLE:
        raise SpaceError(
            f"{folder}: {modality!r} is not whole, rows of it are still on their way. Run the interrupted command "
            "again first."
        )
    return Embeddings(folder, modality, manifest)


def _edit(folder: Path, modality: str, embeddings: Embeddings, edit: Edit) -> None:
    """Make the edited space aside, of links to what stays, and rename it whole."""
    with lock(folder / modality, wait=False) as free:
        if not free:
            raise SpaceError(f"{folder}: another process is writing {modality!r}. Wait for it to end, or stop it.")
        with atomic_folder(folder, overwrite=True) as aside:
            _link_tree(folder, aside, leave=modality)
            shards = _edit_shards(Layout(aside / modality, modality), modality, embeddings, edit)
            manifest = read_json(folder / MANIFEST, kind="space manifest")
            entry = manifest["modalities"][modality]
            norm = merge_norms([shard.marker for shard in shards])
            rows = sum(shard.rows for shard in shards)
            entry.update(rows=rows, shards=len(shards), norm=norm, normalized=norm["unit_share"] == 1.0)
            manifest["normalized"] = all(one.get("normalized", True) for one in manifest["modalities"].values())
            write_json(aside / MANIFEST, manifest)


def _edit_shards(layout: Layout, modality: str, embeddings: Embeddings, edit: Edit) -> list[Shard]:
    """Write the edited shards, numbered without gaps."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    out: list[Shard] = []
    for shard in embeddings.shards:
        table = read_metadata([shard])
        edited = edit(table)
        start = sum(one.rows for one in out)
        if edited is None:
            _link_shard(shard, layout, len(out))
        else:
            metadata, stay = edited
            if not metadata.num_rows:
                continue
            writer = ShardWriter(layout, len(out), dim=embeddings.dim, dtype=embeddings.dtype)
            rows = np.flatnonzero(stay) + shard.start
            for first in range(0, len(rows), 65_536):
                block = rows[first : first + 65_536]
                x, norms = as_stored(embeddings.take(block), embeddings.dtype, lambda row: f"{modality} row {row}")
                writer.write(x, metadata.slice(first, len(block)), norms)
            writer.finish()
        out.append(read_shard(layout, len(out), start=start, dim=embeddings.dim, dtype=embeddings.dtype))
    return out


def _link_shard(shard: Shard, layout: Layout, index: int) -> None:
    """A shard under another number: its files linked, its marker written anew."""
    marker: dict[str, Any] = {key: dict(v) if isinstance(v, Mapping) else v for key, v in shard.marker.items()}
    for key, source, target in (
        ("embeddings", shard.embeddings, layout.embeddings(index)),
        ("metadata", shard.metadata, layout.metadata(index)),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source, target)
        marker[key]["file"] = target.name
    layout.marker(index).parent.mkdir(parents=True, exist_ok=True)
    write_json(layout.marker(index), marker)


def _link_tree(source: Path, target: Path, *, leave: str) -> None:
    """Link every file of a space but those of one modality's shards; hidden files are left behind."""
    for parent, folders, names in os.walk(source):
        here = Path(parent).relative_to(source)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if here.parts[:1] == (leave,) and len(here.parts) > 1:
            continue
        for name in names:
            if not name.startswith(".") and not (here == Path() and name == MANIFEST):
                (target / here).mkdir(parents=True, exist_ok=True)
                link_or_copy(Path(parent) / name, target / here / name)


@writes_space("space")
def remove_modality(space: str | Path, modality: str) -> None:
    """Remove a modality and all its rows from a space.

    Raises:
        SpaceError: The space has no such modality, or no other: then its folder itself is to be removed.
    """
    folder = Path(space)
    _whole(folder, modality)
    with atomic_folder(folder, overwrite=True) as aside:
        manifest = read_manifest(folder)
        del manifest["modalities"][modality]
        if not manifest["modalities"]:
            raise SpaceError(f"{folder}: {modality!r} is its only modality. Remove the folder itself.")
        _link_tree(folder, aside, leave=modality)
        shutil.rmtree(aside / modality, ignore_errors=True)
        write_json(aside / MANIFEST, manifest)
