"""The verb that serves: galleries behind HTTP with a page to search them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.errors import ConfigError


def serve(
    bridge: Annotated[
        Path, typer.Argument(metavar="X.bridge|my.world", help="A bridge folder, or a world.", show_default=False)
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T.space/M",
            help="What is searched; repeatable. Default of a world: all it has.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ISTHMUS_TOKEN",
            metavar="TOKEN",
            help="What requests must carry; needed for any address but the loopback one.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    editable: Annotated[bool, typer.Option("--editable", help="Let items be added and deleted (in memory).")] = False,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPACE[/M]=NAME", help="The encoder of queries, if the bridge does not know.", show_default=False
        ),
    ] = None,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Serve galleries over HTTP, with a page to search them.

    Example: isthmus serve unified.bridge --gallery pictures.space/image --gallery sounds.space/audio
    """
    from isthmus.cli.references import named_values
    from isthmus.serve.run import check_address
    from isthmus.serve.run import serve as run
    from isthmus.spaces.references import open_reference

    check_address(host, token)
    folder, references = galleries_of(bridge, gallery)
    run(
        folder,
        [open_reference(reference, option="--gallery") for reference in references],
        host=host,
        port=port,
        token=token,
        editable=editable,
        encoders=named_values(encoder, option="--encoder", example="SPACE=NAME such as picture=clip"),
        device=device,
        log=None if quiet else sys.stderr,
        started=lambda address: tell(address, as_json=as_json),
        force=force,
    )


def tell(address: str, *, as_json: bool) -> None:
    """Say where the page is, once it can be opened."""
    print(json.dumps({"address": address}) if as_json else f"Serving at {address} (Ctrl-C ends it)", flush=True)


def galleries_of(path: Path, given: list[str] | None) -> tuple[Path, list[str]]:
    """The bridge folder and the galleries: as given, or of a world all that its spaces hold.

    Raises:
        ConfigError: A bridge without galleries is nothing to search.
    """
    bridge = path / "unified.bridge"
    if (path / "bridge.json").is_file() or not (bridge / "bridge.json").is_file():
        if not given:
            raise ConfigError("serve needs something to search. Give --gallery SPACE/MODALITY, once or more.")
        return path, given
    spaces = sorted(folder for folder in (path / "spaces").iterdir() if (folder / "space.json").is_file())
    found = [f"{folder}/{modality}" for folder in spaces for modality in modalities_of(folder)]
    return bridge, given or found


def modalities_of(folder: Path) -> list[str]:
    """Modalities of a world's space that are worth a gallery: its items, not the texts that join the spaces."""
    from isthmus.spaces.space import open_space

    names = open_space(folder).modalities
    return [name for name in names if name != "text"] or list(names)
