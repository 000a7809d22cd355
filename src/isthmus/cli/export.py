"""The verb export: a bridge in the forms that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output


def export(
    bridge: o.BridgePath,
    format: Annotated[
        str,
        typer.Option(
            metavar="sentence-transformers|onnx|safetensors|parquet", help="What to write.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR|FILE", help="A new folder; a file for parquet.", show_default=False)
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(metavar="S.space/M", help="Parquet: what is written; repeatable.", show_default=False),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="NAME", help="Whose encoder reads a modality that several have.", show_default=False
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPACE=NAME", help="A space's encoder, where the bridge may not name it.", show_default=False
        ),
    ] = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Write a bridge in a form that other tools read."""
    from isthmus.cli.references import named_values
    from isthmus.export.export import export_bridge

    encoders = named_values(encoder, option="--encoder", example="SPACE=NAME such as clip=clip:FOLDER")
    with output(as_json=as_json, quiet=quiet) as printed:
        found = export_bridge(bridge, out, format=format, galleries=gallery or (), space=space, encoders=encoders)
        printed.report = found
        printed.say(f"Wrote {found.path}: {', '.join(found.files)}.")
