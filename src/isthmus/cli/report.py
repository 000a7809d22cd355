"""The verb that reports: one file that says what was joined, how good it is and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output
from isthmus.cli.search import WORLD_BRIDGE
from isthmus.errors import ConfigError


def report(
    bridge: Annotated[
        Path,
        typer.Argument(metavar="X.bridge|W.world", help="A bridge, or a world that join made.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html|.md", help="The file to write.", show_default=False)],
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="S.space/M", help="Items with a known truth; repeatable.", show_default=False),
    ] = None,
    gallery: Annotated[
        list[str] | None,
        typer.Option(metavar="T.space/M", help="What each is searched in, in the same order.", show_default=False),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(metavar="P.csv", help="True pairs of each, in the same order.", show_default=False),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(metavar="L.csv", help="Instead of pairs: the gallery's texts are classes.", show_default=False),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Score the simple methods too.")] = False,
    space: o.SpacePaths = None,
    overwrite: o.Overwrite = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Write a report of a bridge or a world: one file."""
    from isthmus.cli.references import named_paths
    from isthmus.export.report import ReportTask
    from isthmus.export.report import report as write
    from isthmus.spaces.references import open_reference

    truths = [(path, False) for path in pairs or []] + [(path, True) for path in labels or []]
    counts = (len(query or []), len(gallery or []), len(truths))
    if len(set(counts)) > 1 or (pairs and labels):
        raise ConfigError(
            f"report got {counts[0]} --query, {counts[1]} --gallery and {counts[2]} --pairs or --labels. "
            "Give one of each for every task, pairs or labels for all of them."
        )
    with output(as_json=as_json, quiet=quiet) as told:
        started = time.monotonic()
        tasks = [
            ReportTask(open_reference(a, option="--query"), open_reference(b, option="--gallery"), path, zero_shot)
            for a, b, (path, zero_shot) in zip(query or [], gallery or [], truths, strict=True)
        ]
        places = named_paths(space)
        inner = bridge / WORLD_BRIDGE
        path = write(
            inner if inner.is_dir() else bridge, tasks, out=out, baselines=baselines, space_paths=places,
            overwrite=overwrite, force=force, name=bridge.resolve().name,
        )  # fmt: skip
        size = path.stat().st_size
        told.report = {"path": str(path), "bytes": size, "tasks": len(tasks), "seconds": time.monotonic() - started}
        told.say(f"Wrote {path} ({size / 1e6:.2f} MB). It opens in any browser, without a network.")
