"""A space brought up to date with its raw files: new ones encoded, changed ones again, rows of gone ones dropped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.files import atomic_file
from isthmus.core.table_files import read_records
from isthmus.encoders.pipeline.encode import encode
from isthmus.items import Item, Rejected
from isthmus.spaces.editing import remove_items
from isthmus.spaces.manifest import MANIFEST, WHOLE, read_manifest
from isthmus.spaces.product import SOURCES
from isthmus.spaces.remote import writes_space
from isthmus.spaces.space import open_space

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder


@dataclass(frozen=True)
class Source:
    """State of a file when it was encoded: size, time, hash.

    Attributes:
        size: Bytes.
        modified: Time of its last change, nanoseconds; it only saves hashing a file that nobody touched.
        sha256: SHA-256 of its bytes, the first 32 hexadecimal digits.
    """

    size: int
    modified: int
    sha256: str


@dataclass(frozen=True)
class UpdateReport:
    """Report of an update of a modality, by items.

    Attributes:
        rows: Rows now.
        added: New.
        changed: Encoded again, as their file is another one now.
        removed: Dropped, as they are not named any more.
        rejected: That cannot be encoded.
    """

    rows: int
    added: int
    changed: int
    removed: int
    rejected: int


@dataclass(frozen=True)
class Difference:
    """Difference of a modality from the items that it shall hold, by ids.

    Attributes:
        before: That it holds.
        added: That it lacks.
        changed: Whose file is another one now.
        gone: Whose item is not named any more.
        now: States of the items' files.
    """

    before: set[str]
    added: set[str]
    changed: set[str]
    gone: set[str]
    now: Mapping[str, Source]


def compare_items(items: Sequence[Item], folder: Path, modality: str, *, content: bool = True) -> Difference:
    """Compare items with what a modality of a space holds; a space that is not there holds nothing.

    Args:
        items: All items that the modality shall hold.
        folder: The space's folder.
        modality: The modality.
        content: Look for changed files, by size and time first, and by hash where these differ.
    """
    before, wanted = _ids(folder, modality), {item.id for item in items}
    ledger = read_ledger(folder, modality) if content else {}
    now = {item.id: source for item in items if content and (source := source_of(item, ledger.get(item.id)))}
    known = before & wanted & now.keys() & ledger.keys()
    changed = {name for name in known if ledger[name].sha256 != now[name].sha256}
    return Difference(before, wanted - before, changed, before - wanted, now)


@writes_space("into")
def update_space(
    items: Sequence[Item],
    into: str | Path,
    *,
    modality: str,
    encoder: str | Encoder,
    drop: bool = True,
    content: bool = True,
    max_rejected: float = 0.01,
    **options: Any,
) -> UpdateReport:
    """Bring a modality of a space up to date with its items; killed at any moment, the same call goes on.

    A changed file is noticed by its hash: sizes and times are compared first, and a file is hashed where they differ.

    Args:
        items: All items that the modality shall hold.
        into: The space's folder, made if missing.
        modality: The modality.
        encoder: An encoder, or its name.
        drop: Remove rows whose item is not named any more.
        content: Look for changed files; texts whose id is their hash cannot change.
        max_rejected: Share of the items above which the run ends as failed, after all good work is kept.
        **options: Options of `encode`.

    Raises:
        CheckFailed: More than `max_rejected` of the items were rejected.
        SpaceError: `into` is something else, or was made by another encoder.
    """
    folder = Path(into)
    given = {"modality": modality, "encoder": encoder, "max_rejected": max_rejected, **options}
    if _unfinished(folder, modality):
        encode(items, into=folder, **given)  # what was begun comes to its end before anything is compared
    found = compare_items(items, folder, modality, content=content)
    before, changed, gone = found.before, found.changed, found.gone if drop else set()
    # Encoding first where all rows would go: a modality is never empty.
    if changed | gone == before and before:
        encode([item for item in items if item.id not in before] or list(items), into=folder, **given)
    if changed | gone:
        remove_items(folder, modality, changed | gone, missing="pass")
    report = encode(items, into=folder, **given)
    if content and _ids(folder, modality):
        present = _ids(folder, modality)
        write_ledger(folder, modality, {name: source for name, source in found.now.items() if name in present})
    return UpdateReport(
        report["rows"], len(_ids(folder, modality) - before), len(changed), len(gone), report["rejected"]
    )


def _unfinished(folder: Path, modality: str) -> bool:
    """Whether an earlier run has left the modality unfinished."""
    entry = _entry(folder, modality)
    return entry is not None and entry["state"] != WHOLE


def _entry(folder: Path, modality: str) -> Mapping[str, Any] | None:
    """Manifest entry of a modality, or None."""
    if not (folder / MANIFEST).is_file():
        return None
    entry: Mapping[str, Any] | None = read_manifest(folder)["modalities"].get(modality)
    return entry


def _ids(folder: Path, modality: str) -> set[str]:
    """Ids of a modality that is there."""
    entry = _entry(folder, modality)
    return set(open_space(folder)[modality].ids) if entry is not None and entry["shards"] else set()


def source_of(item: Item, known: Source | None) -> Source | None:
    """State of an item's file now, or None for a text and for a file that cannot be read."""
    if item.path is None or item.text is not None:
        return None
    try:
        status = os.stat(item.path)
        if known is not None and (known.size, known.modified) == (status.st_size, status.st_mtime_ns):
            return known
        return Source(status.st_size, status.st_mtime_ns, hashlib.sha256(item.read_bytes()).hexdigest()[:32])
    except (OSError, Rejected):
        return None


def read_ledger(folder: Path, modality: str) -> dict[str, Source]:
    """States of the files of a modality when they were encoded, by id; empty where nobody noted it."""
    path = folder / modality / SOURCES
    if not path.is_file():
        return {}
    rows = read_records(path, ("id", "size", "modified", "sha256"))
    return {row["id"]: Source(row["size"], row["modified"], row["sha256"]) for row in rows}


def write_ledger(folder: Path, modality: str, sources: Mapping[str, Source]) -> None:
    """Note what the files of a modality are, sorted by id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / modality / SOURCES
    names = sorted(sources)
    if not names:
        path.unlink(missing_ok=True)
        return
    columns = {
        "id": pa.array(names, pa.string()),
        "size": pa.array([sources[name].size for name in names], pa.int64()),
        "modified": pa.array([sources[name].modified for name in names], pa.int64()),
        "sha256": pa.array([sources[name].sha256 for name in names], pa.string()),
    }
    with atomic_file(path) as aside:
        pq.write_table(pa.table(columns), aside, compression="zstd")
