"""Verbs that make and look at spaces: encode, import, inspect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

Modality = Annotated[
    str | None, typer.Option(metavar="M", help="text, image, audio, point_cloud, ...", show_default=False)
]
Into = Annotated[Path, typer.Option("--into", metavar="S.space", help="The space to write to.", show_default=False)]
MaxRejected = Annotated[float, typer.Option(metavar="F", help="End with exit 1 above this share of rejected items.")]


def encode(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Files, folders, globs or a table.", show_default=False)
    ],
    encoder: Annotated[str, typer.Option(metavar="NAME", help="See `isthmus encoders`.", show_default=False)],
    into: Into,
    modality: Modality = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, such as 0/8.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Items a batch.")] = 32,
    workers: Annotated[
        int | None,
        typer.Option(metavar="W", min=0, help="Decoding processes (default: one a core).", show_default=False),
    ] = None,
    device: o.Device = None,
    max_rejected: MaxRejected = 0.01,
    ids: Annotated[
        str | None,
        typer.Option(metavar="path|stem|COLUMN", help="How ids are made.", show_default=False),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a table that holds the texts.", show_default=False)
    ] = None,
    path_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a table that holds the paths.", show_default=False)
    ] = None,
    duplicates: Annotated[
        str, typer.Option(metavar="each|once", help="Encode equal content each time or once.")
    ] = "each",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of a new space (default: the folder's).", show_default=False),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="float16|float32", help="On disk (default: float16).", show_default=False)
    ] = None,
    same_space: Annotated[
        bool, typer.Option("--same-space", help="Accept a second encoder, trained into the same space.")
    ] = False,
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="For the encoder; repeatable.", show_default=False),
    ] = None,
    engine: o.ShardEngine = "local",
    tasks: o.Tasks = None,
    address: o.Address = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Encode raw files into a space; an interrupted run resumes."""
    from isthmus.cli.config import parse_assignment
    from isthmus.cli.references import find_local_encoders
    from isthmus.encoders.pipeline.encode import encode

    with output(as_json=as_json, quiet=quiet) as out:
        find_local_encoders(encoder)
        report = encode(
            paths,
            encoder=encoder,
            into=into,
            modality=modality,
            shard=shard,
            batch_size=batch_size,
            workers=workers,
            device=device,
            max_rejected=max_rejected,
            ids=ids,
            text_column=text_column,
            path_column=path_column,
            duplicates=duplicates,
            name=name,
            dtype=dtype,
            same_space=same_space,
            encoder_options=dict(map(parse_assignment, encoder_options or [])),
            quiet=quiet,
            engine=engine,
            tasks=tasks,
            address=address,
        )
        out.report = dict(report)
        show_written(out, into)
        if report["passed_over"]:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in report["passed_over"].items())
            out.say(f"passed over: {counts}")
        for note in report["notes"]:
            out.say(note)
        if report["rejected"]:
            out.say(f"{report['rejected']:,} rejected, with the reasons in {report['rejected_file']}")


def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_DIR", help="A file of embeddings or a folder of them.", show_default=False),
    ],
    into: Into,
    modality: Annotated[
        str, typer.Option(metavar="M", help="text, image, audio, point_cloud, ...", show_default=False)
    ],
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN_OR_FILE",
            help="Where the ids stand (default: column id, else row numbers).",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The encoder that made them, such as clip:openai/clip-vit-base-patch32.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of a new space (default: the folder's).", show_default=False),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column or array of the embeddings, if unclear.", show_default=False),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="ROWSxDIM:TYPE", help="Of a raw map of numbers: 1000x512:float32.", show_default=False),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|float32", help="On disk (default: as in the source).", show_default=False),
    ] = None,
    normalized: Annotated[
        bool | None,
        typer.Option("--normalized/--not-normalized", help="Declare the norm; it is checked.", show_default=False),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Drop the rows of an interrupted import.")] = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Import embeddings that exist already into a space."""
    from isthmus.spaces.importing.importer import import_embeddings

    with output(as_json=as_json, quiet=quiet) as out:
        report = import_embeddings(
            source,
            into,
            modality=modality,
            ids=ids,
            encoder=encoder,
            name=name,
            column=column,
            shape=shape,
            dtype=dtype,
            normalized=normalized,
            restart=restart,
            quiet=quiet,
        )
        out.report = dict(report)
        show_written(out, into)


SHOWN = (
    "modality",
    "items",
    "encoded",
    "present",
    "rows",
    "total_rows",
    "resumed_rows",
    "rejected",
    "encoder",
    "seconds",
)
"""The plain figures of an encode or an import, in the order of its table."""


def show_written(out: Output, into: Path) -> None:
    """Say what an encode or an import wrote, and what to look at."""
    report = out.report
    columns = [name for name in SHOWN if name in report]
    out.table([name.replace("_", " ") for name in columns], [[report[name] for name in columns]])
    for line in [report.get("note"), *(report.get("warnings") or [])]:
        if line:
            out.say(str(line))
    out.note(f"Next: isthmus inspect {into}")


def inspect(
    space: o.SpacePath,
    other: Annotated[Path | None, typer.Argument(metavar="T.space", help="A second space.", show_default=False)] = None,
    via: Annotated[
        str | None,
        typer.Option(
            metavar="M[,M2]", help="What the two share (default: every modality both have).", show_default=False
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and compare the checksums.")] = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate/--no-estimate", help="Of two spaces: say how good a join may be, without labels."),
    ] = True,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Check a space, and what a join of two is worth."""
    from isthmus.core.modality import via_list
    from isthmus.core.terminal import line_width
    from isthmus.spaces.health import format_report, inspect
    from isthmus.spaces.space import open_space

    with output(as_json=as_json, quiet=quiet) as out:
        if via and other is None:
            raise ConfigError(
                "--via says what two spaces share, and only one was given. Give the second: S.space T.space."
            )
        first, second = open_space(space), open_space(other) if other is not None else None
        checked = [one.verify() for one in (first, second) if one is not None] if verify else None
        report = inspect(first, second, via=via_list(via, option="--via") if via else None)
        out.report = report if checked is None else {**report, "verified_bytes": checked}
        out.say(format_report(report, width=line_width()))
        if second is not None and estimate:
            out.report = {**out.report, **estimated(out, first, second, report["overlap"])}
        if checked is not None:
            out.say("Every checksum holds.")


def estimated(out: Output, first: Space, second: Space, overlaps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Estimate a join through what two spaces share, print it, and return it as --json has it."""
    from isthmus.recipes.posterior.forecast import estimate_pair, lines
    from isthmus.spaces.overlap import MINIMUM_OVERLAP

    via = [name for name, each in overlaps.items() if each["shared"] >= MINIMUM_OVERLAP]
    if not via:
        return {}
    told = estimate_pair(first, second, via=via).to_dict()
    out.say()
    out.sentence(f"joined through {' and '.join(via)} in a closed form, as isthmus connect would:")
    for line in lines(told):
        out.sentence(line)
    return told
