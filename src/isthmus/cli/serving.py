"""The verb that serves: galleries behind HTTP with a page to search them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import options as o
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.search.index import SearchIndex
    from isthmus.search.stores.protocol import Store


def serve(
    bridge: Annotated[
        Path, typer.Argument(metavar="X.bridge|my.world", help="A bridge folder, or a world.", show_default=False)
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T.space/M",
            help="What is searched: a modality of a space, or all of it; repeatable. Default of a world: all it has.",
            show_default=False,
        ),
    ] = None,
    inside: Annotated[
        list[str] | None,
        typer.Option(
            "--in",
            metavar="DIR|URL",
            help="Search an index's folder or a store: lance:DIR, postgresql://..., qdrant:...; repeatable.",
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
    space: o.SpacePaths = None,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Serve galleries over HTTP, with a page to search them."""
    from isthmus.cli.references import named_paths, named_values
    from isthmus.serve.run import check_address
    from isthmus.serve.run import serve as run
    from isthmus.spaces.references import open_galleries

    check_address(host, token)
    folder, references = galleries_of(bridge, gallery, inside)
    run(
        folder,
        [*open_galleries(references).values(), *map(open_place, inside or [])],
        host=host,
        port=port,
        token=token,
        editable=editable,
        encoders=named_values(encoder, option="--encoder", example="SPACE=NAME such as picture=clip"),
        device=device,
        log=None if quiet else sys.stderr,
        started=lambda address: tell(address, as_json=as_json),
        force=force,
        space_paths=named_paths(space),
    )


def tell(address: str, *, as_json: bool) -> None:
    """Say where the page is, once it can be opened."""
    print(json.dumps({"address": address}) if as_json else f"Serving at {address} (Ctrl-C ends it)", flush=True)


def galleries_of(path: Path, given: list[str] | None, inside: list[str] | None = None) -> tuple[Path, list[str]]:
    """The bridge folder and the galleries: as given, or of a world all that its spaces hold.

    Raises:
        ConfigError: A bridge alone is nothing to search.
    """
    bridge = path / "unified.bridge"
    if (path / "bridge.json").is_file() or not (bridge / "bridge.json").is_file():
        if not given and not inside:
            raise ConfigError(
                "serve needs something to search. Give --gallery SPACE/MODALITY, or --in with an index or a store."
            )
        return path, given or []
    spaces = sorted(folder for folder in (path / "spaces").iterdir() if (folder / "space.json").is_file())
    return bridge, given or ([] if inside else [str(folder) for folder in spaces])


def open_place(place: str) -> SearchIndex | Store:
    """An index by its folder, or a store by its URL.

    Raises:
        ConfigError: A store that cannot be opened.
        FormatError: A folder that is no index.
    """
    from isthmus.search.index import SearchIndex
    from isthmus.search.stores.load import is_store, open_store

    return open_store(place) if is_store(place) else SearchIndex.open(place)
