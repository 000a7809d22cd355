"""Embeddings that exist already, brought into a space: checked first, then written in shards that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from isthmus.core.locks import one_writer
from isthmus.core.runtime import Progress
from isthmus.errors import FormatError, SpaceError
from isthmus.spaces.checks import as_stored
from isthmus.spaces.embeddings import RowNumbers, find_rows
from isthmus.spaces.importing.ids import Ids
from isthmus.spaces.importing.prepared import PreparedImport, generate_ids, prepare_import, row_as_stored, same_rows
from isthmus.spaces.importing.sources import open_source
from isthmus.spaces.manifest import check_modality
from isthmus.spaces.remote import writes_space
from isthmus.spaces.shards import SHARD_ROWS, UNIT_TOLERANCE
from isthmus.spaces.space import open_space
from isthmus.spaces.writer import ModalityWriter


class ImportReport(TypedDict):
    """Report of an import.

    `rows` were added, `resumed_rows` of them by an interrupted run before; `total_rows` are in the modality now. `norm`
    is measured over the source; `note` says what happened in words; `warnings` what to look at.
    """

    space: str
    path: str
    modality: str
    rows: int
    total_rows: int
    resumed_rows: int
    rejected: int
    unchanged: bool
    dim: int
    dtype: str
    ids: str
    encoder: str | None
    normalized: bool
    norm: dict[str, float]
    shards: int
    seconds: float
    note: str
    warnings: list[str]


@writes_space("into")
@one_writer("into", what="modality", fault=SpaceError)
def import_embeddings(
    source: str | Path,
    into: str | Path,
    *,
    modality: str,
    ids: Ids = None,
    encoder: str | Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    name: str | None = None,
    dtype: str | None = None,
    column: str | None = None,
    shape: str | None = None,
    normalized: bool | None = None,
    shard_rows: int = SHARD_ROWS,
    restart: bool = False,
    quiet: bool = True,
) -> ImportReport:
    """Bring embeddings in files into a modality of a space, new or already there.

    All rows are checked before the first is written: a fault of the source changes nothing on disk. An interrupted
    import goes on where it stopped when it is called again, and gives the same bytes; a finished one is left as it is.

    Args:
        source: A file of embeddings (.npy .npz .parquet .safetensors .arrow .feather .jsonl .json .csv .tsv .pt .h5),
            a folder of them, a clip-retrieval folder, a data set of `save_to_disk`, a LanceDB table, or a raw map.
        into: The space's folder.
        modality: Such as "text" or "image".
        ids: A column; a file (.txt one a line, .csv, .parquet); the ids; or None: column `id`, else generated.
        encoder: What made the embeddings: an id, `id@revision`, or an identity (library, id, revision, weights_sha256).
        preprocessing: What else they depend on, such as the image size.
        name: Name of a new space, by default the folder's.
        dtype: "float16" or "float32" on disk, by default as in the source or as in the modality already there.
        column: Column or array that holds the embeddings, where its name does not say so; "*" takes each array of a
            .npz, .pt or .h5 as one embedding and its name as the id.
        shape: Shape of a raw map of numbers, such as "200000x512:float16".
        normalized: Declares that rows are of unit length (True) or not (False): checked against what is measured.
        shard_rows: Most rows of a shard.
        restart: Drop the rows of an interrupted import instead of going on from them.
        quiet: Show no progress.

    Raises:
        FormatError: The source cannot be read, or a row of it cannot be an embedding; the file and row are named.
        SpaceError: The rows do not belong in the space: another dim, another encoder, ids that are there already.
    """
    started = time.monotonic()
    opened = open_source(source, check_modality(modality), column, shape)
    plan = prepare_import(opened, Path(into), modality, ids, encoder, preprocessing, name, dtype)
    if plan.before is not None:
        norm = dict(plan.before["norm"])
        _check_declared(plan, norm, normalized)
        return _report(plan, norm, None, time.monotonic() - started)
    norm = _check(plan, normalized, quiet=quiet)
    plan.info["source"]["norm"] = norm
    resumed = _resumed(plan, restart=restart)
    if resumed is not None:
        _write(plan, shard_rows, restart=restart, quiet=quiet)
    return _report(plan, norm, resumed, time.monotonic() - started)


def _check(plan: PreparedImport, normalized: bool | None, *, quiet: bool) -> dict[str, float]:
    """Check every row and measure the norms."""
    norms = np.empty(plan.source.rows, np.float64)
    row = 0
    with Progress("check", plan.source.rows, unit="rows", quiet=quiet) as progress:
        for x, _ in plan.read():
            norms[row : row + len(x)] = as_stored(x, plan.dtype, partial(plan.where, row), FormatError)[1]
            row += len(x)
            progress.advance(len(x))
    plan.norms = norms
    share = float(np.mean(np.abs(norms - 1.0) <= UNIT_TOLERANCE))
    norm = {"mean": float(norms.mean()), "min": float(norms.min()), "max": float(norms.max()), "unit_share": share}
    _check_declared(plan, norm, normalized)
    return norm


def _check_declared(plan: PreparedImport, norm: Mapping[str, float], normalized: bool | None) -> None:
    """Refuse rows that are declared normalised and are not."""
    share = norm["unit_share"]
    if normalized is not None and normalized != (share == 1.0):
        declared = "of unit length" if normalized else "not of unit length"
        raise FormatError(
            f"{plan.source.path}: rows are declared {declared}, but their mean norm is {norm['mean']:.4g} and "
            f"{share:.1%} have "
            "unit length. Check the source, or leave the declaration out: rows are normalised when they are used."
        )


def _resumed(plan: PreparedImport, *, restart: bool) -> int | None:
    """Rows of the source that an interrupted run has written, or None if all of them count already.

    Raises:
        SpaceError: Some ids are there already, or an import of something else was interrupted.
    """
    if plan.ids is None:
        if _generated_before(plan):
            return None
        plan.ids = generate_ids(plan.modality, plan.committed_rows, plan.source.rows)
    if plan.existing is None:
        return 0
    rows = find_rows(plan.ids, plan.existing.id_array)
    known = np.flatnonzero((rows >= 0) & (rows < plan.committed_rows))
    if len(known) == len(rows) and same_rows(plan, rows):
        return None
    if len(known):
        _refuse_known(plan, rows, int(known[0]), len(known))
    if restart:
        return 0
    pending = len(plan.existing) - plan.committed_rows
    if not np.array_equal(rows[:pending], np.arange(plan.committed_rows, len(plan.existing))) or not same_rows(
        plan, rows[:pending]
    ):
        raise SpaceError(
            f"{plan.into}: an import of something else into {plan.modality!r} was interrupted after {pending:,} rows. "
            "Run that command again to finish it, or pass restart=True to drop its rows."
        )
    return pending


def _refuse_known(plan: PreparedImport, rows: RowNumbers, row: int, count: int) -> None:
    """Fault for an id that the space holds already."""
    same = plan.existing is not None and np.array_equal(row_as_stored(plan, row), plan.existing.take([rows[row]])[0])
    raise SpaceError(
        f"{plan.where(row)} is in {plan.into} already, as row {rows[row]} of {plan.modality!r} with "
        f"{'the same' if same else 'another'} embedding ({count:,} of {len(rows):,} ids are). "
        "Ids are unique in a modality: import only new rows, or give other ids."
    )


def _generated_before(plan: PreparedImport) -> bool:
    """Whether rows with generated ids are those of an import before."""
    if plan.existing is None:
        return False
    for record in plan.existing.info.get("sources", []):
        if record.get("ids") == "generated" and record["rows"] == plan.source.rows:
            rows = np.arange(record["start"], record["start"] + record["rows"])
            if same_rows(plan, rows):
                plan.ids = plan.existing.id_array.take(rows)
                return True
    return False


def _write(plan: PreparedImport, shard_rows: int, *, restart: bool, quiet: bool) -> None:
    """Write the prepared rows into the space, going on after an interrupted run."""
    writer = ModalityWriter(
        plan.into,
        plan.modality,
        dim=plan.source.dim,
        dtype=plan.dtype,
        info=plan.info,
        name=plan.name,
        shard_rows=shard_rows,
        restart=restart,
    )
    with writer:
        if writer.committed_rows != plan.committed_rows:
            raise SpaceError(
                f"{plan.into}: another process changed {plan.modality!r} meanwhile. Run the command again."
            )
        done = writer.pending_rows
        with Progress("import", plan.source.rows, unit="rows", quiet=quiet, done=done) as progress:
            for x, table in plan.blocks(done):
                norms = None if plan.norms is None else plan.norms[done : done + len(x)]
                writer.append(plan.ids.slice(done, len(x)), x, table, checked=True, norms=norms)
                done += len(x)
                progress.advance(len(x))


def _report(plan: PreparedImport, norm: dict[str, float], resumed: int | None, seconds: float) -> ImportReport:
    """Report of an import."""
    space = open_space(plan.into)
    embeddings = space[plan.modality]
    rows, maker = plan.source.rows, embeddings.info["encoder"]
    added = 0 if resumed is None else rows
    note = f"imported {rows:,} rows" + (f", {resumed:,} of them by an interrupted run before" if resumed else "")
    if resumed is None:
        note = f"nothing to do: these {rows:,} rows were imported before"
    return {
        "space": space.name,
        "path": str(plan.into),
        "modality": plan.modality,
        "rows": added,
        "total_rows": len(embeddings),
        "resumed_rows": resumed or 0,
        "rejected": 0,
        "unchanged": resumed is None,
        "dim": space.dim,
        "dtype": embeddings.dtype,
        "ids": plan.how,
        "encoder": None if maker["library"] == "unknown" else str(maker["id"]),
        "normalized": norm["unit_share"] == 1.0,
        "norm": {key: round(value, 6) for key, value in norm.items()},
        "shards": len(embeddings.shards),
        "seconds": round(seconds, 3),
        "note": note,
        "warnings": list(_warnings(plan, space.manifest["modalities"], norm)),
    }


def _warnings(plan: PreparedImport, entries: Mapping[str, Any], norm: Mapping[str, float]) -> Iterator[str]:
    """Warnings of an import: unknown encoders, odd norms, notes of the source."""
    yield from plan.source.notes
    for file in plan.source.files:
        yield from getattr(file, "notes", ())
    own = entries[plan.modality]["encoder"]
    if own["library"] == "unknown":
        yield (
            f"no encoder is known: the name {own['id']!r} stands in for it. "
            "Give --encoder ID, so that bridges can tell spaces apart."
        )
    others = sorted(name for name, entry in entries.items() if entry["encoder"] != own)
    if others:
        yield (
            f"{', '.join(others)} of this space were made by another encoder. "
            "That is right only if both map into one space."
        )
    if plan.how == "generated":
        yield "ids were generated: spaces are matched by id, so give --ids where another space holds the same items."
    if norm["unit_share"] < 1.0:
        yield f"rows are not of unit length (mean norm {norm['mean']:.4g}); they are normalised when used."
