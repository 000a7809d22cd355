"""The verb of the heads that the papers' authors released: official."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.making import bridge_report, show_bridge
from isthmus.cli.output import output


def official(
    file: Annotated[Path, typer.Argument(metavar="HEAD.pt", help="A released file.", show_default=False)],
    out: o.BridgeOut,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="NAME=PATH",
            help="A space of the papers' encoder: clip, clap or ulip; repeatable.",
            show_default=False,
        ),
    ] = None,
    leaf: Annotated[
        str | None,
        typer.Option(metavar="clap|ulip", help="Whose head it is, if its name does not say.", show_default=False),
    ] = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Make a bridge of a head that the authors released."""
    from isthmus.bridges.official import load_official
    from isthmus.cli.references import named_paths
    from isthmus.spaces.space import open_space

    with output(as_json=as_json, quiet=quiet) as printer:
        started = time.monotonic()
        spaces = {name: open_space(path) for name, path in named_paths(space).items()}
        bridge = load_official(file, leaf=leaf, spaces=spaces)
        bridge.save(out, overwrite=overwrite)
        printer.report = bridge_report(bridge, out, time.monotonic() - started)
        show_bridge(printer, bridge)
