"""Raw files to a space: decode in worker processes, encode in batches, write whole shards, resume after any kill.

`encode` is the verb; the pieces are `settings` (what is asked), `run` (the loop over batches), `pool` (decoding
processes), `journal` (what makes a kill cheap), `parts` (several processes or machines), `on_ray` (a cluster) and
`rejected` (what did not make it).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.encoders.pipeline import parts
from isthmus.encoders.pipeline.loop import Tally, encode_items
from isthmus.encoders.pipeline.rejected import reasons
from isthmus.encoders.pipeline.settings import EncodeReport, Settings, check_one_space, encoder_info, parse_shard
from isthmus.encoders.protocol import Encoder
from isthmus.encoders.registry import load_encoder
from isthmus.errors import CheckFailed, ConfigError, EncoderError
from isthmus.items import Found, Item, check_unique, find_items
from isthmus.spaces.manifest import check_target, default_name

__all__ = ["EncodeReport", "encode"]


def encode(
    paths: str | Path | Iterable[str | Path | Item],
    *,
    encoder: str | Encoder,
    into: str | Path,
    modality: str | None = None,
    shard: str | tuple[int, int] | None = None,
    batch_size: int = 32,
    device: str | None = None,
    workers: int | None = None,
    max_rejected: float = 0.01,
    ids: str | None = None,
    text_column: str | None = None,
    path_column: str | None = None,
    duplicates: str = "each",
    name: str | None = None,
    dtype: str | None = None,
    shard_rows: int | None = None,
    same_space: bool = False,
    encoder_options: Mapping[str, Any] | None = None,
    quiet: bool = False,
    engine: str = "local",
    tasks: int | None = None,
    address: str | None = None,
) -> EncodeReport:
    """Encode raw files into one modality of a space.

    Run again after an interruption it goes on where it stopped, and the result is the same, byte for byte. Items
    whose ids are in the space are never encoded again; items that were rejected are tried again.

    Args:
        paths: Files, folders, globs, tables, lists of texts, webdataset tars (see `isthmus.items.find_items`), or
        `Item`s.
        encoder: Name of an encoder (see `load_encoder`), or an encoder.
        into: The space's folder, made if missing.
        modality: What the items are; None tells by their suffixes.
        shard: "0/8" or (0, 8): only this part, to be joined with the others when all are done (see
        `isthmus.encoders.pipeline.parts`).
        batch_size: Items in one pass through the model.
        device: Where the model goes; None leaves it to the encoder.
        workers: Decoding processes; None takes one a core, and none for texts and for a few items.
        max_rejected: Share of the items above which the run ends as failed, after all good work is kept.
        ids: "path", "stem", or the column of a table that holds the ids (see `find_items`).
        text_column: The column of a table that holds the texts.
        path_column: The column of a table that holds the paths of files.
        duplicates: "each" encodes every item; "once" encodes equal content once and gives every id its row.
        name: Name of a new space, by default the folder's.
        dtype: "float16" (default) or "float32" on disk.
        shard_rows: Most rows of a shard on disk.
        same_space: Accept another encoder than that of the space's other modalities: the two were trained into one
        space.
        encoder_options: Passed to the encoder's factory, when `encoder` is a name.
        quiet: Show no progress.
        engine: "local" is this process and its decoding workers; "ray" the machines of a Ray cluster, which must see
        the files and the space by the same paths (see `isthmus.encoders.pipeline.on_ray`).
        tasks: Parts that Ray deals out; None is one for each core. Each loads the model.
        address: Of the Ray cluster; None is a local one.

    Raises:
        CheckFailed: More than `max_rejected` of the items were rejected.
        FormatError: Nothing to encode was found, a table lacks a column, or an id stands twice.
        EncoderError: The encoder is unknown, has no such modality, fails, or is not the one of this space.
        SpaceError: `into` is something else, or was made by another encoder.
        ConfigError: An option is out of range, or the modality cannot be told.
        DependencyError: Ray is asked for and not installed.
    """
    asked = dict(locals())
    begin = time.monotonic()
    part = parse_shard(shard)
    _check_options(batch_size, workers, max_rejected, duplicates)
    _check_engine(engine, part, tasks, address)
    if engine == "ray":
        # Not above: decoding processes import this package, and have no use for torch.
        from isthmus.encoders.pipeline.on_ray import encode_parts, joined_report

        alone = {key: value for key, value in asked.items() if key not in ("engine", "tasks", "address", "shard")}
        report = joined_report(encode_parts(alone, tasks, address))
        _check_rejected(report, report["rejected"], max_rejected, "")
        return report
    options = dict(encoder_options or {})
    # A wrong path is told before a model is loaded, where that is possible.
    columns = (ids, text_column, path_column)
    found = _find(paths, modality, None, *columns) if modality else None
    loaded = load_encoder(encoder, device=device, **options) if isinstance(encoder, str) else encoder
    if not isinstance(encoder, str) and device is not None and hasattr(encoder, "to"):
        encoder.to(device)
    found = found or _find(paths, None, loaded.modalities, *columns)
    if found.modality not in loaded.modalities:
        known = ", ".join(loaded.modalities)
        raise EncoderError(f"encoder {loaded.name!r} has no modality {found.modality!r}. Expected one of: {known}.")
    into = Path(into)
    info = encoder_info(loaded, found.modality, options)
    target = check_target(into, found.modality, dim=loaded.dim, info=info, name=name)
    if not same_space:
        check_one_space(into, target, info)
    settings = Settings(
        loaded,
        found.modality,
        info,
        found.types,
        name=name or (target["name"] if target else default_name(into)),
        dtype=dtype,
        shard_rows=shard_rows,
        batch_size=batch_size,
        workers=workers,
        once=duplicates == "once",
        quiet=quiet,
    )
    tally, total, waiting = _run(found.items, into, settings, part)
    report = _report(tally, total, waiting, into, settings)
    report["seconds"] = round(time.monotonic() - begin, 3)
    report["passed_over"], report["notes"] = dict(found.passed_over), list(found.notes)
    _check_rejected(report, len(tally.rejected), max_rejected, f" Reasons: {reasons(tally.rejected)}.")
    return report


def _check_engine(engine: str, part: tuple[int, int] | None, tasks: int | None, address: str | None) -> None:
    if engine not in ("local", "ray"):
        raise ConfigError(f"unknown engine {engine!r}. Expected one of local, ray.")
    if engine == "ray" and part is not None:
        raise ConfigError("shard is of a run without an engine: 'ray' deals out the parts itself. Give one of them.")
    if engine == "local" and (tasks is not None or address is not None):
        raise ConfigError("tasks and address are of the engine 'ray'. Give engine='ray' with them.")


def _check_options(batch_size: int, workers: int | None, max_rejected: float, duplicates: str) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}. Expected at least 1.")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers is {workers}. Expected 0 (decode in this process) or more.")
    if not 0.0 <= max_rejected <= 1.0:
        raise ConfigError(f"max_rejected is {max_rejected}. Expected a share from 0 to 1, such as 0.01.")
    if duplicates not in ("each", "once"):
        raise ConfigError(f"duplicates is {duplicates!r}. Expected 'each' or 'once'.")


def _find(
    paths: Any,
    modality: str | None,
    offered: Any,
    ids: str | None,
    text_column: str | None,
    path_column: str | None,
) -> Found:
    """Items of paths, or the items themselves."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    items = [one for one in given if isinstance(one, Item)]
    if items and len(items) == len(given):
        if modality is None and len(offered) != 1:
            raise ConfigError(f"items have no suffix to tell the modality by. Give one of: {', '.join(offered)}.")
        check_unique(items)
        return Found(modality or offered[0], items, {})
    return find_items(
        given, modality=modality, offered=offered, ids=ids, text_column=text_column, path_column=path_column
    )


def _run(
    items: list[Item], into: Path, settings: Settings, part: tuple[int, int] | None
) -> tuple[Tally, int, list[int]]:
    """Encode all items, or one part of them; returns also the number of items and the parts still waited for."""
    if part is None:
        return encode_items(items, into, settings), len(items), []
    return parts.encode_part(items, into, settings, *part)


def _report(tally: Tally, total: int, waiting: list[int], into: Path, settings: Settings) -> EncodeReport:
    return {
        "space": str(into),
        "modality": settings.modality,
        "encoder": settings.encoder.name,
        "rows": tally.rows,
        "items": total,
        "encoded": tally.encoded,
        "present": tally.present,
        "rejected": len(tally.rejected),
        "duplicates": tally.duplicates,
        "truncated": int(getattr(settings.encoder, "truncated", 0)),
        "rejected_file": str(tally.rejected_file) if tally.rejected_file and tally.rejected else None,
        "waiting_for": waiting,
        "seconds": tally.seconds,
        "items_per_second": round(tally.encoded / max(tally.seconds, 1e-9), 1),
        "passed_over": {},
        "notes": [],
    }


def _check_rejected(report: EncodeReport, count: int, max_rejected: float, why: str) -> None:
    total = report["items"]
    if total and count / total > max_rejected:
        kept = f"the other {total - count:,} are in {report['space']}" if total > count else "nothing is left"
        raise CheckFailed(
            f"{count:,} of {total:,} {report['modality']} items ({count / total:.1%}) were rejected, more than "
            f"{max_rejected:.1%}; {kept}.{why} See {report['rejected_file']}; "
            "mend the files and run again, or allow more with --max-rejected."
        )
