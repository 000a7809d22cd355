"""Arguments and options that several verbs share, named once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.errors import ConfigError

SpacePath = Annotated[Path, typer.Argument(metavar="S.space", help="A space folder.", show_default=False)]
BridgePath = Annotated[Path, typer.Argument(metavar="X.bridge", help="A bridge folder.", show_default=False)]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Force = Annotated[
    bool, typer.Option("--force", help="Project although the encoder is not the one the bridge was trained on.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="D", help="cpu, cuda, cuda:N, mps or auto (default).", show_default=False),
]
SpacePaths = Annotated[
    list[str] | None,
    typer.Option(
        "--space", metavar="NAME=PATH", help="Where a space of the bridge lies now; repeatable.", show_default=False
    ),
]

Via = Annotated[
    str,
    typer.Option(metavar="M[,M2]", help="The modality, or several, that both spaces share.", show_default=False),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--texts",
        metavar="builtin|FILE",
        help="Texts to encode by each space's own encoder and share; repeatable (builtin: `isthmus vocabulary`).",
        show_default=False,
    ),
]
TextEncoders = Annotated[
    list[str] | None,
    typer.Option(
        "--text-encoder",
        metavar="SPACE=NAME",
        help="The text encoder of a space that does not tell its own; repeatable.",
        show_default=False,
    ),
]
BridgeOut = Annotated[
    Path, typer.Option("--out", metavar="X.bridge", help="The bridge folder to write.", show_default=False)
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="default|paper|auto", help="Where the configuration starts from.", show_default=False),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="C.toml", help="Configuration over the preset.", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One configuration key over both; repeatable.", show_default=False),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of noise, order and initial weights.", show_default=False)
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Keep pseudo pairs in a folder above this size, such as 4GB.", show_default=False
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="local|processes|ray",
        help="Where pseudo pairs are aggregated: this process, one a core, or a Ray cluster.",
        show_default=False,
    ),
]
ShardEngine = Annotated[
    str, typer.Option(metavar="local|ray", help="Where the work runs: this process, or a Ray cluster.")
]
Tasks = Annotated[
    int | None,
    typer.Option(metavar="N", help="Parts that Ray deals out (default: one a core).", show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Address of the Ray cluster. Default: a local one.", show_default=False),
]
CheckpointDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where to resume from. Default: beside --out, removed at the end.", show_default=False
    ),
]

Curves = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write each epoch's figures of a training as JSON lines.", show_default=False),
]

TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard", metavar="DIR", help="Write them for TensorBoard too: pip install tensorboard.",
        show_default=False,
    ),
]  # fmt: skip


def read_seeds(text: str) -> tuple[int, ...]:
    """Read `--seeds 0,1,2`.

    Raises:
        ConfigError: It is no list of numbers from 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--seeds got {text!r}, expected numbers such as 0,1,2.")
    return tuple(int(part) for part in parts)
