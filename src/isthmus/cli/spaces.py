"""Verbs that make and look at spaces: encode, import, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output

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
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Encode raw files into a space; an interrupted run resumes."""
    from isthmus.encoding import encode

    with output(as_json=as_json, quiet=quiet) as out:
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
            quiet=quiet,
        )
        out.report = dict(report)
        show_written(out, into)


def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_DIR", help=".npy .npz .parquet .safetensors or a folder.", show_default=False),
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
    from isthmus.importing import import_embeddings

    with output(as_json=as_json, quiet=quiet) as out:
        report = import_embeddings(
            source,
            into,
            modality=modality,
            ids=ids,
            encoder=encoder,
            name=name,
            column=column,
            dtype=dtype,
            normalized=normalized,
            restart=restart,
            quiet=quiet,
        )
        out.report = dict(report)
        show_written(out, into)


SHOWN = ("modality", "rows", "total_rows", "resumed_rows", "rejected", "dim", "dtype", "encoder", "seconds")


def show_written(out: Output, into: Path) -> None:
    """Say what an encode or an import wrote, and what to look at."""
    report = out.report
    columns = [name for name in SHOWN if name in report]
    out.table([name.replace("_", " ") for name in columns], [[report[name] for name in columns]])
    for line in [report.get("note"), *(report.get("warnings") or [])]:
        if line:
            out.say(str(line))
    out.say(f"Next: isthmus inspect {into}")


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
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Check the health of a space, and what two spaces share."""
    from isthmus.cli.references import split_modalities
    from isthmus.health import inspect
    from isthmus.space import open_space

    with output(as_json=as_json, quiet=quiet) as out:
        first, second = open_space(space), open_space(other) if other is not None else None
        if verify:
            for one in filter(None, (first, second)):
                one.verify()
        out.report = inspect(first, second, via=split_modalities(via) if via else None)
        show_health(out)


def show_health(out: Output) -> None:
    """Print the tables of an `inspect` report, nested values as `key.subkey` rows."""
    for key, value in out.report.items():
        if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
            columns = list(dict.fromkeys(name for item in value.values() for name in item))
            out.table([key, *columns], [[name, *(item.get(c) for c in columns)] for name, item in value.items()])
        elif isinstance(value, (list, tuple)):
            for item in value:
                out.say(f"{key}: {item}")
        else:
            out.say(f"{key}: {value}")
