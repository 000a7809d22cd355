"""Raw files to a space: decode in worker processes, encode in batches, write whole shards, resume after any kill.

`encode` is the verb; the pieces are `options` (what a call says), `settings` (what follows from it), `loop` (over
batches), `pool` (decoding processes), `journal` (what makes a kill cheap), `parts` (several processes or machines),
`on_ray` (a cluster) and `rejected` (what did not make it).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.core.locks import one_writer
from isthmus.core.options import changed
from isthmus.encoders.pipeline import parts
from isthmus.encoders.pipeline.loop import Tally, encode_items
from isthmus.encoders.pipeline.options import EncodeOptions
from isthmus.encoders.pipeline.rejected import reasons
from isthmus.encoders.pipeline.settings import EncodeReport, Settings, as_declared, check_one_space, encoder_info
from isthmus.encoders.protocol import Encoder
from isthmus.encoders.registry import REGISTRY, load_encoder
from isthmus.encoders.trusted import allow_in_this_process
from isthmus.errors import CheckFailed, ConfigError, EncoderError, SpaceError
from isthmus.items import FoundItems, Item, check_unique, find_items
from isthmus.items.walk import check_exists
from isthmus.spaces.manifest import check_target, default_name
from isthmus.spaces.remote import writes_space

__all__ = ["EncodeOptions", "EncodeReport", "encode"]


@writes_space("into")
@one_writer("into", what="modality", unless="shard", fault=SpaceError)
def encode(
    paths: str | Path | Iterable[str | Path | Item],
    *,
    encoder: str | Encoder,
    into: str | Path,
    modality: str | None = None,
    options: EncodeOptions | None = None,
    **changes: Any,
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
        options: Batch size, device, ids and so on.
        **changes: Single options by name, over `options`: `batch_size=64`.

    Raises:
        CheckFailed: More than `max_rejected` of the items were rejected.
        FormatError: Nothing to encode was found, a table lacks a column, or an id stands twice.
        EncoderError: The encoder is unknown, has no such modality, fails, or is not the one of this space.
        SpaceError: `into` is something else, or was made by another encoder.
        ConfigError: An option is unknown or out of range, or the modality cannot be told.
        DependencyError: Ray is asked for and not installed.
    """
    begin = time.monotonic()
    chosen = changed(options or EncodeOptions(), changes, "encode")
    if chosen.engine == "ray":
        # Not above: decoding processes import this package, and have no use for torch.
        from isthmus.encoders.pipeline.on_ray import encode_parts, joined_report

        if not isinstance(encoder, str):
            raise ConfigError(f"the engine 'ray' needs an encoder's name, got a {type(encoder).__name__}.")
        call = partial(encode, paths, encoder=encoder, into=into, modality=modality)
        report = joined_report(encode_parts(call, chosen))
        _check_rejected(report, report["rejected"], chosen.max_rejected, "")
        return report
    # A wrong path is told before a model is loaded, where that is possible.
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    for path in paths:
        if not isinstance(path, Item):
            check_exists(Path(path))
    listed = _find(paths, modality, None, chosen) if modality else None
    loaded = _load(encoder, chosen)
    listed = listed or _find(paths, None, loaded.modalities, chosen)
    if listed.modality not in loaded.modalities:
        known = ", ".join(loaded.modalities)
        raise EncoderError(f"encoder {loaded.name!r} has no modality {listed.modality!r}. Expected one of: {known}.")
    into = Path(into)
    settings = _settings(loaded, listed, into, chosen)
    tally, total, waiting = _run(listed.items, into, settings, chosen.part)
    report = _report(tally, total, waiting, into, settings)
    report["seconds"] = round(time.monotonic() - begin, 3)
    report["passed_over"], report["notes"] = dict(listed.passed_over), list(listed.notes)
    _check_rejected(report, len(tally.rejected), chosen.max_rejected, f" Reasons: {reasons(tally.rejected)}.")
    return report


def _load(encoder: str | Encoder, options: EncodeOptions) -> Encoder:
    """The encoder of a name, or an encoder moved to where it is wanted."""
    if isinstance(encoder, str):
        made_with = dict(options.encoder_options or {})
        loaded = load_encoder(encoder, device=options.device, **made_with)
        if encoder.partition(":")[0] in REGISTRY:
            allow_in_this_process(encoder, made_with)
        return loaded
    if options.device is not None and hasattr(encoder, "to"):
        encoder.to(options.device)
    return encoder


def _settings(encoder: Encoder, listed: FoundItems, into: Path, options: EncodeOptions) -> Settings:
    """How the items are encoded into the space, which takes them or says why not."""
    info = encoder_info(encoder, listed.modality, dict(options.encoder_options or {}))
    info = as_declared(into, listed.modality, info)
    target = check_target(into, listed.modality, dim=encoder.dim, info=info, name=options.name)
    if not options.same_space:
        check_one_space(into, target, info)
    return Settings(
        encoder,
        listed.modality,
        info,
        listed.types,
        name=options.name or (target["name"] if target else default_name(into)),
        dtype=options.dtype,
        shard_rows=options.shard_rows,
        batch_size=options.batch_size,
        workers=options.workers,
        once=options.duplicates == "once",
        quiet=options.quiet,
    )


def _find(paths: Any, modality: str | None, offered: Any, options: EncodeOptions) -> FoundItems:
    """Items of paths, or the items themselves."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    items = [one for one in given if isinstance(one, Item)]
    if items and len(items) == len(given):
        if modality is None and len(offered) != 1:
            raise ConfigError(f"items have no suffix to tell the modality by. Give one of: {', '.join(offered)}.")
        check_unique(items)
        return FoundItems(modality or offered[0], items, {})
    return find_items(
        given,
        modality=modality,
        offered=offered,
        ids=options.ids,
        text_column=options.text_column,
        path_column=options.path_column,
    )


def _run(
    items: list[Item], into: Path, settings: Settings, part: tuple[int, int] | None
) -> tuple[Tally, int, list[int]]:
    """Encode all items, or one part of them; returns also the number of items and the parts still waited for."""
    if part is None:
        return encode_items(items, into, settings), len(items), []
    return parts.encode_part(items, into, settings, *part)


def _report(tally: Tally, total: int, waiting: list[int], into: Path, settings: Settings) -> EncodeReport:
    """Report of an encoding."""
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
    """End the run where too many items were rejected."""
    total = report["items"]
    if total and count / total > max_rejected:
        rest = f"the other {total - count:,} are in {report['space']}" if total > count else "nothing is left"
        raise CheckFailed(
            f"{count:,} of {total:,} {report['modality']} items ({count / total:.1%}) were rejected, more than "
            f"{max_rejected:.1%}; {rest}.{why} See {report['rejected_file']}; "
            "mend the files and run again, or allow more with --max-rejected."
        )
