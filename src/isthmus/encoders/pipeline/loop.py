"""One run: items of one modality into one space folder, resumable at any batch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.modality import source_column
from isthmus.core.runtime import Progress
from isthmus.encoders.pipeline.duplicates import first_of_each
from isthmus.encoders.pipeline.journal import Journal, Rejection
from isthmus.encoders.pipeline.pool import decoded_batches
from isthmus.encoders.pipeline.rejected import NAME, read_rejected, utf8, write_rejected
from isthmus.encoders.pipeline.settings import Settings
from isthmus.errors import EncoderError, SpaceError
from isthmus.items import Item
from isthmus.items.decoding.worker import OK, DecodeOutcome
from isthmus.spaces import manifest
from isthmus.spaces.space import open_space
from isthmus.spaces.writer import ModalityWriter

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]
Batch = Sequence[Item]


@dataclass
class Tally:
    """Counts of an encoding run; see `EncodeReport`."""

    rows: int = 0
    encoded: int = 0
    present: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    rejected: list[Rejection] = field(default_factory=list)
    rejected_file: Path | None = None


def work_folder(space: Path, modality: str) -> Path:
    """Where a run keeps its journal until it has come to its end."""
    return space / ".encode" / modality


def committed_ids(space: Path, modality: str) -> set[str]:
    """Ids of the modality's rows that count. An interrupted run's do not."""
    if not (space / manifest.MANIFEST).is_file():
        return set()
    entry = manifest.read_manifest(space)["modalities"].get(modality)
    if entry is None or not entry["shards"]:
        return set()
    return set(open_space(space)[modality].ids)


def encode_items(items: Sequence[Item], into: Path, settings: Settings, *, skip: frozenset[str] = frozenset()) -> Tally:
    """Encode items into a space; those that are there already, and those to `skip`, are passed over.

    Interrupted at any moment and called again with the same items it gives the same bytes as if it had not been:
    batches are made of the items that the space did not hold when the run began, whatever an interrupted run has
    done of them.

    Raises:
        SpaceError: The space holds something else, or another process is encoding the same modality.
        EncoderError: The encoder fails on a batch, or worker processes cannot be used.
    """
    begin = time.monotonic()
    work = work_folder(into, settings.modality)
    work.mkdir(parents=True, exist_ok=True)
    with manifest.lock(work, wait=False) as is_ours:
        if not is_ours:
            raise SpaceError(f"{into}: another process is encoding {settings.modality!r}. Wait for it, or stop it.")
        committed = committed_ids(into, settings.modality)
        todo = [item for item in items if item.id not in committed and item.id not in skip]
        tally = Tally(rows=len(committed), present=len(items) - len(todo))
        with Journal(work / "journal", settings.encoder.dim) as journal:
            run = _Run(todo, into, settings, journal, tally)
            if _unfinished(into, settings.modality) or any(item.id not in journal.rejected for item in todo):
                run.go()
            tally.rejected = [journal.rejected[item.id] for item in todo if item.id in journal.rejected]
        _write_rejected(tally, into, settings.modality, {item.id for item in items} | committed)
    tally.seconds = time.monotonic() - begin
    return tally


def _unfinished(into: Path, modality: str) -> bool:
    """Whether an earlier run has left the modality unfinished."""
    if not (into / manifest.MANIFEST).is_file():
        return False
    entry = manifest.read_manifest(into)["modalities"].get(modality)
    return entry is not None and entry["state"] != manifest.WHOLE


def _write_rejected(tally: Tally, into: Path, modality: str, known: set[str]) -> None:
    """Write the rejections of this run and of earlier ones with other items, and drop the journal.

    Where no row was good there is no modality to put them beside, and they stay in the work folder.
    """
    work = work_folder(into, modality)
    path = (into / modality if tally.rows else work) / NAME
    earlier = [one for one in read_rejected(path) if one.id not in known]
    write_rejected(path, earlier + tally.rejected)
    tally.rejected_file = path if path.is_file() else None
    (work / "journal").unlink()
    if path.parent != work or not path.is_file():
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            work.parent.rmdir()


class _Run:
    """The loop over batches: decode, encode, note in the journal, append to the shard."""

    def __init__(self, todo: Batch, into: Path, settings: Settings, journal: Journal, tally: Tally) -> None:
        self._todo, self._into, self._settings = todo, into, settings
        self._journal, self._tally = journal, tally
        self._first = first_of_each(todo) if settings.once else {}
        self._firsts = set(self._first.values())
        self._waiting = 0

    def go(self) -> None:
        """Encode what has no embedding yet, and make all of it count."""
        settings, group = self._settings, self._settings.group
        batches = [self._todo[start : start + group] for start in range(0, len(self._todo), group)]
        with settings.writer(self._into) as writer, self._progress() as progress:
            done = writer.done_ids
            fresh = [any(i.id not in done and i.id not in self._journal for i in batch) for batch in batches]
            unique = [self._unique(batch) for batch, is_fresh in zip(batches, fresh, strict=True) if is_fresh]
            workers = settings.processes(sum(map(len, unique)))
            with closing(decoded_batches(unique, settings.decoder(), workers)) as decoded:
                for batch, is_fresh in zip(batches, fresh, strict=True):
                    if is_fresh:
                        self._encode(batch, next(decoded))
                    added = self._store(batch, writer)
                    self._tally.encoded += added if is_fresh else 0
                    self._tally.present += 0 if is_fresh else len(batch)
                    progress.advance(len(batch), rejected=len(self._journal.rejected))
            if not writer.rows and not self._waiting:
                writer.discard()
        self._tally.rows = writer.rows

    def _progress(self) -> Progress:
        """Progress over the items that are not encoded yet."""
        done = self._tally.present
        return Progress(
            f"encode {self._settings.modality}", done + len(self._todo), done=done, quiet=self._settings.quiet
        )

    def _unique(self, batch: Batch) -> list[Item]:
        """Items whose content is not encoded under another id."""
        return [item for item in batch if item.id not in self._first]

    def _encode(self, batch: Batch, outcomes: Sequence[DecodeOutcome]) -> None:
        """Embed a decoded batch and note rows and rejections in the journal."""
        unique = self._unique(batch)
        good = [item for item, (state, _) in zip(unique, outcomes, strict=True) if state == OK]
        rows = self._embed([decoded for state, decoded in outcomes if state == OK])
        usable: list[bool] = (np.isfinite(rows).all(axis=1) & (rows != 0.0).any(axis=1)).tolist()
        known: dict[str, Floats | str] = {
            item.id: row if is_usable else "the encoder gave NaN, infinity or zero"
            for item, row, is_usable in zip(good, rows, usable, strict=True)
        }
        known.update((i.id, reason) for i, (state, reason) in zip(unique, outcomes, strict=True) if state != OK)
        for item in batch:
            if item.id in self._first:
                known[item.id] = self._same_as(self._first[item.id], known)
                self._tally.duplicates += 1
        ids = [item.id for item in batch if not isinstance(known[item.id], str)]
        matrix = np.stack([known[name] for name in ids]) if ids else np.empty((0, self._settings.encoder.dim))
        rejected = [Rejection(i.id, i.place, str(known[i.id])) for i in batch if isinstance(known[i.id], str)]
        self._journal.add(ids, np.asarray(matrix, dtype=np.float32), rejected)

    def _same_as(self, first: str, known: dict[str, Floats | str]) -> Floats | str:
        """The row, or the reason of rejection, of an item whose content came before."""
        if first in known:
            return known[first]
        rejection = self._journal.rejected.get(first)
        return rejection.reason if rejection else self._journal.rows([first])[0]

    def _embed(self, decoded: list[Any]) -> Floats:
        """Embeddings of decoded items."""
        encoder, modality, batch_size = self._settings.encoder, self._settings.modality, self._settings.batch_size
        if not decoded:
            return np.empty((0, encoder.dim), dtype=np.float32)
        try:
            rows = encoder.encode(decoded, modality=modality, batch_size=batch_size, show_progress_bar=False)
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            raise EncoderError(
                f"encoder {encoder.name!r} ran out of memory with a batch size of {batch_size}. Give a smaller "
                "--batch-size; what is encoded is kept."
            ) from error
        rows = np.asarray(rows, dtype=np.float32)
        if rows.shape != (len(decoded), encoder.dim):
            raise EncoderError(
                f"encoder {encoder.name!r} gave an array of shape {rows.shape} for {len(decoded)} items. "
                f"Expected {(len(decoded), encoder.dim)}."
            )
        return rows

    def _store(self, batch: Batch, writer: ModalityWriter) -> int:
        """Append the rows of a batch that are not in the modality yet; returns how many."""
        new = [item for item in batch if item.id not in writer.done_ids and self._journal.has_row(item.id)]
        if not new:
            return 0
        names, whole = [item.id for item in new], writer.rows
        writer.append(names, self._journal.rows(names), self._metadata(new))
        self._waiting += len(names)
        if writer.rows != whole:
            self._waiting -= writer.rows - whole
            keep = dict.fromkeys(names[len(names) - self._waiting :])
            keep.update(dict.fromkeys(name for name in self._firsts if self._journal.has_row(name)))
            self._journal.shorten(list(keep))
        return len(new)

    def _metadata(self, items: Batch) -> pa.Table:
        """Metadata of encoded items as an Arrow table."""
        import pyarrow as pa

        source = source_column(self._settings.modality)
        columns = {source: pa.array([utf8(item.source) for item in items], pa.string())}
        for name, kind in self._settings.types.items():
            values = [item.columns.get(name) for item in items]
            if pa.types.is_string(kind):
                values = [None if value is None else _spelled(value) for value in values]
            columns[name] = pa.array(values, kind)
        return pa.table(columns)


def _spelled(value: Any) -> str:
    """A value of a column that is text since tables disagree; Arrow spells out what Python cannot hold."""
    import pyarrow as pa

    return str(value.cast(pa.string()).as_py()) if isinstance(value, pa.Scalar) else str(value)
