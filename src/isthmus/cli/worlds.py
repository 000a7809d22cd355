"""The verb join: from folders to a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output


def join(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Folders of files, lists of texts, spaces.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="W.world", help="The world to make.", show_default=False)],
    encoder: Annotated[
        list[str] | None,
        typer.Option(metavar="M=NAME", help="Encoder of a modality (default: clip, clap, ulip).", show_default=False),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="builtin|FILE",
            help="Texts that spaces are joined through (default: yours if they are many, else builtin).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="How spaces are connected (see connect).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")] = 0,
    retrain: Annotated[bool, typer.Option("--retrain", help="Connect again although nothing asks for it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched, encoded and written, and leave.")
    ] = False,
    device: o.Device = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Items a batch.")] = 32,
    workers: Annotated[
        int | None,
        typer.Option(metavar="W", min=0, help="Decoding processes (default: one a core).", show_default=False),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(metavar="F", help="End with exit 1 above this share of rejected items.")
    ] = 0.01,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Make folders searchable together."""
    from isthmus.cli.references import find_local_encoders, named_values
    from isthmus.worlds.join import join

    with output(as_json=as_json, quiet=quiet) as out_:
        encoders = named_values(encoder, option="--encoder", example="MODALITY=NAME such as image=clip")
        for name in encoders.values():
            find_local_encoders(name)
        report = join(
            paths,
            out,
            encoders=encoders,
            texts=texts,
            method=method,
            seed=seed,
            retrain=retrain,
            dry_run=dry_run,
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_rejected=max_rejected,
            quiet=quiet,
        )
        out_.report = {**vars(report), "dry_run": dry_run}
        columns = list(report.spaces[0]) if report.spaces else []
        out_.table([name.replace("_", " ") for name in columns], [list(row.values()) for row in report.spaces])
        if dry_run:
            fetch = sum({row["encoder"]: row["download_mb"] for row in report.spaces}.values())
            size = sum(row["bytes"] for row in report.spaces) / 1e6
            hours = sum(row["seconds"] for row in report.spaces) / 3600
            out_.say(
                f"To fetch: {fetch:,} MB. To write: {size:,.1f} MB of embeddings. About {hours:.2f} h on one core. "
                f"The bridge is {report.bridge}."
            )
        else:
            out_.say(f"The bridge was {report.bridge}; {report.index:,} items can be searched. {report.seconds:.0f} s.")
            out_.note(f"Next: isthmus search {out} --text TEXT")
