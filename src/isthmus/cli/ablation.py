"""The verb that compares settings: ablate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import CheckFailed


def ablate(
    config: Annotated[Path, typer.Option("--config", metavar="GRID.toml", help="The grid.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where tables and cells go (default: GRID.ablation).", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the grid's paths start from (default: the grid's folder).", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N", help="Instead of the grid's seeds.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do and how long it takes.")] = False,
    keep_pairs: Annotated[bool, typer.Option("--keep-pairs", help="Keep the pseudo pairs when all is done.")] = False,
    device: o.Device = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Train a grid of settings over seeds into one table.

    Exit 1 if the settings of some row fail."""
    from isthmus.evaluation.ablation.ablate import ablate as run

    with output(as_json=as_json, quiet=quiet) as printer:
        chosen = None if seeds is None else o.read_seeds(seeds)
        report = run(
            config,
            out=out,
            data=data,
            seeds=chosen,
            device=device,
            dry_run=dry_run,
            keep_pairs=keep_pairs,
            quiet=quiet,
        )
        printer.report = report
        if dry_run:
            show_estimate(printer, report)
        else:
            show_table(printer, report)
    if not dry_run and report["cells"]["failed"]:
        faults = [row["fault"] for row in report["rows"] if "fault" in row]
        raise CheckFailed(f"{report['cells']['failed']} of {report['cells']['all']} cells failed, first: {faults[0]}")


def show_estimate(out: Output, report: Mapping[str, Any]) -> None:
    """Print what a grid trains."""
    rows = [
        [row["table"], row["name"], row["method"], row["pseudo_pairs"], row["batch_size"], row["epochs"], row["steps"]]
        for row in report["rows"]
    ]
    out.table(["table", "row", "method", "pseudo pairs", "batch", "epochs", "steps"], rows)
    for row in report["rows"]:
        if "fault" in row:
            out.say(f"{row['name']} fails: {row['fault']}")
    cells, seconds = report["cells"], report["seconds"]
    out.say(f"{cells['all']:,} cells, {cells['found']:,} finished, {cells['left']:,} to train.")
    out.say(f"{report['pools']:,} kinds of pseudo pairs to aggregate, each once.")
    if seconds is not None:
        out.say(f"About {seconds:,.0f} s ({seconds / 60:,.1f} min) on this machine, from {report['measured']}.")


def show_table(out: Output, report: Mapping[str, Any]) -> None:
    """Print the table with the differences to the base row."""
    columns = report["columns"]
    told = any("expect" in row for row in report["rows"])
    head = ["table", "row", *(part for name in columns for part in (name, "std", "difference"))]
    rows = []
    for row in report["rows"]:
        scores = [row["scores"][name] for name in columns]
        line = [row["table"], row["name"], *(s[part] for s in scores for part in ("mean", "std", "difference"))]
        rows.append([*line, row.get("expect") or "", row.get("agrees") or ""] if told else line)
    out.table([*head, "papers", "agrees"] if told else head, rows)
    for claim in report["claims"]:
        out.say(f"{claim['says']}: {claim['agrees'] or 'cannot be told'}")
    cells = report["cells"]
    out.say(
        f"{cells['all']:,} cells: {cells['found']:,} found, {cells['trained']:,} trained, {cells['failed']:,} failed."
    )
    out.say(f"Wrote {report['path']}/table.md, table.json and table.csv.")
