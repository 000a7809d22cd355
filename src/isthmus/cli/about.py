"""Verbs about isthmus itself: demo, encoders, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output
from isthmus.errors import CheckFailed


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the demo's files go.")] = Path(
        "isthmus-demo"
    ),
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Run the bundled example end to end."""
    from isthmus.demo import run_demo

    with output(as_json=as_json, quiet=quiet) as printer:
        printer.report = run_demo(out, say=printer.say, quiet=quiet)


def encoders(quiet: o.Quiet = False, as_json: o.Json = False) -> None:
    """List what can encode here."""
    from isthmus.encoders import list_encoders

    with output(as_json=as_json, quiet=quiet) as out:
        rows = list_encoders()
        out.report = {"encoders": rows}
        table = [[r["name"], ", ".join(r["modalities"]), r["dim"], install(r), r["checkpoint"]] for r in rows]
        out.table(["encoder", "modalities", "dim", "ready", "checkpoint"], table)
        out.note("Your own: --encoder module:Class (see the encoders page of the documentation).")


def install(row: dict[str, object]) -> str:
    """Say whether an encoder can run here, or what installs it."""
    if not row["installed"]:
        return f"pip install 'isthmus[{row['extra']}]'"
    return "downloads its checkpoint first" if row["cached"] is False else "yes"


def doctor(quiet: o.Quiet = False, as_json: o.Json = False) -> None:
    """Say what this machine has and what installs the rest.

    Exit 1 if something that is installed is broken."""
    from isthmus.cli.machine import examine

    with output(as_json=as_json, quiet=quiet) as out:
        report = examine()
        out.report = report
        out.table(["this machine", ""], [[key, value] for key, value in report["machine"].items()])
        rows = [
            [e["extra"], e["fault"] or ", ".join(e["missing"]) or "yes", e["install"] or ""] for e in report["extras"]
        ]
        out.table(["extra", "works, or missing", "to install"], rows)
    if report["broken"]:
        raise CheckFailed(" ".join(report["broken"]))
